//! The loop as a whole: PyTorch's losses, resuming, accumulation, adapters, what a bad run leaves behind.

mod support;

use std::path::Path;

use candlewick_models::Tokenizer;
use candlewick_train::TrainError;
use candlewick_train::trainer::Event;
use serde_json::{Value, json};
use support::runs::{bits, folder, last_checkpoint, options, run};

#[test]
fn a_run_that_was_ended_anywhere_goes_on_with_the_same_bits() {
    let cases = [
        ("gpt2", "text-generation", json!({})),
        ("gpt2", "text-generation", json!({ "gradientAccumulationSteps": 2, "gradientCheckpointing": true })),
        ("gpt2", "text-generation", json!({ "lora": { "rank": 3, "dropout": 0.1 } })),
        ("bert", "text-classification", json!({ "lora": { "rank": 2 } })),
        ("bert", "text-classification", json!({ "freezeLayers": 1, "dropout": 0.2 })),
        ("bert", "fill-mask", json!({})),
        ("gpt2", "text-generation", json!({ "precision": "bf16", "gradientAccumulationSteps": 2 })),
        ("bert", "text-classification", json!({ "precision": "bf16", "lora": { "rank": 2 } })),
        ("gpt2", "text-classification", json!({ "precision": "bf16" })),
        ("mpnet", "text-classification", json!({ "dropout": 0.2, "gradientCheckpointing": true })),
        ("distilbert", "text-classification", json!({ "lora": { "rank": 2 } })),
        ("electra", "fill-mask", json!({})),
    ];
    for (kind, task, mut more) in cases {
        let folder = folder(kind);
        let what = format!("{task} {more}");
        let whole = tempfile::tempdir().unwrap();
        let (watch, result) = run(&options(folder.path(), whole.path(), task, more.clone()), None);
        result.unwrap();
        let losses = watch.losses();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (early, late) = losses.split_at(losses.len() / 2);
        assert!(mean(late) < mean(early), "{what}: it learns: {losses:?}");
        let ended = tempfile::tempdir().unwrap();
        more["resume"] = json!(true);
        // Another number of threads changes no bit either.
        more["threads"] = json!(1);
        for at in [1, losses.len() as u64 / 2, losses.len() as u64 - 1] {
            run(&options(folder.path(), ended.path(), task, more.clone()), Some(at)).1.unwrap();
        }
        let (watch, result) = run(&options(folder.path(), ended.path(), task, more.clone()), None);
        result.unwrap();
        assert!(watch.losses().len() == 1, "{what}: the last run has one step left");
        assert!(bits(whole.path()) == bits(ended.path()), "{what}: the same bits");
        let model = |output: &std::path::Path| std::fs::read(output.join("model.safetensors")).unwrap();
        assert!(model(whole.path()) == model(ended.path()), "{what}: the same model");
    }
}

/// The same of a run that goes on from an adapter, with dropout; and where it goes on, the loss does.
#[test]
fn a_run_from_an_adapter_that_was_ended_goes_on_with_the_same_bits() {
    for (kind, task) in [("gpt2", "text-generation"), ("bert", "text-classification")] {
        let folder = folder(kind);
        let outputs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        let [base, first, whole, ended] = [0, 1, 2, 3].map(|i| outputs[i].path());
        let go = |output: &Path, more: Value, steps: Option<u64>| {
            let (watch, result) = run(&options(folder.path(), output, task, more), steps);
            result.unwrap();
            watch.losses()
        };
        go(base, json!({}), None);
        let lora = json!({ "rank": 3, "dropout": 0.1 });
        let before = go(
            first,
            json!({ "model": base, "fromScratch": false, "lora": lora, "learningRate": 5e-2 }),
            None,
        );
        let mut more = json!({ "model": first.join("adapter"), "fromScratch": false, "learningRate": 1e-3 });
        let losses = go(whole, more.clone(), None);
        // The same rows in the same order: it begins with what was learned.
        let sum = |losses: &[f64]| losses.iter().sum::<f64>();
        assert!(sum(&losses) < sum(&before), "{before:?} {losses:?}");
        more["resume"] = json!(true);
        more["threads"] = json!(1);
        for at in [1, losses.len() as u64 / 2, losses.len() as u64 - 1] {
            go(ended, more.clone(), Some(at));
        }
        assert_eq!(go(ended, more.clone(), None).len(), 1, "the last run has one step left");
        assert!(bits(whole) == bits(ended), "{task}: the same bits");
        let model = |output: &Path| std::fs::read(output.join("model.safetensors")).unwrap();
        assert!(model(whole) == model(ended), "{task}: the same model");
        // With another adapter's shape it is another run's checkpoint.
        more["lora"] = json!({ "dropout": 0.2 });
        let other = run(&options(folder.path(), ended, task, more), None).1.unwrap_err();
        assert_eq!(other.code(), "CHECKPOINT_MISMATCH");
    }
}

