//! Text to ids and back, on a thread of its own: a 1 MB line takes a second, and neither the caller nor the model
//! waits.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use candlewick_models::{Cut, Encoded, EncoderInput, ModelError, Tokenizer, Window};

use crate::error::{EngineError, Result};
use crate::runtime::cancel::CancelToken;

/// What the engine needs of a tokenizer. Implemented by [`Tokenizer`]; tests bring their own.
pub trait TextCodec: Send + Sync {
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError>;
    /// A text or a pair with its special tokens.
    fn encode_pair(&self, text: &str, pair: Option<&str>, cut: &Cut) -> Result<EncoderInput, ModelError>;
    /// The ids of two texts, without special tokens, as a pair.
    fn pair_of_ids(&self, _ids: &[u32], _pair: &[u32], _cut: &Cut) -> Result<EncoderInput, ModelError> {
        Err(ModelError::Tokenizer("a tokenizer without pairs".into()))
    }
    /// A text or a pair with offsets, in as many windows as the cut asks for.
    fn windows(&self, _text: &str, _pair: Option<&str>, _cut: &Cut) -> Result<Vec<Window>, ModelError> {
        Err(ModelError::Tokenizer("a tokenizer without offsets".into()))
    }
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError>;
    /// The bytes of a byte-level token; `None` for every token of another kind of vocabulary.
    fn token_bytes(&self, id: u32) -> Option<Vec<u8>>;
    fn vocab_size(&self) -> usize;
    fn is_special(&self, id: u32) -> bool;
    fn token_to_id(&self, _token: &str) -> Option<u32> {
        None
    }
    fn id_to_token(&self, _id: u32) -> Option<String> {
        None
    }
    /// The token of what the vocabulary lacks (`[UNK]`); a byte-level vocabulary has none.
    fn unknown_token(&self) -> Option<&str> {
        None
    }
    /// What the files call the unknown token, whether the vocabulary needs one or not.
    fn named_unknown(&self) -> Option<&str> {
        self.unknown_token()
    }
    /// Joins tokens, given by name, to a text.
    fn join(&self, tokens: Vec<String>) -> Result<String, ModelError> {
        Ok(tokens.join(" "))
    }
    /// The tokenizer itself, if this codec is one, for callers that tokenise data themselves.
    fn tokenizer(&self) -> Option<Tokenizer> {
        None
    }
}

impl TextCodec for Tokenizer {
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        Tokenizer::encode(self, text, add_special)
    }

    fn encode_pair(&self, text: &str, pair: Option<&str>, cut: &Cut) -> Result<EncoderInput, ModelError> {
        let Encoded { ids, type_ids } = Tokenizer::encode_pair(self, text, pair, *cut)?;
        Ok(EncoderInput { ids, type_ids, ..EncoderInput::default() })
    }

    fn pair_of_ids(&self, ids: &[u32], pair: &[u32], cut: &Cut) -> Result<EncoderInput, ModelError> {
        let Encoded { ids, type_ids } = Tokenizer::pair_of_ids(self, ids, pair, *cut)?;
        Ok(EncoderInput { ids, type_ids, ..EncoderInput::default() })
    }

    fn windows(&self, text: &str, pair: Option<&str>, cut: &Cut) -> Result<Vec<Window>, ModelError> {
        Tokenizer::windows(self, text, pair, cut)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        Tokenizer::decode(self, ids, skip_special)
    }

    fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        Tokenizer::token_bytes(self, id)
    }

    fn vocab_size(&self) -> usize {
        Tokenizer::vocab_size(self)
    }

    fn is_special(&self, id: u32) -> bool {
        Tokenizer::is_special(self, id)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        Tokenizer::token_to_id(self, token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        Tokenizer::id_to_token(self, id)
    }

    fn unknown_token(&self) -> Option<&str> {
        Tokenizer::unknown_token(self)
    }

    fn named_unknown(&self) -> Option<&str> {
        Tokenizer::named_unknown(self)
    }

    fn join(&self, tokens: Vec<String>) -> Result<String, ModelError> {
        Tokenizer::join(self, tokens)
    }

    fn tokenizer(&self) -> Option<Tokenizer> {
        Some(self.clone())
    }
}

