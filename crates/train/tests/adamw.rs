//! Ten steps of AdamW with clipping, decay groups and a schedule, as PyTorch takes them.

mod support;

use candlewick_models::{ModelFolder, Weights, family, gpt2};
use candlewick_train::data::{Example, ProblemType, Target};
use candlewick_train::model::{
    Bert, BertDropouts, Cpu, Dropouts, Gpt2, HeadKind, Outcome, Params, Pass, Source,
};
use candlewick_train::trainer::{FinetuneOptions, Optimizer};
use serde_json::{Value, json};
use support::{relative, root, tensors};

/// Takes the steps of a fixture's `adamw.json`: `run` is forward and backward over the examples of step i, and the
/// number of their targets. `keys`: a part of a name, and which of its values are a key's bias, whose gradient is
/// rounding noise that Adam turns into whole steps.
fn steps(
    fixture: &str,
    params: &mut Params,
    keys: (&str, std::ops::Range<usize>),
    mut run: impl FnMut(&mut Cpu, &mut Params, usize, &Value) -> Outcome,
) {
    let folder = root().join(fixture);
    let text = std::fs::read_to_string(folder.join("adamw.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let given = &expected["options"];
    let options: FinetuneOptions = serde_json::from_value(json!({
        "model": "", "task": "text-generation", "train": [], "output": "",
        "learningRate": given["learningRate"], "adamBeta1": given["beta1"], "adamBeta2": given["beta2"],
        "adamEpsilon": given["epsilon"], "weightDecay": given["weightDecay"],
        "maxGradNorm": given["maxGradNorm"], "warmupSteps": given["warmupSteps"],
    }))
    .unwrap();
    let steps = expected["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 10);
    let mut optimizer = Optimizer::new(&options, steps.len() as u64);
    let mut cpu = Cpu::new(2);
    for (i, step) in steps.iter().enumerate() {
        let outcome = run(&mut cpu, params, i, &expected);
        let norm = optimizer.gradient_norm(&cpu, params);
        optimizer.step(&mut cpu, params, i as u64, norm);
        let close = |what: &str, found: f64| {
            let expected = step[what].as_f64().unwrap();
            assert!(
                (found - expected).abs() <= 1e-5 * expected,
                "{fixture}, step {i}: {what} {found}, expected {expected}"
            );
        };
        close("loss", outcome.mean());
        close("gradNorm", norm);
        close("learningRate", optimizer.learning_rate(i as u64));
    }
    let plain =
        |name: &str| name.strip_prefix("transformer.").or(name.strip_prefix("bert.")).map(str::to_owned);
    for (name, mut expected) in tensors(folder.join("adamw.safetensors")) {
        let param = params.find(&plain(&name).unwrap_or(name.clone())).unwrap();
        let mut found = param.value.to_vec();
        if name.ends_with(keys.0) {
            found.drain(keys.1.clone());
            expected.drain(keys.1.clone());
        }
        let error = if expected.is_empty() { 0.0 } else { relative(&found, &expected) };
        assert!(error <= 2e-5, "{fixture}, {name}: {error:e}");
    }
}

#[test]
fn gpt2_ten_steps() {
    let folder = root().join("grad-gpt2");
    let model_folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
    let config = gpt2::Config::from_folder(&model_folder).unwrap();
    let weights = Weights::open(&folder, "transformer").unwrap();
    let mut source = Source::new(Some(&weights), 0.02, 0);
    let dropouts = Dropouts { embedding: 0.0, attention: 0.0, residual: 0.0 };
    let mut model = Gpt2::new(&mut source, config.clone(), dropouts).unwrap();
    let d = config.n_embd;
    steps("grad-gpt2", &mut source.params, ("c_attn.bias", d..2 * d), |cpu, params, i, fixture| {
        let rows: Vec<Vec<u32>> = serde_json::from_value(fixture["batches"][i].clone()).unwrap();
        let example = |ids: Vec<u32>| Example {
            target: Target::Tokens(ids.iter().map(|id| *id as i32).collect()),
            input_ids: ids,
            token_type_ids: vec![],
            pair: None,
        };
        let examples: Vec<Example> = rows.into_iter().map(example).collect();
        let scale = 1.0 / Gpt2::targets(&examples).unwrap() as f32;
        model.run(cpu, params, &examples, Pass::Train { scale, smoothing: 0.0 }, &|| false).unwrap()
    });
}

#[test]
fn bert_classifier_ten_steps() {
    let folder = root().join("grad-bert-classify");
    let model_folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
    let config = family::Config::from_folder(&model_folder).unwrap();
    let weights = Weights::open(&folder, "bert").unwrap();
    let mut source = Source::new(Some(&weights), 0.02, 0);
    let dropouts = BertDropouts { hidden: 0.0, attention: 0.0, classifier: 0.0 };
    let kind = HeadKind::Sequence { classes: 3, problem: ProblemType::SingleLabelClassification };
    let mut model = Bert::new(&mut source, config.clone(), dropouts, kind, "").unwrap();
    let keys = ("key.bias", 0..config.hidden_size);
    steps("grad-bert-classify", &mut source.params, keys, |cpu, params, i, fixture| {
        let rows: Vec<Vec<u32>> = serde_json::from_value(fixture["batches"][i].clone()).unwrap();
        let labels: Vec<u32> = serde_json::from_value(fixture["labels"][i].clone()).unwrap();
        let example = |(ids, label): (Vec<u32>, u32)| Example {
            input_ids: ids,
            token_type_ids: vec![],
            target: Target::Class(label),
            pair: None,
        };
        let examples: Vec<Example> = rows.into_iter().zip(labels).map(example).collect();
        let scale = 1.0 / examples.len() as f32;
        model.run(cpu, params, &examples, Pass::Train { scale, smoothing: 0.0 }, &|| false).unwrap()
    });
}

/// Pairs by contrast.
#[test]
fn bert_contrast_ten_steps() {
    let folder = root().join("grad-heads");
    let model_folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
    let config = family::Config::from_folder(&model_folder).unwrap();
    let weights = Weights::open(&folder, "bert").unwrap();
    let mut source = Source::new(Some(&weights), 0.02, 0);
    let dropouts = BertDropouts { hidden: 0.0, attention: 0.0, classifier: 0.0 };
    let keys = ("key.bias", 0..config.hidden_size);
    let mut model = Bert::new(&mut source, config, dropouts, HeadKind::Embedding, "").unwrap();
    steps("grad-heads", &mut source.params, keys, |cpu, params, i, fixture| {
        let examples = support::examples(&json!({
            "name": "contrast", "input_ids": fixture["input_ids"][i], "token_type_ids": fixture["token_type_ids"][i],
        }));
        let scale = 1.0 / examples.len() as f32;
        model.run(cpu, params, &examples, Pass::Train { scale, smoothing: 0.0 }, &|| false).unwrap()
    });
}
