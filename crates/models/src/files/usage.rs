//! How a BERT is meant to be used, as its folder says: `config.json`, its tokenizer, and sentence-transformers' files.
//!
//! Everything is optional; what is missing has the default that transformers and sentence-transformers have. A part
//! that is not supported (such as another module behind the pooling) is kept by name, so that a task that needs it can
//! refuse.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::contract::pooling::{Pooling, PoolingMode};
use crate::files::folder::ModelFolder;
use crate::files::reading::{read_json, read_json_list};
use crate::{ModelError, Result, Tokenizer};

/// The similarity function that a model's vectors are made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Similarity {
    #[default]
    Cosine,
    Dot,
    Euclidean,
    Manhattan,
}

#[derive(Debug, Clone, Default)]
pub struct EncoderUsage {
    /// `problem_type`: "regression", "single_label_classification" or "multi_label_classification".
    pub problem_type: Option<String>,
    /// Tokens that the tokenizer cuts at, special ones included; `None`: it does not say.
    pub tokenizer_max_length: Option<usize>,
    /// The mask token (`[MASK]`).
    pub mask_token: Option<String>,
    /// A cross-encoder's last function as its configuration names it ("torch.nn.modules.linear.Identity").
    pub cross_encoder_activation: Option<String>,

    pub pooling: Pooling,
    /// Vectors are scaled to length 1.
    pub normalize: bool,
    /// Tokens that sentence-transformers cuts at.
    pub sentence_max_length: Option<usize>,
    /// Texts become lower case before they are tokenised.
    pub lower_case: bool,
    /// Put before texts, by name ("query").
    pub prompts: BTreeMap<String, String>,
    pub default_prompt: Option<String>,
    pub similarity: Similarity,
    /// A module of sentence-transformers that we do not have; vectors without it would be wrong.
    pub unsupported_module: Option<String>,
}

impl EncoderUsage {
    /// `tokenizer`: the folder's, which knows what its own files say of it.
    pub fn from_folder(folder: &ModelFolder, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let object = |name: &str| optional(&folder.file(name));
        let config = &folder.config;
        let mut usage = Self {
            problem_type: text(&config["problem_type"]),
            tokenizer_max_length: tokenizer.and_then(Tokenizer::max_length),
            mask_token: tokenizer.and_then(Tokenizer::mask_token).map(str::to_string),
            cross_encoder_activation: text(&config["sentence_transformers"]["activation_fn"])
                .or_else(|| text(&config["sbert_ce_default_activation_function"])),
            ..Self::default()
        };
        let sentences = object("config_sentence_transformers.json")?;
        if let Some(prompts) = sentences["prompts"].as_object() {
            let named = |(name, prompt): (&String, &Value)| Some((name.clone(), text(prompt)?));
            usage.prompts = prompts.iter().filter_map(named).collect();
        }
        usage.default_prompt = text(&sentences["default_prompt_name"]);
        usage.similarity = match sentences["similarity_fn_name"].as_str() {
            None | Some("cosine") => Similarity::Cosine,
            Some("dot") | Some("dot_product") => Similarity::Dot,
            Some("euclidean") => Similarity::Euclidean,
            Some("manhattan") => Similarity::Manhattan,
            Some(other) => return Err(ModelError::Config(format!("similarity_fn_name is {other:?}"))),
        };
        let read = object("sentence_bert_config.json")?;
        usage.sentence_max_length = size(&read["max_seq_length"]);
        usage.lower_case = read["do_lower_case"].as_bool().unwrap_or(false);
        usage.read_modules(folder)?;
        Ok(usage)
    }

    /// `modules.json`: the transformer, its pooling, and what follows.
    fn read_modules(&mut self, folder: &ModelFolder) -> Result<()> {
        let path = folder.file("modules.json");
        if !path.is_file() {
            return Ok(());
        }
        for module in read_json_list(&path)? {
            let name = module["type"].as_str().unwrap_or_default();
            match name.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    let inside = module["path"].as_str().unwrap_or("1_Pooling");
                    let leaves = Path::new(inside).components();
                    let mut leaves = leaves.filter(|part| !matches!(part, std::path::Component::Normal(_)));
                    if leaves.next().is_some() {
                        let file = path.display().to_string();
                        return Err(ModelError::PathEscape { file, path: inside.into() });
                    }
                    self.pooling = pooling(&optional(&folder.file(&format!("{inside}/config.json")))?)?;
                }
                "Normalize" => self.normalize = true,
                _ => self.unsupported_module = Some(name.to_string()),
            }
        }
        Ok(())
    }
}

/// `pooling_mode`, or the older flags in the order in which sentence-transformers concatenates them.
fn pooling(config: &Value) -> Result<Pooling> {
    const FLAGS: [(&str, &str); 6] = [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    let named = match &config["pooling_mode"] {
        Value::String(mode) => vec![mode.as_str()],
        Value::Array(modes) => modes.iter().filter_map(Value::as_str).collect(),
        _ => FLAGS.iter().filter(|(flag, _)| config[*flag] == true).map(|(_, mode)| *mode).collect(),
    };
    let mode = |name: &str| match name {
        "cls" => Ok(PoolingMode::Cls),
        "max" => Ok(PoolingMode::Max),
        "mean" => Ok(PoolingMode::Mean),
        "mean_sqrt_len_tokens" => Ok(PoolingMode::MeanSqrtLength),
        "weightedmean" => Ok(PoolingMode::WeightedMean),
        "lasttoken" => Ok(PoolingMode::Last),
        _ => Err(ModelError::Config(format!("pooling_mode is {name:?}"))),
    };
    let mut modes = named.into_iter().map(mode).collect::<Result<Vec<_>>>()?;
    if modes.is_empty() {
        modes.push(PoolingMode::Mean);
    }
    Ok(Pooling { modes, include_prompt: config["include_prompt"].as_bool().unwrap_or(true) })
}

/// A JSON object's file, or an empty object where there is none.
fn optional(path: &Path) -> Result<Value> {
    if path.is_file() { read_json(path) } else { Ok(Value::Object(Default::default())) }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string)
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0)
}
