//! Vectors in memory, and which of them are closest to a query: rows on the kernels, without names for them.
//!
//! - `shape.rs`: what is kept of a row, by precision.
//! - `block.rs`: a few thousand rows, column by column; how a row is quantised.
//! - `rows.rs`: blocks as one list: add, replace, compact.
//! - `search.rs`: the closest rows, exactly, of fewer bytes than there are.
//! - `set.rs`: which rows count; `pool.rs`: the threads.

mod block;
mod pool;
mod rows;
mod search;
mod set;
mod shape;

pub use pool::VectorPool;
pub use rows::VectorRows;
pub use search::VectorQuery;
pub use set::RowSet;
pub use shape::{VectorPrecision, VectorShape};
