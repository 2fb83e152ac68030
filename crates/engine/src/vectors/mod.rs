//! Vectors that are searched, with what they are called and what is known of them.
//!
//! - `index.rs`: the handle, and the thread that owns the rest.
//! - `table.rs`: rows by id; adding, replacing and deleting.
//! - `metadata.rs`: fields, column by column; `filter.rs`: rows of which something holds.
//! - `values.rs`: ids and fields as they come from JavaScript.
//! - `file.rs`: one file of all of it; `bytes.rs`: what it is written with.

mod bytes;
mod file;
pub mod filter;
pub mod index;
mod metadata;
mod table;
pub mod values;
