//! Training an adapter on, merging it and taking it out again, as PEFT does (`tools/fixtures/adapter_models.py`).

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use candlewick_models::{EncoderInput, EncoderWant, LoadOptions, load_encoder};
use candlewick_train::trainer::{
    Event, FinetuneOptions, MergeOptions, Merged, TrainObserver, finetune, merge_adapter,
};
use candlewick_train::{Observer, TrainError};
use serde_json::{Value, json};
use support::{Fixture, relative, root, tensors};

#[derive(Default)]
struct Watch(RefCell<Vec<Event>>);

impl TrainObserver for Watch {
    fn event(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }
    fn stop(&self) -> bool {
        false
    }
}

fn adapter(name: &str) -> PathBuf {
    root().join("adapter-models").join(name)
}

fn read_json(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// `bert-base` with a tokenizer whose words are its ids: "t17".
fn base() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(root().join("bert-base").join(name), folder.path().join(name)).unwrap();
    }
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let word = |id: usize| special.get(id).map_or_else(|| format!("t{id}"), |word| word.to_string());
    let vocab: serde_json::Map<String, Value> = (0..151).map(|id| (word(id), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "decoder": null,
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    });
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let class = json!({ "tokenizer_class": "PreTrainedTokenizerFast" });
    fs::write(folder.path().join("tokenizer_config.json"), class.to_string()).unwrap();
    folder
}

/// The fixture's training run, or another.
fn training(base: &Path, output: &Path, more: Value) -> (Watch, Result<(), TrainError>) {
    let expected = &Fixture::open("adapter-models").expected["training"];
    let rows: Vec<Vec<u32>> = serde_json::from_value(expected["rows"].clone()).unwrap();
    let labels: Vec<u32> = serde_json::from_value(expected["labels"].clone()).unwrap();
    let row = |(ids, label): (&Vec<u32>, &u32)| {
        let words: Vec<String> = ids[1..ids.len() - 1].iter().map(|id| format!("t{id}")).collect();
        json!({ "text": words.join(" "), "label": format!("LABEL_{label}") }).to_string()
    };
    let lines: Vec<String> = rows.iter().zip(&labels).map(row).collect();
    let data = base.join("rows.jsonl");
    fs::write(&data, lines.join("\n")).unwrap();
    let given = &expected["options"];
    let mut options = json!({
        "model": adapter("classifier"), "base": base, "baseName": "candlewick-model-of-a-test",
        "task": "text-classification", "train": [data], "output": output, "threads": 2,
        "batchSize": given["rows"], "maxSteps": given["steps"], "learningRate": given["learningRate"],
        "weightDecay": given["weightDecay"], "maxGradNorm": given["maxGradNorm"], "lora": { "dropout": 0.0 },
    });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let options: FinetuneOptions = serde_json::from_value(options).unwrap();
    let watch = Watch::default();
    let result = finetune(&options, &watch);
    (watch, result)
}

#[test]
fn training_goes_on_as_pefts_does() {
    let fixture = Fixture::open("adapter-models");
    let (base, output) = (base(), tempfile::tempdir().unwrap());
    let (watch, result) = training(base.path(), output.path(), json!({}));
    result.unwrap();
    let expected = &fixture.expected["training"];
    let mut steps = 0;
    for event in watch.0.borrow().iter() {
        let Event::Step { step, loss, gradient_norm, .. } = event else { continue };
        for (what, found) in [("losses", loss), ("gradientNorms", gradient_norm)] {
            let expected = expected[what][*step as usize - 1].as_f64().unwrap();
            assert!(
                (found - expected).abs() <= 1e-5 * expected,
                "step {step}: {what} {found}, expected {expected}"
            );
        }
        steps += 1;
    }
    assert_eq!(steps, 5);

    // The files that it writes are PEFT's: names, values, configuration.
    let found = tensors(output.path().join("adapter/adapter_model.safetensors"));
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<BTreeSet<String>>();
    let trained = fixture.tensors.keys().filter_map(|name| name.strip_prefix("trained.")).map(str::to_string);
    assert_eq!(names(&mut found.keys()), trained.collect());
    let mut compared = 0;
    for (name, values) in &found {
        // Adam turns the rounding noise of a gradient that vanishes (a saturated pooler's) into whole steps: where
        // PyTorch in f32 is not what it is in f64, there is nothing to compare with.
        if expected["errors"][name].as_f64().unwrap() > 1e-6 {
            continue;
        }
        let error = relative(values, &fixture.tensors[&format!("trained.{name}")]);
        assert!(error <= 2e-5, "{name}: {error:e}");
        compared += 1;
    }
    assert_eq!(compared, found.len() - 4);
    let config = read_json(output.path().join("adapter/adapter_config.json"));
    let before = read_json(adapter("classifier").join("adapter_config.json"));
    for key in ["r", "lora_alpha", "target_modules", "modules_to_save", "task_type"] {
        assert_eq!(config[key], before[key], "{key}");
    }
    assert_eq!(config["base_model_name_or_path"], "candlewick-model-of-a-test");
    assert_eq!(read_json(output.path().join("adapter/config.json"))["id2label"]["2"], "LABEL_2");
}

