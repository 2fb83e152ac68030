//! Encoders: batching across calls, order, cancellation, refusals.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use candlewick_engine::*;
use support::*;

#[derive(Default)]
struct Seen {
    batches: Mutex<Vec<Vec<usize>>>,
    hold: AtomicBool,
}

struct ToyEncoder {
    info: EncoderInfo,
    seen: Arc<Seen>,
}

fn encoder(change: impl FnOnce(&mut EncoderInfo)) -> (EncoderHandle, Arc<Seen>) {
    let mut info = EncoderInfo {
        model_type: "toy",
        vocab_size: VOCAB,
        max_positions: 512,
        type_vocab_size: 2,
        hidden_size: 1,
        layers: 2,
        heads: 1,
        parameters: 0,
        weight_bytes: 0,
        has_pooler: true,
        head: EncoderHead::None,
        labels: Vec::new(),
        usage: EncoderUsage::default(),
        dtype: Dtype::F32,
        device: "cpu".to_owned(),
        device_name: None,
        threads: 1,
        instruction_set: String::new(),
    };
    change(&mut info);
    let seen = Arc::new(Seen::default());
    let model = ToyEncoder { info, seen: seen.clone() };
    (EncoderHandle::from_parts(Box::new(model), Some(Arc::new(Bytes)), Limits::default()).unwrap(), seen)
}

