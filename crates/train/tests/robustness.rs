//! What is damaged, missing, late or twice: a typed error at once, or the run goes on as if nothing had happened.

mod support;

use std::path::Path;

use candlewick_train::TrainError;
use candlewick_train::trainer::{Event, TrainObserver, finetune};
use serde_json::{Value, json};
use support::runs::{Watch, bits, folder, last_checkpoint, options, run};

fn start(watch: &Watch) -> (u64, usize) {
    match watch.events.borrow().first() {
        Some(Event::Start { step, skipped, .. }) => (*step, skipped.len()),
        other => panic!("the first event is the start, not {other:?}"),
    }
}

fn with(mut options: Value, more: Value) -> Value {
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_run_that_was_ended_in_an_evaluation_has_it_when_it_goes_on() {
    let folder = folder("bert");
    let evaluates = json!({
        "validation": [folder.path().join("labelled.jsonl")], "evalSteps": 2, "saveSteps": 3, "learningRate": 1e-3,
        "metricForBestModel": "loss", "greaterIsBetter": true, "earlyStoppingPatience": 4, "resume": true,
    });
    let done = |watch: &Watch| match watch.events.borrow().last() {
        Some(Event::Done { step, best_step, best_metric, finish_reason, .. }) => {
            (*step, *best_step, *best_metric, *finish_reason)
        }
        other => panic!("the last event is the end, not {other:?}"),
    };
    let whole = tempfile::tempdir().unwrap();
    let task = "text-classification";
    let (watch, result) = run(&options(folder.path(), whole.path(), task, evaluates.clone()), None);
    result.unwrap();
    let end = done(&watch);
    assert!(end.0 < 20, "it ends early: {end:?}");
    let output = tempfile::tempdir().unwrap();
    let these = options(folder.path(), output.path(), task, evaluates);
    // A step asks some five times, an evaluation some ten: each attempt ends in another place, and few make much way.
    let mut ended = 0;
    for asked in (7..400).step_by(11) {
        let watch = Watch { asked: Some(asked), ..Watch::default() };
        finetune(&these, &watch).unwrap();
        ended += 1;
        if done(&watch).3 != candlewick_train::trainer::Finish::Cancelled {
            break;
        }
    }
    assert!(ended > 3, "{ended}");
    // Killed before it was published, so to speak: it is not trained any further.
    let (watch, result) = run(&these, None);
    result.unwrap();
    assert!(watch.losses().is_empty());
    assert_eq!(done(&watch), end);
    assert!(bits(output.path()) == bits(whole.path()));
    let model = |output: &Path| std::fs::read(output.join("model.safetensors")).unwrap();
    assert!(model(output.path()) == model(whole.path()));
}

#[test]
fn a_best_checkpoint_that_is_damaged_is_made_again() {
    let folder = folder("gpt2");
    let more = json!({
        "validation": [folder.path().join("texts.jsonl")], "evalSteps": 2, "saveSteps": 1, "saveTotalLimit": 20,
        "greaterIsBetter": true, "resume": true,
    });
    let whole = tempfile::tempdir().unwrap();
    run(&options(folder.path(), whole.path(), "text-generation", more.clone()), None).1.unwrap();
    let output = tempfile::tempdir().unwrap();
    let these = options(folder.path(), output.path(), "text-generation", more);
    run(&these, Some(5)).1.unwrap();
    damage(&output.path().join("checkpoint-2/model.safetensors"));
    let (watch, result) = run(&these, None);
    result.unwrap();
    assert_eq!(start(&watch), (1, 4));
    assert!(bits(output.path()) == bits(whole.path()));
}

#[test]
fn garbage_among_the_checkpoints_is_passed_over() {
    let (folder, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let more = json!({ "saveSteps": 2, "saveTotalLimit": 3 });
    run(&options(folder.path(), output.path(), "text-generation", more.clone()), Some(5)).1.unwrap();
    let at = |name: &str| output.path().join(name);
    std::fs::write(at(".checkpoint-7"), "half a file").unwrap();
    std::fs::create_dir(at("checkpoint-")).unwrap();
    std::fs::create_dir(at("checkpoint-99")).unwrap();
    std::fs::write(at("checkpoint-98"), "no folder").unwrap();
    std::fs::create_dir(at("checkpoint-97")).unwrap();
    std::fs::write(at("checkpoint-97/training_state.json"), "{}").unwrap();
    // One that is whole, under the name of another.
    std::fs::rename(at("checkpoint-5"), at("checkpoint-6")).unwrap();
    std::fs::write(at("checkpoint-4/note.txt"), "mine").unwrap();
    let (watch, result) = run(
        &options(folder.path(), output.path(), "text-generation", with(more, json!({ "resume": true }))),
        None,
    );
    result.unwrap();
    // Those without a state were never whole, and are not even tried before one that is.
    assert_eq!(start(&watch), (4, 2));
}

#[test]
fn a_log_that_is_cut_loses_one_line() {
    let (folder, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let more = json!({ "maxSteps": 6, "resume": true });
    let these = options(folder.path(), output.path(), "text-generation", more);
    run(&these, Some(3)).1.unwrap();
    let path = output.path().join("training-log.jsonl");
    let mut log = std::fs::read(&path).unwrap();
    // In the middle of a character.
    log.extend("{\"type\":\"evaluation\",\"step\":3,\"metrics\":{\"好".bytes());
    log.pop();
    std::fs::write(&path, log).unwrap();
    run(&these, None).1.unwrap();
    let log = std::fs::read_to_string(&path).unwrap();
    let rows = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<u64> =
        rows.filter(|row| row["type"] == "step").map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_metric_that_there_is_not_is_known_before_the_first_step() {
    for (kind, task, good, bad) in [
        ("gpt2", "text-generation", "bitsPerByte", "accuracy"),
        ("bert", "text-classification", "weighted.f1", "accuracyInterval"),
        ("bert", "fill-mask", "tokenAccuracy", "macro.f1"),
    ] {
        let (folder, output) = (folder(kind), tempfile::tempdir().unwrap());
        let data =
            folder.path().join(if task == "text-classification" { "labelled.jsonl" } else { "texts.jsonl" });
        let these = |metric: &str| {
            let more = json!({ "validation": [data], "metricForBestModel": metric, "maxSteps": 1 });
            run(&options(folder.path(), output.path(), task, more), None)
        };
        these(good).1.unwrap();
        let (watch, result) = these(bad);
        assert_eq!((result.unwrap_err().code(), watch.events.borrow().len()), ("OPTION_INVALID", 0));
    }
    let folder = folder("gpt2");
    let unmeasured = json!({ "metricForBestModel": "perplexity" });
    let (_, result) =
        run(&options(folder.path(), &folder.path().join("o"), "text-generation", unmeasured), None);
    assert_eq!(result.unwrap_err().code(), "OPTION_INVALID");
}

/// Begins another run at the first event.
struct Second<'a>(&'a dyn Fn() -> Result<(), TrainError>, std::cell::RefCell<Vec<&'static str>>);

impl TrainObserver for Second<'_> {
    fn event(&self, event: Event) {
        if let Event::Start { .. } = event {
            self.1.borrow_mut().extend((self.0)().err().map(|error| error.code()));
        }
    }
}

#[test]
fn two_runs_do_not_write_into_one_folder() {
    let (folder, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let these = options(folder.path(), output.path(), "text-generation", json!({ "maxSteps": 2 }));
    let again = || run(&these, None).1;
    let first = Second(&again, Default::default());
    finetune(&these, &first).unwrap();
    if cfg!(unix) {
        assert_eq!(first.1.into_inner(), ["OUTPUT_BUSY"]);
    }
    again().unwrap();
}

#[test]
fn weights_that_are_no_numbers_take_no_checkpoints_place() {
    let folder = folder("gpt2");
    let code = |more: Value| {
        let output = tempfile::tempdir().unwrap();
        let base = json!({ "learningRate": 1e38, "warmupSteps": 0, "maxGradNorm": 0.0, "saveSteps": 1 });
        let these = options(folder.path(), output.path(), "text-generation", with(base, more));
        let code = run(&these, None).1.unwrap_err().code();
        assert!(!output.path().join("model.safetensors").exists());
        (
            code,
            std::fs::read_dir(output.path()).unwrap().flatten().filter(|entry| entry.path().is_dir()).count(),
        )
    };
    assert_eq!(code(json!({ "weightDecay": 100.0, "maxSteps": 1 })), ("LOSS_NOT_FINITE", 0));
    // Of the validation set, before the checkpoint that would be the best.
    let validation = json!({ "validation": [folder.path().join("texts.jsonl")], "evalSteps": 1 });
    assert_eq!(code(validation), ("LOSS_NOT_FINITE", 0));
}

#[test]
fn pairs_that_teach_nothing_are_refused() {
    let folder = folder("bert");
    let write = |name: &str, rows: &[Value]| {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        std::fs::write(folder.path().join(name), lines.join("\n")).unwrap();
        folder.path().join(name)
    };
    let pair = |score: Value| json!({ "text": "the cat", "textPair": "a dog", "score": score });
    let plain = |i: usize| json!({ "text": format!("the cat {i}"), "textPair": "a dog sees" });
    let good = write("pairs.jsonl", &(0..8).map(plain).collect::<Vec<_>>());
    let run = |more: Value| {
        let output = tempfile::tempdir().unwrap();
        run(&options(folder.path(), output.path(), "feature-extraction", more), None).1
    };
    let code = |more: Value| run(more).unwrap_err().code();
    run(json!({ "train": [good] })).unwrap();
    assert_eq!(code(json!({ "train": [good], "batchSize": 1 })), "OPTION_INVALID");
    assert_eq!(code(json!({ "train": [write("one.jsonl", &[plain(1)])] })), "OPTION_INVALID");
    let scored = write("scored.jsonl", &[pair(json!(0.5)), pair(json!("-1")), pair(json!(1))]);
    run(json!({ "train": [scored], "batchSize": 1, "validation": [scored], "metricForBestModel": "spearman" })).unwrap();
    for score in [json!(5), json!(null), json!("much")] {
        assert_eq!(
            code(json!({ "train": [write("bad.jsonl", &[pair(json!(1)), pair(score)])] })),
            "DATA_INVALID"
        );
    }
    let modules = json!([
        { "type": "sentence_transformers.models.Transformer", "path": "" },
        { "type": "sentence_transformers.models.Pooling", "path": "1_Pooling" },
    ]);
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    write(
        "1_Pooling/config.json",
        &[json!({ "word_embedding_dimension": 24, "pooling_mode_cls_token": true })],
    );
    write("modules.json", &[modules]);
    assert_eq!(code(json!({ "train": [good] })), "OPTION_INVALID");
}

#[test]
fn a_checkpoint_is_the_last_that_was_written() {
    let (folder, output) = (folder("gpt2"), tempfile::tempdir().unwrap());
    let these = |more: Value| options(folder.path(), output.path(), "text-generation", more);
    run(&these(json!({})), None).1.unwrap();
    let last = last_checkpoint(output.path());
    run(&these(json!({})), Some(3)).1.unwrap();
    assert!(last.exists(), "of the earlier run");
    let (watch, result) = run(&these(json!({ "resume": true })), None);
    result.unwrap();
    assert_eq!(start(&watch), (3, 0));
}
