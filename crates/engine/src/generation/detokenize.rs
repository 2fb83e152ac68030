//! Ids to text, one token at a time, without tearing a character.

use std::sync::Arc;

use crate::error::Result;
use crate::generation::stop::StopMatcher;
use crate::runtime::codec::Codec;

/// Tokens before the continuation that a decoder needs to see to space its first word as it would in the whole text.
const CONTEXT: usize = 5;

/// The text of one sequence as it grows. Cheap to clone: beam search does.
#[derive(Clone)]
pub(crate) struct Detokenizer {
    decoder: Decoder,
    stops: StopMatcher,
}

/// What a token adds to the text.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub text: String,
    /// Index of the stop string that was found; the text ends before it.
    pub stop: Option<usize>,
}

#[derive(Clone)]
enum Decoder {
    /// No tokenizer: ids only.
    Silent,
    /// Byte-level vocabulary: bytes that do not form characters yet, at most 3.
    Bytes { codec: Codec, pending: Vec<u8> },
    /// Any other: the tokenizer's decoder over a window. `ids[..read]` are out as text, `ids[..prefix]` no longer
    /// matter.
    Window { codec: Codec, ids: Vec<u32>, prefix: usize, read: usize },
}

impl Detokenizer {
    pub fn new(codec: Option<&Codec>, stops: Arc<[String]>, prompt: &[u32]) -> Self {
        let decoder = match codec.cloned() {
            None => Decoder::Silent,
            Some(codec) if codec.byte_level => Decoder::Bytes { codec, pending: Vec::new() },
            Some(codec) => {
                let ids = prompt[prompt.len().saturating_sub(CONTEXT)..].to_vec();
                Decoder::Window { codec, prefix: 0, read: ids.len(), ids }
            }
        };
        Self { decoder, stops: StopMatcher::new(stops) }
    }

    /// Adds a token. Stop strings are looked for if `may_stop`; text before does not count towards one. They see the
    /// names of special tokens, which are not part of the text.
    pub fn push(&mut self, id: u32, may_stop: bool) -> Result<Piece> {
        if self.decoder.is_special(id) {
            return self.push_hidden(id, may_stop);
        }
        let text = self.decoder.push(id)?;
        Ok(self.release(&text, may_stop))
    }

    /// As [`push`](Self::push), of a token whose text is not part of the output: stop strings see it.
    pub fn push_hidden(&mut self, id: u32, may_stop: bool) -> Result<Piece> {
        if self.stops.is_idle() {
            return Ok(Piece::default());
        }
        if !may_stop {
            return Ok(Piece { text: self.stops.finish(), stop: None });
        }
        let name = self.decoder.name(id)?;
        let (text, stop) = self.stops.push_hidden(&name);
        Ok(Piece { text, stop })
    }

    /// What was held back, when no token follows. The first bytes of a character that never came are dropped: a text
    /// ends in whole characters, wherever `max_new_tokens` cuts it.
    pub fn finish(&mut self, may_stop: bool) -> Result<Piece> {
        let text = self.decoder.finish()?;
        let mut piece = self.release(&text, may_stop);
        if piece.stop.is_none() {
            piece.text += &self.stops.finish();
        }
        Ok(piece)
    }

    fn release(&mut self, text: &str, may_stop: bool) -> Piece {
        if may_stop {
            let (text, stop) = self.stops.push(text);
            Piece { text, stop }
        } else {
            Piece { text: self.stops.pass(text), stop: None }
        }
    }
}

impl Decoder {
    fn is_special(&self, id: u32) -> bool {
        match self {
            Self::Silent => false,
            Self::Bytes { codec, .. } | Self::Window { codec, .. } => codec.text.is_special(id),
        }
    }