#[test]
fn layers_that_are_frozen_stay_in_the_adapter_as_they_are() {
    let (base, output) = (base(), tempfile::tempdir().unwrap());
    training(base.path(), output.path(), json!({ "freezeLayers": 2 })).1.unwrap();
    let before = tensors(adapter("classifier").join("adapter_model.safetensors"));
    let after = tensors(output.path().join("adapter/adapter_model.safetensors"));
    assert_eq!(before.len(), after.len());
    for (name, values) in &before {
        let frozen = name.contains("layer.0.") || name.contains("layer.1.");
        assert_eq!(values == &after[name], frozen, "{name}");
    }
}

#[test]
fn what_contradicts_the_adapter_is_refused() {
    let base = base();
    let code = |more: Value| {
        let output = tempfile::tempdir().unwrap();
        let (watch, result) = training(base.path(), output.path(), more);
        assert!(result.is_ok() || watch.0.borrow().is_empty(), "before the run begins");
        result.err().map(|error| error.code())
    };
    let lora = |lora: Value| json!({ "lora": lora, "maxSteps": 1 });
    let targets = ["output.dense", "query", "value"];
    assert_eq!(code(lora(json!({ "rank": 4, "alpha": 8, "targetModules": targets, "dropout": 0.3 }))), None);
    assert_eq!(code(lora(json!({ "rank": 8 }))), Some("OPTION_INVALID"));
    assert_eq!(code(lora(json!({ "alpha": 4 }))), Some("OPTION_INVALID"));
    assert_eq!(code(lora(json!({ "targetModules": ["query"] }))), Some("OPTION_INVALID"));
    assert_eq!(code(json!({ "fromScratch": true })), Some("OPTION_INVALID"));
    assert_eq!(code(json!({ "task": "feature-extraction" })), Some("COLUMN_UNKNOWN"), "no pairs");
    assert_eq!(code(json!({ "task": "token-classification" })), Some("COLUMN_UNKNOWN"), "no tags");
    assert_eq!(code(json!({ "task": "fill-mask" })), Some("OPTION_INVALID"), "its classifier would be lost");
    let biases = json!({ "model": adapter("biases"), "base": root().join("bert-classify-5") });
    assert_eq!(code(biases), Some("TOKENIZER_MISSING"));
}

fn options(model: PathBuf, adapter: PathBuf, output: &Path, more: Value) -> MergeOptions {
    let mut options = json!({ "model": model, "adapter": adapter, "output": output });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(options).unwrap()
}

fn merge(model: PathBuf, adapter: PathBuf, output: &Path, more: Value) -> Result<Merged, TrainError> {
    merge_adapter(&options(model, adapter, output, more), &())
}

fn logits(source: &Path, ids: &[u32]) -> Vec<f32> {
    let mut model = load_encoder(source.to_str().unwrap(), &LoadOptions::default(), &()).unwrap().model;
    let input = EncoderInput { ids: ids.to_vec(), type_ids: vec![0; ids.len()], ..Default::default() };
    let want = EncoderWant { logits: true, ..Default::default() };
    model.forward(&[input], &want, &|| false).unwrap().remove(0).logits
}

