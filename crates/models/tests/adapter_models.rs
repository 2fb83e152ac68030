//! An adapter's folder loads as a model: its base, wherever that is, with what the adapter changes. What PEFT says of
//! it: `tools/fixtures/adapter_models.py`.

mod support;

use std::fs;
use std::path::Path;

use candlewick_models::{
    Dtype, EncoderHead, EncoderInput, EncoderWant, LoadOptions, ModelFolder, load_causal, load_encoder,
};
use serde_json::{Value, json};
use support::sequences::all_logits;
use support::{Fixture, backends, root};

fn ids(fixture: &Fixture, name: &str) -> Vec<u32> {
    serde_json::from_value(fixture.expected["input_ids"][name].clone()).unwrap()
}

fn bert_logits(source: &str, options: &LoadOptions, ids: &[u32]) -> (EncoderHead, Vec<String>, Vec<f32>) {
    let mut model = load_encoder(source, options, &()).unwrap().model;
    let input = EncoderInput { ids: ids.to_vec(), type_ids: vec![0; ids.len()], ..Default::default() };
    let want = EncoderWant { logits: true, ..Default::default() };
    let logits = model.forward(&[input], &want, &|| false).unwrap().remove(0).logits;
    (model.info().head, model.info().labels.clone(), logits)
}

fn gpt2_logits(source: &str, options: &LoadOptions, ids: &[u32]) -> Vec<f32> {
    let mut model = load_causal(source, options, &()).unwrap().model;
    all_logits(model.as_mut(), ids)
}

#[test]
fn logits_equal_peft() {
    let fixture = Fixture::open("adapter-models");
    for (name, head, classes) in [
        ("classifier", EncoderHead::SequenceClassification, 3),
        ("biases", EncoderHead::SequenceClassification, 5),
        ("masked", EncoderHead::MaskedLm, 0),
    ] {
        for options in backends() {
            let source = format!("{}/{name}", fixture.source());
            let (found, labels, logits) = bert_logits(&source, &options, &ids(&fixture, name));
            assert_eq!((found, labels.len()), (head, classes), "{name}");
            fixture.check(name, &logits, &fixture.values(&format!("{name}.logits")));
        }
    }
    // Patterns of ranks, a rank-stabilised scale, a square matrix; a head of the adapter's own.
    let plain = Fixture::open("adapters");
    let row: Vec<u32> = serde_json::from_value(plain.expected["input_ids"].clone()).unwrap();
    for options in backends() {
        for name in ["all", "stabilised"] {
            let logits = gpt2_logits(&format!("{}/{name}", plain.source()), &options, &row);
            plain.check(name, &logits, &plain.values(&format!("{name}.logits")));
        }
        let logits = gpt2_logits(&format!("{}/head", fixture.source()), &options, &ids(&fixture, "head"));
        fixture.check("head", &logits, &fixture.values("head.logits"));
    }
}

#[test]
fn merged_weights_equal_peft_and_what_is_quantised_is_the_merged_weight() {
    let fixture = Fixture::open("adapter-models");
    let mut compared = 0;
    for (name, prefix) in [("classifier", "bert"), ("head", "transformer")] {
        let mut folder = ModelFolder::open(&format!("{}/{name}", fixture.source())).unwrap();
        let weights = folder.weights().unwrap();
        let mark = format!("{name}.merged.");
        for key in fixture.names().filter(|key| key.starts_with(&mark)) {
            let plain = key[mark.len()..].strip_prefix(&format!("{prefix}.")).unwrap();
            let found = weights.read(plain, &weights.shape(plain).unwrap()).unwrap().into_f32();
            let expected = fixture.values(key);
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(found.len() == expected.len() && worst <= 1e-6, "{key}: {worst}");
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared}");
    // In f16 the sum is rounded once, so it stays as near as f16 can be; deltas over rounded weights would be no worse,
    // but q8_0 tells them apart.
    let source = format!("{}/classifier", fixture.source());
    let expected = fixture.values("classifier.logits");
    for (dtype, tolerance) in [(Dtype::F16, 2e-2), (Dtype::Q8_0, 0.3)] {
        let options = LoadOptions { dtype: Some(dtype), ..Default::default() };
        let (_, _, logits) = bert_logits(&source, &options, &ids(&fixture, "classifier"));
        let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= tolerance, "{dtype:?}: {worst}");
    }
}

