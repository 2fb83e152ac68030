//! Error messages for folders and files that are not models Candlewick loads. Each says what was found, what a model
//! is, and what to do.

use std::path::Path;

use crate::ModelError;
use crate::family::known;

/// What a model's source may be, in one clause.
const LAYOUT: &str = "a model is a folder with config.json and model.safetensors (or a shard index, or pytorch_model.bin), \
     or for a GPT-2 a .gguf file";

/// What a file is by its first bytes, if it is not of its format; `None` if they do not tell.
pub(crate) fn content(bytes: &[u8]) -> Option<String> {
    let start = &bytes[..bytes.len().min(512)];
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{FEFF}').trim_start();
    let lower = text.to_ascii_lowercase();
    if text.starts_with("version https://git-lfs") {
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let size = size.map_or(String::new(), |size| format!(" for {size} bytes"));
        return Some(format!(
            "it is a Git LFS pointer{size}, not the file itself: run `git lfs pull` where the repository was cloned, or \
             download the file again"
        ));
    }
    let kind = if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        "an HTML page"
    } else if lower.starts_with("<?xml") {
        "an XML document"
    } else if lower.starts_with("{\"error")
        || lower.starts_with("{\"message")
        || lower.starts_with("entry not found")
    {
        "a server's error message"
    } else if start.starts_with(b"\x1f\x8b") {
        return Some("it is a gzip archive: unpack it first".into());
    } else if start.starts_with(b"version http") || start.is_empty() {
        return start.is_empty().then(|| "it is empty: the download or the copy did not finish".into());
    } else {
        return None;
    };
    Some(format!("it is {kind}, not the file itself: the download failed, so download it again"))
}

/// As [`content`], of a file on disk.
pub(crate) fn content_of(file: &std::fs::File) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut start = Vec::with_capacity(512);
    let mut file = file;
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(512).read_to_end(&mut start).ok()?;
    content(&start)
}

/// A path that is a file, where a folder was expected.
pub(crate) fn file(path: &Path) -> ModelError {
    let name = path.display();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let what = match extension {
        "safetensors" | "bin" | "pt" | "pth" => {
            "holds weights alone: pass the folder that it lies in, with its config.json"
        }
        "gguf" => "is a GGUF file, which Candlewick reads for GPT-2 only, with loadGPT2()",
        "onnx" => "is an ONNX export: Candlewick reads the checkpoint that it was made from",
        "h5" | "ot" | "msgpack" | "ckpt" => {
            "is a checkpoint of another framework: save it with transformers as safetensors"
        }
        "json" | "txt" => "is one of a model's text files: pass the folder that it lies in",
        "zip" | "gz" | "tar" | "tgz" | "zst" => "is an archive: unpack it first",
        _ => "is a file of no kind that Candlewick reads",
    };
    ModelError::UnsupportedModel(format!("{name} {what}; {LAYOUT}"))
}

/// A folder without `config.json`, or without weights (`missing` names what).
pub(crate) fn folder(path: &Path, missing: &str) -> ModelError {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .map(|entries| {
            entries.flatten().take(1000).map(|entry| entry.file_name().to_string_lossy().into_owned())
        })
        .map(Iterator::collect)
        .unwrap_or_default();
    names.sort();
    let ending = |end: &str| names.iter().find(|name| name.to_ascii_lowercase().ends_with(end)).cloned();
    let inner = names.iter().find(|name| path.join(name).join("config.json").is_file()).cloned();
    let hint = if names.is_empty() {
        "it is empty".to_string()
    } else if let Some(file) = ending(".gguf") {
        format!("it has {file}: pass the path of that file to loadGPT2()")
    } else if names.iter().any(|name| name == "snapshots") {
        "it is a model's place in the hub's cache: pass the hub id, or one of the folders in snapshots/"
            .to_string()
    } else if let Some(inner) = inner {
        format!("a model is in its folder {inner}")
    } else if let Some(file) = ending(".onnx").or_else(|| ending("onnx")) {
        format!("it has {file}, an ONNX export: Candlewick reads the checkpoint that it was made from")
    } else if let Some(file) =
        [".h5", ".msgpack", ".ot", ".ckpt.index", ".pb"].iter().find_map(|end| ending(end))
    {
        format!(
            "it has {file}, of another framework: load it with transformers and save it with save_pretrained()"
        )
    } else if let Some(file) = ending(".safetensors").or_else(|| ending(".bin")).or_else(|| ending(".pt"))
        && missing != "config.json"
    {
        format!("it has {file}: rename it to model.safetensors or pytorch_model.bin, whichever it is")
    } else {
        let shown: Vec<&str> = names.iter().take(6).map(String::as_str).collect();
        let more = if names.len() > shown.len() { ", …" } else { "" };
        format!("it has {}{more}", shown.join(", "))
    };
    ModelError::NotFound(format!("{} has no {missing}: {hint}; {LAYOUT}", path.display()))
}

