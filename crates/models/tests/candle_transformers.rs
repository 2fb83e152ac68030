//! candle-transformers' `BertModel` as a second oracle, which needs no Python: seeded weights of the shapes that people
//! run, in a padded and masked batch there, one text after the other here.

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use candlewick_models::{EncoderInput, EncoderWant, Layers, load_encoder};
use serde_json::json;
use support::{backends, close};

/// Both compute in f32 and sum in other orders.
const ATOL: f32 = 2e-4;
const RTOL: f32 = 1e-4;

struct Shape {
    layers: usize,
    width: usize,
    heads: usize,
    inner: usize,
}

/// Uniform in ±`scale`, from a seed.
fn random(seed: &mut u64, shape: &[usize], scale: f32, shift: f32) -> Tensor {
    let next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        shift + scale * ((*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
    };
    let values: Vec<f32> = std::iter::repeat_with(next).take(shape.iter().product()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A BERT in a folder, whose biases and norms are far from 0 and 1, so that none can be missed.
fn write_bert(folder: &Path, Shape { layers, width, heads, inner }: Shape) {
    const VOCABULARY: usize = 600;
    let mut seed = 7;
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let norm = name.contains("LayerNorm.weight");
        let scale = if norm { 0.5 } else { 0.08 };
        tensors.insert(name, random(&mut seed, shape, scale, if norm { 1.0 } else { 0.0 }));
    };
    for (name, rows) in [("word", VOCABULARY), ("position", 512), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, width]);
    }
    let mut norms = vec!["embeddings".to_string()];
    for layer in 0..layers {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        for (name, out, into) in [
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ] {
            add(at(&format!("{name}.weight")), &[out, into]);
            add(at(&format!("{name}.bias")), &[out]);
        }
        norms.extend([at("attention.output"), at("output")]);
    }
    for norm in norms {
        add(format!("{norm}.LayerNorm.weight"), &[width]);
        add(format!("{norm}.LayerNorm.bias"), &[width]);
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    let config = json!({
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": inner, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
        "max_position_embeddings": 512, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// Texts of unequal lengths, with both types of segments.
fn texts(vocabulary: u32) -> Vec<EncoderInput> {
    [3usize, 17, 64, 9]
        .iter()
        .map(|&length| EncoderInput {
            ids: (0..length).map(|i| 1 + (i * 7919 + length * 104_729) as u32 % (vocabulary - 1)).collect(),
            type_ids: (0..length).map(|i| u32::from(i > length / 2)).collect(),
            ..Default::default()
        })
        .collect()
}

/// The last hidden states of the texts, each (T, width), by candle-transformers from one padded batch.
fn theirs(folder: &Path, texts: &[EncoderInput]) -> Vec<Vec<f32>> {
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config: Config = serde_json::from_str(&config).unwrap();
    let tensors = candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let model =
        BertModel::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config).unwrap();
    let longest = texts.iter().map(|text| text.ids.len()).max().unwrap();
    let padded = |row: &dyn Fn(&EncoderInput) -> Vec<u32>| {
        let rows = texts.iter().map(|text| {
            let mut row = row(text);
            row.resize(longest, 0);
            row
        });
        Tensor::new(rows.collect::<Vec<_>>(), &Device::Cpu).unwrap()
    };
    let ids = padded(&|text| text.ids.clone());
    let types = padded(&|text| text.type_ids.clone());
    let mask = padded(&|text| vec![1; text.ids.len()]);
    let states = model.forward(&ids, &types, Some(&mask)).unwrap();
    let row = |(i, text): (usize, &EncoderInput)| {
        let row = states.get(i).unwrap().narrow(0, 0, text.ids.len()).unwrap();
        row.flatten_all().unwrap().to_vec1().unwrap()
    };
    texts.iter().enumerate().map(row).collect()
}

fn compare(folder: &Path, vocabulary: u32) {
    let texts = texts(vocabulary);
    let expected = theirs(folder, &texts);
    let want = EncoderWant {
        last_hidden_state: true,
        hidden_states: Layers::None,
        attentions: Layers::None,
        embedding: None,
        pooled: false,
        logits: false,
    };
    for options in backends() {
        let mut model = load_encoder(folder.to_str().unwrap(), &options, &()).unwrap().model;
        let outputs = model.forward(&texts, &want, &|| false).unwrap();
        for (i, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
            let what = format!("{}, text {i}, {options:?}", folder.display());
            close(&what, &output.last_hidden_state, expected, ATOL, RTOL);
        }
    }
}

#[test]
fn minilm_s_shape() {
    let folder = tempfile::tempdir().unwrap();
    write_bert(folder.path(), Shape { layers: 6, width: 384, heads: 12, inner: 1536 });
    compare(folder.path(), 600);
}

#[test]
fn bert_base_s_shape() {
    let folder = tempfile::tempdir().unwrap();
    write_bert(folder.path(), Shape { layers: 12, width: 768, heads: 12, inner: 3072 });
    compare(folder.path(), 600);
}

#[test]
fn the_real_minilm() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/minilm");
    compare(&folder, 30522);
}
