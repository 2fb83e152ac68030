//! LoRA adapters in PEFT's files: `adapter_config.json` with `adapter_model.safetensors` or `adapter_model.bin`. Hu et
//! al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): y = x Wᵀ + scale · (x Aᵀ) Bᵀ. What the
//! configuration says: `adapter_config.rs`, `targets.rs`. Whether it fits a base: `adapter_base.rs`. How it becomes
//! part of the weights: `delta.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::family::architecture::Architecture;
use crate::files::adapter_config::{ADAPTER_CONFIG, AdapterConfig, TokenIndices};
use crate::files::checkpoint::Checkpoint;
use crate::files::names::Names;
use crate::files::targets::{Kind, Targets};
use crate::{ModelError, Result};

/// One module's matrices, row-major.
#[derive(Debug, Clone)]
pub struct LoraWeights {
    pub rank: usize,
    /// Of an embedding: its rows.
    pub input: usize,
    pub output: usize,
    /// (rank, input)
    pub a: Vec<f32>,
    /// (output, rank)
    pub b: Vec<f32>,
    /// alpha / rank, or alpha / √rank where the adapter is rank-stabilised.
    pub scale: f32,
    /// (output): DoRA's lengths of what makes each output.
    pub magnitude: Option<Vec<f32>>,
    /// (output): added to the layer's bias, times the scale.
    pub bias: Option<Vec<f32>>,
    pub is_embedding: bool,
}

/// An adapter. Names are those that a model asks for (`h.0.attn.c_attn`), whatever the checkpoint calls them.
pub struct Adapter {
    pub folder: PathBuf,
    /// `adapter_config.json`.
    pub config: Value,
    /// The same, as it is read.
    pub settings: AdapterConfig,
    pub targets: Targets,
    /// What it adds, by module.
    pub modules: BTreeMap<String, LoraWeights>,
    /// Tensors that take the place of the base's (`modules_to_save`, biases): their names in `weights`.
    pub(crate) whole: BTreeMap<String, String>,
    pub(crate) rows: Option<TokenRows>,
    pub(crate) weights: Checkpoint,
    /// Its file of weights.
    pub(crate) file: &'static str,
    /// Of the base, if it is one; else the base is a GPT-2.
    pub(crate) encoder: Option<&'static Architecture>,
    /// Whether the names of its file have the model's prefix, as those of a model with a head do.
    pub(crate) prefixed: bool,
    pub(crate) tie: Option<Tie>,
}

/// A head that its base ties to the embedding and that is of its own with the adapter.
pub(crate) struct Tie {
    pub head: String,
    pub embedding: &'static str,
    /// It begins as the embedding that the adapter holds, not as the base's.
    pub replaces: bool,
}

/// Rows of an embedding that are the adapter's own (`trainable_token_indices`).
pub(crate) struct TokenRows {
    /// The embedding's tensor.
    pub name: String,
    /// Where each row's values are.
    pub places: BTreeMap<usize, usize>,
    pub width: usize,
    /// (rows, width)
    pub values: Vec<f32>,
}

pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
pub(crate) const ADAPTER_PICKLE: &str = "adapter_model.bin";

/// What PEFT puts before the names of the model that it wraps.
const WRAPPER: &str = "base_model.model.";

/// The names of one module's tensors in the file.
#[derive(Default)]
struct Parts {
    a: Option<String>,
    b: Option<String>,
    bias: Option<String>,
    magnitude: Option<String>,
    is_embedding: bool,
    is_linear: bool,
}

impl Parts {
    /// The module of one of LoRA's tensors, and its place; `None` for a tensor of another kind.
    fn place<'p>(parts: &'p mut BTreeMap<String, Self>, name: &str) -> Option<&'p mut Option<String>> {
        const ENDS: [(&str, u8); 7] = [
            (".lora_A.weight", 0),
            (".lora_B.weight", 1),
            (".lora_B.bias", 2),
            (".lora_magnitude_vector", 3),
            (".lora_magnitude_vector.weight", 3),
            (".lora_embedding_A", 4),
            (".lora_embedding_B", 5),
        ];
        let (module, end) = ENDS.iter().find_map(|(end, which)| Some((name.strip_suffix(end)?, *which)))?;
        let parts = parts.entry(module.to_string()).or_default();
        parts.is_embedding |= end >= 4;
        parts.is_linear |= end <= 2;
        Some(match end {
            0 | 4 => &mut parts.a,
            1 | 5 => &mut parts.b,
            2 => &mut parts.bias,
            _ => &mut parts.magnitude,
        })
    }
}

