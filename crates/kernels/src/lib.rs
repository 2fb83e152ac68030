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
//! | how weights lie in memory, and get there | `weights.rs`, `quant.rs`, `packing.rs` |
//! | the products | `matmul.rs`, `tile.rs`, `quantize.rs` |
//! | what an instruction set can do | `simd/` |
//! | keys and values, attention | `kv.rs`, `attention.rs` |
//! | norms, softmax, activations | `norm.rs`, `rows.rs`, `math.rs` |
//! | what training adds | `train/` |
//! | threads | `pool.rs`, `threads.rs` |
//! | what is right | `reference.rs` |
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
mod buffer;
mod error;
mod isa;
mod kv;
pub mod limits;
pub mod math;
mod matmul;
mod norm;
mod packing;
mod pool;
mod quant;
mod quantize;
#[doc(hidden)]
pub mod reference;
mod rows;
mod scratch;
mod simd;
mod threads;
mod tile;
pub mod train;
mod weights;

pub use attention::{AttentionJob, KvSource, attention};
pub use error::KernelError;
pub use isa::{Isa, isa};
pub use kv::{KvCache, KvShape, KvType};
pub use matmul::{Activation, Epilogue, matmul};
pub use norm::layer_norm;
pub use packing::{Packing, SourceType};
pub use pool::{Active, Pool};
pub use quant::{BLOCK, Q4_0_BYTES, Q8_0_BYTES};
pub use rows::{activation, argmax, log_softmax_row, softmax_row};
pub use scratch::Scratch;
pub use threads::default_threads;
pub use weights::{Layout, PackedMatrix, WeightType};
