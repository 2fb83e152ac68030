//! LoRA's patterns in training: which layers get matrices, of which rank, and what is written of it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candlewick_models::{EncoderInput, EncoderWant, LoadOptions, load_encoder};
use candlewick_train::TrainError;
use candlewick_train::trainer::{Event, FinetuneOptions, TrainObserver, finetune};
use serde_json::json;
use support::{root, tensors};

struct Silent;

impl TrainObserver for Silent {
    fn event(&self, _: Event) {}
    fn stop(&self) -> bool {
        false
    }
}

/// `bert-classify-5` with a tokenizer whose words are its ids.
fn base() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(root().join("bert-classify-5").join(name), folder.path().join(name)).unwrap();
    }
    let mut words: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string).into();
    words.extend((5..151).map(|id| format!("w{id}")));
    fs::write(folder.path().join("vocab.txt"), words.join("\n")).unwrap();
    folder
}

/// One step with these options of LoRA, given as the text of a JSON object: its order counts.
fn train(base: &Path, model: &Path, output: &Path, task: &str, lora: &str) -> Result<(), TrainError> {
    let data = base.join("rows.jsonl");
    let row = |i: usize| match task {
        "fill-mask" => {
            json!({ "text": format!("w{} w{} w30 w31 w32 w33 w34 w35", 5 + i, 20 + i) }).to_string()
        }
        _ => json!({ "text": format!("w{} w{}", 5 + i, 20 + i), "label": format!("{} stars", 2 + i % 4) })
            .to_string(),
    };
    fs::write(&data, (0..8).map(row).collect::<Vec<_>>().join("\n")).unwrap();
    let options = json!({
        "model": model, "base": base, "task": task, "train": [data], "output": output, "threads": 2,
        "batchSize": 8, "maxSteps": 2, "learningRate": 0.02,
    });
    let options = options.to_string();
    let options = format!("{},\"lora\":{lora}}}", &options[..options.len() - 1]);
    let options: FinetuneOptions = serde_json::from_str(&options).unwrap();
    finetune(&options, &Silent)
}

fn logits(source: &Path) -> Vec<f32> {
    let mut model = load_encoder(source.to_str().unwrap(), &LoadOptions::default(), &()).unwrap().model;
    let input = EncoderInput { ids: vec![2, 9, 30, 3], type_ids: vec![0; 4], ..Default::default() };
    let want = EncoderWant { logits: true, ..Default::default() };
    model.forward(&[input], &want, &|| false).unwrap().remove(0).logits
}

/// The ranks of the modules that have matrices, from their sizes: of `bert-classify-5`, 32 wide.
fn ranks(adapter: &Path) -> BTreeMap<String, usize> {
    let tensors = tensors(adapter.join("adapter_model.safetensors"));
    let one = |(name, values): (&String, &Vec<f32>)| {
        let module = name.strip_prefix("base_model.model.")?.strip_suffix(".lora_A.weight")?;
        let input = if module.ends_with("output.dense") && !module.contains("attention") { 64 } else { 32 };
        Some((module.to_string(), values.len() / input))
    };
    tensors.iter().filter_map(one).collect()
}

const PARTS: [&str; 6] = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
];

/// All linear layers of the body, of those that `of` has a rank for.
fn expected(of: impl Fn(&str) -> Option<usize>) -> BTreeMap<String, usize> {
    let layers = (0..2).flat_map(|i| PARTS.map(|part| format!("bert.encoder.layer.{i}.{part}")));
    let all = layers.chain(["bert.pooler.dense".to_string()]);
    all.filter_map(|name| of(&name).map(|rank| (name, rank))).collect()
}

