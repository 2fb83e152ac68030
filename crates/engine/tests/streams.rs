//! Reading, stalling, leaving.

mod support;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use candlewick_engine::*;
use support::*;

#[test]
fn overlapping_reads_are_answered_in_their_order() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let stream = begin(&model, "order", |o| o.max_new_tokens = Some(12));
    let order = Arc::new(Mutex::new(Vec::new()));
    let pending: Vec<_> = (0..20)
        .map(|number| {
            let order = order.clone();
            call(|done| {
                stream.next(
                    1,
                    Box::new(move |batch| {
                        order.lock().unwrap().push(number);
                        done(batch);
                    }),
                )
            })
        })
        .collect();
    watch.release();
    for (number, answer) in pending.iter().enumerate() {
        let batch = answer.get().unwrap();
        match number < 12 {
            true => assert_eq!(batch.unwrap()[0].index as usize, number),
            false => assert_eq!(batch, None),
        }
    }
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    assert_eq!(next(&stream, 1).unwrap(), None, "and so on for ever");
}

/// An answer that is on its way holds back the later ones, whichever thread could give them.
#[test]
fn a_slow_callback_is_not_overtaken() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let stream = begin(&model, "overtake", |o| o.n = 2); // two tokens at a time: one is left
    let order = Arc::new(Mutex::new(Vec::new()));
    let (entered, started) = std::sync::mpsc::channel();
    let first = order.clone();
    stream.next(
        1,
        Box::new(move |_| {
            entered.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            first.lock().unwrap().push(1);
        }),
    );
    watch.release();
    started.recv().unwrap();
    let second = order.clone();
    let end = call(|done| {
        stream.next(
            1,
            Box::new(move |batch| {
                second.lock().unwrap().push(2);
                done(batch);
            }),
        )
    });
    end.get().unwrap();
    assert_eq!(*order.lock().unwrap(), [1, 2]);
}

/// Readers on several threads race with the writer; whatever they get, the calls were answered in the order in which
/// tokens came, and no token is lost or given twice.
#[test]
fn racing_readers_lose_nothing() {
    let model = Toy::hashed().start();
    let stream = begin(&model, "race", |o| o.max_new_tokens = Some(300));
    let seen = Arc::new(Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (stream, seen) = (stream.clone(), seen.clone());
            scope.spawn(move || {
                loop {
                    let seen = seen.clone();
                    let batch = wait(|done| {
                        stream.next(
                            3,
                            Box::new(move |batch| {
                                let batch = batch.unwrap().unwrap_or_default();
                                seen.lock().unwrap().extend(batch.iter().map(|e| e.index));
                                done(Ok(batch.len()));
                            }),
                        )
                    });
                    if batch.unwrap() == 0 {
                        return;
                    }
                }
            });
        }
    });
    assert_eq!(*seen.lock().unwrap(), (0..300).collect::<Vec<_>>());
}

#[test]
fn a_batch_is_what_is_ready_and_no_more_than_asked() {
    let model = Toy::hashed().start();
    let stream = begin(&model, "batch", |o| o.max_new_tokens = Some(10));
    wait(|done| stream.result(done)).unwrap();
    assert_eq!(next(&stream, 0).unwrap().unwrap().len(), 1, "0 is 1");
    assert_eq!(next(&stream, 4).unwrap().unwrap().len(), 4);
    assert_eq!(next(&stream, 100).unwrap().unwrap().len(), 5);
    assert_eq!(next(&stream, 100).unwrap(), None);
}

#[test]
fn a_stalled_reader_stops_his_sequence_and_no_other() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    let stalled = begin(&model, "stalled", |o| o.max_new_tokens = Some(500));
    let other = begin(&model, "other", |o| o.max_new_tokens = Some(400));
    assert_eq!(read(&other).unwrap().len(), 400);
    // Only the stalled one is left, and it does not step: the thread sleeps, without the model's guard.
    until("idle", || watch.guards.load(Ordering::SeqCst) == 0);
    let passes = watch.passes();
    let result = call(|done| stalled.result(done));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(watch.passes(), passes);
    assert!(result.is_ready().is_none());
    let first = next(&stalled, usize::MAX).unwrap().unwrap();
    assert!((QUEUE_LIMIT..QUEUE_LIMIT + 2).contains(&first.len()), "{}", first.len());
    assert_eq!(first.len() + read(&stalled).unwrap().len(), 500);
    assert_eq!(result.get().unwrap().sequences[0].tokens.len(), 500);
}

