//! `adapter_config.json` of a LoRA: what PEFT's `LoraConfig` says, with what it would refuse refused. Fields that would
//! change the output and are not here are refused by name.

use std::collections::HashMap;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::files::reading::{Entries, read_text};
use crate::{ModelError, Result};

pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";

/// One regular expression, or a list of names' ends.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum ModuleNames {
    One(String),
    Many(Vec<String>),
}

/// One layer, or several.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum LayerIndices {
    One(i64),
    Many(Vec<i64>),
}

/// A JSON object in the order of its file: of several patterns that match, the first counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize> Serialize for Ordered<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries: Vec<(String, T)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (key, value) in Entries::deserialize(deserializer)?.0 {
            // A Python dictionary keeps the first place and the last value.
            match places.get(&key) {
                Some(place) => entries[*place].1 = value,
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Self(entries))
    }
}

/// The fields that change the output.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AdapterConfig {
    #[serde(default)]
    pub peft_type: String,
    #[serde(default)]
    pub task_type: Option<String>,
    pub r: usize,
    pub lora_alpha: f64,
    #[serde(default)]
    pub use_rslora: bool,
    #[serde(default)]
    pub use_dora: bool,
    #[serde(default)]
    pub lora_bias: bool,
    #[serde(default)]
    pub ensure_weight_tying: bool,
    #[serde(default)]
    pub bias: Option<String>,
    #[serde(default)]
    pub target_modules: Option<ModuleNames>,
    #[serde(default)]
    pub exclude_modules: Option<ModuleNames>,
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    pub layers_to_transform: Option<LayerIndices>,
    #[serde(default)]
    pub layers_pattern: Option<ModuleNames>,
    #[serde(default)]
    pub rank_pattern: Ordered<usize>,
    #[serde(default)]
    pub alpha_pattern: Ordered<f64>,
    /// Ids of tokens, or of each of several embeddings.
    #[serde(default)]
    pub trainable_token_indices: Option<TokenIndices>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    Input(Vec<u32>),
    Named(Ordered<Vec<u32>>),
}

/// Fields that add to LoRA when they are set.
const EXTRAS: [&str; 10] = [
    "target_parameters",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "megatron_config",
];

/// Initialisations that leave the base's weights unchanged. The others (PiSSA, OLoRA, LoftQ, …) subtract from them, by
/// a computation of PEFT's that its files do not hold; PEFT can save them converted to plain LoRA.
const PLAIN_BEGINNINGS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

impl AdapterConfig {
    /// Reads the configuration in `folder`, and gives its JSON too.
    ///
    /// # Errors
    /// `Config` for what PEFT would refuse, `UnsupportedModel` for what is no LoRA that can be read.
    pub fn read(folder: &Path) -> Result<(Self, Value)> {
        let path = folder.join(ADAPTER_CONFIG);
        let text = read_text(&path)?;
        let invalid = |reason: String| ModelError::Config(format!("{}: {reason}", path.display()));
        let value: Value = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        let unsupported = |what: String| {
            let what: String = what.chars().take(200).collect();
            ModelError::UnsupportedModel(format!("{}: {what}", path.display()))
        };
        // Another kind of adapter has other fields.
        match value["peft_type"].as_str() {
            Some("LORA") => (),
            Some(kind) => return Err(unsupported(format!("an adapter of type {kind}"))),
            None => return Err(invalid("peft_type is missing".into())),
        }
        let config: Self = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        let extra = |key: &str| match &value[key] {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => text != "none",
            Value::Array(values) => !values.is_empty(),
            _ => true,
        };
        if let Some(key) = EXTRAS.into_iter().find(|key| extra(key)) {
            return Err(unsupported(format!("{key}: {}", value[key])));
        }
        if let Some(beginning) = value["init_lora_weights"].as_str()
            && !PLAIN_BEGINNINGS.contains(&beginning)
        {
            return Err(unsupported(format!("init_lora_weights: {beginning}, which changes the base")));
        }
        if let Some(bias) = config.bias.as_deref()
            && !["none", "all", "lora_only"].contains(&bias)
        {
            return Err(invalid(format!("bias is {bias:?}, and neither none, all nor lora_only")));
        }
        if config.lora_bias && config.use_dora {
            return Err(invalid("lora_bias with use_dora, which PEFT refuses too".into()));
        }
        Ok((config, value))
    }
}