/// A copy of an adapter, whose configuration is changed.
fn altered(name: &str, change: impl Fn(&mut serde_json::Map<String, Value>)) -> tempfile::TempDir {
    let (folder, from) = (tempfile::tempdir().unwrap(), root().join("adapter-models").join(name));
    let text = fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut config: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let base = config["base_model_name_or_path"].as_str().unwrap().trim_start_matches("../../").to_string();
    config.insert("base_model_name_or_path".into(), json!(root().join(base)));
    change(&mut config);
    fs::write(folder.path().join("adapter_config.json"), json!(config).to_string()).unwrap();
    fs::copy(from.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors"))
        .unwrap();
    folder
}

#[test]
fn files_beside_the_adapter_come_before_those_of_the_base() {
    let folder = altered("classifier", |_| ());
    let path = folder.path().to_str().unwrap();
    let labels =
        |path: &str| load_encoder(path, &LoadOptions::default(), &()).unwrap().model.info().labels.clone();
    assert_eq!(labels(path), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(root().join("bert-base/config.json")).unwrap()).unwrap();
    config["architectures"] = json!(["BertForSequenceClassification"]);
    config["id2label"] = json!({ "0": "bad", "1": "fair", "2": "good" });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    assert_eq!(labels(path), ["bad", "fair", "good"]);

    let tokenizer = || load_encoder(path, &LoadOptions::default(), &()).unwrap().tokenizer;
    assert!(tokenizer().is_none());
    fs::write(folder.path().join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n").unwrap();
    assert_eq!(tokenizer().unwrap().vocab_size(), 6);
}

#[test]
fn an_adapter_without_its_base_or_over_another_is_refused() {
    let code = |folder: &Path, base: Option<&str>| {
        let options = LoadOptions { base: base.map(str::to_string), ..Default::default() };
        load_encoder(folder.to_str().unwrap(), &options, &()).err().map(|error| error.code())
    };
    let set = |key: &'static str, value: Value| {
        altered("classifier", move |config| {
            config.insert(key.into(), value.clone());
        })
    };
    let base = |name: &str| json!(root().join(name));
    for (what, folder, expected) in [
        ("nothing is wrong", altered("classifier", |_| ()), None),
        ("no such base", set("base_model_name_or_path", json!("./no/such/folder")), Some("MODEL_NOT_FOUND")),
        ("no base at all", set("base_model_name_or_path", json!(null)), Some("MODEL_NOT_FOUND")),
        ("a narrower base", set("base_model_name_or_path", base("bert-classify-5")), Some("TENSOR_SHAPE")),
        ("a GPT-2", set("base_model_name_or_path", base("gpt2-base")), Some("TENSOR_MISSING")),
        (
            "an adapter",
            set("base_model_name_or_path", base("adapter-models/biases")),
            Some("UNSUPPORTED_MODEL"),
        ),
        ("a DoRA without its magnitudes", set("use_dora", json!(true)), Some("TENSOR_MISSING")),
        (
            "a beginning that changed the base",
            set("init_lora_weights", json!("olora")),
            Some("UNSUPPORTED_MODEL"),
        ),
        ("an extra", set("target_parameters", json!(["x"])), Some("UNSUPPORTED_MODEL")),
    ] {
        assert_eq!(code(folder.path(), None), expected, "{what}");
    }
    for named in [json!("somewhere else"), json!(null)] {
        let folder = set("base_model_name_or_path", named);
        let base = root().join("bert-base");
        assert_eq!(code(folder.path(), base.to_str()), None, "a base that is told");
    }
    // What the base has fewer layers of.
    let shallow = tempfile::tempdir().unwrap();
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(root().join("gpt2-base/config.json")).unwrap()).unwrap();
    config["n_layer"] = json!(1);
    fs::write(shallow.path().join("config.json"), config.to_string()).unwrap();
    let mut tensors =
        candle_core::safetensors::load(root().join("gpt2-base/model.safetensors"), &candle_core::Device::Cpu)
            .unwrap();
    tensors.retain(|name, _| !name.contains(".h.1.") && !name.contains(".h.2."));
    candle_core::safetensors::save(&tensors, shallow.path().join("model.safetensors")).unwrap();
    let options = LoadOptions { base: Some(shallow.path().display().to_string()), ..Default::default() };
    let head = root().join("adapter-models/head");
    let error = load_causal(head.to_str().unwrap(), &options, &()).err().unwrap();
    assert_eq!(error.code(), "TENSOR_MISSING", "{error}");
}