#[test]
fn a_slow_reader_gets_the_same_text() {
    let model = Toy::hashed().start();
    let slow = begin(&model, "pace", |o| o.max_new_tokens = Some(300));
    let mut tokens = Vec::new();
    while let Some(batch) = next(&slow, 7).unwrap() {
        tokens.extend(batch.into_iter().map(|e| e.id));
        std::thread::sleep(Duration::from_micros(200));
    }
    let fast = run_one(&model, "pace", |o| o.max_new_tokens = Some(300)).unwrap();
    assert_eq!(tokens, ids(&fast));
}

#[test]
fn cancel_keeps_the_tokens_so_far() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_millis(1);
    let watch = toy.watch();
    let model = toy.start();
    let stream = begin(&model, "cancel", |o| o.max_new_tokens = Some(900));
    let first = next(&stream, 1).unwrap().unwrap();
    stream.cancel();
    let result = wait(|done| stream.result(done)).unwrap();
    let passes = watch.passes();
    let [sequence] = &result.sequences[..] else { panic!() };
    assert_eq!(sequence.finish_reason, FinishReason::Aborted);
    assert_eq!(sequence.tokens[0], first[0]);
    assert!(sequence.tokens.len() < 10, "{}", sequence.tokens.len());
    assert_eq!(result.usage.completion_tokens, sequence.tokens.len());
    assert_eq!(result.usage.prompt_tokens, 6);
    // What was queued can still be read, then the end.
    let rest = read(&stream).unwrap();
    assert_eq!(first.len() + rest.len(), sequence.tokens.len());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(watch.passes(), passes, "nothing is computed any more");
}

#[test]
fn a_cancelled_token_is_an_error_given_once() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_millis(1);
    let model = toy.start();
    let cancel = CancelToken::new();
    let stream = begin(&model, "signal", |o| (o.max_new_tokens, o.cancel) = (Some(900), cancel.clone()));
    next(&stream, 1).unwrap().unwrap();
    let waiting = call(|done| stream.result(done));
    cancel.cancel();
    assert_eq!(code(read(&stream)), "ABORTED");
    assert_eq!(next(&stream, 1).unwrap(), None);
    assert_eq!(code(waiting.get()), "ABORTED");
    assert_eq!(code(wait(|done| stream.result(done))), "ABORTED");
    // Cancelled before it began.
    let stream = begin(&model, "signal", |o| o.cancel = cancel.clone());
    assert_eq!(code(read(&stream)), "ABORTED");
}

#[test]
fn a_paused_stream_can_be_cancelled() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    for by_token in [false, true] {
        let cancel = CancelToken::new();
        let passes = watch.passes();
        let stream = begin(&model, "paused", |o| (o.max_new_tokens, o.cancel) = (Some(900), cancel.clone()));
        until("paused", || watch.passes() > passes && watch.guards.load(Ordering::SeqCst) == 0);
        let result = call(|done| stream.result(done));
        if by_token {
            cancel.cancel();
            assert_eq!(code(result.get()), "ABORTED");
        } else {
            stream.cancel();
            assert_eq!(result.get().unwrap().sequences[0].finish_reason, FinishReason::Aborted);
        }
    }
}

#[test]
fn a_prefill_is_left_within_a_layer() {
    let toy = Toy::hashed().with(|info| info.layers = 100);
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let stream = begin(&model, &"long ".repeat(150), |_| {});
    until("in the first layer", || watch.layers.load(Ordering::SeqCst) == 1);
    watch.allow(4);
    until("in the fifth layer", || watch.layers.load(Ordering::SeqCst) == 5);
    stream.cancel();
    watch.release();
    let result = wait(|done| stream.result(done)).unwrap();
    assert_eq!(watch.layers.load(Ordering::SeqCst), 5, "no layer begins after the cancellation");
    assert_eq!(result.sequences[0].finish_reason, FinishReason::Aborted);
    assert!(result.sequences[0].tokens.is_empty());
}

