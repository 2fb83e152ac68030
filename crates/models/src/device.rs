//! The device that a model is loaded on.

use crate::{Device, LoadOptions, ModelError, Result};

pub(crate) enum Target {
    Cpu,
    #[cfg(feature = "cuda")]
    Gpu(crate::cuda::gpu::Gpu),
}

impl Target {
    pub fn device(&self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) if gpu.ordinal > 0 => format!("cuda:{}", gpu.ordinal),
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => "cuda".to_owned(),
        }
    }

    pub fn device_name(&self) -> Option<String> {
        match self {
            Self::Cpu => None,
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => Some(gpu.name.clone()),
        }
    }
}

/// What `load` gives on the device that is asked for. With `Device::Auto` it is the CPU where there is no GPU, or it
/// cannot take this model.
///
/// # Errors
/// `UnsupportedDevice`: no GPU, no driver, this build, or adapters on a GPU. What `load` says.
pub(crate) fn on_device<T>(options: &LoadOptions, mut load: impl FnMut(Target) -> Result<T>) -> Result<T> {
    match options.device {
        Device::Cpu => load(Target::Cpu),
        Device::Cuda(ordinal) => load(gpu(options, ordinal)?),
        Device::Auto => or_cpu(gpu(options, 0).and_then(&mut load), || load(Target::Cpu)),
    }
}

/// `gpu`, or what the CPU gives where the GPU, and not the model's files, is the reason that it failed.
fn or_cpu<T>(gpu: Result<T>, cpu: impl FnOnce() -> Result<T>) -> Result<T> {
    match gpu {
        Err(
            ModelError::UnsupportedDevice(_)
            | ModelError::UnsupportedModel(_)
            | ModelError::OutOfMemory(_)
            | ModelError::DeviceLost(_)
            | ModelError::Option { .. },
        ) => cpu(),
        other => other,
    }
}

#[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
fn gpu(options: &LoadOptions, ordinal: usize) -> Result<Target> {
    if !options.adapters.is_empty() {
        return Err(ModelError::UnsupportedDevice("adapters on cuda".into()));
    }
    #[cfg(feature = "cuda")]
    return crate::cuda::gpu::Gpu::open(ordinal).map(Target::Gpu);
    #[cfg(not(feature = "cuda"))]
    Err(ModelError::UnsupportedDevice("cuda: this build runs on the CPU only".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_cpu_where_the_gpu_is_the_reason_of_a_failure_and_only_there() {
        let after = |gpu: Result<&'static str>| or_cpu(gpu, || Ok("cpu")).map_err(|error| error.code());
        assert_eq!(after(Ok("gpu")), Ok("gpu"));
        for refusal in [
            ModelError::UnsupportedDevice("no driver".into()),
            ModelError::UnsupportedModel("heads of 256 elements".into()),
            ModelError::OutOfMemory("4 GiB".into()),
            ModelError::DeviceLost("an illegal address".into()),
            ModelError::Option { option: "kvCacheBytes", reason: "too small".into() },
        ] {
            assert_eq!(after(Err(refusal)), Ok("cpu"));
        }
        assert_eq!(after(Err(ModelError::Stopped)), Err("ABORTED"), "who stops a load wants no second one");
        assert_eq!(after(Err(ModelError::MissingTensor("wte".into()))), Err("TENSOR_MISSING"));
    }
}
