//! The files of a trained model beside its weights: `config.json`, and what is copied from the model that it began as.

use std::fs;

use candlewick_models::{ModelFolder, SentenceFile, Tokenizer};
use serde_json::{Map, Value, json};

use crate::data::{Opened, Task};
use crate::model::HeadKind;
use crate::{Result, TrainError};

pub(super) const WEIGHTS: &str = "model.safetensors";

/// Other files of a model beside its tokenizer's, copied unchanged.
const SIDE_FILES: [&str; 3] = ["chat_template.jinja", "chat_template.json", "generation_config.json"];

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
    let names = Tokenizer::FILES.iter().chain(&SIDE_FILES).map(|name| (name.to_string(), folder.file(name)));
    let there = names.filter(|(_, path)| path.is_file()).map(|(name, path)| (name, SentenceFile::Copy(path)));
    let read = |(name, file): (String, SentenceFile)| {
        let bytes = match file {
            SentenceFile::Copy(path) => fs::read(&path).map_err(|error| TrainError::io(&path, &error))?,
            SentenceFile::List(list) => serde_json::to_vec_pretty(&list)
                .map_err(|error| TrainError::Internal(format!("{name}: {error}")))?,
        };
        Ok((name, bytes))
    };
    let mut files = there.chain(folder.sentence_files()?).map(read).collect::<Result<Vec<_>>>()?;
    if let Some(class) = folder.tokenizer_class()? {
        with_tokenizer_class(&mut files, class)?;
    }
    Ok(files)
}

/// Says in `tokenizer_config.json` of which class the tokenizer is, where it does not. The files of a tokenizer go to
/// another folder here, whose `config.json` may stand for another class.
fn with_tokenizer_class(files: &mut Vec<(String, Vec<u8>)>, class: &str) -> Result<()> {
    const NAME: &str = "tokenizer_config.json";
    let at = files.iter().position(|(name, _)| name == NAME).unwrap_or_else(|| {
        files.push((NAME.into(), b"{}".to_vec()));
        files.len() - 1
    });
    let bytes = &mut files[at].1;
    // Loading has read it.
    let broken = |error: serde_json::Error| TrainError::Internal(format!("{NAME}: {error}"));
    let mut config: Value = serde_json::from_slice(bytes).map_err(broken)?;
    let fields = object(&mut config);
    match fields.get("tokenizer_class") {
        Some(Value::Null) => {
            fields.insert("tokenizer_class".into(), json!(class));
            *bytes = serde_json::to_vec_pretty(&config).map_err(broken)?;
        }
        Some(_) => {}
        // As text: on the order of the other fields ids of tokens may hang.
        None => {
            let open = bytes.iter().position(|byte| *byte == b'{').unwrap_or_default();
            let comma = if fields.is_empty() { "" } else { "," };
            let field = format!("\n  \"tokenizer_class\": {}{comma}", json!(class));
            bytes.splice(open + 1..open + 1, field.into_bytes());
        }
    }
    Ok(())
}
