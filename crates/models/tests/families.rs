//! DistilBERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA and MPNet equal transformers', on Candle and on the packed
//! kernels, with every head; and what their files may not say.

mod support;

use std::path::{Path, PathBuf};

use candlewick_models::family::{known, relative};
use candlewick_models::{
    Dtype, Encoder, EncoderHead, EncoderInput, EncoderWant, Layers, LoadOptions, Loaded, Tokenizer,
    load_encoder,
};
use serde_json::{Value, json};
use support::{Fixture, backends, relative_error, root};

fn folder(name: &str) -> PathBuf {
    root().join("families").join(name)
}

fn load(folder: &Path, options: &LoadOptions) -> candlewick_models::Result<Loaded<dyn Encoder>> {
    load_encoder(folder.to_str().unwrap(), options, &())
}

fn fixtures() -> Vec<Fixture> {
    let mut names: Vec<_> = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| folder(name).join("expected.json").is_file())
        .collect();
    names.sort();
    names.iter().map(|name| Fixture::open(&format!("families/{name}"))).collect()
}

fn inputs(fixture: &Fixture) -> Vec<EncoderInput> {
    let rows = fixture.rows("input_ids").into_iter().zip(fixture.rows("token_type_ids"));
    rows.map(|(ids, type_ids)| EncoderInput { ids, type_ids, ..Default::default() }).collect()
}

const STATES: EncoderWant = EncoderWant {
    last_hidden_state: true,
    hidden_states: Layers::All,
    attentions: Layers::None,
    pooled: false,
    embedding: None,
    logits: false,
};

#[test]
fn states_weights_of_attention_pooled_outputs_and_logits_equal_pytorch() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 32, "{} fixtures", fixtures.len());
    let mut compared = 0;
    for fixture in fixtures {
        let texts = inputs(&fixture);
        for options in backends() {
            let what = format!("{:?}{}", options.device, if options.reference { ", reference" } else { "" });
            let loaded = load(&fixture.folder, &options);
            if options.device == candlewick_models::Device::Cuda(0) && loaded.is_err() {
                assert_eq!(loaded.err().unwrap().code(), "UNSUPPORTED_MODEL", "{}", fixture.name);
                continue;
            }
            let mut model = loaded.unwrap_or_else(|error| panic!("{}: {error}", fixture.name)).model;
            let info = model.info().clone();
            let named = fixture.name["families/".len()..].to_string();
            assert!(named.starts_with(info.model_type), "{named}: {}", info.model_type);
            let head = match fixture.expected["head"].as_str().unwrap() {
                "mlm" => EncoderHead::MaskedLm,
                "classify" => EncoderHead::SequenceClassification,
                "tokens" => EncoderHead::TokenClassification,
                "questions" => EncoderHead::QuestionAnswering,
                _ => EncoderHead::None,
            };
            assert_eq!(info.head, head, "{named}");
            assert_eq!(info.max_positions, texts[0].ids.len(), "{named}");
            assert_eq!(info.has_pooler, fixture.has("pooler_output.0"), "{named}");
            let plain = !options.reference && info.device == "cpu";
            let want = EncoderWant {
                pooled: info.has_pooler,
                logits: head != EncoderHead::None,
                attentions: if plain { Layers::All } else { Layers::None },
                ..STATES
            };
            let outputs = model.forward(&texts, &want, &|| false).unwrap();
            for (i, output) in outputs.iter().enumerate() {
                let mut check = |name: String, found: &[f32]| {
                    if fixture.has(&name) {
                        fixture.check(&format!("{what}, {name}"), found, &fixture.values(&name));
                        compared += 1;
                    }
                };
                for (layer, state) in output.hidden_states.iter().enumerate() {
                    check(format!("hidden_states.{layer}.{i}"), state);
                }
                for (layer, weights) in output.attentions.iter().enumerate() {
                    check(format!("attentions.{layer}.{i}"), weights);
                }
                check(format!("pooler_output.{i}"), &output.pooled);
                check(format!("logits.{i}"), &output.logits);
            }
        }
    }
    assert!(compared > 400, "{compared} compared");
}

