//! Which device a model is loaded on, and what is refused: at load, in every build, with a GPU and without.

mod support;

use candlewick_models::{Device, Dtype, LoadOptions, load_causal, load_encoder};
use support::{Fixture, has_gpu, root};

/// The device that a GPT-2 or a BERT was loaded on, or the error's code.
fn device_of(source: &str, device: Device, dtype: Option<Dtype>) -> Result<String, &'static str> {
    let options = LoadOptions { dtype, device, threads: 1, ..Default::default() };
    if source.contains("bert") {
        load_encoder(source, &options, &())
            .map(|loaded| loaded.model.info().device.clone())
            .map_err(|e| e.code())
    } else {
        load_causal(source, &options, &())
            .map(|loaded| loaded.model.info().device.clone())
            .map_err(|e| e.code())
    }
}

#[test]
fn what_a_device_cannot_take_is_refused_at_load() {
    for name in ["gpt2-base", "bert-base"] {
        let fixture = Fixture::open(name);
        let found = if has_gpu() { Ok("cuda".to_owned()) } else { Err("UNSUPPORTED_DEVICE") };
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Int8];
        for dtype in dtypes.map(Some).into_iter().chain([None]) {
            assert_eq!(device_of(fixture.source(), Device::Cuda(0), dtype), found);
            assert_eq!(
                device_of(fixture.source(), Device::Auto, dtype),
                Ok(found.clone().unwrap_or("cpu".into()))
            );
            assert_eq!(device_of(fixture.source(), Device::Cpu, dtype), Ok("cpu".into()));
        }
        // A GPU that no machine has.
        assert_eq!(device_of(fixture.source(), Device::Cuda(999), None), Err("UNSUPPORTED_DEVICE"));
    }
    let gguf = root().join("gguf/f32.gguf");
    let gguf = gguf.to_str().unwrap();
    let found = if has_gpu() { Ok("cuda".to_owned()) } else { Err("UNSUPPORTED_DEVICE") };
    assert_eq!(device_of(gguf, Device::Cuda(0), None), found);
    assert_eq!(device_of(gguf, Device::Auto, None), Ok(found.unwrap_or("cpu".into())));
}