#[test]
fn patterns_choose_layers_and_ranks_as_in_peft() {
    let base = base();
    type Of = fn(&str) -> Option<usize>;
    let cases: [(&str, Of, &str); 7] = [
        ("{}", |name| (name.ends_with("query") || name.ends_with("value")).then_some(8), "target_modules"),
        (r#"{ "rank": 2, "targetModules": "all-linear" }"#, |_| Some(2), "target_modules"),
        (
            r#"{ "rank": 2, "targetModules": "bert\\.encoder\\.layer\\.[1-9]\\..*(query|\\.output\\.dense)" }"#,
            |name| {
                (name.contains(".1.") && (name.ends_with("query") || name.contains("on.output"))).then_some(2)
            },
            "target_modules",
        ),
        (
            r#"{ "rank": 2, "targetModules": ["dense"], "excludeModules": ".*(pooler|intermediate).*" }"#,
            |name| (name.ends_with("output.dense")).then_some(2),
            "exclude_modules",
        ),
        (
            r#"{ "rank": 2, "targetModules": ["key"], "layersToTransform": [1], "layersPattern": "lay.*" }"#,
            |name| name.contains("layer.1.attention.self.key").then_some(2),
            "layers_pattern",
        ),
        (
            r#"{ "rank": 2, "targetModules": ["query", "dense"], "rankPattern": { "layer\\.1\\..*": 3, "dense": 1 } }"#,
            |name| {
                let target = name.ends_with("dense") || name.ends_with("query");
                target.then_some(if name.contains("layer.1.") {
                    3
                } else {
                    2 - usize::from(name.ends_with("dense"))
                })
            },
            r#""rank_pattern": {
    "layer\\.1\\..*": 3,
    "dense": 1
  }"#,
        ),
        (
            r#"{ "rank": 2, "targetModules": ["dense"], "alphaPattern": { "output.dense": 64, "dense": 1 } }"#,
            |name| name.ends_with("dense").then_some(2),
            r#""alpha_pattern": {
    "output.dense": 64.0,
    "dense": 1.0
  }"#,
        ),
    ];
    for (lora, of, written) in cases {
        let output = tempfile::tempdir().unwrap();
        train(base.path(), base.path(), output.path(), "text-classification", lora).unwrap();
        let adapter = output.path().join("adapter");
        assert_eq!(ranks(&adapter), expected(of), "{lora}");
        let text = fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
        assert!(text.contains(written), "{lora}: {text}");
        // What is written loads, says of itself what it holds, and is what was merged.
        let (merged, beside) = (logits(output.path()), logits(&adapter));
        let far = merged.iter().zip(&beside).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let moved = merged.iter().zip(&logits(base.path())).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= 5e-5 && moved > 1e-3, "{lora}: {far} {moved}");

        // Going on keeps all of it, in its order.
        let again = tempfile::tempdir().unwrap();
        train(base.path(), &adapter, again.path(), "text-classification", "{}").unwrap();
        assert_eq!(ranks(&again.path().join("adapter")), expected(of), "{lora}");
        let text = fs::read_to_string(again.path().join("adapter/adapter_config.json")).unwrap();
        assert!(text.contains(written), "{lora}: {text}");
    }
}

#[test]
fn what_chooses_nothing_or_what_cannot_be_trained_is_refused() {
    let base = base();
    let output = tempfile::tempdir().unwrap();
    for (lora, names) in [
        (r#"{ "targetModules": ["query", "quarry"] }"#, "quarry"),
        (r#"{ "targetModules": "query" }"#, "targetModules"),
        (r#"{ "targetModules": ".*(query" }"#, "targetModules"),
        (r#"{ "targetModules": ".*(?=query).*" }"#, "look-ahead"),
        (r#"{ "targetModules": ["word_embeddings", "query"] }"#, "word_embeddings"),
        (r#"{ "targetModules": ".*layer\\.0.*" }"#, "bert.encoder.layer.0"),
        (r#"{ "targetModules": ["LayerNorm", "query"] }"#, "LayerNorm"),
        (r#"{ "targetModules": ["query"], "excludeModules": ["quarry"] }"#, "excludeModules"),
        (r#"{ "targetModules": ["query"], "excludeModules": [".*"] }"#, "excludeModules"),
        (r#"{ "targetModules": ["query"], "layersToTransform": 7 }"#, "query"),
        (r#"{ "targetModules": ["query"], "layersPattern": "layer" }"#, "layersPattern"),
        (r#"{ "targetModules": ".*query", "layersToTransform": 1 }"#, "layersToTransform"),
        (r#"{ "rankPattern": { "quarry": 2 } }"#, "rankPattern"),
        (r#"{ "alphaPattern": { "value": 2, "layer.9.*": 2 } }"#, "alphaPattern"),
        (r#"{ "alphaPattern": { "value": 1e300 } }"#, "alpha"),
        (r#"{ "rankPattern": { "value": 0 } }"#, "rank"),
    ] {
        let error = train(base.path(), base.path(), output.path(), "text-classification", lora).unwrap_err();
        assert_eq!(error.code(), "OPTION_INVALID", "{lora}: {error}");
        assert!(error.to_string().contains(names), "{lora}: {error}");
    }
    // An adapter keeps its own.
    let folder = tempfile::tempdir().unwrap();
    let own =
        r#"{ "targetModules": ["query"], "rankPattern": { "layer.1.*": 3 }, "layersToTransform": [0, 1] }"#;
    train(base.path(), base.path(), folder.path(), "text-classification", own).unwrap();
    let adapter: PathBuf = folder.path().join("adapter");
    let go_on = |lora: &str| train(base.path(), &adapter, output.path(), "text-classification", lora);
    go_on(own).unwrap();
    for lora in [
        r#"{ "rankPattern": { "layer.1.*": 4 } }"#,
        r#"{ "targetModules": "query" }"#,
        r#"{ "layersToTransform": 1 }"#,
        r#"{ "excludeModules": ["x"] }"#,
        r#"{ "alphaPattern": { "query": 4 } }"#,
    ] {
        assert_eq!(go_on(lora).unwrap_err().code(), "OPTION_INVALID", "{lora}");
    }
    for kind in ["bert-dora", "bert-lora-bias", "bert-bias-all", "bert-embedding", "bert-tokens"] {
        let adapter = root().join("peft-patterns").join(kind);
        let refused = train(base.path(), &adapter, output.path(), "text-classification", "{}").unwrap_err();
        assert_eq!(refused.code(), "UNSUPPORTED_MODEL", "{kind}: {refused}");
    }
}