#[test]
fn every_dtype_keeps_near() {
    for fixture in fixtures() {
        for (dtype, bound) in
            [(Dtype::F16, 2e-3), (Dtype::Bf16, 0.03), (Dtype::Int8, 0.05), (Dtype::Q8_0, 0.03)]
        {
            let options = LoadOptions { dtype: Some(dtype), threads: 2, ..Default::default() };
            let mut model = load(&fixture.folder, &options).unwrap().model;
            let last = format!("hidden_states.{}", model.info().layers);
            for (i, output) in
                model.forward(&inputs(&fixture), &STATES, &|| false).unwrap().iter().enumerate()
            {
                let expected = fixture.values(&format!("{last}.{i}"));
                let error = relative_error(&output.last_hidden_state, &expected);
                assert!(error < bound, "{}, {dtype:?}, text {i}: {error}", fixture.name);
            }
        }
    }
}

#[test]
fn distances_fall_into_the_buckets_that_pytorch_has() {
    let text = std::fs::read_to_string(folder("buckets.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let first = expected["first"].as_i64().unwrap() as isize;
    for (i, bucket) in expected["buckets"].as_array().unwrap().iter().enumerate() {
        let ahead = first + i as isize;
        assert_eq!(relative::bucket(ahead) as u64, bucket.as_u64().unwrap(), "{ahead}");
    }
}

/// A copy of a fixture's folder whose configuration `change` has changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder(name).join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    let text = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    copy
}

fn refusal(name: &str, key: &str, value: Value) -> (&'static str, String) {
    let copy = changed(name, |config| config[key] = value);
    let error =
        load(copy.path(), &LoadOptions::default()).err().unwrap_or_else(|| panic!("{name} took {key}"));
    (error.code(), error.to_string())
}

#[test]
fn a_field_that_asks_for_other_mathematics_is_refused_by_name() {
    for (name, key, value, code) in [
        ("roberta-base", "position_embedding_type", json!("relative_key"), "UNSUPPORTED_MODEL"),
        ("electra-base", "position_embedding_type", json!("relative_key_query"), "UNSUPPORTED_MODEL"),
        ("roberta-base", "is_decoder", json!(true), "UNSUPPORTED_MODEL"),
        ("electra-base", "add_cross_attention", json!(true), "UNSUPPORTED_MODEL"),
        ("distilbert-base", "pruned_heads", json!({ "0": [1] }), "UNSUPPORTED_MODEL"),
        ("distilbert-base", "activation", json!("mish"), "UNSUPPORTED_MODEL"),
        ("mpnet-base", "hidden_act", json!("quick_gelu"), "UNSUPPORTED_MODEL"),
        ("mpnet-base", "relative_attention_num_buckets", json!(16), "UNSUPPORTED_MODEL"),
        ("roberta-base", "pad_token_id", json!(null), "CONFIG_INVALID"),
        ("roberta-base", "pad_token_id", json!(-1), "CONFIG_INVALID"),
        ("camembert-tokens", "pad_token_id", json!(40), "CONFIG_INVALID"),
        ("distilbert-base", "hidden_size", json!(24), "CONFIG_INVALID"),
        ("distilbert-base", "num_hidden_layers", json!(5), "CONFIG_INVALID"),
        ("distilbert-base", "n_heads", json!(5), "CONFIG_INVALID"),
        ("roberta-base", "layer_norm_eps", json!("small"), "CONFIG_INVALID"),
        ("electra-base", "embedding_size", json!(0), "CONFIG_INVALID"),
    ] {
        let (found, message) = refusal(name, key, value);
        assert_eq!(found, code, "{name}, {key}: {message}");
        let named = if key == "pad_token_id" { "pad" } else { key };
        assert!(message.contains(named), "{name}, {key}: {message}");
    }
}

#[test]
fn what_only_begins_or_drops_out_changes_nothing() {
    let states = |folder: &Path| {
        let mut model = load(folder, &LoadOptions::default()).unwrap().model;
        let input = EncoderInput { ids: vec![7, 8, 9], type_ids: vec![0; 3], ..Default::default() };
        model.forward(&[input], &STATES, &|| false).unwrap().remove(0).last_hidden_state
    };
    for (name, key, value) in [
        ("distilbert-base", "sinusoidal_pos_embds", json!(true)),
        ("distilbert-base", "layer_norm_eps", json!(0.5)),
        ("distilbert-base", "hidden_size", json!(18)),
        ("mpnet-base", "pad_token_id", json!(9)),
        ("electra-base", "summary_type", json!("mean")),
        ("roberta-base", "classifier_dropout", json!(0.5)),
    ] {
        let copy = changed(name, |config| config[key] = value);
        assert_eq!(states(copy.path()), states(&folder(name)), "{name}, {key}");
    }
}

#[test]
fn a_configuration_of_one_model_with_weights_of_another_names_both_files() {
    let pairs = [
        ("roberta-classify", "bert"),
        ("distilbert-base", "bert"),
        ("distilbert-mlm", "roberta"),
        ("mpnet-mlm", "roberta"),
        ("electra-tokens", "bert"),
        ("roberta-mlm", "mpnet"),
    ];
    for (weights, model_type) in pairs {
        let copy = changed(weights, |config| {
            let own = config.clone();
            let size = |key: &str, alias: &str| own.get(key).or(own.get(alias)).cloned().unwrap();
            *config = json!({
                "model_type": model_type, "vocab_size": own["vocab_size"], "hidden_size": size("hidden_size", "dim"),
                "num_hidden_layers": size("num_hidden_layers", "n_layers"),
                "num_attention_heads": size("num_attention_heads", "n_heads"),
                "intermediate_size": size("intermediate_size", "hidden_dim"),
                "max_position_embeddings": own["max_position_embeddings"], "type_vocab_size": 1,
            });
        });
        let error = load(copy.path(), &LoadOptions::default()).err().unwrap();
        let message = error.to_string();
        assert_eq!(error.code(), "CONFIG_INVALID", "{weights} as {model_type}: {message}");
        for part in ["config.json", "model.safetensors", model_type] {
            assert!(message.contains(part), "{weights} as {model_type}: {message}");
        }
    }
}

#[test]
fn types_that_a_model_has_not_are_refused() {
    for (name, type_id, ok) in [
        ("distilbert-base", 0, true),
        ("distilbert-base", 1, false),
        ("mpnet-base", 1, false),
        ("roberta-base", 1, false),
        ("electra-base", 2, true),
    ] {
        let mut model = load(&folder(name), &LoadOptions::default()).unwrap().model;
        let input = EncoderInput { ids: vec![7, 8], type_ids: vec![0, type_id], ..Default::default() };
        let found = model.forward(&[input], &STATES, &|| false);
        assert_eq!(
            found.map(|_| ()).map_err(|error| error.code()),
            if ok { Ok(()) } else { Err("INPUT_INVALID") }
        );
    }
}

#[test]
fn a_head_is_what_the_classes_name_or_the_tensors_are() {
    for fixture in fixtures() {
        let name = &fixture.name["families/".len()..];
        let of = |folder: &Path| load(folder, &LoadOptions::default()).unwrap().model.info().head;
        let own = of(&fixture.folder);
        let without = changed(name, |config| {
            config.as_object_mut().unwrap().remove("architectures");
        });
        assert_eq!(of(without.path()), own, "{name} without architectures");
    }
    assert_eq!(known::task_of("XLMRobertaForMaskedLM"), Some("MaskedLM"));
    assert_eq!(known::task_of("DistilBertModel"), Some(""));
    assert_eq!(known::task_of("DebertaV2ForMaskedLM"), None);
}

/// What PEFT calls a module is what the checkpoint does: an adapter over each architecture changes the states.
#[test]
fn adapters_find_the_modules_by_the_checkpoints_names() {
    for (name, module, (input, output)) in [
        ("distilbert-base", "transformer.layer.0.attention.q_lin", (18, 18)),
        ("distilbert-classify", "distilbert.transformer.layer.0.ffn.lin1", (32, 64)),
        ("roberta-mlm", "roberta.encoder.layer.0.attention.self.value", (15, 15)),
        ("electra-base", "encoder.layer.1.output.dense", (26, 20)),
        ("electra-mlm", "electra.embeddings_project", (14, 20)),
        ("mpnet-questions", "mpnet.encoder.layer.0.attention.attn.o", (14, 14)),
        ("mpnet-base", "encoder.layer.0.attention.attn.k", (14, 14)),
        ("roberta-classify", "classifier.dense", (32, 32)),
    ] {
        let adapter = tempfile::tempdir().unwrap();
        let config = json!({ "peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none",
            "target_modules": module.replace('.', r"\."),
            "base_model_name_or_path": folder(name) });
        std::fs::write(adapter.path().join("adapter_config.json"), config.to_string()).unwrap();
        let device = candle_core::Device::Cpu;
        // Not the same for every output: a norm would take that away.
        let rising = |rows: usize, columns: usize| {
            let values = (0..rows * columns).map(|i| 0.1 * i as f32 / (rows * columns) as f32 - 0.02);
            candle_core::Tensor::from_iter(values, &device).unwrap().reshape((rows, columns)).unwrap()
        };
        let tensors = std::collections::HashMap::from([
            (format!("base_model.model.{module}.lora_A.weight"), (rising(1, input) * 10.0).unwrap()),
            (format!("base_model.model.{module}.lora_B.weight"), (rising(output, 1) * 10.0).unwrap()),
        ]);
        let file = adapter.path().join("adapter_model.safetensors");
        candle_core::safetensors::save(&tensors, file).unwrap();
        let run = |folder: &Path, reference: bool| {
            let options = LoadOptions { dtype: Some(Dtype::F32), reference, ..Default::default() };
            let mut model = load(folder, &options).unwrap().model;
            let logits = model.info().head != EncoderHead::None;
            let input = EncoderInput { ids: vec![7, 9, 8, 11], type_ids: vec![0; 4], ..Default::default() };
            let output =
                model.forward(&[input], &EncoderWant { logits, ..STATES }, &|| false).unwrap().remove(0);
            [output.last_hidden_state, output.logits].concat()
        };
        let (with, without) = (run(adapter.path(), false), run(&folder(name), false));
        assert!(relative_error(&with, &without) > 1e-3, "{name}: {module} changes nothing");
        assert!(relative_error(&with, &run(adapter.path(), true)) < 1e-5, "{name}: {module}, the reference");
    }
}

/// A byte-level tokenizer's tokens stand where Python says they do: without the space before a word, with its letters.
#[test]
fn offsets_are_trimmed_once() {
    let source = folder("pipelines").join("roberta-ner");
    let tokenizer = Tokenizer::open(&source).unwrap().unwrap();
    let cases: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(source.with_extension("json")).unwrap()).unwrap();
    let mut compared = 0;
    for case in cases.iter().filter(|case| case["strategy"] == "none") {
        let windows = tokenizer.windows(case["text"].as_str().unwrap(), None, &Some(64).into()).unwrap();
        for entity in case["entities"].as_array().unwrap() {
            let at = |i: usize| entity[i].as_u64().unwrap() as u32;
            assert!(windows[0].offsets.contains(&(at(2), at(3))), "{}: {entity}", case["text"]);
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared} compared");
}
