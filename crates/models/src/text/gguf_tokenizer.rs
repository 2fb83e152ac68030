//! The tokenizer of a GGUF file: GPT-2's byte-level BPE, with token types as llama.cpp has them. What the file says is
//! obeyed or refused by name.

use std::collections::HashMap;

use ahash::AHashMap;
use tokenizers::AddedToken;
use tokenizers::models::bpe::BPE;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::sequence::Sequence;
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};

use crate::Result;
use crate::files::gguf::Gguf;
use crate::files::gguf_metadata::{Metadata, short};
use crate::text::encoding::{guarded, invalid};
use crate::text::tokenizer::{Tokenizer, byte_level};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// llama.cpp's names for the splitting of GPT-2. (`default`, its own for files that do not say, is another.)
const GPT2_PRE: [&str; 8] =
    ["gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "mellum"];

/// Flags that must be off: what they ask for, nothing here does.
const OFF: [&str; 3] = [
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.ggml.remove_extra_whitespaces",
];

/// Ids with which a text ends.
const ENDS: [&str; 6] = ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"];
/// Ids that a file may name beside them; of these only the first is used.
const NAMED: [&str; 12] = [
    "bos",
    "unknown",
    "seperator",
    "padding",
    "mask",
    "cls",
    "fim_pre",
    "fim_suf",
    "fim_mid",
    "middle",
    "prefix",
    "suffix",
];

/// ggml's types of tokens.
#[derive(Clone, Copy, PartialEq)]
enum TokenType {
    Normal,
    /// Stands for what has no token: as a control token, found in a text and left out of it.
    Unknown,
    /// Found in a text as a whole; left out when ids become text.
    Control,
    /// Found in a text as a whole, and text.
    UserDefined,
    /// A row of the embedding that no text has.
    Unused,
}

impl TokenType {
    fn of(code: i64) -> Result<Self, String> {
        Ok(match code {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => return Err("type 6, a byte, which the tokens of a byte-level BPE are anyway".into()),
            _ => return Err(format!("type {code}, expected 1 to 5")),
        })
    }
}

/// The ids that a file names.
pub(crate) struct NamedIds {
    pub bos: Option<u32>,
    /// With which a text ends: of sentence, turn and message, and what llama.cpp counts to them.
    pub ends: Vec<u32>,
}

impl NamedIds {
    /// `rows`: of the embedding.
    ///
    /// # Errors
    /// `Tokenizer`: an id that the model does not have, or one that is none.
    pub fn from_gguf(gguf: &Gguf, rows: usize) -> Result<Self> {
        let metadata = &gguf.metadata;
        let id = |name: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match metadata.size_if_any(&key)? {
                Some(id) if id >= rows => Err(metadata.bad(&key, format!("is {id} of {rows} tokens"))),
                id => Ok(id.map(|id| id as u32)),
            }
        };
        let mut ends = Vec::new();
        for name in ENDS {
            ends.extend(id(name)?.filter(|id| !ends.contains(id)));
        }
        NAMED.iter().try_for_each(|name| id(name).map(drop))?;
        Ok(Self { bos: id("bos")?, ends })
    }
}

impl Tokenizer {
    /// GPT-2's tokenizer out of a GGUF file's metadata, or `None` where it has none. `rows`: of the embedding.
    pub(crate) fn from_gguf(gguf: &Gguf, rows: usize) -> Result<Option<Self>> {
        let metadata = &gguf.metadata;
        let ids = NamedIds::from_gguf(gguf, rows)?;
        check_keys(metadata)?;
        let tokens = match (metadata.text(MODEL)?, metadata.texts(TOKENS)?) {
            (None | Some("none" | "no_vocab"), None) => return Ok(None),
            (Some("gpt2"), Some(tokens)) => tokens,
            (Some(model), None) => {
                return Err(metadata.bad(MODEL, format!("is {}, without {TOKENS}", short(model))));
            }
            (None, Some(_)) => return Err(metadata.bad(MODEL, "is missing, expected \"gpt2\"")),
            (Some(model), Some(_)) => {
                return Err(metadata.bad(MODEL, format!("is {}, expected \"gpt2\"", short(model))));
            }
        };
        // Files older than the key are GPT-2's own: other models got it because they split otherwise.
        if let Some(pre) = metadata.text(PRE)?.filter(|pre| !GPT2_PRE.contains(pre)) {
            return Err(metadata.bad(PRE, format!("is {}, expected \"gpt-2\"", short(pre))));
        }
        if tokens.len() != rows {
            let (tokenizer, embedding) = (tokens.len(), rows);
            return Err(crate::ModelError::VocabularyMismatch { tokenizer, embedding });
        }
        let types = token_types(metadata, tokens)?;
        let mut by_text = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = by_text.insert(token.as_str(), id) {
                return Err(metadata.bad(TOKENS, format!("has {} as {first} and as {id}", short(token))));
            }
        }
        guarded(|| build(metadata, tokens, &types, &ids)).map(Some)
    }
}

