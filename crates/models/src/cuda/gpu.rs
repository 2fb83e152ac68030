//! A GPU: the driver found at run time, one stream, our kernels, and buffers.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError, sys,
};
use half::{bf16, f16};

use crate::{Dtype, ModelError, Result};

static KERNELS: &[u8] = include_bytes!(env!("CANDLEWICK_CUDA_KERNELS"));

/// Compute capability 8.0, Ampere: the first with bfloat16.
const OLDEST: i32 = 8;
/// Hopper: the first on which a launch may begin before the one before it has ended.
const OVERLAPS: i32 = 9;

/// The type of weights and of products' inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    F32,
    F16,
    BF16,
}

impl Type {
    /// Quantised weights are held in f16: at these sizes a quantised product saves less than its launches cost.
    pub fn of(dtype: Dtype) -> (Self, Dtype) {
        match dtype {
            Dtype::F32 => (Self::F32, Dtype::F32),
            Dtype::F16 | Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Int8 => (Self::F16, Dtype::F16),
            Dtype::Bf16 => (Self::BF16, Dtype::Bf16),
        }
    }

    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    pub fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }

    /// `values` as bytes of this type.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        }
    }
}

/// Memory of a GPU.
pub(crate) struct Buffer {
    slice: CudaSlice<u8>,
    pub at: u64,
}

impl Buffer {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.slice.len()
    }
}

/// The kernels of one type.
pub(crate) struct Kernels {
    pub embed: CudaFunction,
    pub layer_norm: CudaFunction,
    pub gather: CudaFunction,
    pub combine: CudaFunction,
}

pub(crate) struct Gpu {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    pub ordinal: usize,
    pub name: String,
    pub multiprocessors: usize,
    overlaps: bool,
    /// Compute capability, such as 9.0.
    pub capability: String,
}

