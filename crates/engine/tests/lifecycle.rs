//! Open, closing, closed; and what a failure leaves behind.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use candlewick_engine::*;
use support::*;

#[test]
fn close_ends_running_streams_and_frees_the_model() {
    let mut toy = Toy::hashed();
    toy.delay = Duration::from_millis(1);
    let watch = toy.watch();
    let model = toy.start();
    let streams: Vec<_> =
        (0..3).map(|i| begin(&model, &format!("{i}"), |o| o.max_new_tokens = Some(900))).collect();
    next(&streams[0], 1).unwrap().unwrap();
    let results: Vec<_> = streams.iter().map(|s| call(|done| s.result(done))).collect();
    let closes: Vec<_> = (0..3).map(|_| call(|done| model.close(done))).collect();
    closes.iter().for_each(|close| close.get().unwrap());
    assert_eq!(watch.models.load(Ordering::SeqCst), 0, "the model is gone when close answers");
    for (stream, result) in streams.iter().zip(results) {
        assert_eq!(code(read(stream)), "MODEL_CLOSED");
        assert_eq!(next(stream, 1).unwrap(), None);
        assert_eq!(code(result.get()), "MODEL_CLOSED");
    }
    wait(|done| model.close(done)).unwrap();
}

#[test]
fn close_does_not_wait_for_a_long_prefill() {
    let toy = Toy::hashed().with(|info| info.layers = 1000);
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let stream = begin(&model, "prefill", |_| {});
    until("in a layer", || watch.layers.load(Ordering::SeqCst) == 1);
    let closed = call(|done| model.close(done));
    watch.release();
    closed.get().unwrap();
    assert!(watch.layers.load(Ordering::SeqCst) <= 2);
    assert_eq!(code(read(&stream)), "MODEL_CLOSED");
}

#[test]
fn a_closed_model_says_so_to_every_call() {
    let model = Toy::hashed().start();
    wait(|done| model.close(done)).unwrap();
    assert_eq!(code(model.generate(request(vec![text("x")], |_| {})).map(drop)), "MODEL_CLOSED");
    let cancel = CancelToken::new;
    assert_eq!(code(wait(|done| model.encode(vec!["x".into()], true, cancel(), done))), "MODEL_CLOSED");
    assert_eq!(code(wait(|done| model.decode(vec![vec![1]], true, done))), "MODEL_CLOSED");
    assert_eq!(code(wait(|done| model.count_tokens(vec!["x".into()], done))), "MODEL_CLOSED");
}

