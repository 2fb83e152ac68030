//! Every parameter gets the gradient that PyTorch gives it: the difference is at most 1e-5 of its norm.

mod support;

use candlewick_models::{ModelFolder, Weights, bert, gpt2};
use candlewick_train::data::{Example, ProblemType, Target};
use candlewick_train::model::{
    Bert, BertDropouts, Cpu, Dropouts, Gpt2, HeadKind, LoraShape, Params, Pass, Source, attach, merge,
};
use support::{Fixture, relative};

const TOLERANCE: f64 = 1e-5;

fn never() -> bool {
    false
}

/// Compares the case's gradients, `prefix` taken off their names.
fn check(fixture: &Fixture, case: &str, prefix: &str, params: &Params) {
    let marker = format!("{case}.grad.");
    let expected: Vec<_> = fixture.tensors.iter().filter(|(name, _)| name.starts_with(&marker)).collect();
    assert_eq!(expected.len(), params.all.len(), "{case}: a gradient for every parameter");
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    for (full, expected) in expected {
        let name = full.strip_prefix(&marker).unwrap();
        let param =
            params.find(name.strip_prefix(prefix).unwrap_or(name)).unwrap_or_else(|| panic!("{name}"));
        // Softmax does not see a key's bias, so its gradient is rounding alone: held against that of the weight beside it.
        let beside = full.ends_with("key.bias").then(|| full.replace("bias", "weight"));
        let scale = norm(beside.map_or(expected, |name| &fixture.tensors[&name]));
        let error = relative(&param.gradient, expected) * norm(expected) / scale;
        assert!(error <= TOLERANCE, "{full}: relative error {error:e}");
    }
}

#[test]
fn gpt2() {
    let fixture = Fixture::open("grad-gpt2");
    let folder = ModelFolder::open(fixture.folder.to_str().unwrap()).unwrap();
    let config = gpt2::Config::from_folder(&folder).unwrap();
    let weights = Weights::open(&folder.path, "transformer").unwrap();
    let dropouts = Dropouts { embedding: 0.0, attention: 0.0, residual: 0.0 };
    for checkpointing in [false, true] {
        for case in fixture.expected["cases"].as_array().unwrap() {
            let mut source = Source::new(Some(&weights), 0.02, 0);
            let mut model = Gpt2::new(&mut source, config.clone(), dropouts).unwrap();
            model.stack.checkpointing = checkpointing;
            let mut params = source.params;
            let labels: Vec<Vec<i32>> = serde_json::from_value(case["labels"].clone()).unwrap();
            let examples: Vec<Example> = (fixture.rows("input_ids").into_iter().zip(labels))
                .map(|(input_ids, labels)| Example {
                    input_ids,
                    token_type_ids: vec![],
                    target: Target::Tokens(labels),
                    pair: None,
                })
                .collect();
            let name = case["name"].as_str().unwrap();
            let scale = 1.0 / Gpt2::targets(&examples).unwrap() as f32;
            let mut cpu = Cpu::new(2);
            cpu.train(1, 2, 3);
            let pass = Pass::Train { scale, smoothing: 0.0 };
            let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
            let expected = f64::from(fixture.tensors[&format!("{name}.loss")][0]);
            assert!(
                (outcome.mean() - expected).abs() <= 1e-5 * expected,
                "{name}: {} {expected}",
                outcome.mean()
            );
            check(&fixture, name, "transformer.", &params);
        }
    }
}

#[test]
fn bert_classifier() {
    let fixture = Fixture::open("grad-bert-classify");
    let folder = ModelFolder::open(fixture.folder.to_str().unwrap()).unwrap();
    let config = bert::Config::from_folder(&folder).unwrap();
    let weights = Weights::open(&folder.path, "bert").unwrap();
    for case in fixture.expected["cases"].as_array().unwrap() {
        let mut source = Source::new(Some(&weights), 0.02, 0);
        let dropouts = BertDropouts { hidden: 0.0, attention: 0.0, classifier: 0.0 };
        let kind = HeadKind::Sequence { classes: 3, problem: ProblemType::SingleLabelClassification };
        let mut model = Bert::new(&mut source, config.clone(), dropouts, kind, "").unwrap();
        let mut params = source.params;
        let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
        let examples = padded(&fixture, labels.into_iter().map(Target::Class));
        let name = case["name"].as_str().unwrap();
        let mut cpu = Cpu::new(2);
        let pass = Pass::Train { scale: 1.0 / examples.len() as f32, smoothing: 0.0 };
        let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
        let expected = f64::from(fixture.tensors[&format!("{name}.loss")][0]);
        assert!((outcome.mean() - expected).abs() <= 1e-5 * expected, "{} {expected}", outcome.mean());
        check(&fixture, name, "bert.", &params);
    }
}