#[test]
fn merged_is_what_peft_merges_and_unmerged_what_it_was_before() {
    let fixture = Fixture::open("adapter-models");
    let folder = tempfile::tempdir().unwrap();
    for (name, base, modules) in [("classifier", "bert-base", 12), ("head", "gpt2-base", 9)] {
        let (merged, again) = (folder.path().join(name), folder.path().join(format!("{name}-again")));
        let report = merge(root().join(base), adapter(name), &merged, json!({})).unwrap();
        assert_eq!(report.modules, modules);
        let written = tensors(merged.join("model.safetensors"));
        let mut compared = 0;
        for (key, expected) in &fixture.tensors {
            let Some(plain) = key.strip_prefix(&format!("{name}.merged.")) else { continue };
            let found = written.get(plain).unwrap_or_else(|| panic!("{plain} is missing"));
            assert!(relative(found, expected) <= 1e-6, "{plain}");
            compared += 1;
        }
        assert!(compared >= 4, "{compared}");
        let entries: Vec<_> =
            fs::read_dir(&merged).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(entries.len(), 2, "nothing is left over: {entries:?}");

        merge(merged.clone(), adapter(name), &again, json!({ "unmerge": true })).unwrap();
        let (before, after) =
            (tensors(root().join(base).join("model.safetensors")), tensors(again.join("model.safetensors")));
        let (mut changed, mut rounded) = (0, 0);
        for (key, before) in &before {
            // A bare encoder's names have no prefix; with a head they do.
            let key = if after.contains_key(key) { key.clone() } else { format!("bert.{key}") };
            let merged = &written[&key];
            if key.starts_with("bert.pooler.") {
                continue;
            }
            changed += usize::from(merged != before);
            for ((was, sum), is) in before.iter().zip(merged).zip(&after[&key]) {
                // One rounding of the sum, one of the difference.
                assert!((was - is).abs() <= f32::EPSILON * (was.abs() + sum.abs()), "{key}: {was} {is}");
                rounded += usize::from(was != is);
            }
        }
        assert_eq!(changed, modules, "{name}");
        assert!(rounded > 0, "it was computed");
    }
    let ids: Vec<u32> = serde_json::from_value(fixture.expected["input_ids"]["classifier"].clone()).unwrap();
    assert_eq!(logits(&folder.path().join("classifier"), &ids), logits(&adapter("classifier"), &ids));
    let config = read_json(folder.path().join("classifier/config.json"));
    assert_eq!(config["architectures"][0], "BertForSequenceClassification");
    assert_eq!(config["id2label"].as_object().unwrap().len(), 3);
    assert_eq!(read_json(folder.path().join("head/config.json"))["tie_word_embeddings"], false);
}

#[test]
fn halves_are_written_where_they_are_asked_for_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::open("adapter-models");
    let ids: Vec<u32> = serde_json::from_value(fixture.expected["input_ids"]["classifier"].clone()).unwrap();
    let (half, base) = (folder.path().join("half"), folder.path().join("base"));
    merge(root().join("bert-base"), adapter("classifier"), &half, json!({ "dtype": "f16" })).unwrap();
    let info = load_encoder(half.to_str().unwrap(), &LoadOptions::default(), &()).unwrap().model;
    assert_eq!(info.info().dtype, candlewick_models::Dtype::F16);
    assert_eq!(read_json(half.join("config.json"))["dtype"], "float16");
    let expected = &fixture.tensors["classifier.logits"];
    assert!(relative(&logits(&half, &ids), expected) < 1e-2);
    // And a model in f16 stays one.
    merge(half.clone(), adapter("classifier"), &base, json!({ "unmerge": true })).unwrap();
    let bytes = |path: &Path| fs::metadata(path.join("model.safetensors")).unwrap().len();
    assert_eq!(bytes(&base), bytes(&half));
}

#[test]
fn what_cannot_be_merged_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("output");
    let code = |model: &str, adapter_name: &str, more: Value| {
        let error =
            merge(root().join(model), adapter(adapter_name), &output, more).err().map(|error| error.code());
        assert!(error.is_none() || !output.exists(), "nothing is there");
        error
    };
    assert_eq!(code("bert-classify-5", "classifier", json!({})), Some("TENSOR_SHAPE"));
    assert_eq!(code("gpt2-base", "classifier", json!({})), Some("TENSOR_MISSING"));
    assert_eq!(code("no-such-model", "classifier", json!({})), Some("MODEL_NOT_FOUND"));
    assert_eq!(code("bert-base", "no-such-adapter", json!({})), Some("MODEL_NOT_FOUND"));
    let itself =
        options(root().join("bert-base"), adapter("classifier"), &root().join("bert-base"), json!({}));
    assert_eq!(merge_adapter(&itself, &()).unwrap_err().code(), "OPTION_INVALID");

    struct Stop;
    impl Observer for Stop {
        fn stop(&self) -> bool {
            true
        }
    }
    let given = options(root().join("bert-base"), adapter("classifier"), &output, json!({}));
    assert_eq!(merge_adapter(&given, &Stop).unwrap_err().code(), "ABORTED");
    assert!(!output.exists());
    // What is there already stays as it was.
    fs::create_dir(&output).unwrap();
    fs::write(output.join("model.safetensors"), "before").unwrap();
    assert_eq!(merge_adapter(&given, &Stop).unwrap_err().code(), "ABORTED");
    assert_eq!(fs::read_dir(&output).unwrap().count(), 1);
    assert_eq!(fs::read(output.join("model.safetensors")).unwrap(), b"before");
    merge_adapter(&given, &()).unwrap();
    assert_eq!(fs::read_dir(&output).unwrap().count(), 2);
}