    /// What a token adds to a text in which special tokens are written out.
    fn name(&self, id: u32) -> Result<String> {
        match self {
            Self::Silent => Ok(String::new()),
            Self::Bytes { codec, .. } => Ok(codec.show(id)),
            Self::Window { codec, ids, prefix, read } => {
                let before = codec.text.decode(&ids[*prefix..*read], false)?;
                let now = codec.text.decode(&[&ids[*prefix..*read], &[id]].concat(), false)?;
                Ok(now.get(before.len()..).unwrap_or_default().to_owned())
            }
        }
    }

    /// The text of a token that is not special.
    fn push(&mut self, id: u32) -> Result<String> {
        match self {
            Self::Silent => Ok(String::new()),
            Self::Bytes { codec, pending } => {
                pending.extend(codec.text.token_bytes(id).unwrap_or_default());
                Ok(take_characters(pending))
            }
            Self::Window { codec, ids, prefix, read } => {
                ids.push(id);
                let before = codec.text.decode(&ids[*prefix..*read], true)?;
                let now = codec.text.decode(&ids[*prefix..], true)?;
                // A replacement character at the end may be the first bytes of a real one.
                if now.len() <= before.len() || now.ends_with('\u{FFFD}') {
                    return Ok(String::new());
                }
                *prefix = *read;
                *read = ids.len();
                Ok(now.get(before.len()..).unwrap_or_default().to_owned())
            }
        }
    }

    fn finish(&mut self) -> Result<String> {
        match self {
            Self::Silent => Ok(String::new()),
            Self::Bytes { pending, .. } => {
                pending.clear();
                Ok(String::new())
            }
            Self::Window { codec, ids, prefix, read } => {
                let before = codec.text.decode(&ids[*prefix..*read], true)?;
                let now = codec.text.decode(&ids[*prefix..], true)?;
                (*prefix, *read) = (*read, ids.len());
                let rest = now.get(before.len()..).unwrap_or_default();
                Ok(rest.trim_end_matches('\u{FFFD}').to_owned())
            }
        }
    }
}

/// Takes all but an incomplete last character off `bytes`. Bytes that cannot be part of one become U+FFFD, grouped as
/// `String::from_utf8_lossy` and Python's `errors="replace"` group them.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut used = 0;
    loop {
        match std::str::from_utf8(&bytes[used..]) {
            Ok(rest) => {
                text.push_str(rest);
                used = bytes.len();
                break;
            }
            Err(error) => {
                let valid = used + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[used..valid]));
                used = valid;
                let Some(wrong) = error.error_len() else { break };
                text.push('\u{FFFD}');
                used += wrong;
            }
        }
    }
    bytes.drain(..used);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::sampling::rng::uniform;

    fn stream(bytes: &[u8], cut: impl Fn(usize) -> bool) -> (String, Vec<String>) {
        let (mut pending, mut out, mut pieces) = (Vec::new(), String::new(), Vec::new());
        for (at, byte) in bytes.iter().enumerate() {
            pending.push(*byte);
            if cut(at) {
                let piece = take_characters(&mut pending);
                out += &piece;
                pieces.push(piece);
            }
        }
        out += &take_characters(&mut pending);
        out += &String::from_utf8_lossy(&pending);
        (out, pieces)
    }

    #[test]
    fn characters_never_tear_wherever_the_tokens_are_cut() {
        let text = "a我们很高兴🙂👨‍👩‍👧é\u{1F1E8}\u{1F1F3}z";
        for case in 0..500 {
            let (out, pieces) = stream(text.as_bytes(), |at| uniform(3, case * 200 + at as u64, 0) < 0.5);
            assert_eq!(out, text);
            assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')), "{pieces:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_what_a_whole_decode_makes_of_them() {
        for case in 0..500u64 {
            let random = |at: u64| uniform(5, case * 100 + at, 1);
            let bytes: Vec<u8> = (0..12).map(|at| (random(at) * 256.0) as u8 | 0x80).collect();
            let (out, _) = stream(&bytes, |at| random(50 + at as u64) < 0.5);
            assert_eq!(out, String::from_utf8_lossy(&bytes), "{bytes:x?}");
        }
    }
}