fn build(metadata: &Metadata, tokens: &[String], types: &[TokenType], named: &NamedIds) -> Result<Tokenizer> {
    // The type that a file gives to its first and last token is often that of any other.
    let is_end = |id: usize| named.bos == Some(id as u32) || named.ends.contains(&(id as u32));
    let kind = |id: usize| if is_end(id) { TokenType::Control } else { types[id] };
    // An unused token is left out of the model: no text becomes it, and it becomes no text.
    let used = || tokens.iter().enumerate().filter(|(id, _)| kind(*id) != TokenType::Unused);
    let vocabulary: AHashMap<_, _> = used().map(|(id, token)| (token.clone(), id as u32)).collect();
    let merges = merges(metadata, used().filter(|(id, _)| kind(*id) == TokenType::Normal))?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .build()
        .map_err(|error| metadata.bad(MERGES, format!("and {TOKENS}: {}", short(&error.to_string()))))?;
    let added = used().filter(|(id, _)| kind(*id) != TokenType::Normal).map(|(id, token)| {
        // Not normalised: so all of them are looked for at once, the longest first.
        AddedToken::from(token.clone(), kind(id) != TokenType::UserDefined).normalized(false)
    });
    let mut tokenizer = byte_level(model, false, Vec::new())?;
    tokenizer.add_tokens(added.collect::<Vec<_>>()).map_err(invalid)?;
    let frame = |key: &str, id: Option<u32>, name: &str| -> Result<Option<SpecialToken>> {
        match (metadata.flag(key)?.unwrap_or(false), id) {
            (false, _) => Ok(None),
            (true, None) => {
                Err(metadata.bad(key, format!("is true, without tokenizer.ggml.{name}_token_id")))
            }
            (true, Some(id)) => {
                let token = vec![tokens[id as usize].clone()];
                SpecialToken::new(name.into(), vec![id], token).map(Some).map_err(invalid)
            }
        }
    };
    let eos = metadata.size_if_any("tokenizer.ggml.eos_token_id")?.map(|id| id as u32);
    let (bos, eos) = (frame(ADD_BOS, named.bos, "bos")?, frame(ADD_EOS, eos, "eos")?);
    if bos.is_some() || eos.is_some() {
        let template = |text: &str| {
            let (before, after) = (bos.iter().map(|_| "bos:0"), eos.iter().map(|_| "eos:0"));
            before.chain([text]).chain(after).map(str::to_string).collect::<Vec<_>>()
        };
        let frame = TemplateProcessing::builder()
            .try_single(template("$A:0"))
            .and_then(|builder| builder.try_pair([template("$A:0"), template("$B:0")].concat()))
            .map_err(invalid)?
            .special_tokens(bos.iter().chain(&eos).cloned().collect::<Vec<_>>())
            .build()
            .map_err(invalid)?;
        let before = tokenizer.get_post_processor().cloned();
        let both = before.into_iter().chain([PostProcessorWrapper::Template(frame)]);
        tokenizer.with_post_processor(Some(PostProcessorWrapper::Sequence(Sequence::new(both.collect()))));
    }
    Ok(Tokenizer::new(tokenizer, false).with_plain_added_tokens())
}

/// Refuses keys that nothing here reads, and flags that ask for what nothing here does.
fn check_keys(metadata: &Metadata) -> Result<()> {
    for key in OFF {
        if metadata.flag(key)? == Some(true) {
            return Err(metadata.bad(key, "is true, which a byte-level BPE does not do"));
        }
    }
    let ids = || ENDS.iter().chain(&NAMED);
    for key in metadata.keys("tokenizer.") {
        let known = match key.strip_prefix("tokenizer.ggml.") {
            Some(
                "model" | "pre" | "tokens" | "token_type" | "merges" | "add_bos_token" | "add_eos_token",
            ) => true,
            // What unigram models choose by; a BPE has its merges.
            Some("scores") => true,
            Some(name) => OFF.contains(&key) || ids().any(|id| name.strip_suffix("_token_id") == Some(*id)),
            // Other templates than the one that is used have names of their own.
            None if key.starts_with("tokenizer.chat_template") => true,
            // The same tokenizer once more.
            None => key == "tokenizer.huggingface.json" && metadata.contains(TOKENS),
        };
        if !known {
            return Err(metadata.bad(key, "is not known"));
        }
    }
    Ok(())
}

/// The type of each token; without the key all are normal ones.
fn token_types(metadata: &Metadata, tokens: &[String]) -> Result<Vec<TokenType>> {
    let Some(codes) = metadata.integers(TYPES)? else { return Ok(vec![TokenType::Normal; tokens.len()]) };
    if codes.len() != tokens.len() {
        return Err(metadata.bad(TYPES, format!("has {} items for {} tokens", codes.len(), tokens.len())));
    }
    let kind = |(id, code): (usize, &i64)| {
        TokenType::of(*code).map_err(|reason| metadata.bad(TYPES, format!("says of token {id}: {reason}")))
    };
    codes.iter().enumerate().map(kind).collect()
}

/// Which two tokens become one, the first to be joined first. `normal`: the tokens that they make.
fn merges<'a>(
    metadata: &Metadata,
    mut normal: impl Iterator<Item = (usize, &'a String)>,
) -> Result<Vec<(String, String)>> {
    let Some(merges) = metadata.texts(MERGES)? else { return Err(metadata.bad(MERGES, "is missing")) };
    if merges.is_empty()
        && let Some((id, token)) = normal.find(|(_, token)| token.chars().nth(1).is_some())
    {
        return Err(metadata.bad(MERGES, format!("is empty: no text becomes token {id}, {}", short(token))));
    }
    let pair = |(index, merge): (usize, &String)| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => Ok((left.into(), right.into())),
        _ => Err(metadata.bad(MERGES, format!("has {} at {index}, expected two parts", short(merge)))),
    };
    merges.iter().enumerate().map(pair).collect()
}
