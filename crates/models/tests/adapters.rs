//! LoRA adapters equal PEFT's, over any dtype, and change no bit of what runs beside them.

mod support;

use candlewick_models::{CausalBackend, Dtype, LoadOptions, load_causal};
use support::Fixture;
use support::sequences::{Blocks, Sequence, pass};

const NAMES: [&str; 2] = ["all", "stabilised"];

fn load(fixture: &Fixture, dtype: Dtype) -> Box<dyn CausalBackend> {
    let base = Fixture::open("gpt2-base");
    let adapters = NAMES.map(|name| (name.to_string(), format!("{}/{name}", fixture.source())));
    let options = LoadOptions { dtype: Some(dtype), adapters: adapters.into(), ..Default::default() };
    load_causal(base.source(), &options, &()).unwrap().model
}

fn ids(fixture: &Fixture) -> Vec<u32> {
    fixture.expected["input_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Logits of each sequence, all in one step, with an adapter or without.
fn logits(model: &mut dyn CausalBackend, sequences: &[(Option<usize>, &[u32])]) -> Vec<Vec<f32>> {
    let mut blocks = Blocks::of(model);
    let begin = |(adapter, ids): &(Option<usize>, &[u32])| Sequence {
        adapter: *adapter,
        ..blocks.sequence(ids.len())
    };
    let mut begun: Vec<Sequence> = sequences.iter().map(begin).collect();
    let mut parts: Vec<_> =
        begun.iter_mut().zip(sequences).map(|(sequence, (_, ids))| (sequence, *ids, ids.len())).collect();
    pass(model, &mut parts)
}

#[test]
fn logits_equal_peft() {
    let fixture = Fixture::open("adapters");
    let ids = &ids(&fixture);
    let mut model = load(&fixture, Dtype::F32);
    assert_eq!(model.info().adapters, NAMES);
    for (name, adapter) in [("base", None), ("all", Some(0)), ("stabilised", Some(1))] {
        let found = logits(model.as_mut(), &[(adapter, ids)]).remove(0);
        fixture.check(name, &found, &fixture.values(&format!("{name}.logits")));
    }
}

#[test]
fn adapters_in_one_batch_change_no_bit_of_each_other() {
    let fixture = Fixture::open("adapters");
    let ids = &ids(&fixture);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Int8] {
        let mut model = load(&fixture, dtype);
        let batch = [
            (Some(1), &ids[..9]),
            (None, &ids[..]),
            (Some(0), &ids[3..20]),
            (Some(0), &ids[..5]),
            (None, &ids[..2]),
            (Some(1), &ids[7..]),
        ];
        let together = logits(model.as_mut(), &batch);
        for (one, together) in batch.iter().zip(together) {
            let alone = logits(model.as_mut(), &[*one]).remove(0);
            assert!(
                alone.iter().zip(&together).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{dtype:?} {:?}",
                one.0
            );
        }
        // And a model without adapters is what the base is beside them.
        let options = LoadOptions { dtype: Some(dtype), ..Default::default() };
        let mut plain = load_causal(Fixture::open("gpt2-base").source(), &options, &()).unwrap().model;
        let base = logits(model.as_mut(), &[(None, ids), (Some(0), ids)]).remove(0);
        assert_eq!(base, logits(plain.as_mut(), &[(None, ids)]).remove(0), "{dtype:?}");
    }
}

/// Files of an adapter with something changed.
fn altered(change: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = Fixture::open("adapters");
    let from = std::path::Path::new(from.source()).join("all");
    let text = std::fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(folder.path().join("adapter_config.json"), serde_json::to_string(&config).unwrap())
        .unwrap();
    std::fs::copy(from.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors"))
        .unwrap();
    folder
}

#[test]
fn what_is_not_plain_lora_is_refused_at_load() {
    let code = |base: &str, folder: &std::path::Path| {
        let adapters = vec![("x".to_string(), folder.display().to_string())];
        let options = LoadOptions { adapters, ..Default::default() };
        load_causal(Fixture::open(base).source(), &options, &()).err().map(|error| error.code())
    };
    let set = |key: &'static str, value: serde_json::Value| {
        altered(move |config| {
            config.insert(key.into(), value.clone());
        })
    };
    for (key, value, expected) in [
        ("r", 4.into(), None),
        ("use_dora", true.into(), Some("TENSOR_MISSING")),
        ("peft_type", "IA3".into(), Some("UNSUPPORTED_MODEL")),
        ("init_lora_weights", "pissa".into(), Some("UNSUPPORTED_MODEL")),
        ("bias", "all".into(), Some("TENSOR_MISSING")),
        ("modules_to_save", serde_json::json!(["lm_head"]), Some("TENSOR_MISSING")),
        ("r", 5.into(), Some("TENSOR_SHAPE")),
        ("r", "four".into(), Some("CONFIG_INVALID")),
    ] {
        assert_eq!(code("gpt2-base", set(key, value.clone()).path()), expected, "{key}: {value}");
    }
    let head = format!("{}/head", Fixture::open("adapter-models").source());
    assert_eq!(
        code("gpt2-base", head.as_ref()),
        Some("UNSUPPORTED_MODEL"),
        "a head for one sequence of a batch"
    );
    let whole = altered(|_| ());
    assert_eq!(code("gpt2-wide", whole.path()), Some("TENSOR_SHAPE"), "an adapter of a narrower model");
    std::fs::write(whole.path().join("adapter_model.safetensors"), [255; 64]).unwrap();
    assert_eq!(code("gpt2-base", whole.path()), Some("WEIGHTS_CORRUPT"));
    std::fs::remove_file(whole.path().join("adapter_model.safetensors")).unwrap();
    assert_eq!(code("gpt2-base", whole.path()), Some("MODEL_NOT_FOUND"));
}
