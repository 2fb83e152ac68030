//! The files of a trained model beside its weights: `config.json`, and what is copied from the model that it began as.

use std::fs;

use candlewick_models::{ModelFolder, SentenceFile};
use serde_json::{Map, Value, json};

use crate::data::{Opened, Task};
use crate::model::HeadKind;
use crate::{Result, TrainError};

pub(super) const WEIGHTS: &str = "model.safetensors";

/// Other files of a model, copied unchanged.
const SIDE_FILES: [&str; 10] = [
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
];

/// `value` as an object, which it becomes if it is none.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made one above")
}

/// `config.json` of what is trained.
pub(super) fn written_config(
    config: &Value,
    architecture: String,
    head: Option<HeadKind>,
    task: Task,
    data: &Opened,
) -> Value {
    let mut config = config.as_object().cloned().unwrap_or_default();
    config.insert("architectures".into(), json!([architecture]));
    config.remove("torch_dtype");
    config.insert("dtype".into(), json!("float32"));
    if let Some(HeadKind::Sequence { problem, .. }) = head {
        config.insert("problem_type".into(), json!(problem));
    }
    if matches!(head, Some(HeadKind::Sequence { .. } | HeadKind::Token { .. })) {
        let labels = if data.labels.is_empty() { vec!["LABEL_0".to_string()] } else { data.labels.clone() };
        with_labels(&mut config, &labels);
    }
    // How a prompt was joined to its completion; generation has to join them in the same way. Other keys of the
    // task stay.
    if let Some(separator) = &data.separator {
        let tasks = object(config.entry("task_specific_params").or_insert(Value::Null));
        let name = json!(task).as_str().unwrap_or_default().to_string();
        object(tasks.entry(name).or_insert(Value::Null)).insert("separator".into(), json!(separator));
    }
    Value::Object(config)
}

/// The names of a head's classes, by number and back.
pub(super) fn with_labels(config: &mut Map<String, Value>, labels: &[String]) {
    let numbered = labels.iter().enumerate();
    let id2label: Map<String, Value> =
        numbered.clone().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: Map<String, Value> = numbered.map(|(id, label)| (label.clone(), json!(id))).collect();
    config.insert("id2label".into(), Value::Object(id2label));
    config.insert("label2id".into(), Value::Object(label2id));
    config.remove("num_labels");
}

/// Of a model that was taught a dialogue: it reads the turns that it has learned, and follows a chat template no more.
pub(super) fn without_chat_template(files: Vec<(String, Vec<u8>)>) -> Result<Vec<(String, Vec<u8>)>> {
    let kept = files.into_iter().filter(|(name, _)| !name.starts_with("chat_template."));
    kept.map(|(name, bytes)| {
        if name != "tokenizer_config.json" {
            return Ok((name, bytes));
        }
        // Loading has read it.
        let broken = |error: serde_json::Error| TrainError::Internal(format!("{name}: {error}"));
        let mut config: Value = serde_json::from_slice(&bytes).map_err(broken)?;
        if object(&mut config).remove("chat_template").is_none() {
            return Ok((name, bytes));
        }
        let bytes = serde_json::to_vec_pretty(&config).map_err(broken)?;
        Ok((name, bytes))
    })
    .collect()
}

pub(super) fn side_files(folder: &ModelFolder) -> Result<Vec<(String, Vec<u8>)>> {
    let there = SIDE_FILES.iter().map(|name| (name.to_string(), folder.file(name)));
    let there = there.filter(|(_, path)| path.is_file()).map(|(name, path)| (name, SentenceFile::Copy(path)));
    there
        .chain(folder.sentence_files()?)
        .map(|(name, file)| {
            let bytes = match file {
                SentenceFile::Copy(path) => fs::read(&path).map_err(|error| TrainError::io(&path, &error))?,
                SentenceFile::List(list) => serde_json::to_vec_pretty(&list)
                    .map_err(|error| TrainError::Internal(format!("{name}: {error}")))?,
            };
            Ok((name, bytes))
        })
        .collect()
}