impl Adapter {
    /// Reads the adapter in `folder`, made for an encoder, or for a GPT-2 where there is none.
    ///
    /// # Errors
    /// `UnsupportedModel` for an adapter of a kind that is not read; `Config` where the configuration is none that PEFT
    /// takes, or says other than the file of weights; `MissingTensor`, `TensorShape`, `NotFinite` for an adapter that
    /// is not whole.
    pub fn open(folder: &Path, encoder: Option<&'static Architecture>) -> Result<Self> {
        let (settings, config) = AdapterConfig::read(folder)?;
        let targets = Targets::new(&settings, default_targets(encoder))?;
        let file = if folder.join(ADAPTER_WEIGHTS).is_file() || !folder.join(ADAPTER_PICKLE).is_file() {
            ADAPTER_WEIGHTS
        } else {
            ADAPTER_PICKLE
        };
        let weights = Checkpoint::open_file(&folder.join(file), names_of(encoder))?;
        let mut adapter = Self {
            folder: folder.to_path_buf(),
            config,
            settings,
            targets,
            modules: BTreeMap::new(),
            whole: BTreeMap::new(),
            rows: None,
            weights,
            file,
            encoder,
            prefixed: false,
            tie: None,
        };
        adapter.sort_tensors()?;
        Ok(adapter)
    }

    /// Finds out what each tensor of the file is.
    fn sort_tensors(&mut self) -> Result<()> {
        let names = self.weights.names();
        let begin = format!("{}.", names_of(self.encoder).prefix);
        self.prefixed = names.iter().any(|name| unwrapped(name).starts_with(&begin));
        let (mut parts, mut rows, mut wrapped) = (BTreeMap::new(), None, Vec::new());
        for name in names {
            if let Some(place) = Parts::place(&mut parts, &name) {
                if let Some(other) = place.replace(name.clone()) {
                    return Err(self.invalid(format!("holds both {other} and {name}")));
                }
                continue;
            }
            let full = unwrapped(&name);
            if full.split('.').any(|part| part.starts_with("lora_")) {
                return Err(self.unsupported(format!("tensor {name}")));
            }
            if let Some(module) = full.strip_suffix(".token_adapter.trainable_tokens_delta") {
                if rows.replace((self.plain(module), name.clone())).is_some() {
                    return Err(self.unsupported(format!("{name}: tokens of several embeddings")));
                }
                continue;
            }
            // What the adapter stands in for, which is not used with it.
            if full.contains(".original_module.") {
                continue;
            }
            let of = |wrappers: [&str; 2]| {
                wrappers.iter().fold(full.to_string(), |full, part| full.replace(part, "."))
            };
            let saved = of([".modules_to_save.default.", ".modules_to_save."]);
            if saved != full {
                wrapped.push((self.plain(&saved), name));
                continue;
            }
            let full = of([".base_layer.", ".token_adapter."]);
            if let Some(other) = self.whole.insert(self.plain(&full), name.clone()) {
                return Err(self.invalid(format!("holds both {other} and {name}")));
            }
        }
        // Biases that were trained are there twice, and older versions had no other name.
        for (plain, name) in wrapped {
            self.whole.entry(plain).or_insert(name);
        }
        for (module, parts) in parts {
            let lora = self.read_module(&module, parts)?;
            if self.modules.insert(self.plain(unwrapped(&module)), lora).is_some() {
                return Err(self.invalid(format!("holds {module} with and without the model's prefix")));
            }
        }
        self.read_rows(rows)?;
        if self.modules.is_empty() {
            return Err(self.missing("any lora_A.weight"));
        }
        if self.settings.bias.as_deref().is_some_and(|bias| bias != "none")
            && self.modules.values().any(|lora| !lora.is_embedding)
            && !self.whole.keys().any(|name| name.ends_with(".bias"))
        {
            return Err(self.missing("any bias, which adapter_config.json says it trained,"));
        }
        Ok(())
    }

