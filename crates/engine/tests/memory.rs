//! A model with too little memory for all that it is asked, and requests that go on where others were cut off: the same
//! text as with all the memory there is, and all of it given back.

mod support;

use std::time::Duration;

use candlewick_engine::*;
use support::*;

/// Blocks of one sequence of the toy's 1,024 positions.
const ONE: usize = 1024 / BLOCK;

fn small(blocks: usize) -> Toy {
    let mut toy = Toy::hashed();
    toy.kv_blocks = blocks;
    toy
}

fn is_all_given_back(model: &Generator) -> bool {
    let stats = model.stats();
    stats.free_blocks + stats.prefix_blocks == stats.blocks && stats.running == 0
}

fn mixed(i: usize) -> GenerateRequest {
    let prompt = format!("{}{i}", "shared beginning ".repeat(i % 5 * 3));
    request(vec![text(&prompt), text(&format!("another {i}"))], |o| {
        (o.seed, o.max_new_tokens) = (Some(i as u64), Some(100 + 40 * (i % 4)));
        match i % 4 {
            0 => o.temperature = 0.0,
            1 => (o.n, o.top_p) = (5, 0.9),
            2 => (o.num_beams, o.num_return_sequences) = (4, 2),
            _ => (o.repetition_penalty, o.logprobs) = (1.2, Some(2)),
        }
    })
}

