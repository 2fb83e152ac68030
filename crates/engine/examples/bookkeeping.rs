//! What a step costs beside the model: `cargo run --release --package candlewick-engine --example bookkeeping`.
//!
//! The model here answers at once, with the logits of 16 tokens. What is measured is scheduling, memory, choosing among
//! 16 tokens, text and streams, of 1, 8 and 64 sequences that decode.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use candlewick_engine::{
    BlockId, CausalBackend, CausalInfo, Cut, Dtype, EncoderInput, GenerateOptions, GenerateRequest,
    Generator, KvSpec, Limits, ModelError, Prompt, Speculation, Step, StepLogits, TextCodec, TokenStream,
};
use candlewick_models::LogitRows;

const VOCAB: usize = 16;
const TOKENS: usize = 900;

struct Nothing {
    info: CausalInfo,
    logits: Vec<f32>,
    /// Time spent in here, which is not bookkeeping.
    inside: Arc<AtomicU64>,
}

impl CausalBackend for Nothing {
    fn info(&self) -> &CausalInfo {
        &self.info
    }

    fn kv(&self) -> KvSpec {
        KvSpec { positions: 64, blocks: 64 * 16, bytes: 1 }
    }

    fn copy_blocks(&mut self, _: &[(BlockId, BlockId)]) -> Result<(), ModelError> {
        Ok(())
    }

    fn forward<'a>(
        &'a mut self,
        steps: &[Step<'_>],
        _: &dyn Fn() -> bool,
    ) -> Result<Box<dyn StepLogits + 'a>, ModelError> {
        let begin = Instant::now();
        self.logits.clear();
        for step in steps {
            let next = (step.start * 7 + step.start / 16) % VOCAB;
            for _ in 0..step.logits {
                self.logits.extend((0..VOCAB).map(|id| if id == next { 1.0 } else { 0.0 }));
            }
        }
        let nanoseconds = begin.elapsed().as_nanos() as u64;
        self.inside.fetch_add(nanoseconds, Ordering::Relaxed);
        Ok(Box::new(LogitRows::new(&mut self.logits, VOCAB)))
    }
}

struct Letters;

impl TextCodec for Letters {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>, ModelError> {
        Ok(text.bytes().map(|byte| u32::from(byte) % VOCAB as u32).collect())
    }
    fn encode_pair(&self, text: &str, _: Option<&str>, _: &Cut) -> Result<EncoderInput, ModelError> {
        Ok(EncoderInput { ids: self.encode(text, true)?, ..EncoderInput::default() })
    }
    fn decode(&self, ids: &[u32], _: bool) -> Result<String, ModelError> {
        Ok(ids.iter().map(|id| (b'a' + *id as u8) as char).collect())
    }
    fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        Some(vec![b'a' + id as u8])
    }
    fn vocab_size(&self) -> usize {
        VOCAB
    }
    fn is_special(&self, _: u32) -> bool {
        false
    }
}

/// Reads what there is until the end, then says so.
fn read(stream: Arc<TokenStream>, ended: mpsc::Sender<()>) {
    let again = stream.clone();
    stream.next(
        64,
        Box::new(move |tokens| match tokens.expect("tokens") {
            Some(_) => read(again, ended),
            None => drop(ended.send(())),
        }),
    );
}

fn main() {
    let info = CausalInfo {
        model_type: "nothing",
        vocab_size: VOCAB,
        n_positions: 1024,
        layers: 1,
        hidden_size: 1,
        heads: 1,
        parameters: 0,
        weight_bytes: 0,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        dtype: Dtype::F32,
        device: "cpu",
        threads: 1,
        adapters: Vec::new(),
    };
    let inside = Arc::<AtomicU64>::default();
    let model = Box::new(Nothing { info, logits: Vec::new(), inside: inside.clone() });
    let model = Generator::from_parts(model, Some(Arc::new(Letters)), Limits::default()).expect("a model");
    for count in [1, 8, 64] {
        let mut fastest = f64::MAX;
        for _ in 0..5 {
            let before = model.stats().steps.count;
            inside.store(0, Ordering::Relaxed);
            let begin = Instant::now();
            let (send, receive) = mpsc::channel();
            let stream = |i: usize| {
                let options = GenerateOptions {
                    max_new_tokens: Some(TOKENS),
                    temperature: 0.0,
                    speculation: Speculation::Off,
                    ..GenerateOptions::default()
                };
                let prompts = vec![Prompt::Ids(vec![(i % VOCAB) as u32])];
                model.generate(GenerateRequest { prompts, options }).expect("a stream")
            };
            for stream in (0..count).map(stream) {
                read(Arc::new(stream), send.clone());
            }
            receive.iter().take(count).for_each(drop);
            let elapsed = begin.elapsed();
            std::thread::sleep(Duration::from_millis(10));
            let steps = (model.stats().steps.count - before).max(1);
            let model = inside.load(Ordering::Relaxed) as f64 / 1e9;
            fastest = fastest.min((elapsed.as_secs_f64() - model) / steps as f64);
        }
        println!("{count} sequences: {:.1} µs a step", fastest * 1e6);
    }
}
