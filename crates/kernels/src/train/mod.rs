//! What training adds: products of any two matrices, and the backward passes of what lies between them.
//!
//! The contract of the crate holds here too: every sum is taken in one fixed order, so a step gives the same bits on
//! every instruction set and with any number of threads. Whatever is summed over rows (a weight's, a bias's, a norm's
//! gradient) is split over threads by columns, never by rows.
//!
//! | file | what |
//! |---|---|
//! | `gemm.rs` | out (+)= A · B + bias, either operand transposed |
//! | `attention.rs` | attention of whole sequences, forward and backward |
//! | `norm.rs`, `elementwise.rs` | layer norm, activations, dropout, residuals, sums over rows |
//! | `loss.rs` | softmax cross entropy with its gradient in place |
//! | `table.rs` | embeddings |
//! | `adamw.rs` | the optimiser's pass, the gradient's norm |
//! | `random.rs` | dropout's masks, a function of (key, index) |

mod adamw;
mod attention;
mod bias;
mod elementwise;
mod floats;
mod gemm;
mod loss;
mod norm;
pub mod random;
mod table;

pub use adamw::{AdamW, AdamWStep, sum_of_squares};
pub use attention::{Attention, attention_backward, attention_forward};
pub use bias::Bias;
pub use elementwise::{
    activation_backward, activation_forward, add, add_dropout, column_sums, dropout_backward,
    dropout_forward, scale,
};
pub use floats::Floats;
pub use gemm::{Gemm, Precision, Start, View, gemm};
pub use loss::{CrossEntropy, cross_entropy};
pub use norm::{layer_norm_backward, layer_norm_forward};
pub use table::{add_rows, gather_rows, scatter_add_rows};
