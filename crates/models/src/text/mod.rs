//! Text to ids, and windows with offsets of long texts; conversations to ids by a model's chat template.

pub mod chat;
pub mod encoding;
pub mod jinja;
pub mod tokenizer;
pub mod trimming;
pub mod windows;
