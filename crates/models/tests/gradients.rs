//! Every parameter of GPT-2 and of a BERT classifier gets the gradient that PyTorch gives it.

mod support;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var, backprop::GradStore};
use candlewick_models::layers::{cross_entropy, ids_tensor};
use candlewick_models::{
    Bert, EncoderHead, EncoderModel, EncoderParts, Gpt2, ModelFolder, Params, Weights, family, gpt2,
};
use serde_json::Value;
use support::Fixture;

const TOLERANCE: f32 = 1e-4;

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Each gradient of the fixture, by the checkpoint's name: |Δ| ≤ 1e-4 of its largest element. One that is zero but for
/// rounding (a key's bias) is compared against the largest gradient there is.
fn check(
    fixture: &Fixture,
    case: &Value,
    prefix: &str,
    loss: &Tensor,
    grads: &GradStore,
    vars: &BTreeMap<String, Var>,
) {
    let name = case["name"].as_str().unwrap();
    let expected = fixture.values(&format!("{name}.loss"))[0];
    let found = loss.to_scalar::<f32>().unwrap();
    assert!(
        (found - expected).abs() <= TOLERANCE * expected.abs(),
        "{name}: loss {found}, expected {expected}"
    );

    let marker = format!("{name}.grad.");
    let names: Vec<_> = fixture.names().filter(|n| n.starts_with(&marker)).collect();
    assert_eq!(names.len(), vars.len(), "{name}: a gradient for every parameter");
    let largest = |values: &[f32]| values.iter().fold(0f32, |m, x| m.max(x.abs()));
    let everything = names.iter().map(|n| largest(&fixture.values(n))).fold(0f32, f32::max);
    for full in names {
        let parameter = full.strip_prefix(&marker).unwrap();
        let var = &vars[parameter.strip_prefix(prefix).unwrap_or(parameter)];
        let found =
            values(grads.get(var.as_tensor()).unwrap_or_else(|| panic!("{parameter} got no gradient")));
        let expected = fixture.values(full);
        let scale = largest(&expected).max(1e-3 * everything);
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            assert!((f - e).abs() <= TOLERANCE * scale, "{full}[{i}]: {f}, expected {e}, scale {scale}");
        }
        assert_eq!(found.len(), expected.len(), "{full}");
    }
}

#[test]
fn gpt2() {
    gpt2_on(&Device::Cpu);
}

fn gpt2_on(device: &Device) {
    let fixture = Fixture::open("grad-gpt2");
    let folder = ModelFolder::open(fixture.source()).unwrap();
    let config = gpt2::Config::from_folder(&folder).unwrap();
    let weights = Weights::open(&folder.path, "transformer").unwrap();
    for case in fixture.expected["cases"].as_array().unwrap() {
        let params = Params::trainable(&weights, device.clone());
        let model = Gpt2::load(&params, &config).unwrap();
        let ids = fixture.rows("input_ids");
        let labels: Vec<Vec<i64>> = serde_json::from_value(case["labels"].clone()).unwrap();
        let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let logits = model.forward(&ids_tensor(&rows, device).unwrap()).unwrap();
        // The logits at t are held against the label at t + 1, where that is not -100.
        let (mut at, mut targets) = (Vec::new(), Vec::new());
        for (row, labels) in labels.iter().enumerate() {
            for (t, &label) in labels.iter().enumerate().skip(1).filter(|(_, label)| **label >= 0) {
                at.push((row * labels.len() + t - 1) as u32);
                targets.push(label as u32);
            }
        }
        let flat = logits.reshape(((), config.vocab_size)).unwrap();
        let at = Tensor::new(at, device).unwrap();
        let loss = cross_entropy(&flat.index_select(&at, 0).unwrap(), &Tensor::new(targets, device).unwrap())
            .unwrap();
        check(&fixture, case, "transformer.", &loss, &loss.backward().unwrap(), &params.into_vars());
    }
}

#[test]
fn bert_classifier() {
    bert_classifier_on(&Device::Cpu);
}

fn bert_classifier_on(device: &Device) {
    let fixture = Fixture::open("grad-bert-classify");
    let folder = ModelFolder::open(fixture.source()).unwrap();
    let config = family::Config::from_folder(&folder).unwrap();
    let weights = Weights::open(&folder.path, "bert").unwrap();
    let classes = family::labels_of(&folder, &weights, EncoderHead::SequenceClassification).unwrap().len();
    for case in fixture.expected["cases"].as_array().unwrap() {
        let params = Params::trainable(&weights, device.clone());
        let parts = EncoderParts { pooler: true, head: EncoderHead::SequenceClassification, classes };
        let model = Bert::load(&params, &config, parts).unwrap();
        let tensor = |key: &str| {
            let rows = fixture.rows(key);
            ids_tensor(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), device).unwrap()
        };
        let mask = tensor("attention_mask").to_dtype(candle_core::DType::U8).unwrap();
        let states = model
            .hidden_states(&tensor("input_ids"), &tensor("token_type_ids"), Some(&mask), &|| false)
            .unwrap();
        let logits = model.logits(states.last().unwrap()).unwrap();
        let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
        let loss = cross_entropy(&logits, &Tensor::new(labels, device).unwrap()).unwrap();
        check(&fixture, case, "bert.", &loss, &loss.backward().unwrap(), &params.into_vars());
    }
}
