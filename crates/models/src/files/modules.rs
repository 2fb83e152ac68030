//! `modules.json`: of which modules sentence-transformers makes a text's vector, and where their files are.
//!
//! Two layouts are about: today's, with the model's own files beside `modules.json`, and the older one, with them in
//! the folder that the list names for the transformer (`0_Transformer/`, `0_BERT/`).

use std::path::{Component, Path};

use serde_json::Value;

use crate::files::reading::{optional, read_json_list, short};
use crate::{ModelError, Result};

pub(crate) const MODULES: &str = "modules.json";

/// `sentence_bert_config.json` and the older names for it, in the order in which sentence-transformers looks.
pub(crate) const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// What a module but the transformer may have in its folder.
pub(crate) const MODULE_FILES: [&str; 3] = ["config.json", "model.safetensors", "pytorch_model.bin"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModuleKind {
    Transformer,
    Pooling,
    Dense,
    LayerNorm,
    Normalize,
    /// Which does nothing but in training.
    Dropout,
    Other,
}

#[derive(Debug, Clone)]
pub(crate) struct Module {
    pub kind: ModuleKind,
    /// As the list names it: `sentence_transformers.models.Pooling`.
    pub class: String,
    /// Below the folder of `modules.json`; empty: that folder itself.
    pub path: String,
}

impl Module {
    /// A file of the module, from the folder of `modules.json` on.
    pub fn file(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}/{name}", self.path) }
    }
}

/// The modules in their order; `None` where the folder has no `modules.json`.
///
/// # Errors
/// `Config`, `Inconsistent`: no list of modules with a type and a path. `PathEscape`: a path out of the folder.
pub(crate) fn read_modules(file: &Path) -> Result<Option<Vec<Module>>> {
    if !file.is_file() {
        return Ok(None);
    }
    let modules =
        read_json_list(file)?.iter().map(|entry| module(entry, file)).collect::<Result<Vec<_>>>()?;
    if modules.is_empty() {
        return Err(ModelError::Inconsistent(format!("{MODULES} names no module")));
    }
    Ok(Some(modules))
}

fn module(entry: &Value, file: &Path) -> Result<Module> {
    let lacks = |key: &str| {
        ModelError::Inconsistent(format!("{MODULES} has a module without {key}: {}", short(entry)))
    };
    let class = optional::<String>(entry, MODULES, "type")?.ok_or_else(|| lacks("type"))?;
    let path = optional::<String>(entry, MODULES, "path")?.ok_or_else(|| lacks("path"))?;
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(&path).components().all(plain) || path.contains(['\\', '\0']) {
        return Err(ModelError::PathEscape { file: file.display().to_string(), path });
    }
    let path = path.trim_start_matches("./").trim_end_matches('/').to_string();
    let path = if path == "." { String::new() } else { path };
    // A class of somebody's own may have any name; the library's have moved between its packages.
    let name = class.rsplit('.').next().filter(|_| class.starts_with("sentence_transformers."));
    let kind = match name {
        // Before "Transformer" there was a class for each kind of model.
        Some("Transformer" | "BERT" | "RoBERTa" | "DistilBERT" | "ALBERT" | "CamemBERT" | "XLMRoBERTa") => {
            ModuleKind::Transformer
        }
        Some("Pooling") => ModuleKind::Pooling,
        Some("Dense") => ModuleKind::Dense,
        Some("LayerNorm") => ModuleKind::LayerNorm,
        Some("Normalize") => ModuleKind::Normalize,
        Some("Dropout") => ModuleKind::Dropout,
        _ => ModuleKind::Other,
    };
    Ok(Module { kind, class, path })
}