    /// `module` as the file calls it.
    fn read_module(&self, module: &str, parts: Parts) -> Result<LoraWeights> {
        let Parts { a, b, bias, magnitude, is_embedding, is_linear } = parts;
        if is_embedding && is_linear {
            return Err(self.invalid(format!("holds both lora_embedding and other matrices of {module}")));
        }
        let of = |part: &str| self.missing(&format!("{module}.{part}, which belongs to its other tensors,"));
        let [a_part, b_part] = if is_embedding {
            ["lora_embedding_A", "lora_embedding_B"]
        } else {
            ["lora_A.weight", "lora_B.weight"]
        };
        let (a_name, b_name) = (a.ok_or_else(|| of(a_part))?, b.ok_or_else(|| of(b_part))?);
        let full = unwrapped(module);
        let kind = match is_embedding {
            true => Kind::Embedding,
            false => kind_of(&self.plain(full), &self.settings, self.encoder),
        };
        if let Some(field) = self.targets.refusal(full, kind) {
            let reason = format!("its {field} keeps {full} as it is, but {} holds {a_name}", self.file);
            return Err(self.contradicts(reason));
        }
        let shape = |name: &str| -> Result<[usize; 2]> {
            let shape = self.weights.shape(name).unwrap_or_default();
            <[usize; 2]>::try_from(shape).map_err(|found| ModelError::TensorShape {
                name: name.to_string(),
                expected: vec![0, 0],
                found,
            })
        };
        let ([rank, input], [output, b_rank]) = (shape(&a_name)?, shape(&b_name)?);
        let stated = self.targets.rank_of(full);
        if rank != stated || b_rank != stated || rank == 0 {
            let (name, expected, found) = if rank == stated {
                (b_name, vec![output, stated], vec![output, b_rank])
            } else {
                (a_name, vec![stated, input], vec![rank, input])
            };
            return Err(ModelError::TensorShape { name, expected, found });
        }
        let settings = &self.settings;
        for (name, says, field, part) in [
            (&magnitude, settings.use_dora, "use_dora", "lora_magnitude_vector"),
            (&bias, settings.lora_bias, "lora_bias", "lora_B.bias"),
        ] {
            match name {
                Some(name) if !says => {
                    return Err(self.contradicts(format!("{field} is false, but {} holds {name}", self.file)));
                }
                None if says && field == "use_dora" => return Err(of(part)),
                None if says && !is_embedding => return Err(of(part)),
                _ => (),
            }
        }
        let read = |name: &str, shape: &[usize]| self.weights.floats(name, shape);
        Ok(LoraWeights {
            rank,
            input,
            output,
            a: read(&a_name, &[rank, input])?,
            b: read(&b_name, &[output, rank])?,
            scale: self.targets.scale_of(full)?,
            magnitude: magnitude.map(|name| read(&name, &[output])).transpose()?,
            bias: bias.map(|name| read(&name, &[output])).transpose()?,
            is_embedding,
        })
    }

    /// `given`: the embedding and the name of its tokens' tensor.
    fn read_rows(&mut self, given: Option<(String, String)>) -> Result<()> {
        let embedding = self.embedding();
        let indices = match &self.settings.trainable_token_indices {
            None => None,
            Some(TokenIndices::Input(indices)) => Some(indices),
            Some(TokenIndices::Named(named)) => match &named.0[..] {
                [] => None,
                [(name, indices)] if embedding == name || embedding.ends_with(&format!(".{name}")) => {
                    Some(indices)
                }
                _ => {
                    let reason = "trainable_token_indices of another embedding than the input's";
                    return Err(self.unsupported(reason.into()));
                }
            },
        };
        let ((module, name), indices) = match (given, indices) {
            (None, None) => return Ok(()),
            (Some(given), Some(indices)) => (given, indices),
            (Some((_, name)), None) => {
                let reason = format!("it has no trainable_token_indices, but {} holds {name}", self.file);
                return Err(self.contradicts(reason));
            }
            (None, Some(_)) => return Err(self.missing("trainable_tokens_delta")),
        };
        if module != embedding || self.modules.contains_key(embedding) {
            return Err(self.unsupported(format!("{name} of another embedding, or with a LoRA beside it")));
        }
        let width = self.weights.shape(&name).and_then(|shape| shape.last().copied()).unwrap_or(0);
        let values = self.weights.floats(&name, &[indices.len(), width])?;
        let places = indices.iter().enumerate().map(|(place, id)| (*id as usize, place)).collect();
        self.rows = Some(TokenRows { name: format!("{module}.weight"), places, width, values });
        Ok(())
    }

    /// Negates the adapter: merging it now removes it from a model that it was merged into. Tensors that it replaced
    /// whole stay replaced.
    ///
    /// # Errors
    /// `UnsupportedModel` for a DoRA: how long the base's rows were is in the base alone.
    pub fn reverse(&mut self) -> Result<()> {
        if self.settings.use_dora {
            return Err(self.unsupported("use_dora: a DoRA cannot be taken out of the weights".into()));
        }
        self.modules.values_mut().for_each(|lora| lora.scale = -lora.scale);
        self.whole.clear();
        // Nor is it held to having them.
        self.settings.modules_to_save = None;
        self.rows = None;
        Ok(())
    }

