//! Sixteen f32 lanes, on whatever the machine has. A kernel is written once over [`Simd`] and compiled once per
//! instruction set; every operation here is exact or correctly rounded, so all of them give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod operations;
mod portable;

pub(crate) use operations::{Element, Kernel, Simd, Words};

use crate::Isa;

impl Isa {
    /// Runs `kernel` as compiled for this instruction set, which the machine must have (a [`Pool`](crate::Pool) has
    /// checked).
    #[inline]
    pub(crate) fn launch<K: Kernel>(self, kernel: K) -> K::Output {
        debug_assert!(self.is_available());
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::launch(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::launch::<K, false, false>(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::launch::<K, true, false>(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => avx512::launch::<K, true, true>(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::launch::<K, false>(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => neon::launch::<K, true>(kernel),
            _ => kernel.run(portable::Portable),
        }
    }
}
