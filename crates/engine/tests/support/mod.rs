//! A small deterministic language model whose next token depends on every token before it, and helpers to wait for
//! answers.
#![allow(dead_code)]

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use candlewick_engine::*;
use candlewick_models::LogitRows;

pub const EOS: u32 = 256;
pub const VOCAB: usize = 257;

/// What a test sees and steers of a toy model while it runs.
#[derive(Default)]
pub struct Watch {
    /// For each forward pass: (cached, new tokens) of each sequence.
    pub steps: Mutex<Vec<Vec<(usize, usize)>>>,
    pub layers: AtomicUsize,
    pub models: AtomicUsize,
    pub guards: AtomicUsize,
    /// Layers that may still run before the model waits; `None`: no limit.
    gate: Mutex<Option<usize>>,
    opened: Condvar,
}

impl Watch {
    pub fn passes(&self) -> usize {
        self.steps.lock().unwrap().len()
    }

    /// The model waits in its next layer, and after every layer let through by `allow`.
    pub fn hold(&self) {
        *self.gate.lock().unwrap() = Some(0);
    }

    pub fn allow(&self, layers: usize) {
        if let Some(left) = self.gate.lock().unwrap().as_mut() {
            *left += layers;
        }
        self.opened.notify_all();
    }

    pub fn release(&self) {
        *self.gate.lock().unwrap() = None;
        self.opened.notify_all();
    }

    fn layer(&self) {
        self.layers.fetch_add(1, Ordering::SeqCst);
        let mut gate = self.gate.lock().unwrap();
        while *gate == Some(0) {
            gate = self.opened.wait(gate).unwrap();
        }
        if let Some(left) = gate.as_mut() {
            *left -= 1;
        }
    }
}

type Rule = Box<dyn Fn(&[u32], &mut [f32]) + Send>;

pub struct Toy {
    info: CausalInfo,
    rule: Rule,
    pub delay: Duration,
    /// Of a layer, for each token of a step.
    pub per_token: Duration,
    /// Panics, or fails, when a step holds this token.
    pub panic_at: Option<u32>,
    pub fail_at: Option<u32>,
    /// Blocks of 8 positions; their keys and values are the tokens themselves.
    pub kv_blocks: usize,
    blocks: Vec<[Option<u32>; BLOCK]>,
    logits: Vec<f32>,
    pub limits: Limits,
    watch: Arc<Watch>,
}

/// Positions of a toy's block.
pub const BLOCK: usize = 8;

pub fn hash(tokens: &[u32], salt: u64) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325 ^ salt;
    for token in tokens {
        h = (h ^ u64::from(*token)).wrapping_mul(0x100_0000_01b3);
        h ^= h >> 29;
    }
    h.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Logits in -4..4 from a hash of all tokens so far.
pub fn hashed(tokens: &[u32], logits: &mut [f32]) {
    let base = hash(tokens, 1);
    for (id, logit) in logits.iter_mut().enumerate() {
        *logit = (hash(&[id as u32], base) >> 40) as f32 / (1 << 24) as f32 * 8.0 - 4.0;
    }
}

/// Of a small model of bytes.
pub fn info() -> CausalInfo {
    CausalInfo {
        lanes: 64,
        step_tokens: 256,
        model_type: "toy",
        vocab_size: VOCAB,
        n_positions: 1024,
        layers: 4,
        hidden_size: 8,
        heads: 1,
        parameters: 0,
        weight_bytes: 0,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        dtype: Dtype::F32,
        device: "cpu".to_owned(),
        device_name: None,
        threads: 1,
        instruction_set: String::new(),
        adapters: Vec::new(),
    }
}

impl Toy {
    pub fn new(rule: impl Fn(&[u32], &mut [f32]) + Send + 'static) -> Self {
        let watch = Arc::new(Watch::default());
        watch.models.fetch_add(1, Ordering::SeqCst);
        let rule = Box::new(rule);
        Self {
            info: info(),
            rule,
            delay: Duration::ZERO,
            per_token: Duration::ZERO,
            panic_at: None,
            fail_at: None,
            kv_blocks: 16 * 1024 / BLOCK,
            blocks: Vec::new(),
            logits: Vec::new(),
            limits: Limits::default(),
            watch,
        }
    }

    pub fn hashed() -> Self {
        Self::new(hashed)
    }

    /// Continues any prompt of `prompt` tokens with the bytes of `text`, then with end tokens.
    pub fn says(prompt: usize, text: &[u8]) -> Self {
        let text = text.to_vec();
        let mut toy = Self::new(move |tokens, logits| {
            logits.fill(-10.0);
            let next = text.get(tokens.len() - prompt).map_or(EOS, |byte| u32::from(*byte));
            logits[next as usize] = 10.0;
        });
        toy.info.eos_token_ids = vec![EOS];
        toy
    }

