//! CPU math for Candlewick's hot path: packed weights, matrix products, attention and norms, with no dependency on a
//! tensor library or on Node.
//!
//! # The contract
//! Every function gives the same bits on every instruction set and with any number of threads, and a row's result does
//! not depend on what else is in the call ([`reference`] is the definition; the fast kernels are proven equal to it
//! with `==`). So a request computes the same alone and in any batch, with a cold or a shared prefix.
//!
//! # The map
//! | to change | open |
//! |---|---|
//! | how weights lie in memory, and get there | `weights.rs`, `blocks.rs`, `packing.rs` |
//! | the products | `matmul.rs`, `tile.rs`, `input.rs` |
//! | what bf16 is, and rows in it | `bf16.rs`, `operand.rs` |
//! | what int8 is | `int8.rs` |
//! | the instruction sets | `simd/` |
//! | keys and values, attention | `kv.rs`, `attention.rs` and `attention_*.rs` beside it |
//! | norms, softmax, activations | `norm.rs`, `rows.rs`, `math.rs` |
//! | one vector compared with many | `vectors.rs` |
//! | what training adds | `train/` |
//! | threads | `pool.rs`, `threads.rs` |
//! | what all files share: lanes, blocks, types | `types.rs` |
//! | the machine's limits | `machine.rs` |
//! | the reference that defines every kernel's result | `reference.rs` |
//!
//! ```
//! use candlewick_kernels::{Epilogue, Layout, PackedMatrix, Pool, Scratch, WeightType, default_threads, matmul};
//! let pool = Pool::new(default_threads());
//! let w = PackedMatrix::pack(&pool, WeightType::F32, Layout::OutIn, 2, 3, &[1., 0., 0., 0., 1., 1.])?;
//! let (mut scratch, mut out) = (Scratch::new(), [0.0; 2]);
//! let _awake = pool.active(); // for the length of a request
//! matmul(&pool, &[5., 6., 7.], 1, &w, Epilogue::default(), &mut scratch, &mut out);
//! assert_eq!(out, [5., 13.]);
//! # Ok::<(), candlewick_kernels::KernelError>(())
//! ```
#![deny(unsafe_op_in_unsafe_fn)]

mod arena;
mod attention;
mod attention_bias;
mod attention_job;
mod attention_rows;
mod bf16;
mod blocks;
mod buffer;
mod error;
mod input;
mod int8;
mod isa;
mod kv;
pub mod machine;
pub mod math;
mod matmul;
mod norm;
mod operand;
mod packing;
mod pool;
#[doc(hidden)]
pub mod reference;
mod rows;
mod scratch;
mod simd;
mod threads;
mod tile;
pub mod train;
mod types;
mod vectors;
mod weights;

pub use attention::attention;
pub use attention_bias::DistanceBias;
pub use attention_job::{AttentionJob, KvSource};
pub use blocks::{Q4_0_BYTES, Q8_0_BYTES};
pub use error::KernelError;
pub use isa::isa;
pub use kv::{KV_BLOCK, KvPool, KvShape, KvType, KvWrite};
pub use matmul::matmul;
pub use norm::layer_norm;
pub use operand::{Input, Output};
pub use packing::{Packing, SourceType};
pub use pool::{Active, Pool};
pub use rows::{activation, argmax, log_softmax_row, softmax_row};
pub use scratch::Scratch;
pub use threads::default_threads;
pub use types::{Activation, BLOCK, Epilogue, Isa, Layout, WeightType};
pub use vectors::{Compare, Line, LineBytes, compare_byte_rows, compare_rows, differing_bits, dot_byte_rows};
pub use weights::PackedMatrix;