    /// Why this cannot run beside other adapters over one base; `None`: it can.
    pub(crate) fn not_beside(&self) -> Option<ModelError> {
        let what = match self.whole().next() {
            Some(name) => format!("{name} as a whole"),
            None if self.settings.use_dora => "use_dora".into(),
            None if self.settings.lora_bias => "lora_bias".into(),
            None if self.rows.is_some() => "trainable_token_indices".into(),
            None => match self.modules.iter().find(|(_, lora)| lora.is_embedding) {
                Some((name, _)) => format!("a LoRA of the embedding {name}"),
                None => return None,
            },
        };
        let reason = "which an adapter beside others cannot have: open its folder as the model, or merge it";
        Some(self.unsupported(format!("{what}, {reason}")))
    }

    /// Names of the tensors that take the place of the base's.
    pub fn whole(&self) -> impl Iterator<Item = &str> {
        self.whole.keys().map(String::as_str)
    }

    /// The transformers class that the adapter was made for, if it says.
    pub(crate) fn architecture(&self) -> Option<String> {
        let encoder = self.encoder;
        let class = |task: &str| match encoder {
            Some(encoder) => encoder.class_for(task),
            None => format!("GPT2For{task}"),
        };
        let fills = |encoder: &Architecture| {
            self.whole().any(|name| {
                name.strip_prefix(encoder.masked_lm.dense).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        match self.config["task_type"].as_str() {
            Some("SEQ_CLS") => Some(class("SequenceClassification")),
            Some("TOKEN_CLS") => Some(class("TokenClassification")),
            Some("QUESTION_ANS") => Some(class("QuestionAnswering")),
            Some("FEATURE_EXTRACTION") => encoder.map(|encoder| encoder.class_for("")),
            _ if encoder.is_some_and(fills) => Some(class("MaskedLM")),
            _ => self.config["auto_mapping"]["base_model_class"].as_str().map(str::to_string),
        }
    }

    /// The name of the embedding of tokens.
    pub(crate) fn embedding(&self) -> &'static str {
        if self.encoder.is_some() { "embeddings.word_embeddings" } else { "wte" }
    }

    fn plain(&self, full: &str) -> String {
        names_of(self.encoder).scheme(full).into_owned()
    }

    pub(crate) fn unsupported(&self, what: String) -> ModelError {
        ModelError::UnsupportedModel(format!("{}: {}", self.folder.display(), clipped(&what)))
    }

    /// The configuration says other than the weights.
    pub(crate) fn contradicts(&self, reason: String) -> ModelError {
        let path = self.folder.join(ADAPTER_CONFIG);
        ModelError::Config(format!("{}: {}", path.display(), clipped(&reason)))
    }

    fn invalid(&self, reason: String) -> ModelError {
        ModelError::CorruptWeights { file: self.file.to_string(), reason: clipped(&reason) }
    }

    pub(crate) fn missing(&self, what: &str) -> ModelError {
        let path = self.folder.join(self.file);
        ModelError::MissingTensor(format!("{}: {}", path.display(), clipped(what)))
    }
}

/// Names of a file may be of any length.
fn clipped(text: &str) -> String {
    text.chars().take(400).collect()
}

/// How a base calls its tensors.
pub(crate) fn names_of(encoder: Option<&'static Architecture>) -> Names {
    encoder.map_or("transformer".into(), |encoder| encoder.names)
}

/// What PEFT targets where the configuration does not say (`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`): of
/// some models nothing.
fn default_targets(encoder: Option<&Architecture>) -> &'static [&'static str] {
    match encoder.map(|encoder| encoder.model_type) {
        None => &["c_attn"],
        Some("bert" | "roberta" | "xlm-roberta" | "electra") => &["query", "value"],
        Some(_) => &[],
    }
}

/// A linear layer's kind by its plain name.
pub fn kind_of(module: &str, settings: &AdapterConfig, encoder: Option<&Architecture>) -> Kind {
    match module {
        "classifier" | "score" if settings.task_type.as_deref() == Some("SEQ_CLS") => Kind::Head,
        _ if module == encoder.map_or("lm_head", |encoder| encoder.masked_lm.decoder) => Kind::Head,
        _ => Kind::Linear,
    }
}

/// A name as the model that PEFT wraps has it.
fn unwrapped(name: &str) -> &str {
    name.strip_prefix(WRAPPER).unwrap_or(name)
}