impl Gpu {
    /// The GPU `ordinal`.
    ///
    /// # Errors
    /// `UnsupportedDevice`: no driver, no library, no such GPU, or one that is too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        let refuse = |reason: String| ModelError::UnsupportedDevice(format!("cuda: {reason}"));
        // SAFETY: loads the driver's library, whose initialisers are NVIDIA's.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(refuse("there is no NVIDIA driver (libcuda.so.1)".into()));
        }
        let driver = |error: DriverError| refuse(error.to_string());
        let count = CudaContext::device_count().map_err(driver)?;
        if ordinal >= usize::try_from(count).unwrap_or(0) {
            return Err(refuse(format!("there is no GPU {ordinal}: this machine has {count}")));
        }
        let context = CudaContext::new(ordinal).map_err(driver)?;
        let (major, minor) = context.compute_capability().map_err(driver)?;
        if major < OLDEST {
            return Err(refuse(format!(
                "the GPU's compute capability is {major}.{minor}, {OLDEST}.0 is needed"
            )));
        }
        // SAFETY: there is one stream, in whose order everything happens.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(driver)?;
        let image = cudarc::nvrtc::Ptx::from_binary(KERNELS.to_vec());
        let module = context.load_module(image).map_err(driver)?;
        let capability = format!("{major}.{minor}");
        let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = context.attribute(count).map_err(driver)?.max(1) as usize;
        let name = context.name().map_err(driver)?;
        let overlaps = major >= OVERLAPS;
        Ok(Self { context, stream, module, ordinal, name, multiprocessors, overlaps, capability })
    }

    pub fn function(&self, name: &str) -> Result<CudaFunction> {
        self.module.load_function(name).map_err(failed)
    }

    pub fn kernels(&self, kind: Type) -> Result<Kernels> {
        let get = |name: &str| self.function(&format!("{name}_{}", kind.suffix()));
        Ok(Kernels {
            embed: get("embed")?,
            layer_norm: get("layer_norm")?,
            gather: get("gather")?,
            combine: get("combine")?,
        })
    }

    /// `dim`: the width of a head, on tensor cores.
    pub fn attention(&self, kind: Type, dim: Option<usize>) -> Result<CudaFunction> {
        let dim = dim.map(|dim| dim.to_string()).unwrap_or_default();
        self.function(&format!("attention{dim}_{}", kind.suffix()))
    }

    /// Memory of `bytes` bytes, of any content.
    pub fn buffer(&self, bytes: usize) -> Result<Buffer> {
        buffer(&self.stream, bytes)
    }

    pub fn filled(&self, bytes: &[u8]) -> Result<Buffer> {
        let mut buffer = self.buffer(bytes.len())?;
        self.stream.memcpy_htod(bytes, &mut buffer.slice).map_err(failed)?;
        Ok(buffer)
    }

    pub fn zeros(&self, bytes: usize) -> Result<Buffer> {
        let mut buffer = self.buffer(bytes)?;
        self.stream.memset_zeros(&mut buffer.slice).map_err(failed)?;
        Ok(buffer)
    }

    /// Grows `buffer` to `bytes` bytes at least; what it holds is lost then.
    pub fn grow(&self, buffer: &mut Option<Buffer>, bytes: usize) -> Result<u64> {
        if buffer.as_ref().is_none_or(|buffer| buffer.len() < bytes) {
            *buffer = None;
            // Doubled sizes, so that it grows seldom; where that is too much, what is needed.
            *buffer = Some(self.buffer(bytes.next_power_of_two()).or_else(|_| self.buffer(bytes))?);
        }
        Ok(buffer.as_ref().map_or(0, |buffer| buffer.at))
    }

    pub fn upload(&self, values: &[i32], to: &mut Buffer) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.stream.memcpy_htod(bytes, &mut to.slice.slice_mut(..bytes.len())).map_err(failed)
    }

    /// Waits, and reads the first values of `from`.
    pub fn download<T: bytemuck::Pod>(&self, from: &Buffer, values: &mut [T]) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        self.stream.memcpy_dtoh(&from.slice.slice(..bytes.len()), bytes).map_err(failed)?;
        self.stream.synchronize().map_err(failed)
    }

    /// Copies `bytes` bytes within the GPU.
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.context.bind_to_thread().map_err(failed)?;
        // SAFETY: callers name places in buffers that they own.
        unsafe { cudarc::driver::result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
            .map_err(failed)
    }

    /// Launches a kernel that may begin while the one before it still runs: our kernels wait for that themselves
    /// (`wait_for_previous` in kernels.cu).
    pub fn launch(
        &self,
        function: &CudaFunction,
        grid: [usize; 3],
        block: u32,
        shared: usize,
        args: &[Arg],
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.context.bind_to_thread().map_err(failed)?;
        let mut parameters: Vec<*mut c_void> = args.iter().map(Arg::pointer).collect();
        let mut value = sys::CUlaunchAttributeValue { pad: [0; 64] };
        value.programmaticStreamSerializationAllowed = 1;
        let mut overlap = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value,
        };
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0] as u32,
            gridDimY: grid[1] as u32,
            gridDimZ: grid[2] as u32,
            blockDimX: block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared as u32,
            hStream: self.stream.cu_stream(),
            attrs: &raw mut overlap,
            numAttrs: u32::from(self.overlaps),
        };
        let (function, none) = (function.cu_function(), std::ptr::null_mut());
        // SAFETY: the arguments are those of the kernel's declaration; the buffers are large enough for the grid.
        unsafe { sys::cuLaunchKernelEx(&raw const config, function, parameters.as_mut_ptr(), none) }
            .result()
            .map_err(failed)
    }
}

/// An argument of a kernel.
pub(crate) enum Arg {
    At(u64),
    Long(i64),
    Int(i32),
    Float(f32),
}

impl Arg {
    /// Where its value lies, as the driver asks for it; the driver only reads.
    fn pointer(&self) -> *mut c_void {
        match self {
            Self::At(at) => std::ptr::from_ref(at).cast_mut().cast(),
            Self::Long(n) => std::ptr::from_ref(n).cast_mut().cast(),
            Self::Int(n) => std::ptr::from_ref(n).cast_mut().cast(),
            Self::Float(x) => std::ptr::from_ref(x).cast_mut().cast(),
        }
    }
}

pub(crate) fn failed(error: DriverError) -> ModelError {
    use sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_OUT_OF_MEMORY};
    match error.0 {
        CUDA_ERROR_OUT_OF_MEMORY => ModelError::OutOfMemory(format!("cuda: {error}")),
        CUDA_ERROR_INVALID_VALUE => ModelError::Internal(format!("cuda: {error}")),
        _ => ModelError::DeviceLost(format!("cuda: {error}")),
    }
}

fn buffer(stream: &Arc<CudaStream>, bytes: usize) -> Result<Buffer> {
    // SAFETY: every kernel writes what a later one reads.
    let slice = unsafe { stream.alloc::<u8>(bytes.max(16)) }.map_err(|error| match failed(error) {
        ModelError::OutOfMemory(reason) => {
            let free = stream.context().mem_get_info().map_or(0, |(free, _)| free);
            ModelError::OutOfMemory(format!("{reason}: {bytes} bytes are needed, {free} are free"))
        }
        other => other,
    })?;
    let at = slice.device_ptr(stream).0;
    Ok(Buffer { slice, at })
}
