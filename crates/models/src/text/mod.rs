//! Text to ids, and windows with offsets of long texts; conversations to ids by a model's chat template.
//!
//! A tokenizer is composed of a folder's files (compose.rs): what they say (settings.rs), of which class it is
//! (classes.rs), what that does to a text (pipeline.rs), the tokens beside the vocabulary (special.rs), and what is
//! refused because files contradict each other (contradiction.rs).

pub mod chat;
mod classes;
mod compose;
mod contradiction;
pub mod encoding;
pub mod gguf_tokenizer;
pub mod jinja;
mod pipeline;
mod settings;
mod special;
mod token;
pub mod tokenizer;
pub mod trimming;
pub mod windows;
