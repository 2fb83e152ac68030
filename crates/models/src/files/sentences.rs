//! The modules of a sentence-transformers model behind its transformer: each module's configuration and weights.
//!
//! The rules are those of sentence-transformers 6.2. A file that `modules.json` names and that is absent, and a key
//! that its class does not take, are errors; what we lack of a module that is whole is said, so that a task that needs
//! it refuses.

use std::path::Path;

use serde_json::Value;

use crate::contract::pooling::{Pooling, PoolingMode};
use crate::contract::projection::{Residual, VectorActivation, VectorLayer};
use crate::files::checkpoint::Checkpoint;
use crate::files::folder::ModelFolder;
use crate::files::modules::{MODULES, Module, ModuleKind};
use crate::files::reading::{optional, read_json, read_json_if_any, short};
use crate::{ModelError, Result};

/// No model's vectors are longer.
const MOST: usize = 1 << 16;

/// From token vectors to a text's vector.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub pooling: Pooling,
    /// Behind the pooling, in their order, without a last scaling to length 1.
    pub layers: Vec<VectorLayer>,
    /// The last module scales to length 1.
    pub normalize: bool,
    /// What of the modules we lack.
    pub unsupported: Option<String>,
}

/// `hidden`: of the transformer's token vectors.
pub(crate) fn read_layers(folder: &ModelFolder, modules: &[Module], hidden: usize) -> Result<Layers> {
    let mut read = Layers::default();
    let mut width = None;
    for (place, module) in modules.iter().enumerate() {
        let lack = |what: &str| Some(format!("{MODULES}: {what} ({:?})", module.class));
        let unsupported = match (module.kind, width) {
            (ModuleKind::Transformer, _) if place == 0 => None,
            (ModuleKind::Transformer, _) => lack("a transformer behind other modules"),
            (ModuleKind::Dropout, _) => None,
            (ModuleKind::Other, _) => lack("a module that is not supported"),
            (ModuleKind::Pooling, None) => {
                read.pooling = read_pooling(folder, module, hidden)?;
                width = Some(hidden * read.pooling.modes.len());
                None
            }
            (ModuleKind::Pooling, Some(_)) => lack("a second pooling"),
            (_, None) => lack("a module before the pooling"),
            (ModuleKind::Normalize, Some(_)) => match read_normalize(folder, module)? {
                None => {
                    read.layers.push(VectorLayer::Normalize);
                    None
                }
                Some(what) => lack(&what),
            },
            (ModuleKind::LayerNorm, Some(width)) => {
                read.layers.push(read_norm(folder, module, width)?);
                None
            }
            (ModuleKind::Dense, Some(inputs)) => match read_dense(folder, module, inputs)? {
                Ok((layer, outputs)) => {
                    read.layers.push(layer);
                    width = Some(outputs);
                    None
                }
                Err(what) => lack(&what),
            },
        };
        read.unsupported = read.unsupported.or(unsupported);
    }
    if width.is_none() && read.unsupported.is_none() {
        read.unsupported = Some(format!("{MODULES} names no pooling"));
    }
    // A scaling before others is one of the layers; of the last, a caller decides.
    while read.layers.last() == Some(&VectorLayer::Normalize) {
        read.layers.pop();
        read.normalize = true;
    }
    Ok(read)
}

fn invalid(file: &str, what: String) -> ModelError {
    ModelError::Inconsistent(format!("{file}: {what}"))
}

/// A file that `modules.json` names by its module.
fn named(folder: &ModelFolder, module: &Module, name: &str) -> Result<(String, Value)> {
    let file = module.file(name);
    let path = folder.root_file(&file);
    if !path.is_file() {
        let what = format!("{MODULES} names {:?}, whose file {file} is not there", module.class);
        return Err(ModelError::Inconsistent(what));
    }
    Ok((file, read_json(&path)?))
}

/// Refuses keys that the module's class does not take.
fn refuse_unknown(file: &str, config: &Value, known: &[&str]) -> Result<()> {
    let mut keys = config.as_object().into_iter().flat_map(|object| object.keys());
    match keys.find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(invalid(file, format!("{key} is not known; known are {}", known.join(", ")))),
        None => Ok(()),
    }
}

/// The older flags, in the order in which sentence-transformers concatenates what they name.
const FLAGS: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

