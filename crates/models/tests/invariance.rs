//! The contract: a request's logits, states and embeddings are the same bits alone and in any batch, in one piece and
//! in chunks, with a cold and with a shared prefix, with one thread and with two, in every dtype. Random batches of 1
//! to 64.

mod support;

use candlewick_models::{
    Dtype, Encoder, EncoderHead, EncoderInput, EncoderWant, Layers, LoadOptions, load_causal, load_encoder,
};
use support::root;
use support::sequences::{Blocks, Sequence, all_logits, pass, step};

/// Batches for each number of threads: a thousand in all of bf16, and of int8, whose rows are rounded on their way.
fn batches(dtype: Dtype) -> u64 {
    if matches!(dtype, Dtype::Bf16 | Dtype::Int8) { 500 } else { 65 }
}
const DTYPES: [Dtype; 6] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Int8];

/// SplitMix64 (Steele et al. 2014): a test's randomness, the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    fn ids(&mut self, len: usize, vocab_size: usize) -> Vec<u32> {
        (0..len).map(|_| self.between(0, vocab_size - 1) as u32).collect()
    }
}

fn options(dtype: Dtype, threads: usize) -> LoadOptions {
    LoadOptions { dtype: Some(dtype), threads, ..Default::default() }
}

/// A sequence on its way: what it will be, and how far it is.
struct Running {
    ids: Vec<u32>,
    sequence: Sequence,
    /// Position of the first logits it will give: after a prefix that it shares.
    first: usize,
    found: Vec<f32>,
}

#[test]
fn gpt2() {
    let source = root().join("gguf/f32.gguf");
    for dtype in DTYPES {
        let load =
            |threads| load_causal(source.to_str().unwrap(), &options(dtype, threads), &()).unwrap().model;
        let mut reference = load(1);
        let (vocab, positions) = (reference.info().vocab_size, reference.info().n_positions);
        for threads in [1, 2] {
            let mut model = load(threads);
            for batch in 0..batches(dtype) {
                let mut random = Random(batch << 8 | threads as u64);
                // Some sequences begin with one shared prefix, whose cache they fork.
                let prefix = {
                    let len = random.between(1, positions / 2);
                    random.ids(len, vocab)
                };
                let mut blocks = Blocks::of(model.as_ref());
                let mut shared = blocks.sequence(positions);
                step(model.as_mut(), &mut shared, &prefix, 0);
                let count = random.between(1, 64);
                let mut running: Vec<Running> = (0..count)
                    .map(|_| {
                        let length = random.between(1, positions - prefix.len());
                        let tail = random.ids(length, vocab);
                        if random.between(0, 2) == 0 {
                            let ids = [&prefix[..], &tail].concat();
                            let sequence = blocks.fork(model.as_mut(), &shared, ids.len());
                            Running { ids, sequence, first: prefix.len(), found: Vec::new() }
                        } else {
                            let sequence = blocks.sequence(tail.len());
                            Running { ids: tail, sequence, first: 0, found: Vec::new() }
                        }
                    })
                    .collect();
                // Every step takes a random number of tokens of a random choice of sequences, one at least.
                while running.iter().any(|r| r.sequence.len < r.ids.len()) {
                    let mut parts = Vec::new();
                    let mut found = Vec::new();
                    for Running { ids, sequence, found: own, .. } in &mut running {
                        let (seen, left) = (sequence.len, ids.len() - sequence.len);
                        if left > 0 && (parts.is_empty() || random.between(0, 3) > 0) {
                            let take = random.between(1, left);
                            parts.push((sequence, &ids[seen..seen + take], take));
                            found.push(own);
                        }
                    }
                    let logits = pass(model.as_mut(), &mut parts);
                    found.into_iter().zip(logits).for_each(|(found, logits)| found.extend(logits));
                }
                // Each against itself alone would cost as much again for all; a few of each batch do.
                for _ in 0..3 {
                    let r = &running[random.between(0, count - 1)];
                    let expected = &all_logits(reference.as_mut(), &r.ids)[r.first * vocab..];
                    assert!(r.found == expected, "{dtype:?}, {threads} threads, batch {batch} of {count}");
                }
            }
        }
    }
}

#[test]
fn bert() {
    for name in ["bert-classify-5", "bert-mlm", "classify-gpt2"] {
        for dtype in DTYPES {
            texts_alone_and_together(name, dtype, batches(dtype));
        }
    }
}

/// One forward pass runs them all: what BERT does not have is what is new here.
#[test]
fn the_family() {
    let names =
        ["distilbert-classify", "roberta-classify", "electra-classify", "mpnet-classify", "mpnet-long"];
    for name in names.into_iter().chain(["xlm-roberta-mlm", "camembert-mlm", "distilbert-mlm", "electra-mlm"])
    {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::Int8, Dtype::Q8_0] {
            texts_alone_and_together(&format!("families/{name}"), dtype, 20);
        }
    }
}

fn texts_alone_and_together(name: &str, dtype: Dtype, batches: u64) {
    let source = root().join(name);
    let load = |threads| load_encoder(source.to_str().unwrap(), &options(dtype, threads), &()).unwrap().model;
    let mut reference: Box<dyn Encoder> = load(1);
    let info = reference.info().clone();
    let types = info.type_vocab_size.clamp(1, 2);
    let want = EncoderWant {
        last_hidden_state: true,
        hidden_states: Layers::All,
        pooled: info.has_pooler && info.head != EncoderHead::MaskedLm,
        logits: info.head != EncoderHead::None,
        ..Default::default()
    };
    for threads in [1, 2] {
        let mut model = load(threads);
        for batch in 0..batches {
            let mut random = Random(batch << 16 | threads as u64);
            let count = random.between(1, 64);
            let texts: Vec<EncoderInput> = (0..count)
                .map(|_| {
                    let length = random.between(1, info.max_positions);
                    let split = if types > 1 { random.between(0, length) } else { length };
                    let type_ids = (0..length).map(|t| u32::from(t >= split)).collect();
                    let ids = random.ids(length, info.vocab_size);
                    EncoderInput { ids, type_ids, ..Default::default() }
                })
                .collect();
            let together = model.forward(&texts, &want, &|| false).unwrap();
            for _ in 0..3 {
                let i = random.between(0, count - 1);
                let alone = &reference.forward(&texts[i..=i], &want, &|| false).unwrap()[0];
                let what = format!("{name}, {dtype:?}, {threads} threads, text {i} of {count}");
                assert!(alone.hidden_states == together[i].hidden_states, "{what}: states");
                assert!(alone.last_hidden_state == together[i].last_hidden_state, "{what}: last state");
                assert!(alone.pooled == together[i].pooled, "{what}: pooled");
                assert!(alone.logits == together[i].logits, "{what}: logits");
            }
        }
    }
}
