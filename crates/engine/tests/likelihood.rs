//! How likely a model finds sequences: what transformers says, alone or in company, to the end or until it is stopped.

mod support;

use std::path::Path;
use std::time::Duration;

use candlewick_engine::*;
use serde_json::Value;
use support::*;

fn score(model: &Generator, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<TokenScore>>> {
    wait(|done| model.score(sequences, CancelToken::new(), done))
}

fn sequence(length: usize, seed: u32) -> Vec<u32> {
    (0..length as u32).map(|i| (i * 31 + seed * 17) % 256).collect()
}

#[test]
fn the_mean_is_the_loss_that_transformers_has() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/grad-gpt2");
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    let mut request = LoadRequest::new(folder.to_string_lossy());
    request.options = LoadOptions { device: Device::Cpu, threads: 2, ..LoadOptions::default() };
    let model = wait(|done| Generator::load(request, done)).unwrap();
    let ids: Vec<Vec<u32>> = serde_json::from_value(expected["input_ids"].clone()).unwrap();
    let scores = score(&model, ids.clone()).unwrap();
    for case in expected["cases"].as_array().unwrap() {
        let labels: Vec<Vec<i64>> = serde_json::from_value(case["labels"].clone()).unwrap();
        let counted = scores.iter().zip(&labels).flat_map(|(scores, labels)| {
            scores
                .iter()
                .zip(&labels[1..])
                .filter(|(_, label)| **label != -100)
                .map(|(score, _)| score.logprob)
        });
        let counted: Vec<f32> = counted.collect();
        let loss = -counted.iter().map(|x| f64::from(*x)).sum::<f64>() / counted.len() as f64;
        let wanted = case["loss"].as_f64().unwrap();
        assert!((loss - wanted).abs() < 2e-5 * wanted, "{loss}, expected {wanted}");
    }
    // The likeliest next token, by greedy decoding.
    let greedy = run(&model, request_of(&ids[0][..4])).unwrap().sequences[0].tokens[0].id;
    let continued = [&ids[0][..4], &[greedy]].concat();
    assert!(score(&model, vec![continued]).unwrap()[0][3].best);
}

fn request_of(ids: &[u32]) -> GenerateRequest {
    request(vec![Prompt::Ids(ids.to_vec())], |o| {
        o.temperature = 0.0;
        o.max_new_tokens = Some(1);
    })
}

#[test]
fn long_and_short_sequences_score_as_they_do_alone() {
    let lengths = [1usize, 2, 900, 255, 256, 257, 258, 3, 0, 513];
    let sequences: Vec<_> = lengths.iter().enumerate().map(|(i, n)| sequence(*n, i as u32)).collect();
    let watch_toy = Toy::hashed();
    let watch = watch_toy.watch();
    let model = watch_toy.start();
    let together = score(&model, sequences.clone()).unwrap();
    let most =
        watch.steps.lock().unwrap().iter().map(|step| step.iter().map(|(_, n)| n).sum::<usize>()).max();
    assert_eq!(most, Some(256));
    for (sequence, together) in sequences.iter().zip(&together) {
        assert_eq!(together.len(), sequence.len().saturating_sub(1));
        assert_eq!(score(&model, vec![sequence.clone()]).unwrap()[0], *together);
        for (at, score) in together.iter().enumerate() {
            let mut logits = vec![0.0; VOCAB];
            hashed(&sequence[..=at], &mut logits);
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let exact = f64::from(logits[sequence[at + 1] as usize]) - sum.ln();
            assert!((f64::from(score.logprob) - exact).abs() < 1e-5);
        }
    }
    assert!(score(&model, Vec::new()).unwrap().is_empty());
}

#[test]
fn streams_go_on_beside_it_and_neither_changes_the_other() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_micros(50);
    let model = toy.start();
    let alone = ids(&run_one(&model, "prompt", |o| o.max_new_tokens = Some(100)).unwrap());
    let sequences: Vec<_> = (0..40).map(|i| sequence(200, i)).collect();
    let scores = score(&model, sequences.clone()).unwrap();
    let scoring = call(|done| model.score(sequences, CancelToken::new(), done));
    let beside = ids(&run_one(&model, "prompt", |o| o.max_new_tokens = Some(100)).unwrap());
    assert_eq!(beside, alone);
    assert_eq!(scoring.get().unwrap(), scores);
}

#[test]
fn it_ends_when_it_is_cancelled_or_the_model_closed() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let cancel = CancelToken::new();
    let sequences = || (0..50).map(|i| sequence(250, i)).collect::<Vec<_>>();
    let cancelled = call(|done| model.score(sequences(), cancel.clone(), done));
    let waiting = call(|done| model.score(vec![sequence(9, 1)], CancelToken::new(), done));
    watch.allow(1);
    cancel.cancel();
    watch.release();
    assert_eq!(code(cancelled.get()), "ABORTED");
    assert_eq!(waiting.get().unwrap()[0].len(), 8);
    watch.hold();
    let closed = call(|done| model.score(sequences(), CancelToken::new(), done));
    let end = call(|done| model.close(done));
    watch.release();
    assert_eq!(code(closed.get()), "MODEL_CLOSED");
    end.get().unwrap();
    assert_eq!(code(score(&model, vec![sequence(3, 1)])), "MODEL_CLOSED");
}

#[test]
fn what_the_model_cannot_read_is_refused() {
    let model = Toy::hashed().start();
    let positions = model.info().n_positions;
    assert_eq!(score(&model, vec![sequence(positions + 1, 0)]).unwrap()[0].len(), positions);
    assert_eq!(code(score(&model, vec![sequence(positions + 2, 0)])), "CONTEXT_OVERFLOW");
    assert_eq!(code(score(&model, vec![vec![1, VOCAB as u32]])), "INPUT_INVALID");
}
