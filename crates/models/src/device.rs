//! The device that a model is loaded on.

use crate::{Device, Dtype, LoadOptions, ModelError, Result};

pub(crate) enum Target {
    Cpu,
    #[cfg(feature = "cuda")]
    Gpu(crate::cuda::gpu::Gpu),
}

impl Target {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => "cuda",
        }
    }
}

/// The device to load on. With `Device::Auto` it is the CPU where there is no GPU, or one cannot take what is asked
/// for.
///
/// # Errors
/// `UnsupportedDevice`: no GPU, no driver, this build, or adapters on a GPU. `UnsupportedDtype`: bf16 on the CPU.
pub(crate) fn open_device(options: &LoadOptions) -> Result<Target> {
    let cpu = || match options.dtype {
        Some(Dtype::Bf16) => Err(ModelError::UnsupportedDtype("bf16 on the CPU".into())),
        _ => Ok(Target::Cpu),
    };
    match options.device {
        Device::Cpu => cpu(),
        Device::Cuda => gpu(options),
        Device::Auto => gpu(options).or_else(|_| cpu()),
    }
}

fn gpu(options: &LoadOptions) -> Result<Target> {
    if !options.adapters.is_empty() {
        return Err(ModelError::UnsupportedDevice("adapters on cuda".into()));
    }
    #[cfg(feature = "cuda")]
    return crate::cuda::gpu::Gpu::open(0).map(Target::Gpu);
    #[cfg(not(feature = "cuda"))]
    Err(ModelError::UnsupportedDevice("cuda: this build runs on the CPU only".into()))
}