    pub fn with(mut self, change: impl FnOnce(&mut CausalInfo)) -> Self {
        change(&mut self.info);
        self
    }

    pub fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    pub fn start(self) -> Generator {
        let limits = self.limits;
        Generator::from_parts(Box::new(self), Some(Arc::new(Bytes)), limits).unwrap()
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        // As a real model's memory, it takes a moment to free.
        std::thread::sleep(Duration::from_millis(20));
        self.watch.models.fetch_sub(1, Ordering::SeqCst);
    }
}

impl CausalBackend for Toy {
    fn info(&self) -> &CausalInfo {
        &self.info
    }

    fn kv(&self) -> KvSpec {
        KvSpec { positions: BLOCK, blocks: self.kv_blocks, bytes: 4 * BLOCK }
    }

    fn copy_blocks(&mut self, pairs: &[(BlockId, BlockId)]) -> candlewick_models::Result<()> {
        self.blocks.resize(self.kv_blocks, [None; BLOCK]);
        for (from, to) in pairs {
            assert_ne!(from, to);
            self.blocks[*to as usize] = self.blocks[*from as usize];
        }
        Ok(())
    }

    fn forward<'a>(
        &'a mut self,
        steps: &[Step<'_>],
        stop: &dyn Fn() -> bool,
    ) -> candlewick_models::Result<Box<dyn StepLogits + 'a>> {
        assert!(!steps.is_empty());
        assert!(self.watch.guards.load(Ordering::SeqCst) == 1, "a step outside of active()");
        let shape = steps.iter().map(|step| (step.start, step.tokens.len())).collect();
        self.watch.steps.lock().unwrap().push(shape);
        // Written at once: what a step that is stopped leaves in its blocks must not count.
        let mut writers = HashMap::new();
        for (index, step) in steps.iter().enumerate() {
            assert!(!step.tokens.is_empty() && step.logits <= step.tokens.len());
            for (at, token) in (step.start..).zip(step.tokens) {
                let id = step.blocks[at / BLOCK];
                assert_eq!(*writers.entry(id).or_insert(index), index, "two steps write to block {id}");
                self.blocks[id as usize][at % BLOCK] = Some(*token);
            }
        }
        for (index, step) in steps.iter().enumerate() {
            let end = step.start + step.tokens.len();
            for id in &step.blocks[..end.div_ceil(BLOCK)] {
                assert!(writers.get(id).is_none_or(|writer| *writer == index), "another step writes to {id}");
            }
        }
        for _ in 0..self.info.layers {
            if stop() {
                return Err(ModelError::Stopped);
            }
            self.watch.layer();
            let tokens: usize = steps.iter().map(|step| step.tokens.len()).sum();
            std::thread::sleep(self.delay + self.per_token * tokens as u32);
        }
        self.logits.clear();
        for step in steps {
            if self.panic_at.is_some_and(|id| step.tokens.contains(&id)) {
                panic!("the toy panics");
            }
            if self.fail_at.is_some_and(|id| step.tokens.contains(&id)) {
                return Err(ModelError::Io { path: "toy".into(), reason: "fails".into() });
            }
            let end = step.start + step.tokens.len();
            let seen = |at: usize| self.blocks[step.blocks[at / BLOCK] as usize][at % BLOCK].unwrap();
            let tokens: Vec<u32> = (0..end).map(seen).collect();
            for length in end + 1 - step.logits..end + 1 {
                let mut logits = vec![0.0; self.info.vocab_size];
                (self.rule)(&tokens[..length], &mut logits);
                self.logits.extend(logits);
            }
        }
        Ok(Box::new(LogitRows::new(&mut self.logits, self.info.vocab_size)))
    }

    fn active(&self) -> Box<dyn Any> {
        struct Guard(Arc<Watch>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.guards.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.watch.guards.fetch_add(1, Ordering::SeqCst);
        Box::new(Guard(self.watch.clone()))
    }
}

/// A byte-level tokenizer: ids are bytes, 256 is the (special) end.
pub struct Bytes;