#[test]
fn a_full_memory_pauses_the_youngest_and_changes_nothing() {
    let expected: Vec<_> =
        (0..12).map(|i| run(&small(16 * ONE).start(), mixed(i)).unwrap().sequences).collect();
    for blocks in [ONE, ONE + 40, 2 * ONE] {
        let model = small(blocks).start();
        let found: Vec<_> = std::thread::scope(|scope| {
            let model = &model;
            let threads: Vec<_> =
                (0..12).map(|i| scope.spawn(move || run(model, mixed(i)).unwrap().sequences)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(found == expected, "{blocks} blocks");
        assert!(model.stats().pauses > 0, "{blocks} blocks are too few for all at once");
        until("all given back", || is_all_given_back(&model));
    }
}

/// Who does not read is the first to give up its blocks, however old: it does not stop the others.
#[test]
fn a_stalled_reader_does_not_hold_the_memory() {
    let model = small(ONE).start();
    let long = "x".repeat(900);
    let stalled = begin(&model, &long, |o| o.max_new_tokens = Some(120));
    next(&stalled, 1).unwrap().unwrap();
    let other = run_one(&model, &"y".repeat(900), |o| o.max_new_tokens = Some(120)).unwrap();
    assert_eq!(other.tokens.len(), 120);
    let expected = run_one(&Toy::hashed().start(), &long, |o| o.max_new_tokens = Some(120)).unwrap();
    assert_eq!(read(&stalled).unwrap(), expected.tokens[1..]);
}

/// A sequence of nearly all positions that was paused needs all blocks there are, and gets them.
#[test]
fn a_sequence_that_fills_the_memory_goes_on_after_a_pause() {
    let model = small(ONE).start();
    let long = "x".repeat(954);
    let stalled = begin(&model, &long, |o| o.max_new_tokens = Some(70));
    next(&stalled, 1).unwrap().unwrap();
    until("it is stalled", || {
        let stats = model.stats();
        stats.steps.seconds_since > 0.05 && stats.running == 1
    });
    run_one(&model, &"y".repeat(500), |_| {}).unwrap();
    assert!(model.stats().pauses > 0);
    let expected = run_one(&Toy::hashed().start(), &long, |o| o.max_new_tokens = Some(70)).unwrap();
    assert_eq!(read(&stalled).unwrap(), expected.tokens[1..]);
}

#[test]
fn scores_are_the_same_when_they_are_paused() {
    let sequences: Vec<Vec<u32>> =
        (0..8).map(|i| (0..700).map(|k| (k * k + i * k) as u32 % 250).collect()).collect();
    let score = |model: &Generator| {
        let sequences = sequences.clone();
        call(|done| model.score_data(sequences, CancelToken::new(), done))
    };
    let expected = score(&Toy::hashed().start()).get().unwrap();
    let model = small(ONE + 20).start();
    let scores = score(&model);
    run(&model, mixed(1)).unwrap();
    run(&model, mixed(2)).unwrap();
    assert_eq!(scores.get().unwrap(), expected);
    until("all given back", || is_all_given_back(&model));
}

/// Requests that are left at random give their blocks back within a step, and change no byte of those who stay.
#[test]
fn leaving_at_random_costs_nobody_anything() {
    let count = std::env::var("CANDLEWICK_CANCELS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let mut toy = small(2 * ONE);
    toy.delay = Duration::from_micros(20);
    let model = toy.start();
    let bystander = |i: usize| request(vec![text(&format!("{i} stays"))], |o| o.max_new_tokens = Some(200));
    let expected: Vec<_> =
        (0..4).map(|i| run(&small(ONE).start(), bystander(i)).unwrap().sequences).collect();
    std::thread::scope(|scope| {
        let model = &model;
        let staying: Vec<_> = (0..4)
            .map(|i| {
                scope.spawn(move || {
                    let again = || run(model, bystander(i)).unwrap().sequences;
                    (0..3).map(|_| again()).collect::<Vec<_>>()
                })
            })
            .collect();
        for worker in 0..4u64 {
            scope.spawn(move || {
                for i in 0..count / 4 {
                    let draw = hash(&[i as u32, worker as u32], 9);
                    let stream = model.generate(mixed((draw % 16) as usize)).unwrap();
                    std::thread::sleep(Duration::from_micros(draw >> 20 & 4095));
                    match draw % 3 {
                        0 => stream.cancel(),
                        1 => drop(next(&stream, 1)),
                        _ => {}
                    }
                }
            });
        }
        for (staying, expected) in staying.into_iter().zip(expected) {
            assert!(staying.join().unwrap().iter().all(|found| *found == expected));
        }
    });
    let steps = model.stats().steps.count;
    until("all given back", || is_all_given_back(&model));
    assert!(model.stats().steps.count <= steps + 1, "within one step");
}

#[test]
fn beams_that_cannot_fit_are_refused_before_they_begin() {
    let toy = small(ONE);
    let watch = toy.watch();
    let model = toy.start();
    let wide = |o: &mut GenerateOptions| (o.num_beams, o.max_new_tokens) = (16, Some(400));
    assert_eq!(code(run_one(&model, "beams", wide)), "OUT_OF_MEMORY");
    assert_eq!(watch.passes(), 0);
    // As many as fit, after a long prompt that they share, with somebody else who has to wait.
    let narrow = |o: &mut GenerateOptions| (o.num_beams, o.max_new_tokens) = (6, Some(40));
    let prompt = "p".repeat(700);
    let expected = run_one(&Toy::hashed().start(), &prompt, narrow).unwrap();
    let other = begin(&model, &"o".repeat(500), |o| o.max_new_tokens = Some(300));
    assert_eq!(run_one(&model, &prompt, narrow).unwrap(), expected);
    assert_eq!(read(&other).unwrap().len(), 300);
}

/// The result is that of one who was never cut off; the stream has what is new.
#[test]
fn a_generation_goes_on_from_any_token() {
    let changes: [fn(&mut GenerateOptions); 6] = [
        |o| o.temperature = 0.0,
        |o| (o.n, o.top_p, o.repetition_penalty) = (3, 0.9, 1.3),
        |o| (o.frequency_penalty, o.presence_penalty, o.no_repeat_ngram_size) = (0.4, 0.2, 3),
        |o| (o.min_new_tokens, o.stop) = (10, vec!["a".into(), "é".into(), "\n".into()]),
        |o| (o.stop_token_ids, o.n) = (vec![3, 70, 141], 4),
        |o| o.logprobs = Some(2),
    ];
    for (which, change) in changes.into_iter().enumerate() {
        let model = Toy::hashed().start();
        let prompts = || vec![text("go on"), text("from here")];
        let whole = run(&model, request(prompts(), change)).unwrap();
        let longest = whole.sequences.iter().map(|s| s.tokens.len()).max().unwrap();
        for cut in 0..=longest {
            let existing: Vec<Vec<u32>> = whole
                .sequences
                .iter()
                .enumerate()
                .map(|(i, s)| ids(s)[..s.tokens.len().min((cut + 5 * i) % (longest + 1))].to_vec())
                .collect();
            let counts: Vec<usize> = existing.iter().map(Vec::len).collect();
            let request = request(prompts(), |o| {
                change(o);
                o.continue_from = existing;
            });
            let stream = Toy::hashed().start().generate(request).unwrap();
            let events = read(&stream).unwrap();
            let result = wait(|done| stream.result(done)).unwrap();
            assert_eq!(result.usage.completion_tokens, whole.usage.completion_tokens, "{which}, {cut}");
            for (i, (found, expected)) in result.sequences.iter().zip(&whole.sequences).enumerate() {
                let what = format!("options {which}, {cut} tokens, sequence {i}");
                assert_eq!(
                    (&found.text, found.finish_reason),
                    (&expected.text, expected.finish_reason),
                    "{what}"
                );
                assert_eq!(found.stop_sequence, expected.stop_sequence, "{what}");
                assert_eq!(ids(found), ids(expected), "{what}");
                assert_eq!(found.tokens[counts[i]..], expected.tokens[counts[i]..], "{what}");
                let new: Vec<_> = events.iter().filter(|e| e.sequence as usize == i).cloned().collect();
                assert_eq!(new, expected.tokens[counts[i]..], "{what}: nothing is streamed again");
            }
        }
    }
}

#[test]
fn what_cannot_be_continued_is_refused() {
    let model = Toy::says(1, b"done").start();
    let refused = |prompts: usize, change: fn(&mut GenerateOptions)| {
        let request = request(vec![text(">"); prompts], change);
        match run(&model, request).map(|result| result.sequences) {
            Err(EngineError::OptionInvalid { option, .. }) => option,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(1, |o| o.continue_from = vec![vec![1], vec![2]]), "continueFrom");
    assert_eq!(refused(2, |o| o.continue_from = vec![vec![1]]), "continueFrom");
    assert_eq!(refused(1, |o| (o.n, o.continue_from) = (2, vec![vec![1]])), "continueFrom");
    assert_eq!(refused(1, |o| (o.num_beams, o.continue_from) = (2, vec![vec![1]])), "continueFrom");
    assert_eq!(refused(1, |o| o.continue_from = vec![vec![257]]), "continueFrom");
    // Tokens after the end: no generation has made these.
    assert_eq!(refused(1, |o| o.continue_from = vec![vec![EOS, 1]]), "continueFrom");
    assert_eq!(
        refused(1, |o| (o.max_new_tokens, o.continue_from) = (Some(2), vec![vec![1; 3]])),
        "continueFrom"
    );
}

#[test]
fn a_queue_has_an_end() {
    let mut toy = Toy::hashed();
    (toy.limits.max_queued_tokens, toy.limits.max_queued_requests) = (100, 3);
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    // The first one is on its way into the model, which is held; as ids, so that they arrive in this order.
    let start = |tokens: usize| model.generate(request(vec![Prompt::Ids(vec![65; tokens])], |_| {})).unwrap();
    let accepted = |stream: &TokenStream| call(|done| stream.accepted(done)).get();
    let first = start(10);
    until("it runs", || watch.passes() == 1);
    let waiting = [start(30), start(40)];
    assert!(waiting.iter().all(|stream| accepted(stream).is_ok()));
    assert_eq!(model.stats().queued_tokens, 70);
    let many = start(31);
    assert_eq!(code(accepted(&many)), "QUEUE_FULL", "101 tokens");
    assert_eq!(code(read(&many)), "QUEUE_FULL");
    let third = start(30);
    assert!(accepted(&third).is_ok(), "who was refused has left the queue");
    let fourth = start(1);
    match accepted(&fourth).unwrap_err() {
        EngineError::QueueFull { retry_after_ms, .. } => assert!((50..=3_600_000).contains(&retry_after_ms)),
        other => panic!("{other:?}"),
    }
    // Who leaves makes room; who is served, too.
    waiting[0].cancel();
    watch.release();
    [&first, &waiting[1], &third].into_iter().for_each(|stream| assert_eq!(read(stream).unwrap().len(), 20));
    assert_eq!(model.stats().queued_tokens, 0);
    assert_eq!(read(&start(100)).unwrap().len(), 20);
}

#[test]
fn a_deadline_ends_a_request_wherever_it_is() {
    let late = |o: &mut GenerateOptions| {
        (o.deadline, o.max_new_tokens) = (Some(Duration::from_millis(30)), Some(900))
    };
    // Decoding, with somebody who has no deadline.
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_millis(1);
    let model = toy.start();
    let stays = begin(&model, "stays", |o| o.max_new_tokens = Some(60));
    let stream = begin(&model, "late", late);
    let tokens = std::iter::from_fn(|| next(&stream, 99).ok().flatten()).flatten().count();
    assert!((1..60).contains(&tokens), "{tokens}: the tokens before the deadline were given");
    assert_eq!(code(wait(|done| stream.result(done))), "DEADLINE_EXCEEDED");
    assert_eq!(read(&stays).unwrap().len(), 60);
    // Paused by its reader, so that nothing else wakes the model.
    let model = Toy::hashed().start();
    let stalled = begin(&model, "stalled", late);
    assert_eq!(code(wait(|done| stalled.result(done))), "DEADLINE_EXCEEDED");
    // In the middle of a prefill.
    let toy = Toy::hashed().with(|info| info.layers = 1000);
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let reading = begin(&model, &"r".repeat(100), late);
    until("in a layer", || watch.passes() == 1);
    std::thread::sleep(Duration::from_millis(40));
    watch.release();
    assert_eq!(code(read(&reading)), "DEADLINE_EXCEEDED");
    assert!(watch.layers.load(std::sync::atomic::Ordering::SeqCst) < 1000, "left within a layer");
    let past = request(vec![text("past")], |o| o.deadline = Some(Duration::ZERO));
    assert_eq!(code(model.generate(past).map(drop)), "OPTION_INVALID");
}

/// Guessed tokens are verified: with and without them the same tokens, logprobs and ends, in fewer passes where the
/// text repeats itself.
#[test]
fn guesses_change_no_byte() {
    let run_both = |model: &dyn Fn() -> Toy, prompt: &str, change: &dyn Fn(&mut GenerateOptions)| {
        let once = |speculation| {
            let toy = model();
            let watch = toy.watch();
            let result = run(
                &toy.start(),
                request(vec![text(prompt)], |o| {
                    o.max_new_tokens = Some(120);
                    change(o);
                    o.speculation = speculation;
                }),
            );
            (result.unwrap(), watch.passes())
        };
        let (off, passes) = once(Speculation::Off);
        let (on, fewer) = once(Speculation::Lookup);
        assert_eq!(on.sequences, off.sequences);
        assert_eq!((on.usage.completion_tokens, off.usage.drafted_tokens), (off.usage.completion_tokens, 0));
        (passes, fewer, on.usage)
    };
    // A rule by the last two tokens alone: the text falls into a cycle.
    let cyclic = || Toy::new(|tokens, logits| hashed(&tokens[tokens.len().saturating_sub(1)..], logits));
    let (passes, fewer, usage) = run_both(&cyclic, "cycle", &|o| o.temperature = 0.0);
    // How long the guesses are depends on the clock.
    assert!(fewer < passes, "{fewer} passes instead of {passes}");
    assert!(usage.accepted_tokens > 0 && usage.drafted_tokens >= usage.accepted_tokens, "{usage:?}");
    for (model, prompt) in [(&cyclic as &dyn Fn() -> Toy, "ab ab ab ab"), (&Toy::hashed, "noise noise noise")]
    {
        run_both(model, prompt, &|o| (o.temperature, o.logprobs) = (0.6, Some(3)));
        run_both(model, prompt, &|o| (o.n, o.top_k, o.temperature) = (4, 6, 0.3));
        run_both(model, prompt, &|o| {
            (o.temperature, o.repetition_penalty, o.frequency_penalty) = (0.0, 1.05, 0.02)
        });
        run_both(model, prompt, &|o| (o.temperature, o.no_repeat_ngram_size) = (0.0, 4));
        run_both(model, prompt, &|o| (o.temperature, o.stop) = (0.0, vec!["a".into(), "xy".into()]));
        run_both(model, prompt, &|o| {
            (o.temperature, o.min_new_tokens, o.stop_token_ids) = (0.2, 30, vec![70, 71])
        });
        run_both(model, prompt, &|o| (o.num_beams, o.num_return_sequences) = (3, 2));
        run_both(model, prompt, &|o| (o.temperature, o.max_new_tokens) = (0.0, Some(7)));
    }
}