/// A `model_type` (or, without one, `architectures`) of another model than the one that was to be loaded.
pub(crate) fn model_type(config: &serde_json::Value) -> ModelError {
    const OURS: &str = "Candlewick runs GPT-2 (model_type \"gpt2\", with loadGPT2()) and, with loadBERT(), BERT and its \
         family (model_type \"bert\", \"distilbert\", \"roberta\", \"xlm-roberta\", \"camembert\", \"electra\" or \"mpnet\")";
    let found = config.get("model_type").and_then(|value| value.as_str());
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    match found {
        Some(encoder) if known::of(encoder).is_some() => {
            let kind = if encoder == "bert" { "a BERT" } else { "of BERT's family" };
            let advice = format!("it is {kind} (model_type \"{encoder}\"): load it with loadBERT()");
            ModelError::UnsupportedModel(advice)
        }
        Some("gpt2") => ModelError::UnsupportedModel(
            "it is a GPT-2 (model_type \"gpt2\"): load it with loadGPT2()".into(),
        ),
        Some(other) => {
            let near = match other {
                "albert"
                | "deberta"
                | "deberta-v2"
                | "nomic_bert"
                | "modernbert"
                | "ernie"
                | "mobilebert"
                | "xlm-roberta-xl"
                | "roberta-prelayernorm"
                | "flaubert"
                | "xlm"
                | "xlnet" => "; encoders like it are among those",
                "gpt_neo" | "gptj" | "gpt_neox" | "gpt_bigcode" | "opt" | "llama" | "mistral" | "qwen2"
                | "qwen3" | "phi" | "gemma" | "openai-gpt" | "xglm" | "codegen" => {
                    "; of models that generate, GPT-2 is supported"
                }
                _ => "",
            };
            ModelError::UnsupportedModel(format!("model_type \"{other}\": {OURS}{near}"))
        }
        None => {
            let guess = match architecture {
                a if a.starts_with("GPT2") => {
                    "; its architectures name a GPT-2: add \"model_type\": \"gpt2\"".to_string()
                }
                a => known::of_class(a).map_or(String::new(), |one| {
                    format!("; its architectures name {a}: add \"model_type\": \"{}\"", one.model_type)
                }),
            };
            ModelError::Config(format!("config.json has no model_type{guess}. {OURS}"))
        }
    }
}

/// Why a GPT-2 with this head generates no text: it is not a language model, whatever its other weights could say.
pub(crate) fn gpt2_head(config: &serde_json::Value) -> Option<ModelError> {
    let architecture = config["architectures"][0].as_str()?;
    if architecture == "GPT2ForSequenceClassification" {
        return Some(ModelError::UnsupportedModel(format!(
            "{architecture}: it classifies texts: load it with loadBERT() or pipeline(\"text-classification\")"
        )));
    }
    gpt2_other_head(architecture)
}

/// Heads of GPT-2 that Candlewick does not run.
fn gpt2_other_head(architecture: &str) -> Option<ModelError> {
    let what = match architecture {
        "GPT2ForTokenClassification" => "classifies tokens",
        "GPT2ForQuestionAnswering" => "answers questions from a text",
        _ => return None,
    };
    Some(ModelError::UnsupportedModel(format!(
        "{architecture}: a GPT-2 that {what} is not supported; loadGPT2() takes GPT2LMHeadModel, loadBERT() \
         GPT2ForSequenceClassification, and a BERT does this task (loadBERT())"
    )))
}

/// Why a GPT-2 that is no classifier is none for the tasks that read texts.
pub(crate) fn gpt2_reads_nothing(config: &serde_json::Value) -> ModelError {
    let other = config["architectures"][0].as_str().and_then(gpt2_other_head);
    other.unwrap_or_else(|| model_type(config))
}

#[cfg(test)]
mod tests {
    use super::content;

    #[test]
    fn what_is_not_the_file_is_named() {
        let says = |bytes: &[u8]| content(bytes).unwrap_or_default();
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n";
        assert!(
            says(pointer).contains("Git LFS pointer for 548105171 bytes")
                && says(pointer).contains("git lfs pull")
        );
        assert!(says(b"  <!DOCTYPE html><html>").contains("an HTML page"));
        assert!(says(b"{\"error\":\"Repository not found\"}").contains("server's error message"));
        assert!(says(b"\x1f\x8b\x08").contains("gzip"));
        assert!(says(b"").contains("empty"));
        assert_eq!(content(b"{\"model_type\": \"gpt2\"}"), None);
        assert_eq!(content(b"\x50\x01\x00\x00\x00\x00\x00\x00{"), None);
    }
}