/// A codec that may be shared, with what was found out about it once.
#[derive(Clone)]
pub(crate) struct Codec {
    pub text: Arc<dyn TextCodec>,
    /// Tokens are bytes, and text can be assembled from them without asking the tokenizer's decoder.
    pub byte_level: bool,
    /// Bytes of the longest token of a byte-level vocabulary.
    longest: usize,
    /// What its texts are made of.
    alphabet: Arc<OnceLock<Alphabet>>,
    fingerprint: Arc<OnceLock<u64>>,
}

impl Codec {
    pub fn new(text: Arc<dyn TextCodec>) -> Self {
        // Added tokens have bytes in every kind of vocabulary; a few ordinary ones decide.
        let mut ordinary =
            (0..text.vocab_size() as u32).filter(|id| !text.is_special(*id)).take(16).peekable();
        let byte_level = ordinary.peek().is_some() && ordinary.all(|id| text.token_bytes(id).is_some());
        let (mut longest, alphabet) = (0, OnceLock::new());
        if byte_level {
            let mut bytes = [false; 256];
            for token in (0..text.vocab_size() as u32).map(|id| bytes_of(text.as_ref(), id)) {
                longest = longest.max(token.len());
                token.into_iter().for_each(|byte| bytes[byte as usize] = true);
            }
            let _ = alphabet.set(Alphabet::Bytes(Box::new(bytes)));
        }
        Self { text, byte_level, longest, alphabet: Arc::new(alphabet), fingerprint: Arc::default() }
    }

    /// A number that two vocabularies share only if the same ids stand for the same tokens. Found once, in
    /// milliseconds.
    pub fn fingerprint(&self) -> u64 {
        *self.fingerprint.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            (0..self.text.vocab_size() as u32).for_each(|id| self.text.id_to_token(id).hash(&mut hasher));
            hasher.finish()
        })
    }

    /// The first character of `text` that no text of this vocabulary holds, special tokens' names included: one of
    /// whose bytes no token has, or, where tokens are no bytes, one that is in no token and that the tokenizer does not
    /// write either when it reads `text`.
    pub fn lacks(&self, text: &str) -> Option<char> {
        match self.alphabet.get_or_init(|| self.characters()) {
            Alphabet::Bytes(bytes) => {
                // Bytes that are no character are read as U+FFFD.
                let torn = bytes[0x80..].contains(&true);
                let is_missing = |c: &char| {
                    let whole = c.encode_utf8(&mut [0; 4]).bytes().all(|byte| bytes[byte as usize]);
                    !(whole || torn && *c == char::REPLACEMENT_CHARACTER)
                };
                text.chars().find(is_missing)
            }
            Alphabet::Unknown => None,
            Alphabet::Characters(known) => {
                let missing = text.chars().find(|c| !known.contains(c))?;
                let again = self.text.encode(text, false).and_then(|ids| self.text.decode(&ids, false));
                again.map_or(Some(missing), |again| {
                    text.chars().find(|c| !known.contains(c) && !again.contains(*c))
                })
            }
        }
    }

    /// Milliseconds, once.
    fn characters(&self) -> Alphabet {
        let ids = 0..self.text.vocab_size() as u32;
        let tokens = ids.filter_map(|id| self.text.id_to_token(id));
        let mut characters = HashSet::new();
        tokens.for_each(|token| characters.extend(token.chars()));
        if characters.is_empty() {
            return Alphabet::Unknown;
        }
        // Decoders put it between words.
        characters.insert(' ');
        Alphabet::Characters(characters)
    }

    /// Tokens that `text` has at the least, known without tokenising it: so that a prompt of megabytes, which cannot
    /// fit, is refused before it holds up the texts behind it. A normaliser may shorten a text; to a quarter at the
    /// most.
    pub fn least_tokens(&self, text: &str) -> usize {
        if self.byte_level { text.len() / (4 * self.longest.max(1)) } else { 0 }
    }

    /// The bytes of one token by itself: those of a byte-level token, which may be a part of a character, an added
    /// token's name, else what it is decoded to. None of an id that the tokenizer lacks.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        bytes_of(self.text.as_ref(), id)
    }

    /// One token by itself, as `top_logprobs` shows it: special tokens by name, torn characters as U+FFFD.
    pub fn show(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.bytes(id)).into_owned()
    }
}