fn read_pooling(folder: &ModelFolder, module: &Module, hidden: usize) -> Result<Pooling> {
    let (file, config) = named(folder, module, "config.json")?;
    let mut known = vec!["word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"];
    known.extend(FLAGS.map(|(flag, _)| flag));
    refuse_unknown(&file, &config, &known)?;
    for key in ["embedding_dimension", "word_embedding_dimension"] {
        match optional::<usize>(&config, &file, key)? {
            Some(width) if width != hidden => {
                let what = format!("{key} is {width}, but hidden_size in config.json is {hidden}");
                return Err(invalid(&file, what));
            }
            _ => {}
        }
    }
    let mut flagged = None;
    for (flag, mode) in FLAGS {
        if let Some(set) = optional::<bool>(&config, &file, flag)? {
            flagged.get_or_insert_with(Vec::new).extend(set.then(|| mode.to_string()));
        }
    }
    // No flag that is set means the mean, as no key at all.
    let flagged = flagged.map(|modes| if modes.is_empty() { vec!["mean".to_string()] } else { modes });
    let listed = match &config["pooling_mode"] {
        Value::Null => None,
        Value::String(mode) => Some(vec![mode.clone()]),
        _ => optional::<Vec<String>>(&config, &file, "pooling_mode")?,
    };
    if let (Some(listed), Some(flagged)) = (&listed, &flagged)
        && listed != flagged
    {
        let what = format!("pooling_mode is {listed:?}, but the flags name {flagged:?}");
        return Err(invalid(&file, what));
    }
    let modes = listed.or(flagged).unwrap_or_else(|| vec!["mean".to_string()]);
    let mode = |name: &String| match name.as_str() {
        "cls" => Ok(PoolingMode::Cls),
        "max" => Ok(PoolingMode::Max),
        "mean" => Ok(PoolingMode::Mean),
        "mean_sqrt_len_tokens" => Ok(PoolingMode::MeanSqrtLength),
        "weightedmean" => Ok(PoolingMode::WeightedMean),
        "lasttoken" => Ok(PoolingMode::Last),
        _ => {
            let known = FLAGS.map(|(_, mode)| mode).join(", ");
            Err(invalid(&file, format!("pooling_mode {name:?} is not known; known are {known}")))
        }
    };
    if modes.is_empty() || modes.len() > FLAGS.len() {
        return Err(invalid(&file, format!("pooling_mode names {} modes", modes.len())));
    }
    let modes = modes.iter().map(mode).collect::<Result<_>>()?;
    Ok(Pooling { modes, include_prompt: optional(&config, &file, "include_prompt")?.unwrap_or(true) })
}