/// What `auto` came to, the start says; a run goes on in the precision that it began in, or says why it does not.
#[test]
fn a_run_keeps_its_precision() {
    let folder = folder("gpt2");
    let began =
        |output: &Path, precision: Option<&str>, resume: bool| -> Result<&'static str, &'static str> {
            let mut more = json!({ "maxSteps": 4, "saveSteps": 1, "resume": resume });
            if let Some(precision) = precision {
                more["precision"] = json!(precision);
            }
            let (watch, result) = run(&options(folder.path(), output, "text-generation", more), Some(2));
            result.map_err(|error| error.code())?;
            match watch.events.borrow()[0] {
                Event::Start { precision, .. } => Ok(precision),
                _ => panic!("the first event is the start"),
            }
        };
    let [exact, rounded, own] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    assert_eq!(began(exact.path(), None, false), Ok("f32"));
    assert_eq!(began(rounded.path(), Some("bf16"), false), Ok("bf16"));
    assert!(bits(exact.path()) != bits(rounded.path()), "bf16 is another computation");
    assert_eq!(began(exact.path(), Some("auto"), true), Ok("f32"));
    assert_eq!(began(rounded.path(), Some("auto"), true), Ok("bf16"));
    assert_eq!(began(rounded.path(), Some("f32"), true), Err("CHECKPOINT_MISMATCH"));
    let has_bf16 = candlewick_kernels::isa() == candlewick_kernels::Isa::Avx512Bf16;
    assert_eq!(began(own.path(), Some("auto"), false), Ok(if has_bf16 { "bf16" } else { "f32" }));
    // A checkpoint from before there was a choice is one in f32.
    let state = last_checkpoint(exact.path()).join("training_state.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
    record["run"].as_object_mut().unwrap().remove("precision").unwrap();
    std::fs::write(&state, record.to_string()).unwrap();
    assert_eq!(began(exact.path(), Some("auto"), true), Ok("f32"));
}

#[test]
fn one_batch_of_many_is_many_batches_of_one() {
    let folder = folder("gpt2");
    // One step an epoch in both: all rows, in another order.
    let steps = [(1000, 1), (1, 1000)].map(|(batch, accumulation)| {
        let output = tempfile::tempdir().unwrap();
        let more = json!({ "batchSize": batch, "gradientAccumulationSteps": accumulation, "dropout": 0.0,
                           "maxSteps": 2, "learningRate": 1e-3, "warmupSteps": 0 });
        let (watch, result) = run(&options(folder.path(), output.path(), "text-generation", more), None);
        result.unwrap();
        let numbers = |event: &Event| match event {
            Event::Step { loss, gradient_norm, .. } => Some([*loss, *gradient_norm]),
            _ => None,
        };
        let numbers: Vec<f64> = watch.events.borrow().iter().filter_map(numbers).flatten().collect();
        numbers
    });
    assert_eq!(steps[0].len(), 4);
    for (a, b) in steps[0].iter().zip(&steps[1]) {
        assert!((a - b).abs() <= 1e-6 * a, "{steps:?}");
    }
}

#[test]
fn a_damaged_checkpoint_is_skipped_and_named() {
    let (folder, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let more = json!({ "saveSteps": 2, "saveTotalLimit": 3 });
    run(&options(folder.path(), output.path(), "text-generation", more.clone()), Some(5)).1.unwrap();
    let last = last_checkpoint(output.path());
    let file = last.join("optimizer.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut more = more;
    more["resume"] = json!(true);
    let (watch, result) = run(&options(folder.path(), output.path(), "text-generation", more.clone()), None);
    result.unwrap();
    let Event::Start { skipped, resumed_from, step, .. } = watch.events.borrow()[0].clone() else {
        panic!("the first event is the start")
    };
    assert!(skipped.len() == 1 && skipped[0].path == last);
    assert!(step == 4 && resumed_from.unwrap().ends_with("checkpoint-4"));

    let other =
        options(folder.path(), output.path(), "text-generation", json!({ "resume": true, "seed": 7 }));
    assert_eq!(run(&other, None).1.unwrap_err().code(), "CHECKPOINT_MISMATCH");
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
    let (folder, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let more = json!({ "saveSteps": 2, "maxSteps": 6 });
    // Somebody's file where the second checkpoint belongs.
    std::fs::write(output.path().join("checkpoint-4"), "mine").unwrap();
    let first = options(folder.path(), output.path(), "text-generation", more.clone());
    assert_eq!(run(&first, None).1.unwrap_err().code(), "IO");
    std::fs::remove_file(output.path().join("checkpoint-4")).unwrap();
    let mut more = more;
    more["resume"] = json!(true);
    let (watch, result) = run(&options(folder.path(), output.path(), "text-generation", more), None);
    result.unwrap();
    assert!(matches!(watch.events.borrow()[0], Event::Start { step: 2, .. }));
}

/// Each task's own measures, from the model in training; they choose the best.
#[test]
fn evaluations_have_the_metrics_of_the_task() {
    let cases = [
        ("gpt2", "text-generation", "bitsPerByte"),
        ("bert", "text-classification", "macro.f1"),
        ("bert", "fill-mask", "tokenAccuracy"),
    ];
    for (kind, task, metric) in cases {
        let (folder, output) = (folder(kind), tempfile::tempdir().unwrap());
        let data = if kind == "bert" && task != "fill-mask" { "labelled.jsonl" } else { "texts.jsonl" };
        let more = json!({ "validation": [folder.path().join(data)], "metricForBestModel": metric });
        let (watch, result) = run(&options(folder.path(), output.path(), task, more), None);
        result.unwrap();
        let best = |event: &Event| match event {
            Event::Done { best_metric, .. } => *best_metric,
            _ => None,
        };
        let best = watch.events.borrow().iter().find_map(best).unwrap_or_else(|| panic!("{task}: a best"));
        let found = |event: &Event| match event {
            Event::Evaluation { metrics, best: true, .. } => {
                Value::Object(metrics.clone()).pointer(&format!("/{}", metric.replace('.', "/"))).cloned()
            }
            _ => None,
        };
        let values: Vec<Value> = watch.events.borrow().iter().filter_map(found).collect();
        assert_eq!(values.last().and_then(Value::as_f64), Some(best), "{task}");
    }
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint() {
    let (folder, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let more = json!({ "saveSteps": 1, "learningRate": 1e30, "warmupSteps": 0, "maxGradNorm": 0.0 });
    let (watch, result) = run(&options(folder.path(), output.path(), "text-generation", more), None);
    let Err(TrainError::LossNotFinite { step, .. }) = result else { panic!("{result:?}") };
    assert_eq!(step, watch.losses().len() as u64 + 1);
    assert!(last_checkpoint(output.path()).join("training_state.json").is_file());
}

#[test]
fn what_is_wrong_is_known_before_the_first_step() {
    let (gpt2, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let code = |task: &str, more: Value| {
        let (watch, result) = run(&options(gpt2.path(), output.path(), task, more), None);
        assert!(watch.losses().is_empty());
        result.unwrap_err().code()
    };
    assert_eq!(code("token-classification", json!({})), "OPTION_INVALID");
    assert_eq!(code("text-generation", json!({ "lora": { "targetModules": ["query"] } })), "OPTION_INVALID");
    assert_eq!(code("text-generation", json!({ "learningRate": -1.0 })), "OPTION_INVALID");
    assert_eq!(code("text-generation", json!({ "evalSteps": 3 })), "OPTION_INVALID");
    assert_eq!(code("text-generation", json!({ "output": gpt2.path().join("config.json") })), "IO");
    assert_eq!(
        code("text-generation", json!({ "train": [gpt2.path().join("none.jsonl")] })),
        "DATA_NOT_FOUND"
    );
    assert_eq!(code("text-generation", json!({ "fromScratch": false })), "MODEL_NOT_FOUND");
}

/// A tokenizer of which no file says what it is, beside a configuration that would stand for another.
#[test]
fn what_is_saved_has_the_tokenizer_that_it_was_trained_with() {
    let folder = folder("bert");
    let path = |name: &str| folder.path().join(name);
    let config: Value = serde_json::from_slice(&std::fs::read(path("config.json")).unwrap()).unwrap();
    for name in ["config.json", "tokenizer_config.json"] {
        std::fs::remove_file(path(name)).unwrap();
    }
    std::fs::write(path("added_tokens.json"), r#"{"the": 33}"#).unwrap();
    std::fs::write(path("special_tokens_map.json"), r#"{"pad_token": "[PAD]"}"#).unwrap();
    let ids = |folder: &Path| {
        let tokenizer = Tokenizer::open(folder).unwrap().unwrap();
        tokenizer.encode("the cat sees.", true).unwrap()
    };
    let trained_with = ids(folder.path());
    assert!(trained_with.contains(&33), "{trained_with:?}");
    let output = tempfile::tempdir().unwrap();
    let mut config = config;
    config["vocab_size"] = json!(34);
    let more = json!({ "config": config, "epochs": 1.0 });
    run(&options(folder.path(), output.path(), "text-classification", more), None).1.unwrap();
    assert!(output.path().join("config.json").is_file());
    assert_eq!(ids(output.path()), trained_with);
}
