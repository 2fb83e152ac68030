//! Text to ids, and windows with offsets of long texts.

pub mod encoding;
pub mod tokenizer;
pub mod windows;
