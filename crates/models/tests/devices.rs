//! Which device a model is loaded on, and what is refused: at load, in every build, with a GPU and without.

mod support;

use candlewick_models::{Device, Dtype, LoadOptions, load_causal, load_encoder};
use support::{Fixture, has_gpu, root};

/// The device that a GPT-2 or a BERT was loaded on, or the error's code.
fn device_of(source: &str, device: Device, dtype: Option<Dtype>) -> Result<&'static str, &'static str> {
    let options = LoadOptions { dtype, device, threads: 1, ..Default::default() };
    if source.contains("bert") {
        load_encoder(source, &options, &()).map(|loaded| loaded.model.info().device).map_err(|e| e.code())
    } else {
        load_causal(source, &options, &()).map(|loaded| loaded.model.info().device).map_err(|e| e.code())
    }
}

#[test]
fn what_a_device_cannot_take_is_refused_at_load() {
    for name in ["gpt2-base", "bert-base"] {
        let fixture = Fixture::open(name);
        let found = if has_gpu() { Ok("cuda") } else { Err("UNSUPPORTED_DEVICE") };
        let dtypes = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Int8];
        for dtype in dtypes.map(Some).into_iter().chain([None]) {
            assert_eq!(device_of(fixture.source(), Device::Cuda, dtype), found);
            assert_eq!(device_of(fixture.source(), Device::Auto, dtype), Ok(found.unwrap_or("cpu")));
            assert_eq!(device_of(fixture.source(), Device::Cpu, dtype), Ok("cpu"));
        }
    }
    let gguf = root().join("gguf/f32.gguf");
    let gguf = gguf.to_str().unwrap();
    let found = if has_gpu() { Ok("cuda") } else { Err("UNSUPPORTED_DEVICE") };
    assert_eq!(device_of(gguf, Device::Cuda, None), found);
    assert_eq!(device_of(gguf, Device::Auto, None), Ok(found.unwrap_or("cpu")));
}
