//! The model thread: requests in, token streams and vectors out. No tensors and no Node in here.
//!
//! A handle ([`Generator`], [`EncoderHandle`]) owns two threads, the model's and its tokenizer's. What the two kinds of
//! model have in common is in `runtime/`; GPT-2 is in `generation/`, BERT in `encoding/`; `vectors/` searches vectors.
//! The first lines of each folder's `mod.rs` say which file is what. `logits.rs` has the loops over a vocabulary that
//! both need.

mod encoding;
mod error;
mod generation;
mod logits;
mod runtime;
mod vectors;

pub use candlewick_models::{
    BlockId, CausalBackend, CausalInfo, ChatMessage, ChatRequest, Cut, Device, Dtype, Encoder, EncoderHead,
    EncoderInfo, EncoderInput, EncoderOutput, EncoderUsage, EncoderWant, KvSpec, Layers, LoadOptions,
    LoadProgress, ModelError, Pooling, PoolingMode, Similarity, Step, StepLogits, Truncation,
    VectorPrecision, VectorShape, Window,
};

pub use encoding::handle::{Control, EncoderHandle};
pub use encoding::input::{EncodeOptions, EncoderText, Tokenised};
pub use encoding::tasks::{
    Aggregation, Answer, AnswerOptions, EmbedOptions, EntitiesOptions, Entity, Fill, FillOptions, Filled,
    Question,
};
pub use encoding::thread::Progress;
pub use error::{EngineError, Result};
pub use generation::batch::Priority;
pub use generation::handle::{GenerateRequest, Generator};
pub use generation::options::{
    EarlyStopping, GenerateOptions, MAX_LOGPROBS, MAX_SEQUENCES_PER_PROMPT, MAX_STOPS, Prompt, Truncate,
};
pub use generation::result::{FinishReason, GenerationResult, SequenceResult, Timings, TokenEvent, Usage};
pub use generation::score::{ScoreOptions, Scores, TokenScore};
pub use generation::speculative::{DraftModel, Speculation};
pub use generation::stream::{QUEUE_LIMIT, TokenStream};
pub use runtime::admission::Limits;
pub use runtime::cancel::CancelToken;
pub use runtime::codec::TextCodec;
pub use runtime::load::LoadRequest;
pub use runtime::reply::Done;
pub use runtime::stats::{EncoderStats, GeneratorStats, StepStats};
pub use vectors::filter::Filter;
pub use vectors::index::{Add, Found, Hit, Search, VectorIndex};
pub use vectors::values::VectorId;
