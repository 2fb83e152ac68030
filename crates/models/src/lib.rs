//! BERT's family and GPT-2: configuration, weights, tokenizer files and forward passes.
//!
//! `contract/` is what the engine sees. `family/` describes the encoders. `files/` reads a model's files, `text/` makes
//! ids of texts. `reference/` has the differentiable Candle models, `cpu/` the same checkpoints on the packed kernels,
//! `cuda/` on GPUs; `vectors/` keeps vectors and finds the closest; `load.rs` goes from a folder to whichever of these
//! runs, with as much memory for keys and values as `memory.rs` finds.

mod contract;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
pub mod family;
mod files;
mod load;
mod memory;
mod reference;
mod text;
mod vectors;

pub use contract::causal::{BlockId, CausalBackend, KvSpec, LogitRows, Step, StepLogits};
pub use contract::dtype::Dtype;
pub use contract::encoder::{Encoder, EncoderOutput, EncoderWant, Layers};
pub use contract::info::{CausalInfo, Device, EncoderHead, EncoderInfo};
pub use contract::input::EncoderInput;
pub use contract::load::{LoadObserver, LoadOptions, LoadProgress};
pub use contract::pooling::{PooledWant, Pooling, PoolingMode};
pub use contract::projection::{VectorActivation, VectorLayer, check_finite, normalize};
pub use cpu::bert::CpuBert;
pub use cpu::gpt2::CpuGpt2;
pub use cpu::gpt2_classifier::CpuGpt2Classifier;
pub use error::{ModelError, Result};
pub use files::adapter::{Adapter, LoraWeights, kind_of};
pub use files::adapter_config::{AdapterConfig, LayerIndices, ModuleNames, Ordered};
pub use files::floats::{decode, encode};
pub use files::folder::{ModelFolder, SentenceFile};
pub use files::names::Names;
pub use files::reading::{open_regular, read_exact_at};
pub use files::reading::{optional as optional_field, short as short_value};
pub use files::targets::{Kind, Targets};
pub use files::usage::{EncoderUsage, Similarity};
pub use files::values::Values;
pub use files::weights::{Stored, Weights};
pub use load::{Loaded, load_causal, load_encoder};
pub use reference::backend::{CandleBert, CandleGpt2, CandleGpt2Classifier};
pub use reference::bert::Bert;
pub use reference::encoder::{EncoderModel, Parts as EncoderParts};
pub use reference::gpt2::{Gpt2, Gpt2Classifier, Past};
pub use reference::layers::Params;
pub use reference::{bert, gpt2, layers};
pub use text::chat::{ChatMessage, ChatRequest, ChatTemplate, ChatText};
pub use text::encoding::{Cut, Truncation};
pub use text::tokenizer::{Encoded, Tokenizer};
pub use text::windows::Window;
pub use vectors::{RowSet, VectorPool, VectorPrecision, VectorQuery, VectorRows, VectorShape};
