//! Reads the fixtures that PyTorch wrote (`tools/fixtures/README.md` has their schema).
#![allow(dead_code)] // each test file uses a part

pub mod runs;

use std::collections::HashMap;
use std::path::PathBuf;

use candlewick_train::data::{Example, Target};
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

/// Targets of a case of `grad-heads`, of the kind that its name says.
fn targets(case: &Value) -> Vec<Target> {
    let read = |key: &str| serde_json::from_value::<Vec<u32>>(case[key].clone()).unwrap();
    let rows = || case["labels"].as_array().unwrap().iter().cloned();
    match case["name"].as_str().unwrap() {
        "contrast" => vec![],
        "scores" => rows().map(|score| Target::Scores(vec![score.as_f64().unwrap() as f32])).collect(),
        "smoothed" => read("labels").into_iter().map(Target::Class).collect(),
        "regression" | "multi-label" => {
            rows().map(|row| Target::Scores(serde_json::from_value(row).unwrap())).collect()
        }
        "questions" => (read("start_positions").into_iter().zip(read("end_positions")))
            .map(|(start, end)| Target::Span { start, end })
            .collect(),
        _ => rows().map(|row| Target::Tokens(serde_json::from_value(row).unwrap())).collect(),
    }
}

/// Of pairs, the second half are those that belong to the first.
pub fn examples(case: &Value) -> Vec<Example> {
    let rows = |key: &str| -> Vec<Vec<u32>> {
        case.get(key).map_or(vec![], |rows| serde_json::from_value(rows.clone()).unwrap())
    };
    let (ids, types) = (rows("input_ids"), rows("token_type_ids"));
    let mut targets = targets(case);
    targets.resize(ids.len(), Target::None);
    let row = |(i, (input_ids, target)): (usize, (Vec<u32>, Target))| Example {
        input_ids,
        token_type_ids: types.get(i).cloned().unwrap_or_default(),
        target,
        pair: None,
    };
    let mut examples: Vec<Example> = ids.into_iter().zip(targets).enumerate().map(row).collect();
    if case["name"] == "contrast" || case["name"] == "scores" {
        let pairs = examples.split_off(examples.len() / 2);
        examples.iter_mut().zip(pairs).for_each(|(example, pair)| example.pair = Some(Box::new(pair)));
    }
    examples
}

/// |found - expected| / |expected|, over a whole tensor.
pub fn relative(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(f, e)| f64::from(*f) - f64::from(*e)));
    difference / norm(&mut expected.iter().map(|e| f64::from(*e)))
}

/// The error of a gradient, relative to its norm. Where softmax does not see a bias (a key's, what is the same for all
/// tokens of an answer), the gradient is rounding alone, and the norm of that of the weight beside it counts.
pub fn deviation<'a>(name: &str, found: &[f32], expected: impl Fn(&str) -> &'a [f32]) -> f64 {
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let own = expected(name);
    let difference: Vec<f32> = found.iter().zip(own).map(|(a, b)| a - b).collect();
    assert_eq!(found.len(), own.len(), "{name}");
    let noise = name.ends_with("bias") && norm(own) < 1e-5;
    norm(&difference) / norm(if noise { expected(&name.replace("bias", "weight")) } else { own })
}