impl TextCodec for Bytes {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>, ModelError> {
        Ok(text.bytes().map(u32::from).collect())
    }
    fn encode_pair(&self, text: &str, pair: Option<&str>, cut: &Cut) -> Result<EncoderInput, ModelError> {
        let mut ids = self.encode(text, true)?;
        let mut type_ids = vec![0; ids.len()];
        for id in pair.unwrap_or_default().bytes() {
            ids.push(id.into());
            type_ids.push(1);
        }
        ids.truncate(cut.max_length.unwrap_or(usize::MAX));
        type_ids.truncate(ids.len());
        Ok(EncoderInput { ids, type_ids, ..EncoderInput::default() })
    }
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        let bytes: Vec<u8> = ids.iter().filter(|id| **id != EOS).map(|id| *id as u8).collect();
        let end = if !skip_special && ids.contains(&EOS) { "<end>" } else { "" };
        Ok(String::from_utf8_lossy(&bytes).into_owned() + end)
    }
    fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        (id != EOS).then(|| vec![id as u8])
    }
    fn vocab_size(&self) -> usize {
        VOCAB
    }
    fn is_special(&self, id: u32) -> bool {
        id == EOS
    }
}

/// [`Bytes`] that do something before they encode, and have names.
pub struct Named<F>(pub F, pub fn(u32) -> Option<String>);

impl<F: Fn() + Send + Sync> TextCodec for Named<F> {
    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, ModelError> {
        self.0();
        Bytes.encode(text, special)
    }
    fn encode_pair(&self, text: &str, pair: Option<&str>, cut: &Cut) -> Result<EncoderInput, ModelError> {
        Bytes.encode_pair(text, pair, cut)
    }
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        Bytes.decode(ids, skip_special)
    }
    fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        Bytes.token_bytes(id)
    }
    fn vocab_size(&self) -> usize {
        VOCAB
    }
    fn is_special(&self, id: u32) -> bool {
        id == EOS
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        self.1(id)
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Pending<T>(mpsc::Receiver<Result<T>>);

impl<T> Pending<T> {
    pub fn get(&self) -> Result<T> {
        self.0.recv_timeout(PATIENCE).expect("no answer")
    }

    pub fn is_ready(&self) -> Option<Result<T>> {
        self.0.try_recv().ok()
    }
}

/// Makes a call and returns what to wait on.
pub fn call<T: Send + 'static>(call: impl FnOnce(Done<T>)) -> Pending<T> {
    let (send, receive) = mpsc::channel();
    call(Box::new(move |value| {
        let _ = send.send(value);
    }));
    Pending(receive)
}

pub fn wait<T: Send + 'static>(f: impl FnOnce(Done<T>)) -> Result<T> {
    call(f).get()
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn next(stream: &TokenStream, max: usize) -> Result<Option<Vec<TokenEvent>>> {
    wait(|done| stream.next(max, done))
}

/// Everything a stream gives.
pub fn read(stream: &TokenStream) -> Result<Vec<TokenEvent>> {
    let mut all = Vec::new();
    while let Some(batch) = next(stream, usize::MAX)? {
        assert!(!batch.is_empty());
        all.extend(batch);
    }
    Ok(all)
}

pub fn text(prompt: &str) -> Prompt {
    Prompt::Text(prompt.into())
}

pub fn options(change: impl FnOnce(&mut GenerateOptions)) -> GenerateOptions {
    let mut options = GenerateOptions { seed: Some(7), max_new_tokens: Some(20), ..Default::default() };
    change(&mut options);
    options
}

pub fn request(prompts: Vec<Prompt>, change: impl FnOnce(&mut GenerateOptions)) -> GenerateRequest {
    GenerateRequest { prompts, options: options(change) }
}

/// Starts one text prompt.
pub fn begin(model: &Generator, prompt: &str, change: impl FnOnce(&mut GenerateOptions)) -> TokenStream {
    model.generate(request(vec![text(prompt)], change)).unwrap()
}

pub fn run(model: &Generator, request: GenerateRequest) -> Result<GenerationResult> {
    let stream = model.generate(request)?;
    let events = read(&stream)?;
    let result = wait(|done| stream.result(done))?;
    let count: usize = result.sequences.iter().map(|s| s.tokens.len()).sum();
    assert_eq!(events.len(), count);
    for (index, sequence) in result.sequences.iter().enumerate() {
        let own: Vec<_> = events.iter().filter(|e| e.sequence as usize == index).cloned().collect();
        assert_eq!(own, sequence.tokens, "streamed and returned tokens are the same");
        assert_eq!(own.iter().map(|e| e.text.as_str()).collect::<String>(), sequence.text);
        assert!(own.iter().enumerate().all(|(at, e)| e.index as usize == at));
    }
    Ok(result)
}

pub fn run_one(
    model: &Generator,
    prompt: &str,
    change: impl FnOnce(&mut GenerateOptions),
) -> Result<SequenceResult> {
    Ok(run(model, request(vec![text(prompt)], change))?.sequences.swap_remove(0))
}

pub fn ids(sequence: &SequenceResult) -> Vec<u32> {
    sequence.tokens.iter().map(|token| token.id).collect()
}

pub fn code<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").code()
}
