//! The model thread: requests in, token streams out. No tensors and no Node in here.
//!
//! A handle ([`Generator`], [`EncoderHandle`]) owns two threads, the model's and its tokenizer's (`life.rs`). A
//! generation goes `generator.rs` → text thread (`text.rs`: ids) → model thread (`scheduler.rs`: batches of `task.rs`,
//! `request.rs`, and what is decided before it runs, `plan.rs`) → queue (`stream.rs`) → whoever calls
//! [`TokenStream::next`]. What happens to a token's logits is in `processors.rs`, `sample.rs` and `beam.rs`, over the
//! loops of `logits.rs`; how ids become text in `detokenize.rs` and `stop.rs`. What exists already is scored by
//! `likelihood.rs`. An encoder's calls go through `encoder.rs` → text thread (`encoder_input.rs`: what fits) →
//! `encoder_thread.rs`; what the tasks of `tasks/` make of the outputs goes back over the text thread. `vectors.rs`
//! searches vectors, on a thread of its own.

mod beam;
mod cancel;
mod detokenize;
mod encoder;
mod encoder_input;
mod encoder_thread;
mod error;
mod generator;
mod life;
mod likelihood;
mod load;
mod logits;
mod options;
#[cfg(test)]
mod parity;
mod plan;
mod prefix;
mod processors;
mod reply;
mod request;
mod result;
mod rng;
mod sample;
mod scheduler;
mod stop;
mod stream;
mod task;
mod tasks;
mod text;
mod vectors;

pub use candlewick_models::{
    CausalInfo, CausalLm, Cut, Device, Dtype, Encoder, EncoderHead, EncoderInfo, EncoderInput, EncoderOutput,
    EncoderUsage, EncoderWant, Layers, LoadOptions, LoadProgress, ModelError, Pooling, PoolingMode,
    Similarity, Truncation, Window,
};

pub use cancel::CancelToken;
pub use encoder::{Control, EncoderHandle};
pub use encoder_input::{EncodeOptions, EncoderText, Tokenised};
pub use encoder_thread::Progress;
pub use error::{EngineError, Result};
pub use generator::{GenerateRequest, Generator};
pub use likelihood::TokenScore;
pub use load::LoadRequest;
pub use options::{
    EarlyStopping, GenerateOptions, MAX_LOGPROBS, MAX_SEQUENCES_PER_PROMPT, MAX_STOPS, Prompt, Truncate,
};
pub use reply::Done;
pub use result::{FinishReason, GenerationResult, SequenceResult, Timings, TokenEvent, Usage};
pub use stream::{QUEUE_LIMIT, TokenStream};
pub use tasks::{
    Aggregation, Answer, AnswerOptions, EmbedOptions, EntitiesOptions, Entity, Fill, FillOptions, Filled,
    Question,
};
pub use text::TextCodec;
pub use vectors::{Hit, VectorIndex};
