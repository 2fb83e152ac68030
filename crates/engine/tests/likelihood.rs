//! How likely a model finds sequences: what transformers says, alone or in company, to the end or until it is stopped.

mod support;

use std::path::Path;
use std::time::Duration;

use candlewick_engine::*;
use serde_json::Value;
use support::*;

/// Of a data set.
fn score(model: &Generator, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<TokenScore>>> {
    let scores = wait(|done| model.score_data(sequences, CancelToken::new(), done))?;
    Ok(scores.into_iter().map(|scores| scores.tokens).collect())
}

fn score_prompts(
    model: &Generator,
    prompts: &[Prompt],
    change: impl FnOnce(&mut ScoreOptions),
) -> Result<Vec<Scores>> {
    let mut options = ScoreOptions::default();
    change(&mut options);
    wait(|done| model.score(prompts.to_vec(), options, done))
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
    let scoring = call(|done| model.score_data(sequences, CancelToken::new(), done));
    let beside = ids(&run_one(&model, "prompt", |o| o.max_new_tokens = Some(100)).unwrap());
    assert_eq!(beside, alone);
    let beside: Vec<_> = scoring.get().unwrap().into_iter().map(|scores| scores.tokens).collect();
    assert_eq!(beside, scores);
}

#[test]
fn it_ends_when_it_is_cancelled_or_the_model_closed() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let cancel = CancelToken::new();
    let sequences = || (0..50).map(|i| sequence(250, i)).collect::<Vec<_>>();
    let cancelled = call(|done| model.score_data(sequences(), cancel.clone(), done));
    let waiting = call(|done| model.score_data(vec![sequence(9, 1)], CancelToken::new(), done));
    watch.allow(1);
    cancel.cancel();
    watch.release();
    assert_eq!(code(cancelled.get()), "ABORTED");
    assert_eq!(waiting.get().unwrap()[0].tokens.len(), 8);
    watch.hold();
    let closed = call(|done| model.score_data(sequences(), CancelToken::new(), done));
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

#[test]
fn what_a_generation_reports_is_scored_to_the_same_bits() {
    let model = Toy::hashed().start();
    let generated = run_one(&model, "我们很高兴能够与您合作！", |o| {
        o.max_new_tokens = Some(60);
        o.logprobs = Some(5);
    });
    let generated = generated.unwrap().tokens;
    let start: Vec<u32> = "我们很高兴能够与您合作！".bytes().map(u32::from).collect();
    let mut whole = start.clone();
    whole.extend(generated.iter().map(|token| token.id));
    let top = |token: &TokenEvent| -> Vec<(u32, f32)> {
        token.top_logprobs.iter().flatten().map(|(id, _, logprob)| (*id, *logprob)).collect()
    };
    let others: Vec<Prompt> = (0..31).map(|i| Prompt::Ids(sequence(40 + i, i as u32))).collect();
    let alone = score_prompts(&model, &[Prompt::Ids(whole.clone())], |o| o.top_logprobs = 5).unwrap();
    let together = [&[Prompt::Ids(whole.clone())][..], &others].concat();
    let together = score_prompts(&model, &together, |o| o.top_logprobs = 5).unwrap();
    assert_eq!(together[0], alone[0]);
    let Scores { ids, tokens, top: likeliest } = &alone[0];
    assert_eq!(*ids, whole);
    assert_eq!((tokens.len(), likeliest.len()), (whole.len() - 1, 5 * (whole.len() - 1)));
    for (at, token) in (start.len() - 1..).zip(&generated) {
        assert_eq!(Some(tokens[at].logprob), token.logprob);
        assert_eq!(likeliest[5 * at..][..5], top(token));
        assert_eq!(tokens[at].best, likeliest[5 * at].0 == token.id);
    }
    // A single token has none before it.
    let single = score_prompts(&model, &[text("x")], |o| o.top_logprobs = 5).unwrap();
    assert_eq!(single[0], Scores { ids: vec![u32::from(b'x')], ..Scores::default() });
}

#[test]
fn a_scored_prompt_says_which_one_is_wrong() {
    let model = Toy::hashed().start();
    let positions = model.info().n_positions;
    let good = || Prompt::Ids(sequence(positions, 0));
    assert_eq!(score_prompts(&model, &[good()], |_| {}).unwrap()[0].tokens.len(), positions - 1);
    let refused = |prompt: Prompt| match score_prompts(&model, &[good(), text("x"), prompt], |_| {}) {
        Err(EngineError::Input { index, error }) => (index, error.code()),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Prompt::Ids(sequence(positions + 1, 0))), (2, "CONTEXT_OVERFLOW"));
    assert_eq!(refused(text(&"x".repeat(100_000))), (2, "CONTEXT_OVERFLOW"));
    assert_eq!(refused(Prompt::Ids(vec![1, VOCAB as u32])), (2, "INPUT_INVALID"));
    assert_eq!(refused(Prompt::Ids(Vec::new())), (2, "PROMPT_EMPTY"));
    assert_eq!(code(score_prompts(&model, &[text("x")], |o| o.top_logprobs = 21)), "OPTION_INVALID");
    assert_eq!(
        code(score_prompts(&model, &[text("x")], |o| o.adapter = Some("none".into()))),
        "OPTION_INVALID"
    );
    assert!(score_prompts(&model, &[], |_| {}).unwrap().is_empty());
    let silent = Generator::from_parts(Box::new(Toy::hashed()), None, Limits::default()).unwrap();
    assert_eq!(score_prompts(&silent, &[Prompt::Ids(vec![1, 2])], |_| {}).unwrap()[0].tokens.len(), 1);
    assert_eq!(code(score_prompts(&silent, &[text("x")], |_| {})), "TOKENIZER_MISSING");
}

