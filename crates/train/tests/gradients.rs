//! Every parameter gets the gradient that PyTorch gives it: the difference is at most 1e-5 of its norm.

mod support;

use candlewick_kernels::train::Precision;
use candlewick_models::{ModelFolder, Weights, family, gpt2};
use candlewick_train::data::{Example, ProblemType, Target};
use candlewick_train::model::{
    Bert, BertDropouts, Cpu, Dropouts, Gpt2, HeadKind, LoraShape, Outcome, Params, Pass, Source, attach,
    merge,
};
use support::{Fixture, deviation, relative};

const TOLERANCE: f64 = 1e-5;

fn never() -> bool {
    false
}

/// Compares the case's gradients, `prefix` taken off their names.
fn check(fixture: &Fixture, case: &str, prefix: &str, params: &Params) {
    let marker = format!("{case}.grad.");
    let expected: Vec<_> = fixture.tensors.iter().filter(|(name, _)| name.starts_with(&marker)).collect();
    let trainable = params.all.iter().filter(|param| param.trainable).count();
    assert_eq!(expected.len(), trainable, "{case}: a gradient for every parameter");
    for (full, _) in expected {
        let name = full.strip_prefix(&marker).unwrap();
        let param =
            params.find(name.strip_prefix(prefix).unwrap_or(name)).unwrap_or_else(|| panic!("{name}"));
        let error = deviation(full, &param.gradient, |name| &fixture.tensors[name]);
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
    let exact = Precision::F32;
    for (checkpointing, precision) in [(false, exact), (true, exact), (false, Precision::Bf16)] {
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
            cpu.precision = precision;
            cpu.train(1, 2, 3);
            let pass = Pass::Train { scale, smoothing: 0.0 };
            let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
            if precision == Precision::Bf16 {
                check_bf16(&fixture, case, "transformer.", &params, outcome.mean());
                continue;
            }
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

/// In bf16 the gradients, as one vector, are no farther from PyTorch's in f32 than 1.1 times its own under autocast.
fn check_bf16(fixture: &Fixture, case: &serde_json::Value, prefix: &str, params: &Params, loss: f64) {
    let name = case["name"].as_str().unwrap();
    let (mut difference, mut norm) = (0f64, 0f64);
    for param in &params.all {
        let expected = [prefix, ""].map(|prefix| format!("{name}.grad.{prefix}{}", param.name));
        let expected = expected.iter().find_map(|name| fixture.tensors.get(name)).unwrap();
        for (found, expected) in param.gradient.iter().zip(expected) {
            difference += f64::from(found - expected).powi(2);
            norm += f64::from(*expected).powi(2);
        }
    }
    let (error, theirs) = ((difference / norm).sqrt(), case["autocast_error"].as_f64().unwrap());
    assert!(error > 1e-4 && error <= 1.1 * theirs, "{name}: {error:e}, PyTorch's {theirs:e}");
    let expected = case["loss"].as_f64().unwrap();
    assert!((loss - expected).abs() <= 0.01 * expected, "{name}: {loss}, in f32 {expected}");
}

#[test]
fn bert_classifier() {
    let fixture = Fixture::open("grad-bert-classify");
    let folder = ModelFolder::open(fixture.folder.to_str().unwrap()).unwrap();
    let config = family::Config::from_folder(&folder).unwrap();
    let weights = Weights::open(&folder.path, "bert").unwrap();
    let cases = fixture.expected["cases"].as_array().unwrap();
    for (case, precision) in cases.iter().flat_map(|case| [(case, Precision::F32), (case, Precision::Bf16)]) {
        let mut source = Source::new(Some(&weights), 0.02, 0);
        let dropouts = BertDropouts { hidden: 0.0, attention: 0.0, classifier: 0.0 };
        let kind = HeadKind::Sequence { classes: 3, problem: ProblemType::SingleLabelClassification };
        let mut model = Bert::new(&mut source, config.clone(), dropouts, kind, "").unwrap();
        let mut params = source.params;
        let labels: Vec<u32> = serde_json::from_value(case["labels"].clone()).unwrap();
        let examples = padded(&fixture, labels.into_iter().map(Target::Class));
        let name = case["name"].as_str().unwrap();
        let mut cpu = Cpu::new(2);
        cpu.precision = precision;
        let pass = Pass::Train { scale: 1.0 / examples.len() as f32, smoothing: 0.0 };
        let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
        if precision == Precision::Bf16 {
            check_bf16(&fixture, case, "bert.", &params, outcome.mean());
            continue;
        }
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

fn head(case: &str) -> HeadKind {
    let sequence = |problem| HeadKind::Sequence { classes: 3, problem };
    match case {
        "smoothed" => sequence(ProblemType::SingleLabelClassification),
        "regression" => sequence(ProblemType::Regression),
        "multi-label" => sequence(ProblemType::MultiLabelClassification),
        "tokens" => HeadKind::Token { classes: 3 },
        "questions" => HeadKind::Questions,
        "contrast" | "scores" => HeadKind::Embedding,
        _ => HeadKind::MaskedLm,
    }
}

/// One batch, with and without checkpointing, and many batches of one.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Checkpointing,
    Accumulating,
}

/// Every task's loss and gradients: of label smoothing, completions alone, labels that do not count, pairs by contrast.
#[test]
fn heads() {
    let fixture = Fixture::open("grad-heads");
    for case in fixture.expected["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let folder = support::root().join(case["folder"].as_str().unwrap());
        let folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
        let causal = name.starts_with("completion");
        let weights = Weights::open(&folder.path, if causal { "transformer" } else { "bert" }).unwrap();
        let examples = support::examples(case);
        let run = |way: Way| {
            let mut source = Source::new(Some(&weights), 0.02, 0);
            let mut cpu = Cpu::new(2);
            let pass = |count| Pass::Train {
                scale: 1.0 / count as f32,
                smoothing: case["smoothing"].as_f64().unwrap() as f32,
            };
            let size = if way == Way::Accumulating { 1 } else { examples.len() };
            let batches = examples.chunks(size);
            let mut outcome = Outcome::default();
            if causal {
                let config = gpt2::Config::from_folder(&folder).unwrap();
                let dropouts = Dropouts { embedding: 0.0, attention: 0.0, residual: 0.0 };
                let mut model = Gpt2::new(&mut source, config, dropouts).unwrap();
                model.stack.checkpointing = way == Way::Checkpointing;
                let pass = pass(Gpt2::targets(&examples).unwrap());
                for batch in batches {
                    outcome.add(model.run(&mut cpu, &mut source.params, batch, pass, &never).unwrap());
                }
            } else {
                let config = family::Config::from_folder(&folder).unwrap();
                let dropouts = BertDropouts { hidden: 0.0, attention: 0.0, classifier: 0.0 };
                let bias = config.decoder_bias(Some(&weights));
                let mut model = Bert::new(&mut source, config, dropouts, head(name), &bias).unwrap();
                model.stack.checkpointing = way == Way::Checkpointing;
                let pass = pass(model.targets(&examples));
                for batch in batches {
                    outcome.add(model.run(&mut cpu, &mut source.params, batch, pass, &never).unwrap());
                }
            }
            assert!(source.new.is_empty(), "{name}: {:?} are new", source.new);
            (outcome.mean(), source.params)
        };
        let (loss, params) = run(Way::Plain);
        let expected = case["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() <= TOLERANCE * expected, "{name}: {loss} {expected}");
        check(&fixture, name, if causal { "transformer." } else { "bert." }, &params);

        let (again, checkpointing) = run(Way::Checkpointing);
        let bits = |params: &Params| -> Vec<u32> {
            params.all.iter().flat_map(|param| param.gradient.iter().map(|x| x.to_bits())).collect()
        };
        assert!(again == loss && bits(&checkpointing) == bits(&params), "{name}: checkpointing");

        // A pair's negatives are the others of its batch.
        if name == "contrast" {
            continue;
        }
        let (sum, accumulated) = run(Way::Accumulating);
        assert!((sum - loss).abs() <= 1e-6 * loss, "{name}: {sum} {loss}");
        for param in accumulated.all.iter().filter(|param| param.trainable) {
            let error = deviation(&param.name, &param.gradient, |name| &params.find(name).unwrap().gradient);
            assert!(error <= 1e-6, "{name}, {}: {error:e}", param.name);
        }
    }
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
    let rank = facts["rank"].as_u64().unwrap() as usize;
    let lora = LoraShape { rank, scale: facts["alpha"].as_f64().unwrap() as f32 / rank as f32 };
    attach(&mut model.stack, Vec::new(), &mut params, 0.0, 1, |_| Some(lora));
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
    merge(&mut cpu, &mut model.stack, Vec::new(), &mut params);
    for (name, expected) in tensors.iter().filter(|(name, _)| name.starts_with("merged.")) {
        let param = params.find(name.strip_prefix("merged.transformer.").unwrap()).unwrap();
        let error = relative(&param.value, expected);
        assert!(error <= 1e-6, "{name}: {error:e}");
    }
}
