//! Training runs on tiny models, from scratch.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use candlewick_train::TrainError;
use candlewick_train::trainer::{Event, FinetuneOptions, TrainObserver, finetune};
use serde_json::{Value, json};

#[derive(Default)]
pub struct Watch {
    pub events: RefCell<Vec<Event>>,
    /// Stop after so many steps.
    pub steps: Option<u64>,
    pub seen: Cell<u64>,
    /// Stop when it is asked for the so manieth time: between any two layers.
    pub asked: Option<u64>,
    pub times: Cell<u64>,
}

impl TrainObserver for Watch {
    fn event(&self, event: Event) {
        if let Event::Step { step, .. } = event {
            self.seen.set(step);
        }
        self.events.borrow_mut().push(event);
    }
    fn stop(&self) -> bool {
        self.times.set(self.times.get() + 1);
        self.steps.is_some_and(|steps| self.seen.get() >= steps)
            || self.asked.is_some_and(|asked| self.times.get() >= asked)
    }
}

impl Watch {
    pub fn losses(&self) -> Vec<f64> {
        let loss = |event: &Event| match event {
            Event::Step { loss, .. } => Some(*loss),
            _ => None,
        };
        self.events.borrow().iter().filter_map(loss).collect()
    }
}

/// A tiny GPT-2, BERT or other encoder of its family (`kind` is its `model_type`) with a tokenizer of letters, to be
/// trained from scratch, and some texts.
pub fn folder(kind: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let letters = " abcdefghijklmnopqrstuvwxyz.";
    let mut vocab: serde_json::Map<String, Value> =
        letters.chars().enumerate().map(|(id, letter)| (letter.to_string(), json!(id + 5))).collect();
    for (id, token) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].iter().enumerate() {
        vocab.insert(token.to_string(), json!(id));
    }
    let size = vocab.len();
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let added: Vec<Value> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .iter()
        .enumerate()
        .map(|(id, token)| special(id as u32, token))
        .collect();
    let post = if kind != "gpt2" {
        json!({ "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] })
    } else {
        Value::Null
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "" }, "behavior": "Isolated", "invert": false },
        "post_processor": post, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    });
    let sizes = json!({ "model_type": kind, "vocab_size": size, "hidden_size": 24, "num_hidden_layers": 2,
                        "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 48 });
    let with = |more: Value| {
        let mut all = sizes.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        Value::Object(all)
    };
    let config = match kind {
        "gpt2" => {
            json!({ "model_type": "gpt2", "vocab_size": size, "n_positions": 32, "n_embd": 24, "n_layer": 2,
                          "n_head": 3, "eos_token_id": 3 })
        }
        "distilbert" => {
            json!({ "model_type": kind, "vocab_size": size, "dim": 24, "n_layers": 2, "n_heads": 3,
                                "hidden_dim": 40, "max_position_embeddings": 48 })
        }
        "electra" => with(json!({ "embedding_size": 16 })),
        "roberta" => with(json!({ "pad_token_id": 0, "type_vocab_size": 1 })),
        _ => with(json!({})),
    };
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("tokenizer.json", tokenizer.to_string());
    write("tokenizer_config.json", json!({ "tokenizer_class": "PreTrainedTokenizerFast" }).to_string());
    write("config.json", config.to_string());
    let sentence = |i: usize| {
        let word = |n: usize| ["the cat", "a dog", "my bird", "one fish"][(i * 7 + n) % 4];
        format!("{} sees {} and {}.", word(0), word(1), word(i / 3))
    };
    let texts: Vec<String> = (0..40).map(|i| json!({ "text": sentence(i) }).to_string()).collect();
    write("texts.jsonl", texts.join("\n"));
    let label = |i: usize| if sentence(i).starts_with("a dog") { "dog" } else { "none" };
    let labelled: Vec<String> =
        (0..40).map(|i| json!({ "text": sentence(i), "label": label(i) }).to_string()).collect();
    write("labelled.jsonl", labelled.join("\n"));
    folder
}

pub fn options(folder: &Path, output: &Path, task: &str, more: Value) -> FinetuneOptions {
    let data = if task == "text-classification" { "labelled.jsonl" } else { "texts.jsonl" };
    let mut all = json!({
        "model": folder, "task": task, "train": [folder.join(data)], "output": output, "fromScratch": true,
        "batchSize": 4, "learningRate": 1e-2, "warmupSteps": 2, "threads": 2, "weightDecay": 0.1,
        "lrSchedulerType": "cosine", "epochs": 2.0,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

pub fn run(options: &FinetuneOptions, steps: Option<u64>) -> (Watch, Result<(), TrainError>) {
    let watch = Watch { steps, ..Watch::default() };
    let result = finetune(options, &watch);
    (watch, result)
}

/// The bytes of the weights and of the optimiser's state in the last checkpoint.
pub fn bits(output: &Path) -> Vec<Vec<u8>> {
    let last = last_checkpoint(output);
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&last).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let weights = names.iter().filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    weights.map(|path| std::fs::read(path).unwrap()).collect()
}

pub fn last_checkpoint(output: &Path) -> PathBuf {
    let names = std::fs::read_dir(output).unwrap().map(|entry| entry.unwrap().file_name());
    let step = |name: std::ffi::OsString| -> Option<u64> {
        name.to_string_lossy().strip_prefix("checkpoint-")?.parse().ok()
    };
    output.join(format!("checkpoint-{}", names.filter_map(step).max().unwrap()))
}