#[test]
fn scored_prompts_wait_in_the_queue_and_leave_it() {
    let mut toy = Toy::hashed();
    toy.limits = Limits { max_queued_tokens: 500, max_queued_requests: 2, ..Limits::default() };
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let scored = |length: usize| {
        call(|done| model.score(vec![Prompt::Ids(sequence(length, 1))], ScoreOptions::default(), done))
    };
    let running = scored(100);
    until("it runs", || model.stats().queued_tokens == 0 && watch.passes() == 1);
    let waiting = scored(300);
    assert_eq!(model.stats().queued_tokens, 300);
    assert_eq!(code(scored(300).get()), "QUEUE_FULL");
    let second = scored(100);
    assert_eq!(code(scored(1).get()), "QUEUE_FULL");
    assert_eq!(
        code(model.generate(request(vec![text("x")], |_| {})).map(|s| read(&s)).unwrap()),
        "QUEUE_FULL"
    );
    watch.release();
    let lengths = [running, waiting, second].map(|scores| scores.get().unwrap()[0].tokens.len());
    assert_eq!(lengths, [99, 299, 99]);
    assert_eq!(model.stats().queued_tokens, 0);
    assert_eq!(scored(300).get().unwrap()[0].tokens.len(), 299);
}

#[test]
fn an_abort_ends_a_step_between_two_layers() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let cancel = CancelToken::new();
    let options = ScoreOptions { cancel: cancel.clone(), ..ScoreOptions::default() };
    let cancelled = call(|done| model.score(vec![Prompt::Ids(sequence(200, 1))], options, done));
    until("the first layer", || watch.layers.load(std::sync::atomic::Ordering::SeqCst) == 1);
    cancel.cancel();
    watch.release();
    assert_eq!(code(cancelled.get()), "ABORTED");
    assert_eq!(watch.layers.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn prompts_share_what_was_computed_of_scored_ones_within_a_scope() {
    let model = Toy::hashed().start();
    let prompts = [Prompt::Ids(sequence(8 * BLOCK + 3, 5))];
    let cached = |scope: Option<&str>| {
        let request = request(prompts.to_vec(), |o| {
            o.scope = scope.map(String::from);
            o.max_new_tokens = Some(1);
        });
        run(&model, request).unwrap().usage.cached_tokens
    };
    let before = score_prompts(&model, &prompts, |o| o.scope = Some("a".into())).unwrap();
    assert_eq!(cached(Some("b")), 0);
    assert_eq!(cached(None), 0);
    assert_eq!(cached(Some("a")), 8 * BLOCK);
    assert_eq!(score_prompts(&model, &prompts, |o| o.scope = Some("a".into())).unwrap(), before);
    // Data sets leave the memory to those who come back.
    score(&model, vec![sequence(5 * BLOCK, 6)]).unwrap();
    let other = request(vec![Prompt::Ids(sequence(5 * BLOCK, 6))], |o| o.max_new_tokens = Some(1));
    assert_eq!(run(&model, other).unwrap().usage.cached_tokens, 0);
}

#[test]
fn steps_are_counted_since_the_load() {
    let model = Toy::hashed().start();
    score_prompts(&model, &[text("four"), text("three")], |_| {}).unwrap();
    run_one(&model, "ten tokens", |o| o.max_new_tokens = Some(4)).unwrap();
    // A step is shown a moment after its tokens were given.
    until("all steps are shown", || model.stats().steps.total_tokens >= 3 + 4 + 10 + 3);
    let steps = model.stats().steps;
    assert_eq!((steps.total_tokens, steps.total_sequences), (3 + 4 + 10 + 3, 2 + 4));
    assert!(steps.total_ms >= steps.ms && steps.ms > 0.0);
}

#[test]
fn a_vocabulary_has_the_bytes_of_every_id() {
    let model = Toy::hashed().with(|info| info.vocab_size = VOCAB + 2).start();
    let bytes = wait(|done| model.vocabulary(done)).unwrap();
    assert_eq!(bytes.len(), VOCAB + 2);
    assert_eq!((&bytes[0xe4][..], &bytes[EOS as usize][..]), (&[0xe4][..], &b"<end>"[..]));
    let silent = Generator::from_parts(Box::new(Toy::hashed()), None, Limits::default()).unwrap();
    assert_eq!(code(wait(|done| silent.vocabulary(done))), "TOKENIZER_MISSING");
}
