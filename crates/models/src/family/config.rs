//! config.json of an encoder: the keys that change the mathematics of a forward pass.

use serde_json::Value;

use super::activation::Activation;
use super::architecture::{Architecture, Positions};
use super::heads::architecture_of;
use super::relative::BUCKETS;
use crate::contract::info::EncoderHead;
use crate::files::folder::ModelFolder;
use crate::files::reading::{optional, short, wrong};
use crate::files::weights::Weights;
use crate::{ModelError, Result};

#[derive(Debug, Clone)]
pub struct Config {
    pub architecture: &'static Architecture,
    pub vocab_size: usize,
    /// Of the embeddings; most have that of the layers, `hidden_size`.
    pub embedding_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    /// Rows of the position embeddings; a text has at most [`Self::max_positions`] tokens.
    pub max_position_embeddings: usize,
    /// 0: the model has no token types.
    pub type_vocab_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    pub tie_word_embeddings: bool,
    /// The token from whose id on positions are counted, which itself is not counted.
    pub padding: Option<u32>,
    /// Rows of the table of what attention adds by distance; 0: it adds nothing.
    pub relative_buckets: usize,
}

impl Config {
    /// # Errors
    /// `UnsupportedModel`: another model's, or a field that asks for what is not supported. `Config`: a key that is
    /// missing, or that holds what cannot be.
    pub fn from_folder(folder: &ModelFolder) -> Result<Self> {
        Self::read(&folder.config, architecture_of(folder)?)
    }

    fn read(config: &Value, architecture: &'static Architecture) -> Result<Self> {
        refuse_unsupported(config, architecture)?;
        let keys = architecture.keys;
        let hidden_size = size(config, keys.hidden_size, "hidden_size", 1 << 16)?;
        let own = Self {
            architecture,
            vocab_size: size(config, "vocab_size", "", 1 << 24)?,
            embedding_size: match architecture.narrow_embeddings {
                true => size(config, "embedding_size", "", 1 << 16)?,
                false => hidden_size,
            },
            hidden_size,
            num_hidden_layers: size(config, keys.num_hidden_layers, "num_hidden_layers", 1 << 10)?,
            num_attention_heads: size(config, keys.num_attention_heads, "num_attention_heads", 1 << 10)?,
            intermediate_size: size(config, keys.intermediate_size, "", 1 << 18)?,
            max_position_embeddings: size(config, "max_position_embeddings", "", 1 << 20)?,
            type_vocab_size: match (architecture.token_types, &config["type_vocab_size"]) {
                (false, _) => 0,
                (true, Value::Null) => 2,
                (true, _) => size(config, "type_vocab_size", "", 1 << 16)?,
            },
            hidden_act: activation(config, keys.hidden_act)?,
            layer_norm_eps: match config.get("layer_norm_eps") {
                Some(value) if !architecture.fixed_norm_eps => positive(value)?,
                _ => 1e-12,
            },
            tie_word_embeddings: flag(config, "tie_word_embeddings", true)?,
            padding: padding(config, architecture)?,
            relative_buckets: match architecture.relative_bias {
                true => buckets(config)?,
                false => 0,
            },
        };
        own.check()?;
        Ok(own)
    }

    fn check(&self) -> Result<()> {
        let keys = self.architecture.keys;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (size, heads) = (keys.hidden_size, keys.num_attention_heads);
            return Err(ModelError::Config(format!("{size} is not a multiple of {heads}")));
        }
        if self.max_positions() == 0 {
            return Err(ModelError::Config(format!(
                "max_position_embeddings is {}: no position is left after that of the padding token",
                self.max_position_embeddings
            )));
        }
        Ok(())
    }

    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Tokens that a text may have.
    pub fn max_positions(&self) -> usize {
        let before = self.padding.map_or(0, |padding| padding as usize + 1);
        self.max_position_embeddings.saturating_sub(before)
    }

    /// The row of the position embeddings of each of a text's tokens, (T).
    pub fn positions(&self, ids: &[u32]) -> Vec<u32> {
        let Some(padding) = self.padding else { return (0..ids.len() as u32).collect() };
        let mut last = padding;
        let mut row = |id: &u32| {
            if *id == padding {
                return padding;
            }
            last += 1;
            last
        };
        ids.iter().map(&mut row).collect()
    }

    /// The width of the state that the masked-LM decoder reads: that of the word embeddings, to which it is tied.
    pub fn decoder_input(&self) -> usize {
        self.embedding_size
    }

    /// The masked-LM decoder's weight (V, E): the word embeddings where it is tied.
    pub fn decoder_weight(&self) -> String {
        if self.tie_word_embeddings {
            WORD_EMBEDDINGS.into()
        } else {
            format!("{}.weight", self.architecture.masked_lm.decoder)
        }
    }

    /// The bias that transformers adds: the decoder's own, or what it was called before.
    pub fn decoder_bias(&self, weights: Option<&Weights>) -> String {
        let head = &self.architecture.masked_lm;
        let own = format!("{}.bias", head.decoder);
        match head.bias {
            Some(older) if !weights.is_some_and(|weights| weights.contains(&own)) => older.into(),
            _ => own,
        }
    }

    /// The activation between the masked-LM head's dense layer and its norm.
    pub fn masked_lm_activation(&self) -> Activation {
        self.architecture.masked_lm.activation.unwrap_or(self.hidden_act)
    }

    pub fn parameter_count(&self, head: EncoderHead, classes: usize, pooler: bool) -> u64 {
        let (v, e, h, inner) =
            (self.vocab_size, self.embedding_size, self.hidden_size, self.intermediate_size);
        let linear = |input: usize, output: usize| input * output + output;
        let embeddings = (v + self.max_position_embeddings + self.type_vocab_size + 2) * e
            + if e == h { 0 } else { linear(e, h) }
            + self.relative_buckets * self.num_attention_heads;
        let layer = 4 * linear(h, h) + linear(h, inner) + linear(inner, h) + 4 * h;
        let own_dense = head == EncoderHead::SequenceClassification && !self.architecture.classifies_pooled();
        let head = match head {
            EncoderHead::None => 0,
            EncoderHead::MaskedLm => {
                linear(h, e) + 2 * e + v + if self.tie_word_embeddings { 0 } else { v * e }
            }
            EncoderHead::SequenceClassification | EncoderHead::TokenClassification => linear(h, classes),
            EncoderHead::QuestionAnswering => linear(h, 2),
        };
        let dense = usize::from(pooler) + usize::from(own_dense);
        (embeddings + self.num_hidden_layers * layer + dense * linear(h, h) + head) as u64
    }
}