/// Two prompts meet in one pass. If the one that most of it was for leaves, the pass ends within a layer and the other
/// one's part is computed again; if the other one leaves, the pass goes on.
#[test]
fn one_who_leaves_a_shared_prefill_costs_the_others_only_time() {
    for (leaving, rest) in [("one that leaves", "stays"), ("gone", "one that stays to the end")] {
        let mut toy = Toy::hashed();
        toy.delay = Duration::from_millis(2);
        let watch = toy.watch();
        let model = toy.start();
        let alone = run_one(&Toy::hashed().start(), rest, |_| {}).unwrap();
        // Somebody decodes, held in the first layer, while the two come. As ids, which reach the model's thread before
        // the call returns.
        let other = begin(&model, "other", |o| o.max_new_tokens = Some(900));
        next(&other, 1).unwrap().unwrap();
        watch.hold();
        let ids = |text: &str| Prompt::Ids(text.bytes().map(u32::from).collect());
        let start = |text| model.generate(request(vec![ids(text)], |_| {})).unwrap();
        let (leaves, stays) = (start(leaving), start(rest));
        until("all three in a pass", || {
            let met = watch.steps.lock().unwrap().last().unwrap().len() == 3;
            watch.allow(usize::from(!met));
            std::thread::sleep(Duration::from_millis(4));
            met
        });
        let passes = watch.passes();
        leaves.cancel();
        watch.release();
        assert_eq!(read(&stays).unwrap(), alone.tokens);
        assert!(wait(|done| leaves.result(done)).unwrap().sequences[0].tokens.len() <= 1);
        let again = watch.steps.lock().unwrap()[passes].contains(&(0, rest.len()));
        assert_eq!(again, leaving.len() > rest.len(), "{leaving}: {rest} is read again");
        other.cancel();
    }
}

#[test]
fn dropping_a_stream_stops_it() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_millis(1);
    let watch = toy.watch();
    let model = toy.start();
    let stream = begin(&model, "dropped", |o| o.max_new_tokens = Some(900));
    let result = call(|done| stream.result(done));
    let clone = stream.clone();
    drop(stream);
    next(&clone, 1).unwrap().unwrap();
    drop(clone);
    assert_eq!(result.get().unwrap().sequences[0].finish_reason, FinishReason::Aborted);
    // Never read at all.
    drop(begin(&model, "unread", |o| o.max_new_tokens = Some(900)));
    until("idle", || watch.guards.load(Ordering::SeqCst) == 0);
    until("no sequence holds a block", || {
        let stats = model.stats();
        stats.free_blocks + stats.prefix_blocks == stats.blocks && stats.running == 0
    });
}

#[test]
fn a_result_may_be_asked_at_any_time_and_again() {
    let model = Toy::hashed().start();
    let stream = begin(&model, "result", |_| {});
    let early = call(|done| stream.result(done));
    let early = early.get().unwrap();
    assert_eq!(wait(|done| stream.result(done)).unwrap(), early);
    assert_eq!(wait(|done| stream.result(done)).unwrap(), early);
    assert_eq!(early.sequences[0].finish_reason, FinishReason::Length);
    assert!(early.timings.first_token_ms >= early.timings.queued_ms);
    assert!(early.timings.prefill_tokens_per_second > 0.0 && early.timings.decode_tokens_per_second > 0.0);
}

/// A server knows its status before a token is computed: a prompt that fits is accepted while the model is held, one
/// that does not is refused.
#[test]
fn a_request_is_accepted_or_refused_before_anything_is_computed() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let accepted = |stream: &TokenStream| call(|done| stream.accepted(done)).get();
    let stream = begin(&model, "seven ch", |_| {});
    assert_eq!(accepted(&stream).unwrap(), 8);
    assert_eq!(accepted(&stream).unwrap(), 8, "asked again");
    let positions = model.info().n_positions;
    let long = begin(&model, &"x".repeat(positions + 1), |_| {});
    assert_eq!(accepted(&long).unwrap_err().code(), "CONTEXT_OVERFLOW");
    watch.release();
    stream.cancel();
}
