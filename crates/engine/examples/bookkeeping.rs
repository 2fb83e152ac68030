//! What a step costs beside the model: `cargo run --release --package candlewick-engine --example bookkeeping`.
//!
//! The model here answers at once, with the logits of 257 tokens. What is measured is scheduling, memory, choosing
//! among 257 tokens, text and streams, of 1, 8 and 64 sequences that decode.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use candlewick_engine::{
    BlockId, CausalBackend, CausalInfo, GenerateOptions, GenerateRequest, Generator, KvSpec, Limits,
    ModelError, Prompt, Speculation, Step, StepLogits, TokenStream,
};
use candlewick_models::LogitRows;
use support::{Bytes, VOCAB, info};

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
    let inside = Arc::<AtomicU64>::default();
    let model = Box::new(Nothing { info: info(), logits: Vec::new(), inside: inside.clone() });
    let model = Generator::from_parts(model, Some(Arc::new(Bytes)), Limits::default()).expect("a model");
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
