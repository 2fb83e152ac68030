//! Reads the parity fixtures (`tools/fixtures/README.md` has their schema).
#![allow(dead_code)] // each test file uses a part

pub mod gguf;
pub mod sequences;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use candlewick_models::{Dtype, LoadOptions};
use serde_json::Value;

/// Everything that runs a model in f32: the Candle model, the packed kernels, and a GPU where there is one.
pub fn backends() -> Vec<LoadOptions> {
    use candlewick_models::Device::{Cpu, Cuda};
    let all = [(Cpu, true), (Cpu, false), (Cuda(0), false)].map(|(device, reference)| LoadOptions {
        dtype: Some(Dtype::F32),
        device,
        reference,
        threads: 2,
        ..LoadOptions::default()
    });
    all.into_iter().take(if has_gpu() { 3 } else { 2 }).collect()
}

/// Whether a model loads on a GPU. Without one, or in a build without CUDA, says once that it is not tested.
pub fn has_gpu() -> bool {
    static GPU: OnceLock<bool> = OnceLock::new();
    let find = || {
        let options =
            LoadOptions { device: candlewick_models::Device::Cuda(0), threads: 1, ..LoadOptions::default() };
        let folder = root().join("bert-base");
        let loaded = candlewick_models::load_encoder(folder.to_str().unwrap(), &options, &());
        if let Err(error) = &loaded {
            // Not `eprintln!`, which the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "skipped on CUDA: {error}");
        }
        loaded.is_ok()
    };
    *GPU.get_or_init(find)
}

pub struct Fixture {
    pub name: String,
    pub folder: PathBuf,
    pub expected: Value,
    tensors: HashMap<String, Tensor>,
}

/// Where the fixtures are: in the checkout that this was built in, or where `CANDLEWICK_FIXTURES` says, on a machine
/// that has this test and no checkout (`npm run test:cuda -- --bundle`).
pub fn root() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures");
    std::env::var_os("CANDLEWICK_FIXTURES").map_or_else(built, PathBuf::from)
}

impl Fixture {
    pub fn open(name: &str) -> Self {
        let folder = root().join(name);
        let text = std::fs::read_to_string(folder.join("expected.json")).expect("expected.json");
        let tensors =
            candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap();
        Self { name: name.into(), folder, expected: serde_json::from_str(&text).unwrap(), tensors }
    }

    /// Every fixture whose name starts with `prefix`.
    pub fn all(prefix: &str) -> Vec<Self> {
        let mut names: Vec<_> = std::fs::read_dir(root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names.iter().map(|name| Self::open(name)).collect()
    }

    pub fn source(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    pub fn rows(&self, key: &str) -> Vec<Vec<u32>> {
        serde_json::from_value(self.expected[key].clone())
            .unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name))
    }

    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.name)).clone()
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        self.tensor(name).flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Row `row` of a tensor whose first dimension is the batch, its first `len` positions.
    pub fn row(&self, name: &str, row: usize, len: Option<usize>) -> Vec<f32> {
        let row = self.tensor(name).get(row).unwrap();
        let row = len.map_or(row.clone(), |len| row.narrow(0, 0, len).unwrap());
        row.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// `|found - expected| <= atol + rtol * |expected|`, with the fixture's own tolerance.
    pub fn check(&self, what: &str, found: &[f32], expected: &[f32]) {
        let tolerance = |key: &str| self.expected["tolerance"][key].as_f64().unwrap() as f32;
        close(&format!("{}: {what}", self.name), found, expected, tolerance("atol"), tolerance("rtol"));
    }
}

pub fn close(what: &str, found: &[f32], expected: &[f32], atol: f32, rtol: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let bound = atol + rtol * e.abs();
        assert!((f - e).abs() <= bound, "{what}: element {i}: {f}, expected {e}, bound {bound}");
    }
}

/// The index of the first largest value.
/// ‖found - expected‖ / ‖expected‖.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

/// The relative error of PyTorch's own bf16 on a fixture, by `tools/fixtures/half.py`.
pub fn half_error(fixture: &Fixture) -> f64 {
    let text = std::fs::read_to_string(root().join("half.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    all["relative_error"][&fixture.name].as_f64().unwrap_or_else(|| panic!("{} in half.json", fixture.name))
}

pub fn argmax(values: &[f32]) -> u32 {
    let best = values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best });
    best as u32
}