#[test]
fn the_last_handle_closes_the_model_and_a_stream_is_a_handle() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    let stream = begin(&model, "alone", |_| {});
    drop(model.clone());
    drop(model);
    assert_eq!(read(&stream).unwrap().len(), 20);
    assert_eq!(watch.models.load(Ordering::SeqCst), 1);
    drop(stream);
    until("the model is freed", || watch.models.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_handle_dropped_on_the_models_own_threads_is_no_deadlock() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    let stream = begin(&model, "own thread", |_| {});
    let keep = (model.clone(), stream.clone());
    drop((model, stream));
    let (model, stream) = keep;
    let held = stream.clone();
    stream.result(Box::new(move |result| {
        assert_eq!(result.unwrap().sequences.len(), 1);
        drop((model, held));
    }));
    drop(stream);
    until("the model is freed", || watch.models.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_panic_in_the_model_is_an_error_of_its_requests_and_the_model_serves_on() {
    let mut toy = Toy::hashed();
    toy.panic_at = Some(u32::from(b'!'));
    toy.fail_at = Some(u32::from(b'?'));
    let model = toy.start();
    let ban: Vec<(u32, f32)> = [b'!', b'?'].map(|id| (u32::from(id), f32::NEG_INFINITY)).to_vec();
    let before = run_one(&model, "fine", |o| o.logit_bias = ban.clone()).unwrap();
    for (prompt, expected) in [("boom!", "INTERNAL"), ("bad?", "IO")] {
        let stream = begin(&model, prompt, |_| {});
        assert_eq!(code(read(&stream)), expected);
        assert_eq!(code(wait(|done| stream.result(done))), expected);
        let after = run_one(&model, "fine", |o| o.logit_bias = ban.clone()).unwrap();
        assert_eq!(after, before);
    }
}

#[test]
fn a_panic_in_a_callers_callback_is_the_callers_own() {
    let model = Toy::hashed().start();
    let stream = begin(&model, "callback", |_| {});
    stream.next(1, Box::new(|_| panic!("in the callback")));
    stream.result(Box::new(|_| panic!("in the callback")));
    assert!(!read(&stream).unwrap().is_empty());
    assert_eq!(run_one(&model, "after", |_| {}).unwrap().tokens.len(), 20);
}

#[test]
fn logits_that_are_not_numbers_are_an_error() {
    for bad in [f32::NAN, f32::INFINITY] {
        let model = Toy::new(move |_, logits| logits[3] = bad).start();
        assert_eq!(code(run_one(&model, "x", |o| o.temperature = 0.0)), "NOT_FINITE");
    }
}

#[test]
fn an_idle_model_sleeps() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    run_one(&model, "x", |_| {}).unwrap();
    until("idle", || watch.guards.load(Ordering::SeqCst) == 0);
    let passes = watch.passes();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(watch.passes(), passes);
}

#[test]
fn a_model_that_is_not_there_is_an_error_of_the_load() {
    let missing = || LoadRequest::new("/nowhere/at/all");
    assert_eq!(code(wait(|done| Generator::load(missing(), done)).map(drop)), "MODEL_NOT_FOUND");
    assert_eq!(code(wait(|done| EncoderHandle::load(missing(), done)).map(drop)), "MODEL_NOT_FOUND");
}

#[test]
fn text_calls_work_beside_a_running_generation() {
    let toy = Toy::hashed();
    let watch = toy.watch();
    let model = toy.start();
    watch.hold();
    let stream = begin(&model, "busy", |_| {});
    until("in a layer", || watch.layers.load(Ordering::SeqCst) == 1);
    let texts = vec!["好".to_string(), "a".into()];
    let encoded = wait(|done| model.encode(texts.clone(), true, CancelToken::new(), done)).unwrap();
    assert_eq!(encoded, [vec![0xe5, 0xa5, 0xbd], vec![97]]);
    assert_eq!(wait(|done| model.decode(encoded, true, done)).unwrap(), texts);
    assert_eq!(wait(|done| model.count_tokens(texts.clone(), done)).unwrap(), [3, 1]);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    assert_eq!(code(wait(|done| model.encode(texts, true, cancelled, done))), "ABORTED");
    watch.release();
    assert_eq!(read(&stream).unwrap().len(), 20);
}

#[test]
fn without_a_tokenizer_it_is_ids_in_and_ids_out() {
    let model = Generator::from_parts(Box::new(Toy::hashed()), None, Limits::default()).unwrap();
    assert_eq!(model.tokenizer_vocab_size(), None);
    let result = run(&model, request(vec![Prompt::Ids(vec![1, 2, 3])], |_| {})).unwrap();
    assert_eq!((result.sequences[0].tokens.len(), result.sequences[0].text.as_str()), (20, ""));
    assert_eq!(code(run_one(&model, "text", |_| {})), "TOKENIZER_MISSING");
    let stop = request(vec![Prompt::Ids(vec![1])], |o| o.stop = vec!["x".into()]);
    assert_eq!(code(model.generate(stop).map(drop)), "TOKENIZER_MISSING");
    assert_eq!(code(wait(|done| model.decode(vec![vec![1]], true, done))), "TOKENIZER_MISSING");
}

#[test]
fn texts_that_wait_do_not_hold_up_ids_or_a_close() {
    let (finish, busy) = std::sync::mpsc::channel();
    let (begun, begins) = std::sync::mpsc::sync_channel(9);
    let busy = std::sync::Mutex::new(busy);
    let wait_for_it = move || {
        let _ = begun.send(());
        let _: Result<(), _> = busy.lock().unwrap().recv();
    };
    let codec = Named(wait_for_it, |_| None);
    let model =
        Generator::from_parts(Box::new(Toy::hashed()), Some(std::sync::Arc::new(codec)), Limits::default())
            .unwrap();
    let encode = || call(|done| model.encode(vec!["text".into()], true, CancelToken::new(), done));
    let (first, second) = (encode(), encode());
    begins.recv().unwrap();
    let third = begin(&model, "text", |_| {});
    let by_ids = run(&model, request(vec![Prompt::Ids(vec![1, 2])], |_| {})).unwrap();
    assert_eq!(by_ids.sequences[0].tokens.len(), 20);
    let closed = call(|done| model.close(done));
    finish.send(()).unwrap();
    closed.get().unwrap();
    assert!(first.get().is_ok(), "what had begun is finished");
    assert_eq!(code(second.get()), "MODEL_CLOSED");
    assert_eq!(code(read(&third)), "MODEL_CLOSED");
}