/// (V, E)
pub const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// Fields that change the mathematics to what is not here, but for those that `files/config.rs` has refused of any
/// model.
fn refuse_unsupported(config: &Value, architecture: &Architecture) -> Result<()> {
    let refuse = |what: String| {
        Err(ModelError::UnsupportedModel(format!(
            "{what} in the configuration of a {}",
            architecture.model_type
        )))
    };
    for key in ["is_decoder", "add_cross_attention"] {
        if flag(config, key, false)? {
            return refuse(format!("{key}: true"));
        }
    }
    match &config["position_embedding_type"] {
        Value::Null => {}
        Value::String(kind) if kind == "absolute" => {}
        other => return refuse(format!("position_embedding_type: {other}")),
    }
    // Of ELECTRA's multiple choice, which is not run; transformers takes no null there.
    if architecture.narrow_embeddings && config.get("summary_activation").is_some_and(Value::is_null) {
        return Err(ModelError::Config("summary_activation is null, expected a name".into()));
    }
    Ok(())
}

/// A size from 1 to `limit` under `key`, or under `alias`, which transformers takes too.
fn size(config: &Value, key: &str, alias: &str, limit: usize) -> Result<usize> {
    let found = match (config.get(key), config.get(alias).filter(|_| key != alias)) {
        (Some(own), Some(other)) if own != other => {
            return Err(ModelError::Config(format!(
                "{key} is {own}, and {alias}, which means the same, {other}"
            )));
        }
        (Some(value), _) | (None, Some(value)) => value,
        (None, None) => return Err(ModelError::Config(format!("config.json: {key} is missing"))),
    };
    let value = found.as_u64().and_then(|value| usize::try_from(value).ok());
    match value.filter(|value| (1..=limit).contains(value)) {
        Some(value) => Ok(value),
        None => {
            Err(ModelError::Config(format!("config.json: {key} is {}, expected 1 to {limit}", short(found))))
        }
    }
}

fn flag(config: &Value, key: &str, default: bool) -> Result<bool> {
    Ok(optional(config, "config.json", key)?.unwrap_or(default))
}

fn activation(config: &Value, key: &str) -> Result<Activation> {
    let Some(value) = config.get(key) else { return Ok(Activation::Gelu) };
    if !value.is_string() {
        return Err(wrong("config.json", key, &format!("{} is no name of an activation", short(value))));
    }
    serde_json::from_value(value.clone())
        .map_err(|_| ModelError::UnsupportedModel(format!("config.json: {key}: {}", short(value))))
}

fn positive(value: &Value) -> Result<f64> {
    match value.as_f64().filter(|eps| *eps > 0.0 && *eps < 1.0) {
        Some(eps) => Ok(eps),
        None => Err(ModelError::Config(format!("config.json: layer_norm_eps is {}", short(value)))),
    }
}

/// The padding token's id, where positions depend on it.
fn padding(config: &Value, architecture: &Architecture) -> Result<Option<u32>> {
    match (architecture.positions, config.get("pad_token_id")) {
        (Positions::FromZero, _) => Ok(None),
        (Positions::AfterOne, _) | (_, None) => Ok(Some(1)),
        (Positions::AfterPadding, Some(value)) => {
            match value.as_u64().filter(|id| *id < 1 << 20).and_then(|id| u32::try_from(id).ok()) {
                Some(id) => Ok(Some(id)),
                None => Err(ModelError::Config(format!(
                    "config.json: pad_token_id is {}: positions are counted from a token's id on",
                    short(value)
                ))),
            }
        }
    }
}

/// transformers looks distances up in the first 32 rows, whatever the table's size.
fn buckets(config: &Value) -> Result<usize> {
    const KEY: &str = "relative_attention_num_buckets";
    let rows = if config.get(KEY).is_some() { size(config, KEY, "", 1 << 16)? } else { BUCKETS };
    if rows < BUCKETS {
        return Err(ModelError::UnsupportedModel(format!("{KEY} is {rows}: distances need {BUCKETS}")));
    }
    Ok(rows)
}