/// What of a module's input and output is not the text's vector.
fn elsewhere(config: &Value, file: &str) -> Result<Option<String>> {
    for key in ["module_input_name", "module_output_name"] {
        match optional::<String>(config, file, key)? {
            Some(name) if name != "sentence_embedding" => {
                return Ok(Some(format!("{key} {name:?} in {file}")));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Its file came with sentence-transformers 6, and may be absent.
fn read_normalize(folder: &ModelFolder, module: &Module) -> Result<Option<String>> {
    // With an empty path its file would be the model's own config.json.
    if module.path.is_empty() {
        return Ok(None);
    }
    let file = module.file("config.json");
    let config = read_json_if_any(&folder.root_file(&file))?;
    elsewhere(&config, &file)
}

/// The layer and the length of its vectors, or what we lack of it.
type Dense = std::result::Result<(VectorLayer, usize), String>;

fn read_dense(folder: &ModelFolder, module: &Module, inputs: usize) -> Result<Dense> {
    let (file, config) = named(folder, module, "config.json")?;
    let known = [
        "in_features",
        "out_features",
        "bias",
        "activation_function",
        "module_input_name",
        "module_output_name",
        "use_residual",
    ];
    refuse_unknown(&file, &config, &known)?;
    let size = |key: &str| match optional::<usize>(&config, &file, key)? {
        Some(size) if (1..=MOST).contains(&size) => Ok(size),
        Some(size) => Err(invalid(&file, format!("{key} is {size}, expected 1 to {MOST}"))),
        None => Err(invalid(&file, format!("{key} is missing"))),
    };
    let (given, outputs) = (size("in_features")?, size("out_features")?);
    if given != inputs {
        let what = format!("in_features is {given}, but the modules before it make vectors of {inputs}");
        return Err(invalid(&file, what));
    }
    if let Some(what) = elsewhere(&config, &file)? {
        return Ok(Err(what));
    }
    let activation = match optional::<String>(&config, &file, "activation_function")?.as_deref() {
        None => VectorActivation::Tanh,
        Some(name) => match activation(name) {
            Some(activation) => activation,
            None => return Ok(Err(format!("activation_function {name:?} in {file}"))),
        },
    };
    let weights = weights_of(folder, module)?;
    let bias = optional(&config, &file, "bias")?.unwrap_or(true);
    let residual = match optional(&config, &file, "use_residual")?.unwrap_or(false) {
        false => Residual::None,
        true if inputs == outputs => Residual::Input,
        true => Residual::Projected(weights.floats("residual.weight", &[outputs, inputs])?),
    };
    let layer = VectorLayer::Dense {
        inputs,
        weight: weights.floats("linear.weight", &[outputs, inputs])?,
        bias: if bias { Some(weights.floats("linear.bias", &[outputs])?) } else { None },
        activation,
        residual,
    };
    Ok(Ok((layer, outputs)))
}

fn read_norm(folder: &ModelFolder, module: &Module, width: usize) -> Result<VectorLayer> {
    let (file, config) = named(folder, module, "config.json")?;
    refuse_unknown(&file, &config, &["dimension"])?;
    if let Some(given) = optional::<usize>(&config, &file, "dimension")?
        && given != width
    {
        let what = format!("dimension is {given}, but the modules before it make vectors of {width}");
        return Err(invalid(&file, what));
    }
    let weights = weights_of(folder, module)?;
    let read = |name: &str| weights.floats(name, &[width]);
    Ok(VectorLayer::LayerNorm { weight: read("norm.weight")?, bias: read("norm.bias")? })
}

fn weights_of(folder: &ModelFolder, module: &Module) -> Result<Checkpoint> {
    let path = folder.root_file(&module.file("config.json"));
    let inside = path.parent().unwrap_or(Path::new(""));
    if !["model.safetensors", "pytorch_model.bin"].iter().any(|name| inside.join(name).is_file()) {
        return Err(ModelError::Inconsistent(format!(
            "{MODULES} names {:?}, but {} has neither model.safetensors nor pytorch_model.bin",
            module.class, module.path
        )));
    }
    Checkpoint::open(inside, "".into())
}

/// By the path of a class of torch.nn.
fn activation(class: &str) -> Option<VectorActivation> {
    let name = ["torch.nn.modules.activation.", "torch.nn.modules.linear.", "torch.nn."]
        .iter()
        .find_map(|package| class.strip_prefix(package))?;
    Some(match name {
        "Identity" => VectorActivation::Identity,
        "Tanh" => VectorActivation::Tanh,
        "Sigmoid" => VectorActivation::Sigmoid,
        "ReLU" => VectorActivation::Relu,
        "GELU" => VectorActivation::Gelu,
        "SiLU" => VectorActivation::Silu,
        _ => return None,
    })
}

/// Whether a field's value leaves the vectors as they are without it.
type ChangesNothing = fn(&Value) -> bool;

/// What of `sentence_bert_config.json` changes vectors and we lack; its lengths and its case are read by `usage.rs`.
pub(crate) fn unsupported_transformer(file: &str, config: &Value) -> Result<Option<String>> {
    // Each with whether its class takes it in a form that changes nothing.
    let known: [(&str, ChangesNothing); 18] = [
        ("max_seq_length", |_| true),
        ("do_lower_case", |_| true),
        ("transformer_task", |task| task == "feature-extraction" || task == "sequence-classification"),
        ("modality_config", plain_modality),
        ("module_output_name", |name| name == "token_embeddings" || name == "scores"),
        ("processing_kwargs", is_empty),
        ("unpad_inputs", |_| true),
        ("query_length", Value::is_null),
        ("document_length", Value::is_null),
        ("query_expansion", Value::is_null),
        ("tokenizer_name_or_path", Value::is_null),
        ("model_args", is_empty),
        ("model_kwargs", is_empty),
        ("tokenizer_args", is_empty),
        ("processor_kwargs", is_empty),
        ("config_args", is_empty),
        ("config_kwargs", is_empty),
        ("backend", |backend| backend == "torch"),
    ];
    refuse_unknown(file, config, &known.map(|(key, _)| key))?;
    let lacking = known.into_iter().find(|(key, changes_nothing)| {
        config.get(*key).is_some_and(|value| !value.is_null() && !changes_nothing(value))
    });
    Ok(lacking.map(|(key, _)| format!("{file}: {key} {}", short(&config[key]))))
}

/// Only whether code of the model's own may run, which it may not.
fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.keys().all(|key| key == "trust_remote_code"))
}

/// Text alone, through the model's `forward`.
fn plain_modality(value: &Value) -> bool {
    let outputs = ["last_hidden_state", "logits"];
    value.as_object().is_some_and(|modes| {
        modes.len() == 1
            && modes.get("text").is_some_and(|text| {
                text["method"] == "forward" && outputs.iter().any(|name| text["method_output_name"] == *name)
            })
    })
}
