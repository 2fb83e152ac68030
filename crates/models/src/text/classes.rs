//! The tokenizer classes of transformers 5: which one reads a folder, from which files, and what its tokens are called
//! where no file says.

use std::fs::File;
use std::path::Path;

use serde_json::Value;

use crate::files::foreign;
use crate::text::settings::{CONFIG, JSON, Settings};
use crate::text::token::Token;
use crate::{ModelError, Result};

/// A class makes a pipeline of its own from a vocabulary; [`Class::Backend`] takes all of `tokenizer.json` as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// BERT's, DistilBERT's, ELECTRA's.
    Bert,
    MPNet,
    Gpt2,
    Roberta,
    XlmRoberta,
    Camembert,
    Backend,
}

impl Class {
    /// The class of a folder. As in transformers' `AutoTokenizer`: what `tokenizer_config.json` says, else
    /// `tokenizer_class` in `config.json`, else that of the `model_type`; a folder that says none of it is read by its
    /// `tokenizer.json` alone.
    pub fn of(settings: &Settings, model: &Value) -> Result<Self> {
        let said = settings.get("tokenizer_class").filter(|class| !class.is_null());
        let (file, said) = match said {
            Some(class) => (CONFIG, Some(class)),
            None => ("config.json", model.get("tokenizer_class").filter(|class| !class.is_null())),
        };
        if let Some(said) = said {
            let name = said.as_str().ok_or_else(|| {
                ModelError::Tokenizer(format!("{file}: tokenizer_class is {said}, not a name"))
            })?;
            return Self::named(name).ok_or_else(|| {
                ModelError::Tokenizer(format!(
                    "{file}: tokenizer_class is {name:?}, which is not supported; a {JSON} is read as it is under \
                     \"tokenizer_class\": \"PreTrainedTokenizerFast\""
                ))
            });
        }
        match model.get("model_type").and_then(Value::as_str) {
            None => Ok(Self::Backend),
            Some("bert" | "distilbert" | "electra") => Ok(Self::Bert),
            Some("mpnet") => Ok(Self::MPNet),
            Some("gpt2") => Ok(Self::Gpt2),
            Some("roberta") => Ok(Self::Roberta),
            Some("xlm-roberta") => Ok(Self::XlmRoberta),
            Some("camembert") => Ok(Self::Camembert),
            Some(other) => Err(ModelError::Tokenizer(format!(
                "config.json: the tokenizer of model_type {other:?} is not supported; {CONFIG} may say which other \
                 one it is (tokenizer_class)"
            ))),
        }
    }