fn bytes_of(text: &dyn TextCodec, id: u32) -> Vec<u8> {
    match text.token_bytes(id) {
        Some(bytes) => bytes,
        None => text.decode(&[id], false).unwrap_or_default().into_bytes(),
    }
}

/// What the texts of a vocabulary are made of.
enum Alphabet {
    /// Whether any token has the byte.
    Bytes(Box<[bool; 256]>),
    /// Those of all tokens.
    Characters(HashSet<char>),
    /// Tokens have no names.
    Unknown,
}

type Job = Box<dyn FnOnce(Option<&Codec>) + Send>;

/// The sending end of the text thread. The thread ends when this is dropped and the jobs before are done.
pub(crate) struct TextThread {
    jobs: mpsc::Sender<Job>,
}

impl TextThread {
    /// Once `closing` is set, jobs that have not begun are dropped, and so answer `MODEL_CLOSED`.
    pub fn start(codec: Option<Codec>, closing: Arc<AtomicBool>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let run = move || {
            for job in todo {
                if closing.load(Ordering::Acquire) {
                    continue;
                }
                // A job that panics drops the replies it owes, and each of them says so.
                let _ = catch_unwind(AssertUnwindSafe(|| job(codec.as_ref())));
            }
        };
        let handle = std::thread::Builder::new().name("candle-text".into()).spawn(run)?;
        Ok((Self { jobs }, handle))
    }

    pub fn run(&self, job: impl FnOnce(Option<&Codec>) + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }
}

/// The bytes of the ids below `size`.
pub(crate) fn vocabulary(codec: Option<&Codec>, size: u32) -> Result<Vec<Vec<u8>>> {
    let codec = need(codec)?;
    Ok((0..size).map(|id| codec.bytes(id)).collect())
}

/// Reads each of a call's inputs until the call is cancelled. An error that is one input's says which one.
pub(crate) fn read_each<T, U>(
    inputs: impl IntoIterator<Item = T>,
    cancel: &CancelToken,
    mut read: impl FnMut(T) -> Result<U>,
) -> Result<Vec<U>> {
    let read = |(index, input)| match cancel.is_cancelled() {
        true => Err(EngineError::Aborted),
        false => read(input).map_err(|error| error.of_input(index)),
    };
    inputs.into_iter().enumerate().map(read).collect()
}

/// The three calls that generators and encoders have in common, as jobs for a text thread.
pub(crate) fn decode_all(codec: Option<&Codec>, ids: &[Vec<u32>], skip_special: bool) -> Result<Vec<String>> {
    let codec = need(codec)?;
    ids.iter().map(|ids| Ok(codec.text.decode(ids, skip_special)?)).collect()
}

pub(crate) fn encode_all(
    codec: Option<&Codec>,
    texts: &[String],
    add_special: bool,
    cancel: &CancelToken,
) -> Result<Vec<Vec<u32>>> {
    let codec = need(codec)?;
    let encode = |text: &String| match cancel.is_cancelled() {
        true => Err(EngineError::Aborted),
        false => Ok(codec.text.encode(text, add_special)?),
    };
    texts.iter().map(encode).collect()
}

/// Counted as a model would see them, special tokens included.
pub(crate) fn count_all(codec: Option<&Codec>, texts: &[String]) -> Result<Vec<usize>> {
    Ok(encode_all(codec, texts, true, &CancelToken::new())?.iter().map(Vec::len).collect())
}

pub(crate) fn need(codec: Option<&Codec>) -> Result<&Codec> {
    codec.ok_or(EngineError::TokenizerMissing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_number_of_tokens_is_never_too_many() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tokenizer = Tokenizer::open(&root.join("models/default")).unwrap().unwrap();
        let codec = Codec::new(Arc::new(tokenizer));
        let lines = std::fs::read_to_string(root.join("__test__/fixtures/tokenizer/lines.jsonl")).unwrap();
        for line in lines.lines() {
            let text: String = serde_json::from_str(line).unwrap();
            assert!(codec.least_tokens(&text) <= codec.text.encode(&text, false).unwrap().len(), "{text:?}");
        }
        // The model has 512 positions; a prompt of megabytes must be refused without being tokenised.
        assert!(codec.least_tokens(&"x".repeat(4 << 20)) > 512);
    }
}
