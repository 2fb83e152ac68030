//! Text to ids and back, through the `tokenizers` crate: by a folder's files (compose.rs) or a GGUF file's metadata.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, Encoding, Model, NormalizedString, Normalizer, OffsetType,
    PreTokenizedString, PreTokenizer, Token,
};

use crate::Result;
use crate::text::classes;
use crate::text::compose::{self, Composed};
use crate::text::encoding::{Cut, cut_encodings, cut_pair, guarded, invalid};

/// A tokenizer, shared by reference: cloning it is free.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    /// Token types are all 0, whatever the tokenizer makes of them: the model is not given any.
    untyped: bool,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// One past the largest id: the rows an embedding must have.
    vocab_size: usize,
    /// Ids that decoding leaves out when asked to.
    special: HashMap<u32, String>,
    /// Added tokens stand for their own text, not for a byte-level spelling.
    added: HashMap<u32, String>,
    byte_level: bool,
    /// `clean_up_tokenization_spaces`: decoding takes away spaces that English does not write.
    clean_up: bool,
    /// `decode` takes added tokens as the text that they are. Else it does as the `tokenizers` crate, which reads an
    /// "é" in their names as a byte.
    plain_added: bool,
    /// Tokens by name, as the files and the tokenizer's class have them: `mask_token`, `[MASK]`.
    named: Vec<(String, String)>,
    max_length: Option<usize>,
    cut_left: bool,
}

impl Inner {
    fn new(composed: Composed) -> Self {
        let Composed { tokenizer, named, clean_up, max_length, cut_left } = composed;
        let vocab = tokenizer.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let decoder = tokenizer.get_added_tokens_decoder();
        let added: HashMap<_, _> = decoder.iter().map(|(&id, token)| (id, token.content.clone())).collect();
        let special = decoder.iter().filter(|(_, token)| token.special);
        let special = special.map(|(&id, token)| (id, token.content.clone())).collect();
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        Self {
            tokenizer,
            vocab_size,
            special,
            added,
            byte_level,
            clean_up,
            plain_added: false,
            named,
            max_length,
            cut_left,
        }
    }
}

/// The ids of a text or a pair of texts, and which text each belongs to; both (T).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
}

