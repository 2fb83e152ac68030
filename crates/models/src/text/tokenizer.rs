//! Text to ids and back, through the `tokenizers` crate: `tokenizer.json`, GPT-2's `vocab.json` + `merges.txt`, BERT's
//! `vocab.txt`, or a GGUF file's metadata.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ahash::AHashMap;
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, Encoding, Model, NormalizedString, Normalizer, OffsetType,
    PreTokenizedString, PreTokenizer, decoders,
};

use crate::files::foreign;
use crate::files::gguf::Gguf;
use crate::files::reading::{file_name, read_json};
use crate::text::encoding::{Cut, cut_pair, guarded, invalid};
use crate::{ModelError, Result};

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
}

/// The ids of a text or a pair of texts, and which text each belongs to; both (T).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
}

/// Why a tokenizer's file could not be read: what it is instead, or else `error`.
fn foreign_or(path: &Path, error: impl std::fmt::Display) -> ModelError {
    let name = file_name(path);
    let found = std::fs::File::open(path).ok().and_then(|file| foreign::content_of(&file));
    ModelError::Tokenizer(format!("{name}: {}", found.unwrap_or_else(|| error.to_string())))
}

impl Tokenizer {
    /// The tokenizer of a model's folder, or `None` where it has no tokenizer's files.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        guarded(|| Self::read(folder))
    }

    fn read(folder: &Path) -> Result<Option<Self>> {
        let config_path = folder.join("tokenizer_config.json");
        let config = if config_path.is_file() { read_json(&config_path)? } else { Value::Null };
        let json = folder.join("tokenizer.json");
        let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        let words = folder.join("vocab.txt");
        for path in [&vocab, &words].into_iter().filter(|path| !json.is_file() && path.is_file()) {
            let found = std::fs::File::open(path).ok().and_then(|file| foreign::content_of(&file));
            found.map_or(Ok(()), |reason| {
                Err(ModelError::Tokenizer(format!("{}: {reason}", file_name(path))))
            })?;
        }
        let tokenizer = if json.is_file() {
            tokenizers::Tokenizer::from_file(&json).map_err(|error| foreign_or(&json, error))?
        } else if vocab.is_file() && merges.is_file() {
            byte_level_bpe(&vocab, &merges, &config)?
        } else if words.is_file() {
            word_piece(&words, &config)?
        } else {
            return Ok(None);
        };
        let clean_up = config["clean_up_tokenization_spaces"] == true;
        Self::new(tokenizer, clean_up).map(Some)
    }

    /// GPT-2's tokenizer out of a GGUF file's metadata, or `None` where it has none.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Option<Self>> {
        let Some(tokens) = gguf.texts("tokenizer.ggml.tokens") else { return Ok(None) };
        let kind = (gguf.text("tokenizer.ggml.model"), gguf.text("tokenizer.ggml.pre"));
        if !matches!(kind, (Some("gpt2"), None | Some("gpt-2"))) {
            return Err(ModelError::Tokenizer(format!("{}: not GPT-2's: {kind:?}", gguf.name)));
        }
        let merges = gguf.texts("tokenizer.ggml.merges").unwrap_or_default();
        let pair = |merge: &String| merge.split_once(' ').map(|(a, b)| (a.to_string(), b.to_string()));
        let merges = merges.iter().map(pair).collect::<Option<Vec<_>>>();
        let merges =
            merges.ok_or_else(|| ModelError::Tokenizer(format!("{}: a merge of one part", gguf.name)))?;
        let ids = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32));
        let model = BPE::builder()
            .vocab_and_merges(ids.collect::<AHashMap<_, _>>(), merges)
            .build()
            .map_err(invalid)?;
        // Types 3 and 4 are control tokens and what the user added: found in a text as they are.
        let types = gguf.integers("tokenizer.ggml.token_type").unwrap_or_default();
        let special = |key: &str| gguf.size_if_any(&format!("tokenizer.ggml.{key}_token_id"));
        let ends = [special("bos"), special("eos")];
        let added = tokens
            .iter()
            .enumerate()
            .filter(|(id, _)| ends.contains(&Some(*id)) || matches!(types.get(*id), Some(3 | 4)));
        let added = added.map(|(_, token)| AddedToken::from(token.clone(), true)).collect();
        Self::new(byte_level(model, false, added)?, false).map(Some)
    }

    fn new(mut tokenizer: tokenizers::Tokenizer, clean_up: bool) -> Result<Self> {
        // A tokenizer.json may hold the padding and truncation of the program that saved it. Here the caller sets both.
        tokenizer.with_truncation(None).map_err(invalid)?;
        tokenizer.with_padding(None);
        let vocab = tokenizer.get_vocab(true);
        let vocab_size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let decoder = tokenizer.get_added_tokens_decoder();
        let added: HashMap<_, _> = decoder.iter().map(|(&id, token)| (id, token.content.clone())).collect();
        let special = decoder.iter().filter(|(_, token)| token.special);
        let special = special.map(|(&id, token)| (id, token.content.clone())).collect();
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        // transformers cleans up for every model but BPE, whose tokens hold the text's own spaces.
        let clean_up = clean_up && !matches!(tokenizer.get_model(), ModelWrapper::BPE(_));
        Ok(Self {
            untyped: false,
            inner: Arc::new(Inner { tokenizer, vocab_size, special, added, byte_level, clean_up }),
        })
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

    /// A text or a pair with its special tokens, cut on the right. An empty second text is none, as in transformers.
    pub fn encode_pair(&self, text: &str, pair: Option<&str>, cut: impl Into<Cut>) -> Result<Encoded> {
        let cut = cut.into();
        guarded(|| {
            let plain = |text: &str| self.inner.tokenizer.encode_fast(text, false).map_err(invalid);
            let encoding = cut_pair(&self.inner.tokenizer, text, pair, &cut, plain)?;
            Ok(Encoded { ids: encoding.get_ids().to_vec(), type_ids: self.type_ids(&encoding) })
        })
    }

    /// For a model that is given no token types.
    pub(crate) fn untyped(self) -> Self {
        Self { untyped: true, ..self }
    }

    pub(crate) fn type_ids(&self, encoding: &Encoding) -> Vec<u32> {
        let type_ids = encoding.get_type_ids();
        if self.untyped { vec![0; type_ids.len()] } else { type_ids.to_vec() }
    }

    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner.tokenizer
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
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

/// A special token's text: a string, or an object with `content`.
fn special_token(config: &Value, key: &str, default: &str) -> String {
    let value = &config[key];
    value.as_str().or_else(|| value["content"].as_str()).unwrap_or(default).to_string()
}

fn byte_level_bpe(vocab: &Path, merges: &Path, config: &Value) -> Result<tokenizers::Tokenizer> {
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let model = BPE::from_file(&path(vocab), &path(merges)).build().map_err(invalid)?;
    let mut special = ["unk_token", "bos_token", "eos_token"]
        .map(|key| AddedToken::from(special_token(config, key, "<|endoftext|>"), true))
        .to_vec();
    special.dedup();
    byte_level(model, config["add_prefix_space"].as_bool().unwrap_or(false), special)
}

fn byte_level(model: BPE, prefix_space: bool, special: Vec<AddedToken>) -> Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.with_post_processor(Some(ByteLevel::new(true, false, true)));
    tokenizer.add_special_tokens(special).map_err(invalid)?;
    Ok(tokenizer)
}