/// Examples of padded rows and their masks.
fn padded(fixture: &Fixture, targets: impl Iterator<Item = Target>) -> Vec<Example> {
    let masks = fixture.rows::<u32>("attention_mask");
    let rows = fixture.rows::<u32>("input_ids").into_iter().zip(fixture.rows::<u32>("token_type_ids"));
    let rows = rows.zip(masks).zip(targets);
    rows.map(|(((mut input_ids, mut token_type_ids), mask), mut target)| {
        let len = mask.iter().filter(|m| **m == 1).count();
        input_ids.truncate(len);
        token_type_ids.truncate(len);
        if let Target::Tokens(labels) = &mut target {
            labels.truncate(len);
        }
        Example { input_ids, token_type_ids, target, pair: None }
    })
    .collect()
}

/// Every head's loss is transformers', and its gradient is that of this very loss.
#[test]
fn bert_heads() {
    let heads = [
        "bert-mlm",
        "bert-mlm-untied",
        "bert-classify-5",
        "bert-regression",
        "bert-multi-label",
        "bert-tokens",
        "bert-questions",
    ];
    for name in heads {
        let fixture = Fixture::open(name);
        let folder = ModelFolder::open(fixture.folder.to_str().unwrap()).unwrap();
        let config = bert::Config::from_folder(&folder).unwrap();
        let weights = Weights::open(&folder.path, "bert").unwrap();
        let classes = weights.shape("classifier.bias").map_or(0, |shape| shape[0]);
        let sequence = |problem| HeadKind::Sequence { classes, problem };
        let kind = match name {
            "bert-mlm" | "bert-mlm-untied" => HeadKind::MaskedLm,
            "bert-tokens" => HeadKind::Token { classes },
            "bert-questions" => HeadKind::Questions,
            "bert-regression" => sequence(ProblemType::Regression),
            "bert-multi-label" => sequence(ProblemType::MultiLabelClassification),
            _ => sequence(ProblemType::SingleLabelClassification),
        };
        let labels = fixture.expected["labels"].clone();
        let targets: Vec<Target> = match kind {
            HeadKind::Questions => {
                let at = |key: &str| -> Vec<u32> {
                    serde_json::from_value(fixture.expected[key].clone()).unwrap()
                };
                let spans = at("start_positions").into_iter().zip(at("end_positions"));
                spans.map(|(start, end)| Target::Span { start, end }).collect()
            }
            HeadKind::Sequence { problem: ProblemType::SingleLabelClassification, .. } => {
                let labels: Vec<u32> = serde_json::from_value(labels).unwrap();
                labels.into_iter().map(Target::Class).collect()
            }
            HeadKind::Sequence { .. } => {
                let values = labels.as_array().unwrap().iter();
                let scores = |value: &serde_json::Value| match value.as_f64() {
                    Some(score) => vec![score as f32],
                    None => serde_json::from_value(value.clone()).unwrap(),
                };
                values.map(|value| Target::Scores(scores(value))).collect()
            }
            _ => {
                let labels: Vec<Vec<i32>> = serde_json::from_value(labels).unwrap();
                labels.into_iter().map(Target::Tokens).collect()
            }
        };
        let examples = padded(&fixture, targets.into_iter());
        let mut source = Source::new(Some(&weights), 0.02, 0);
        let dropouts = BertDropouts { hidden: 0.0, attention: 0.0, classifier: 0.0 };
        let bias = bert::Config::decoder_bias(&weights);
        let mut model = Bert::new(&mut source, config, dropouts, kind, bias).unwrap();
        assert!(source.new.is_empty(), "{name}: {:?} are new", source.new);
        let mut params = source.params;
        let mut cpu = Cpu::new(2);
        let targets = model.targets(&examples);
        let pass = Pass::Train { scale: 1.0 / targets as f32, smoothing: 0.0 };
        let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
        let expected = match kind {
            // transformers' loss has the padding's logits in its softmax; ours has no padding.
            HeadKind::Questions => spans_loss(&fixture, &examples),
            _ => fixture.expected["loss"].as_f64().unwrap(),
        };
        assert!(
            (outcome.mean() - expected).abs() <= 2e-5 * expected,
            "{name}: {} {expected}",
            outcome.mean()
        );

        // A small step against the gradient lowers the loss by its squared norm.
        let norm: f64 =
            params.all.iter().flat_map(|p| p.gradient.iter()).map(|g| f64::from(*g).powi(2)).sum();
        let step = (1e-3 * expected / norm) as f32;
        for param in &mut params.all {
            let gradient: Vec<f32> = param.gradient.to_vec();
            param.value.iter_mut().zip(gradient).for_each(|(x, g)| *x -= step * g);
        }
        let after = model.run(&mut cpu, &mut params, &examples, Pass::Evaluate, &never).unwrap();
        let (fell, predicted) = (outcome.mean() - after.mean(), f64::from(step) * norm);
        assert!(
            (fell / predicted - 1.0).abs() < 0.05,
            "{name}: the loss fell by {fell}, expected {predicted}"
        );
    }
}