impl Encoder for ToyEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn forward(
        &mut self,
        batch: &[EncoderInput],
        _: &EncoderWant,
        stop: &dyn Fn() -> bool,
    ) -> candlewick_models::Result<Vec<EncoderOutput>> {
        self.seen.batches.lock().unwrap().push(batch.iter().map(|input| input.ids.len()).collect());
        while self.seen.hold.load(Ordering::SeqCst) {
            if stop() {
                return Err(ModelError::Stopped);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if batch.iter().any(|input| input.ids == [u32::from(b'!')]) {
            panic!("the toy panics");
        }
        let output =
            |input: &EncoderInput| EncoderOutput { pooled: vec![value(input)], ..Default::default() };
        Ok(batch.iter().map(output).collect())
    }
}

fn value(input: &EncoderInput) -> f32 {
    let types: u32 = input.type_ids.iter().sum();
    (hash(&input.ids, types.into()) >> 40) as f32
}

const POOLED: EncoderWant = EncoderWant {
    last_hidden_state: false,
    hidden_states: Layers::None,
    attentions: Layers::None,
    pooled: true,
    embedding: None,
    logits: false,
};

fn single(text: &str) -> EncoderText {
    EncoderText::Single(text.into())
}

/// As ids, which reach the model's thread before the call returns.
fn at_once(text: &str) -> EncoderText {
    EncoderText::Ids(EncoderInput { ids: text.bytes().map(u32::from).collect(), ..Default::default() })
}

fn start(
    model: &EncoderHandle,
    texts: Vec<EncoderText>,
    cancel: &CancelToken,
) -> Pending<Vec<EncoderOutput>> {
    call(|done| model.run(texts, EncodeOptions::default(), POOLED, Control::of(cancel), done))
}

fn expected(text: &str) -> f32 {
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    value(&EncoderInput { type_ids: vec![0; ids.len()], ids, ..Default::default() })
}

fn pooled(outputs: &[EncoderOutput]) -> Vec<f32> {
    outputs.iter().map(|output| output.pooled[0]).collect()
}

#[test]
fn outputs_are_in_the_order_of_the_texts_and_batches_are_bounded() {
    let (model, seen) = encoder(|_| {});
    let texts: Vec<String> = (0..60).map(|i| "x".repeat(1 + i * 37 % 500)).collect();
    let inputs = texts.iter().map(|text| single(text)).collect();
    let outputs = start(&model, inputs, &CancelToken::new()).get().unwrap();
    assert_eq!(pooled(&outputs), texts.iter().map(|text| expected(text)).collect::<Vec<_>>());
    let batches = seen.batches.lock().unwrap();
    assert!(batches.iter().all(|batch| batch.iter().sum::<usize>() <= 512), "{batches:?}");
    assert!(batches.len() < 45, "{}", batches.len());
    assert!(batches.concat().is_sorted_by(|a, b| a >= b), "longest first");
}

#[test]
fn calls_share_batches_and_a_small_one_does_not_wait_for_a_large_one() {
    let (model, seen) = encoder(|_| {});
    seen.hold.store(true, Ordering::SeqCst);
    let blocker = start(&model, vec![single("blocker")], &CancelToken::new());
    until("blocked", || seen.batches.lock().unwrap().len() == 1);
    let large: Vec<_> = (0..100).map(|_| at_once(&"y".repeat(400))).collect();
    let large = start(&model, large, &CancelToken::new());
    let small = start(&model, vec![at_once("small")], &CancelToken::new());
    seen.hold.store(false, Ordering::SeqCst);
    assert_eq!(pooled(&small.get().unwrap()), [expected("small")]);
    blocker.get().unwrap();
    assert_eq!(large.get().unwrap().len(), 100);
    // The large call's longest text may be more than a step should have, and is a step then.
    let batches = seen.batches.lock().unwrap();
    let turn = batches.iter().position(|batch| batch.contains(&5)).unwrap();
    assert!(turn <= 3, "{batches:?}");
}

/// A call that comes ends the long pass of one that runs alone, and nothing of it is lost.
#[test]
fn a_newcomer_ends_a_long_pass() {
    let (model, seen) = encoder(|_| {});
    seen.hold.store(true, Ordering::SeqCst);
    let large: Vec<_> = (0..8).map(|i| at_once(&"z".repeat(40 + i))).collect();
    let large = start(&model, large, &CancelToken::new());
    until("in the long pass", || seen.batches.lock().unwrap().len() == 1);
    let small = start(&model, vec![at_once("small")], &CancelToken::new());
    until("left", || seen.batches.lock().unwrap().len() == 2);
    seen.hold.store(false, Ordering::SeqCst);
    assert_eq!(pooled(&small.get().unwrap()), [expected("small")]);
    let texts: Vec<_> = (0..8).map(|i| expected(&"z".repeat(40 + i))).collect();
    assert_eq!(pooled(&large.get().unwrap()), texts);
}

#[test]
fn calls_beyond_the_queue_are_refused_and_those_that_wait_are_shown() {
    let (model, seen) = encoder(|_| {});
    let limits = Limits { max_queued_tokens: 20, max_queued_requests: 2, ..Limits::default() };
    let model = {
        drop(model);
        let info = EncoderInfo { max_positions: 512, ..encoder(|_| {}).0.info().clone() };
        let toy = ToyEncoder { info, seen: seen.clone() };
        EncoderHandle::from_parts(Box::new(toy), Some(Arc::new(Bytes)), limits).unwrap()
    };
    seen.hold.store(true, Ordering::SeqCst);
    let first = start(&model, vec![at_once("twelve chars")], &CancelToken::new());
    until("it runs", || seen.batches.lock().unwrap().len() == 1);
    assert_eq!(code(start(&model, vec![at_once("nine more")], &CancelToken::new()).get()), "QUEUE_FULL");
    let second = start(&model, vec![at_once("eight ch")], &CancelToken::new());
    assert_eq!(code(start(&model, vec![at_once("x")], &CancelToken::new()).get()), "QUEUE_FULL");
    assert_eq!(model.stats().queued_tokens, 20);
    seen.hold.store(false, Ordering::SeqCst);
    assert_eq!(pooled(&first.get().unwrap()), [expected("twelve chars")]);
    assert_eq!(pooled(&second.get().unwrap()), [expected("eight ch")]);
    until("nothing waits", || model.stats().queued_tokens == 0 && model.stats().running == 0);
    assert!(model.stats().steps.count >= 2);
    assert_eq!(start(&model, vec![at_once("and more again")], &CancelToken::new()).get().unwrap().len(), 1);
}

#[test]
fn a_cancelled_call_ends_and_its_company_does_not() {
    let (model, seen) = encoder(|_| {});
    seen.hold.store(true, Ordering::SeqCst);
    let leaves = CancelToken::new();
    let blocker = start(&model, vec![single("blocker")], &leaves);
    until("blocked", || seen.batches.lock().unwrap().len() == 1);
    let cancel = CancelToken::new();
    let gone = start(&model, vec![at_once("gone"); 3], &cancel);
    let stays = start(&model, vec![at_once("stays"), at_once("too")], &CancelToken::new());
    leaves.cancel();
    assert_eq!(code(blocker.get()), "ABORTED");
    until("both in one pass", || seen.batches.lock().unwrap().last().is_some_and(|batch| batch.len() == 5));
    cancel.cancel();
    assert_eq!(code(gone.get()), "ABORTED");
    seen.hold.store(false, Ordering::SeqCst);
    assert_eq!(pooled(&stays.get().unwrap()), [expected("stays"), expected("too")]);
}

#[test]
fn a_panic_is_an_error_of_its_batch_and_close_of_the_rest() {
    let (model, seen) = encoder(|_| {});
    assert_eq!(code(start(&model, vec![single("!")], &CancelToken::new()).get()), "INTERNAL");
    assert_eq!(start(&model, vec![single("fine")], &CancelToken::new()).get().unwrap().len(), 1);
    assert!(start(&model, vec![], &CancelToken::new()).get().unwrap().is_empty());
    seen.hold.store(true, Ordering::SeqCst);
    let running = start(&model, vec![single("running")], &CancelToken::new());
    until("running", || seen.batches.lock().unwrap().len() == 3);
    wait(|done| model.close(done)).unwrap();
    assert_eq!(code(running.get()), "MODEL_CLOSED");
    assert_eq!(code(start(&model, vec![single("late")], &CancelToken::new()).get()), "MODEL_CLOSED");
    assert_eq!(Arc::strong_count(&seen), 1, "the model is gone");
    wait(|done| model.close(done)).unwrap();
}

#[test]
fn texts_pairs_and_ids_become_inputs() {
    let (model, _) = encoder(|_| {});
    let encode = |text, options| {
        wait(|done| model.encode(vec![text], options, CancelToken::new(), done))
            .map(|mut inputs| inputs.remove(0))
    };
    let to = |length| EncodeOptions { max_length: Some(length), truncate: true, ..Default::default() };
    let whole = |length| EncodeOptions { max_length: Some(length), truncate: false, ..Default::default() };
    let input = |ids: &[u32], type_ids: &[u32]| EncoderInput {
        ids: ids.to_vec(),
        type_ids: type_ids.to_vec(),
        ..Default::default()
    };
    let same = |a: EncoderInput, b: EncoderInput| assert_eq!((a.ids, a.type_ids), (b.ids, b.type_ids));
    same(encode(single("ab"), EncodeOptions::default()).unwrap(), input(&[97, 98], &[0, 0]));
    let pair = || EncoderText::Pair("a".into(), "b".into());
    same(encode(pair(), EncodeOptions::default()).unwrap(), input(&[97, 98], &[0, 1]));
    same(encode(pair(), to(1)).unwrap(), input(&[97], &[0]));
    same(encode(EncoderText::Ids(input(&[5, 6], &[])), to(2)).unwrap(), input(&[5, 6], &[0, 0]));
    for (text, options, expected) in [
        (pair(), whole(1), "CONTEXT_OVERFLOW"),
        (
            single(&"x".repeat(513)),
            EncodeOptions { max_length: None, truncate: false, ..Default::default() },
            "CONTEXT_OVERFLOW",
        ),
        (EncoderText::Ids(input(&[1; 513], &[])), EncodeOptions::default(), "CONTEXT_OVERFLOW"),
        (single("x"), to(0), "OPTION_INVALID"),
        (single("x"), to(513), "OPTION_INVALID"),
        (single(""), EncodeOptions::default(), "PROMPT_EMPTY"),
        (EncoderText::Ids(input(&[257], &[])), EncodeOptions::default(), "INPUT_INVALID"),
        (EncoderText::Ids(input(&[1], &[2])), EncodeOptions::default(), "INPUT_INVALID"),
        (EncoderText::Ids(input(&[1], &[0, 0])), EncodeOptions::default(), "INPUT_INVALID"),
    ] {
        assert_eq!(code(encode(text.clone(), options)), expected, "{text:?}");
    }
}

#[test]
fn a_model_gives_only_what_it_has() {
    let (model, _) = encoder(|info| info.has_pooler = false);
    let run = |want| {
        code(wait(|done| {
            model.run(
                vec![single("x")],
                EncodeOptions::default(),
                want,
                Control::of(&CancelToken::new()),
                done,
            )
        }))
    };
    assert_eq!(run(POOLED), "OPTION_INVALID");
    assert_eq!(run(EncoderWant { logits: true, ..Default::default() }), "OPTION_INVALID");
}

#[test]
fn logits_over_the_vocabulary_come_in_small_batches() {
    let (model, seen) = encoder(|info| info.head = EncoderHead::MaskedLm);
    let want = EncoderWant { logits: true, ..Default::default() };
    let texts = vec![single(&"z".repeat(100)); 9];
    let outputs =
        wait(|done| model.run(texts, EncodeOptions::default(), want, Control::of(&CancelToken::new()), done))
            .unwrap();
    assert_eq!(outputs.len(), 9);
    assert!(seen.batches.lock().unwrap().iter().all(|batch| batch.len() <= 2));
}