fn word_piece(vocab: &Path, config: &Value) -> Result<tokenizers::Tokenizer> {
    let flag = |key: &str| config[key].as_bool();
    let [unk, sep, pad, cls, mask] = [
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ]
    .map(|(key, default)| special_token(config, key, default));
    let model =
        WordPiece::from_file(&vocab.to_string_lossy()).unk_token(unk.clone()).build().map_err(invalid)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let lowercase = flag("do_lower_case").unwrap_or(true);
    let chinese = flag("tokenize_chinese_chars").unwrap_or(true);
    let normalizer = BertNormalizer::new(true, chinese, flag("strip_accents"), lowercase);
    tokenizer.with_normalizer(Some(normalizer)).map_err(invalid)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(decoders::wordpiece::WordPiece::new("##".into(), true)));
    let id = |token: &str| {
        tokenizer.token_to_id(token).ok_or_else(|| ModelError::Tokenizer(format!("vocab.txt has no {token}")))
    };
    let template = TemplateProcessing::builder()
        .try_single(format!("{cls}:0 $A:0 {sep}:0"))
        .and_then(|b| b.try_pair(format!("{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")))
        .map_err(invalid)?
        .special_tokens(vec![(cls.clone(), id(&cls)?), (sep.clone(), id(&sep)?)])
        .build()
        .map_err(invalid)?;
    tokenizer.with_post_processor(Some(template));
    let special = [unk, sep, pad, cls, mask].map(|token| AddedToken::from(token, true));
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
