//! Reads the fixtures that PyTorch wrote (`tools/fixtures/README.md` has their schema).
#![allow(dead_code)] // each test file uses a part

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

pub struct Fixture {
    pub folder: PathBuf,
    pub expected: Value,
    pub tensors: HashMap<String, Vec<f32>>,
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures")
}

pub fn tensors(path: PathBuf) -> HashMap<String, Vec<f32>> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values =
        |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    file.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
}

impl Fixture {
    pub fn open(name: &str) -> Self {
        let folder = root().join(name);
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let tensors = tensors(folder.join("expected.safetensors"));
        Self { folder, expected: serde_json::from_str(&text).unwrap(), tensors }
    }

    pub fn rows<T: serde::de::DeserializeOwned>(&self, key: &str) -> Vec<Vec<T>> {
        serde_json::from_value(self.expected[key].clone()).unwrap()
    }
}

/// |found - expected| / |expected|, over a whole tensor.
pub fn relative(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(f, e)| f64::from(*f) - f64::from(*e)));
    difference / norm(&mut expected.iter().map(|e| f64::from(*e)))
}
