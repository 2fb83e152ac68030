//! Another model guesses: the same tokens in fewer passes, whatever it guesses and whatever becomes of it.

mod support;

use std::sync::Arc;
use std::time::Duration;

use candlewick_engine::*;
use support::*;

/// What `toy` says after `prompt`, with guesses of `draft`; and in how many passes.
fn drafted(
    toy: Toy,
    draft: Option<&Generator>,
    change: &dyn Fn(&mut GenerateOptions),
) -> (GenerationResult, usize) {
    let watch = toy.watch();
    let result = run(
        &toy.start(),
        request(vec![text("a prompt of some tokens")], |o| {
            (o.max_new_tokens, o.seed) = (Some(100), Some(5));
            change(o);
            o.speculation = draft.map_or(Speculation::Off, |draft| Speculation::Draft(draft.as_draft()));
        }),
    );
    (result.unwrap(), watch.passes())
}

type Change = &'static dyn Fn(&mut GenerateOptions);
const WAYS: [Change; 5] = [
    &|o| o.temperature = 0.0,
    &|o| (o.temperature, o.logprobs) = (0.9, Some(2)),
    &|o| (o.n, o.top_k) = (3, 20),
    &|o| (o.temperature, o.repetition_penalty, o.no_repeat_ngram_size) = (0.8, 1.3, 2),
    &|o| (o.temperature, o.stop) = (0.7, vec!["a".into(), "b".into()]),
];

/// Passes of a model for a token of each sequence, so slow that a draft pays.
fn slow(mut toy: Toy) -> Toy {
    toy.delay = Duration::from_micros(300);
    toy
}

#[test]
fn a_draft_that_agrees_saves_passes_and_changes_no_byte() {
    let draft = Toy::hashed().start();
    for change in WAYS {
        let (off, passes) = drafted(slow(Toy::hashed()), None, change);
        let (on, fewer) = drafted(slow(Toy::hashed()), Some(&draft), change);
        assert_eq!(on.sequences, off.sequences);
        // Its numbers are the model's own and it draws with the request's: every guess is right, sampled ones too.
        let Usage { drafted_tokens, accepted_tokens, completion_tokens, .. } = on.usage;
        // How long the guesses are depends on the clock.
        assert!(fewer < passes || completion_tokens < 20, "{fewer} passes instead of {passes}");
        assert!(accepted_tokens > 0 && accepted_tokens <= drafted_tokens, "{:?}", on.usage);
        until("the guesses' memory is free", || draft.stats().free_blocks == draft.stats().blocks);
    }
}

#[test]
fn a_draft_that_is_wrong_is_given_up() {
    let draft = Toy::new(|tokens, logits| logits[tokens.len() % 7] = 20.0).start();
    for change in WAYS {
        let (off, _) = drafted(slow(Toy::hashed()), None, change);
        let (on, _) = drafted(slow(Toy::hashed()), Some(&draft), change);
        assert_eq!(on.sequences, off.sequences);
    }
    let (result, _) = drafted(slow(Toy::hashed()), Some(&draft), &|o| o.max_new_tokens = Some(400));
    let Usage { drafted_tokens, completion_tokens, .. } = result.usage;
    assert!(2 * drafted_tokens < completion_tokens, "{:?}", result.usage);
}

#[test]
fn what_becomes_of_a_draft_is_no_concern_of_the_text() {
    let (expected, _) = drafted(Toy::hashed(), None, WAYS[1]);
    // It has no memory, or too few positions.
    let mut small = Toy::hashed();
    small.kv_blocks = 2;
    let small = small.start();
    let short = Toy::hashed().with(|info| info.n_positions = 40).start();
    // It fails, or panics, or does not answer, or is closed.
    let (mut failing, mut panicking) = (Toy::hashed(), Toy::hashed());
    failing.fail_at = expected.sequences[0].tokens.get(20).map(|token| token.id);
    panicking.panic_at = failing.fail_at;
    let (failing, panicking) = (failing.start(), panicking.start());
    let held = Toy::hashed();
    let watch = held.watch();
    watch.hold();
    let held = held.start();
    for draft in [&small, &short, &failing, &panicking, &held] {
        let (result, _) = drafted(slow(Toy::hashed()), Some(draft), WAYS[1]);
        assert_eq!(result.sequences, expected.sequences);
    }
    watch.release();
    let draft = Toy::hashed().start();
    let model = slow(Toy::hashed()).start();
    let stream = begin(&model, "a prompt of some tokens", |o| {
        (o.max_new_tokens, o.seed) = (Some(100), Some(5));
        WAYS[1](o);
        o.speculation = Speculation::Draft(draft.as_draft());
    });
    let mut found: Vec<u32> = next(&stream, 8).unwrap().unwrap().iter().map(|token| token.id).collect();
    wait(|done| draft.close(done)).unwrap();
    found.extend(read(&stream).unwrap().iter().map(|token| token.id));
    assert_eq!(found, ids(&expected.sequences[0]));
}

/// A model that guesses for others serves its own requests all the same: its guesses give way to them.
#[test]
fn guesses_give_way_to_the_drafts_own_requests() {
    let mut toy = Toy::hashed();
    toy.kv_blocks = 16;
    let draft = toy.start();
    let mut slow = Toy::hashed();
    slow.delay = Duration::from_millis(3);
    let model = slow.start();
    let drafting = |seed: u64| {
        begin(&model, "sixty four tokens of a prompt, which take eight of the blocks ..", |o| {
            (o.max_new_tokens, o.seed, o.temperature) = (Some(900), Some(seed), 0.9);
            o.speculation = Speculation::Draft(draft.as_draft());
        })
    };
    let streams: Vec<_> = (0..4).map(drafting).collect();
    for stream in &streams {
        next(stream, 1).unwrap();
    }
    for _ in 0..5 {
        let own = request(vec![text(&"own".repeat(30))], |o| o.max_new_tokens = Some(30));
        assert_eq!(run(&draft, own).unwrap().usage.completion_tokens, 30);
    }
    assert_eq!(model.stats().running, 4, "they still guess");
}

#[test]
fn a_draft_of_another_vocabulary_is_refused() {
    let model = Toy::hashed().start();
    let ask = |draft: &Generator, change: &dyn Fn(&mut GenerateOptions)| {
        let request = request(vec![text("x")], |o| {
            change(o);
            o.speculation = Speculation::Draft(draft.as_draft());
        });
        model.generate(request)
    };
    let with = |change: &dyn Fn(&mut GenerateOptions), draft: &Generator| code(ask(draft, change).map(drop));
    assert_eq!(with(&|_| {}, &model), "OPTION_INVALID", "itself");
    let larger = Toy::hashed().with(|info| info.vocab_size += 1).start();
    assert_eq!(with(&|_| {}, &larger), "OPTION_INVALID");
    let good = Toy::hashed().start();
    assert_eq!(with(&|o| o.num_beams = 2, &good), "OPTION_INVALID");
    wait(|done| good.close(done)).unwrap();
    assert_eq!(with(&|_| {}, &good), "MODEL_CLOSED");
    // As many tokens, and others.
    let toy = Toy::hashed();
    let limits = toy.limits;
    let renamed = Named(|| {}, |id| Some((256 - id).to_string()));
    let other = Generator::from_parts(Box::new(toy), Some(Arc::new(renamed)), limits).unwrap();
    assert_eq!(code(read(&ask(&other, &|_| {}).unwrap())), "OPTION_INVALID");
    assert_eq!(model.stats().steps.count, 0);
}