impl Tokenizer {
    /// Every file that may have a part in a tokenizer; SentencePiece's own, which are for other programs, among them.
    pub const FILES: [&str; 9] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "spiece.model",
    ];

    /// Whether a folder has a vocabulary.
    pub fn is_in(folder: &Path) -> bool {
        classes::has_tokenizer(folder)
    }

    /// transformers' name for the tokenizer of a folder (`BertTokenizer`), if it has one.
    pub fn class_in(folder: &Path) -> Result<Option<&'static str>> {
        compose::class_in(folder)
    }

    /// The tokenizer of a model's folder, or `None` where it has no tokenizer's files.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        guarded(|| {
            let composed = compose::open(folder)?;
            Ok(composed.map(|composed| Self { inner: Arc::new(Inner::new(composed)), untyped: false }))
        })
    }

    /// A tokenizer of which nothing else is said. `clean_up` as transformers' `clean_up_tokenization_spaces`.
    pub(super) fn new(tokenizer: tokenizers::Tokenizer, clean_up: bool) -> Self {
        let composed = Composed { tokenizer, named: Vec::new(), clean_up, max_length: None, cut_left: false };
        Self { inner: Arc::new(Inner::new(composed)), untyped: false }
    }

    /// From now on `decode` gives added tokens as the text that they are, as llama.cpp does.
    pub(super) fn with_plain_added_tokens(mut self) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.plain_added = true;
        }
        self
    }

    /// One past the largest id that this tokenizer can produce.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.contains_key(&id)
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        guarded(|| {
            let encoding = self.inner.tokenizer.encode_fast(text, add_special).map_err(invalid)?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    /// The ids of a text in which no added token is found, special or not: its name is text.
    pub(crate) fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let tokenizer = &self.inner.tokenizer;
        guarded(|| {
            let mut normalized = NormalizedString::from(text);
            if let Some(normalizer) = tokenizer.get_normalizer() {
                normalizer.normalize(&mut normalized).map_err(invalid)?;
            }
            let mut words = PreTokenizedString::from(normalized);
            if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut words).map_err(invalid)?;
            }
            words.tokenize(|word| tokenizer.get_model().tokenize(word.get())).map_err(invalid)?;
            let encoding = words.into_encoding(None, 0, OffsetType::None).map_err(invalid)?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    /// The names of added tokens, and whether each is special.
    pub(crate) fn added_tokens(&self) -> impl Iterator<Item = (&str, bool)> {
        self.inner.added.iter().map(|(id, name)| (name.as_str(), self.inner.special.contains_key(id)))
    }

    /// Tokens by the names of their parts (`mask_token`), as the folder's files and the tokenizer's class have them.
    pub fn named_tokens(&self) -> &[(String, String)] {
        &self.inner.named
    }

    /// The token that stands for what is to be filled in (`[MASK]`).
    pub fn mask_token(&self) -> Option<&str> {
        self.named_token("mask_token")
    }

    pub(super) fn named_token(&self, part: &str) -> Option<&str> {
        self.inner.named.iter().find(|(name, _)| name == part).map(|(_, token)| token.as_str())
    }

    /// Tokens that texts are cut to, special ones included (`model_max_length`); `None`: the files do not say.
    pub fn max_length(&self) -> Option<usize> {
        self.inner.max_length
    }

    /// Which end of a text is cut off (`truncation_side`).
    pub(crate) fn cut_left(&self) -> bool {
        self.inner.cut_left
    }

    /// A text or a pair with its special tokens, cut on the side that the tokenizer's files say. An empty second text
    /// is a text.
    pub fn encode_pair(&self, text: &str, pair: Option<&str>, cut: impl Into<Cut>) -> Result<Encoded> {
        let cut = cut.into();
        guarded(|| {
            let plain = |text: &str| self.inner.tokenizer.encode_fast(text, false).map_err(invalid);
            Ok(self.encoded(&cut_pair(self.inner(), self.cut_left(), text, pair, &cut, plain)?))
        })
    }

    /// The ids of two texts, without special tokens, as a pair: with these, and cut as one.
    pub fn pair_of_ids(&self, ids: &[u32], pair: &[u32], cut: impl Into<Cut>) -> Result<Encoded> {
        let token = |id: &u32| Token::new(*id, self.id_to_token(*id).unwrap_or_default(), (0, 0));
        let encoding = |ids: &[u32]| Encoding::from_tokens(ids.iter().map(token).collect(), 0);
        guarded(|| {
            let (first, second) = (encoding(ids), Some(encoding(pair)));
            let encoding = cut_encodings(self.inner(), self.cut_left(), first, second, &cut.into())?;
            Ok(self.encoded(&encoding))
        })
    }

    /// For a model that is given no token types: those of a pair's second text are 0 too.
    pub(crate) fn untyped(self) -> Self {
        Self { untyped: true, ..self }
    }

    fn encoded(&self, encoding: &Encoding) -> Encoded {
        Encoded { ids: encoding.get_ids().to_vec(), type_ids: self.type_ids(encoding) }
    }

    pub(crate) fn type_ids(&self, encoding: &Encoding) -> Vec<u32> {
        let type_ids = encoding.get_type_ids();
        if self.untyped { vec![0; type_ids.len()] } else { type_ids.to_vec() }
    }

    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner.tokenizer
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if self.inner.plain_added {
            let shown = ids.iter().filter(|id| !skip_special || !self.is_special(**id));
            let bytes: Vec<u8> = shown.filter_map(|id| self.token_bytes(*id)).flatten().collect();
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        let text = guarded(|| self.inner.tokenizer.decode(ids, skip_special).map_err(invalid))?;
        Ok(if self.inner.clean_up { without_spaces(text) } else { text })
    }

    /// The bytes that `id` adds to a text: those of a byte-level token, which may be part of a character, or an added
    /// token's own. `None` for ids that the vocabulary lacks and for tokenizers that are not byte-level.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if let Some(text) = self.inner.added.get(&id) {
            return Some(text.clone().into_bytes());
        }
        if !self.inner.byte_level {
            return None;
        }
        let token = self.inner.tokenizer.id_to_token(id)?;
        // A character outside the byte alphabet stands for itself, as in the `tokenizers` crate's own decoder.
        Some(
            token
                .chars()
                .flat_map(|c| byte_of(c).map_or_else(|| c.to_string().into_bytes(), |b| vec![b]))
                .collect(),
        )
    }
}

/// transformers' `clean_up_tokenization`.
fn without_spaces(text: String) -> String {
    const SPACED: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    SPACED.iter().fold(text, |text, (spaced, plain)| text.replace(spaced, plain))
}

/// The byte that a character of GPT-2's alphabet stands for: printable Latin-1 for itself, the other 68 bytes from
/// U+0100 on (Radford et al. 2019, `bytes_to_unicode`).
fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match code {
        0..=0xff => printable(code).then_some(code as u8),
        0x100..=0x143 => {
            (0..=0xffu32).filter(|&b| !printable(b)).nth((code - 0x100) as usize).map(|b| b as u8)
        }
        _ => None,
    }
}

pub(super) fn byte_level(
    model: BPE,
    prefix_space: bool,
    special: Vec<AddedToken>,
) -> Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.with_post_processor(Some(ByteLevel::new(true, false, true)));
    tokenizer.add_special_tokens(special).map_err(invalid)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::byte_of;

    #[test]
    fn the_byte_alphabet_has_each_byte_once() {
        let mut bytes: Vec<_> = (0..0x144).filter_map(|c| byte_of(char::from_u32(c).unwrap())).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
    }
}