/// The mean of the cross entropies of starts and ends, from PyTorch's logits of the tokens that are there.
fn spans_loss(fixture: &Fixture, examples: &[Example]) -> f64 {
    let width = fixture.rows::<u32>("input_ids")[0].len();
    let mut total = 0.0;
    for (row, example) in examples.iter().enumerate() {
        let Target::Span { start, end } = example.target else { panic!("a span") };
        for (name, target) in [("start_logits", start), ("end_logits", end)] {
            let logits = &fixture.tensors[name][row * width..][..example.input_ids.len()];
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            total += sum.ln() - f64::from(logits[target as usize]);
        }
    }
    total / (2 * examples.len()) as f64
}

/// PEFT's loss, gradients and merged weights, with adapters on `Conv1D` layers, a square one among them.
#[test]
fn lora() {
    let folder = support::root().join("grad-gpt2");
    let facts: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("lora.json")).unwrap()).unwrap();
    let tensors = support::tensors(folder.join("lora.safetensors"));
    let model_folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
    let config = gpt2::Config::from_folder(&model_folder).unwrap();
    let weights = Weights::open(&folder, "transformer").unwrap();
    let mut source = Source::new(Some(&weights), 0.02, 0);
    let dropouts = Dropouts { embedding: 0.0, attention: 0.0, residual: 0.0 };
    let mut model = Gpt2::new(&mut source, config, dropouts).unwrap();
    let mut params = source.params;
    params.all.iter_mut().for_each(|param| param.trainable = false);
    let lora = LoraShape {
        rank: facts["rank"].as_u64().unwrap() as usize,
        alpha: facts["alpha"].as_f64().unwrap() as f32,
        dropout: 0.0,
    };
    let targets = ["c_attn", "c_proj", "c_fc"].map(str::to_string);
    attach(&mut model.stack, &mut params, lora, &targets, 1).unwrap();
    for param in params.all.iter_mut().filter(|param| param.trainable) {
        param.value.copy_from_slice(&tensors[&format!("transformer.{}", param.name)]);
    }
    let fixture = Fixture::open("grad-gpt2");
    let example = |ids: Vec<u32>| Example {
        target: Target::Tokens(ids.iter().map(|id| *id as i32).collect()),
        input_ids: ids,
        token_type_ids: vec![],
        pair: None,
    };
    let examples: Vec<Example> = fixture.rows("input_ids").into_iter().map(example).collect();
    let mut cpu = Cpu::new(2);
    let scale = 1.0 / Gpt2::targets(&examples).unwrap() as f32;
    let pass = Pass::Train { scale, smoothing: 0.0 };
    let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
    let expected = facts["loss"].as_f64().unwrap();
    assert!((outcome.mean() - expected).abs() <= 1e-5 * expected, "{} {expected}", outcome.mean());
    let mut compared = 0;
    for param in params.all.iter().filter(|param| param.trainable) {
        let error = relative(&param.gradient, &tensors[&format!("grad.transformer.{}", param.name)]);
        assert!(error <= TOLERANCE, "{}: {error:e}", param.name);
        compared += 1;
    }
    assert_eq!(compared, 2 * 2 * 4, "two matrices beside four layers of two blocks");
    merge(&mut cpu, &mut model.stack, &mut params);
    for (name, expected) in tensors.iter().filter(|(name, _)| name.starts_with("merged.")) {
        let param = params.find(name.strip_prefix("merged.transformer.").unwrap()).unwrap();
        let error = relative(&param.value, expected);
        assert!(error <= 1e-6, "{name}: {error:e}");
    }
}
