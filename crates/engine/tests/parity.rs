//! The whole engine on real (small, random) GPT-2 models against what transformers generates from them.

mod support;

use std::path::{Path, PathBuf};

use candlewick_engine::*;
use serde_json::Value;
use support::*;

fn fixtures() -> Vec<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures");
    let mut folders: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    folders.retain(|path| name(path).starts_with("gpt2-"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("expected.json")).unwrap();
        (path, serde_json::from_str(&text).unwrap())
    };
    folders.into_iter().map(read).collect()
}

fn load(folder: &Path) -> Generator {
    let mut request = LoadRequest::new(folder.to_string_lossy());
    request.options = LoadOptions { device: Device::Cpu, threads: 2, ..LoadOptions::default() };
    wait(|done| Generator::load(request, done)).unwrap()
}

fn list(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn case(case: &Value) -> GenerateRequest {
    let mut options = GenerateOptions { logprobs: Some(0), ..Default::default() };
    for (name, value) in case["options"].as_object().unwrap() {
        let number = || value.as_f64().unwrap() as f32;
        let count = || value.as_u64().unwrap() as usize;
        match name.as_str() {
            "maxNewTokens" => options.max_new_tokens = Some(count()),
            "temperature" => options.temperature = number(),
            "repetitionPenalty" => options.repetition_penalty = number(),
            "noRepeatNgramSize" => options.no_repeat_ngram_size = count(),
            "numBeams" => options.num_beams = count(),
            "numReturnSequences" => options.num_return_sequences = count(),
            "lengthPenalty" => options.length_penalty = number(),
            "eosTokenId" => options.stop_token_ids = list(value),
            "earlyStopping" => {
                options.early_stopping = match value {
                    Value::Bool(true) => EarlyStopping::True,
                    Value::Bool(false) => EarlyStopping::False,
                    _ => EarlyStopping::Never,
                }
            }
            other => panic!("unknown option {other}"),
        }
    }
    GenerateRequest { prompts: vec![Prompt::Ids(list(&case["prompt"]))], options }
}

fn close_to(ours: f32, theirs: &Value, what: &str) {
    let theirs = theirs.as_f64().unwrap() as f32;
    assert!((ours - theirs).abs() <= 1e-4 + 1e-4 * theirs.abs(), "{what}: {ours}, expected {theirs}");
}

#[test]
fn greedy_and_beam_search_are_those_of_transformers() {
    let mut count = 0;
    for (folder, expected) in fixtures() {
        let (Some(greedy), Some(beams)) = (expected["greedy"].as_array(), expected["beams"].as_array())
        else {
            continue;
        };
        let model = load(&folder);
        for one in greedy {
            let what = format!("{} {}", folder.display(), one["name"]);
            let sequence = run(&model, case(one)).unwrap().sequences.remove(0);
            assert_eq!(ids(&sequence), list(&one["tokens"]), "{what}");
            for (token, logprob) in sequence.tokens.iter().zip(one["logprobs"].as_array().unwrap()) {
                close_to(token.logprob.unwrap(), logprob, &what);
            }
            count += 1;
        }
        for one in beams {
            let what = format!("{} {}", folder.display(), one["name"]);
            let found = run(&model, case(one)).unwrap().sequences;
            let sequences = one["sequences"].as_array().unwrap();
            assert_eq!(found.len(), sequences.len(), "{what}");
            for (found, expected) in found.iter().zip(sequences) {
                assert_eq!(ids(found), list(&expected["tokens"]), "{what}");
                close_to(found.score.unwrap(), &expected["score"], &what);
                assert_eq!(found.finish_reason.as_str(), expected["finish"].as_str().unwrap(), "{what}");
            }
            count += 1;
        }
        wait(|done| model.close(done)).unwrap();
    }
    assert!(count > 60, "{count}");
}

/// Alone, together, after a shared beginning: the same bits of the same real model.
#[test]
fn company_and_caches_change_no_bit() {
    let (folder, _) = fixtures().into_iter().find(|(path, _)| path.ends_with("gpt2-base")).unwrap();
    let requests = || -> Vec<GenerateRequest> {
        let prompt = |i: u32| Prompt::Ids((0..5 + i * 9).map(|k| (k * k + k % 7 * i / 3) % 203).collect());
        (0..12)
            .map(|i| {
                request(vec![prompt(i)], |o| {
                    (o.seed, o.logprobs, o.max_new_tokens) = (Some(i.into()), Some(3), Some(40));
                    match i % 4 {
                        0 => o.temperature = 0.0,
                        1 => (o.n, o.top_p) = (3, 0.9),
                        2 => (o.num_beams, o.num_return_sequences) = (3, 2),
                        _ => (o.top_k, o.repetition_penalty) = (40, 1.2),
                    }
                })
            })
            .collect()
    };
    let alone: Vec<_> = requests()
        .into_iter()
        .map(|request| {
            let model = load(&folder);
            run(&model, request).unwrap().sequences
        })
        .collect();
    let model = load(&folder);
    for round in ["cold", "warm"] {
        let together: Vec<_> = std::thread::scope(|scope| {
            let model = &model;
            let start = |request| scope.spawn(move || run(model, request).unwrap().sequences);
            let threads: Vec<_> = requests().into_iter().map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(alone, together, "{round}");
    }
}

#[test]
fn a_load_reports_and_can_be_cancelled() {
    let (folder, _) = fixtures().into_iter().find(|(path, _)| path.ends_with("gpt2-base")).unwrap();
    let (send, reports) = std::sync::mpsc::channel();
    let mut request = LoadRequest::new(folder.to_string_lossy());
    request.progress = Some(Box::new(move |progress: LoadProgress| send.send(progress).unwrap()));
    wait(|done| Generator::load(request, done)).unwrap();
    let reports: Vec<_> = reports.iter().collect();
    assert!(reports.is_sorted_by(|a, b| a.done <= b.done && a.total == b.total));
    assert!(reports.last().is_some_and(|last| last.done == last.total && last.total > 0));
    let request = LoadRequest::new(folder.to_string_lossy());
    request.cancel.cancel();
    assert_eq!(code(wait(|done| Generator::load(request, done)).map(drop)), "ABORTED");
}