    /// With the names that are others for the same class, in transformers too. A "Fast" at the end says nothing there.
    fn named(name: &str) -> Option<Self> {
        Some(match name.strip_suffix("Fast").unwrap_or(name) {
            "BertTokenizer"
            | "DistilBertTokenizer"
            | "ElectraTokenizer"
            | "MobileBertTokenizer"
            | "SqueezeBertTokenizer"
            | "LxmertTokenizer"
            | "LayoutLMTokenizer" => Self::Bert,
            "MPNetTokenizer" => Self::MPNet,
            "GPT2Tokenizer" => Self::Gpt2,
            "RobertaTokenizer"
            | "LongformerTokenizer"
            | "BartTokenizer"
            | "LEDTokenizer"
            | "MvpTokenizer" => Self::Roberta,
            "XLMRobertaTokenizer" => Self::XlmRoberta,
            "CamembertTokenizer" => Self::Camembert,
            "PreTrainedTokenizer" | "TokenizersBackend" | "PythonBackend" => Self::Backend,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "BertTokenizer",
            Self::MPNet => "MPNetTokenizer",
            Self::Gpt2 => "GPT2Tokenizer",
            Self::Roberta => "RobertaTokenizer",
            Self::XlmRoberta => "XLMRobertaTokenizer",
            Self::Camembert => "CamembertTokenizer",
            Self::Backend => "PreTrainedTokenizerFast",
        }
    }

    /// Tokens by the names of their parts, for those that no file names. (The class's own lists in transformers.)
    pub fn defaults(self) -> Vec<(&'static str, Token)> {
        let named: &[(&str, &str)] = match self {
            Self::Bert => &[
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Gpt2 => &[
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("unk_token", "<|endoftext|>"),
            ],
            Self::MPNet | Self::Roberta | Self::XlmRoberta | Self::Camembert => &[
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("unk_token", if self == Self::MPNet { "[UNK]" } else { "<unk>" }),
                ("sep_token", "</s>"),
                ("pad_token", "<pad>"),
                ("cls_token", "<s>"),
                ("mask_token", "<mask>"),
            ],
            Self::Backend => &[],
        };
        named.iter().map(|(name, text)| (*name, self.token(name, text))).collect()
    }

    /// What the class makes of a token that a file gives as a text.
    pub fn token(self, name: &str, text: &str) -> Token {
        let takes_space = matches!(self, Self::MPNet | Self::Camembert) && name == "mask_token";
        Token { lstrip: takes_space, ..Token::special(text) }
    }

    /// Special tokens without a name, for when no file lists any.
    pub fn extra(self) -> Vec<Token> {
        let texts: &[&str] = match self {
            Self::Camembert => &["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"],
            _ => &[],
        };
        texts.iter().map(|text| Token::special(text)).collect()
    }

    /// The tokens that stand around a text, and are in any text's ids.
    pub fn around(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Bert | Self::MPNet | Self::Roberta => Some(["cls_token", "sep_token"]),
            Self::XlmRoberta | Self::Camembert => Some(["bos_token", "eos_token"]),
            Self::Gpt2 | Self::Backend => None,
        }
    }

    /// The vocabulary that the class reads where there is no `tokenizer.json`.
    pub fn vocabulary(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::MPNet => &["vocab.txt"],
            Self::Gpt2 | Self::Roberta => &["vocab.json", "merges.txt"],
            Self::XlmRoberta | Self::Camembert | Self::Backend => &[],
        }
    }
}

/// SentencePiece's own files, which are not read here.
const SENTENCEPIECE: [&str; 5] =
    ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model", "sentencepiece.model"];

/// Whether a folder has a tokenizer, whichever.
pub(crate) fn has_tokenizer(folder: &Path) -> bool {
    let mut names = [JSON, "vocab.json", "merges.txt", "vocab.txt"].into_iter().chain(SENTENCEPIECE);
    names.any(|name| folder.join(name).is_file())
}

/// Why a folder's vocabulary cannot be read by `class`: it has no `tokenizer.json`, and not the class's own files.
pub(crate) fn no_vocabulary(folder: &Path, class: Class) -> ModelError {
    let there = |name: &&str| folder.join(name).is_file();
    if let Some(model) = SENTENCEPIECE.iter().find(|name| there(name)) {
        return ModelError::Tokenizer(format!(
            "{model}: SentencePiece's own format is not read; with transformers, \
             AutoTokenizer.from_pretrained(folder).save_pretrained(folder) once writes a {JSON} beside it"
        ));
    }
    let names = ["vocab.json", "merges.txt", "vocab.txt"];
    let found: Vec<_> = names.iter().filter(|name| there(name)).copied().collect();
    let foreign =
        |name: &&str| File::open(folder.join(name)).ok().and_then(|file| foreign::content_of(&file));
    if let Some((name, reason)) = found.iter().find_map(|name| Some((name, foreign(name)?))) {
        return ModelError::Tokenizer(format!("{name}: {reason}"));
    }
    let found = found.join(" and ");
    let reads = match class {
        Class::Backend => {
            return ModelError::Tokenizer(format!(
                "{found}: which tokenizer it is of, neither {CONFIG} (tokenizer_class) nor config.json (model_type) says"
            ));
        }
        Class::XlmRoberta | Class::Camembert => JSON.to_string(),
        _ => format!("{JSON} or {}", class.vocabulary().join(" with ")),
    };
    ModelError::Tokenizer(format!("a {} is read from {reads}; the folder has {found} alone", class.name()))
}
