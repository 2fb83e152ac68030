//! Folders that lie about their sizes or are not made of files: a typed error at once, never an abort or a hang.

mod support;

use std::io::Write;
use std::path::Path;

use candlewick_models::{LoadOptions, load_causal, load_encoder};
use support::root;
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

fn config(folder: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(root().join(folder).join("config.json")).unwrap()).unwrap()
}

fn folder(config: &serde_json::Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// A `.bin` whose pickle is `pickle`.
fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(
        "archive/data.pkl",
        SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
    )
    .unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap().into_inner()
}

fn gpt2_code(folder: &Path) -> &'static str {
    match load_causal(folder.to_str().unwrap(), &LoadOptions::default(), &()) {
        Ok(_) => panic!("{} loaded", folder.display()),
        Err(error) => error.code(),
    }
}

fn bert_code(folder: &Path) -> &'static str {
    match load_encoder(folder.to_str().unwrap(), &LoadOptions::default(), &()) {
        Ok(_) => panic!("{} loaded", folder.display()),
        Err(error) => error.code(),
    }
}

/// {"wte.weight": a float tensor of 2^24 × 2^16 over a storage of 4 values}, as torch.save spells it.
fn huge_tensor() -> Vec<u8> {
    let text = |s: &str| [&b"X"[..], &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    let int = |i: i32| [&b"J"[..], &i.to_le_bytes()].concat();
    [
        &b"\x80\x02}("[..],
        &text("wte.weight"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        &int(4),
        b"tQ",
        &int(0),
        &int(1 << 24),
        &int(1 << 16),
        b"\x86",
        &int(1 << 16),
        &int(1),
        b"\x86\x89ccollections\nOrderedDict\n)RtRu.",
    ]
    .concat()
}

#[test]
fn pickles_that_ask_for_everything() {
    let nested = [b"\x80\x02)".as_slice(), &[0x85; 1_000_000], b"."].concat();
    let mut laughs = b"\x80\x02)q\x00".to_vec();
    (0..40u8).for_each(|i| laughs.extend([b'h', i, b'h', i, 0x86, b'q', i + 1]));
    laughs.push(b'.');
    let folder = folder(&config("gpt2-base"));
    for (name, bytes) in [
        ("nested a million deep", checkpoint(&nested)),
        ("doubled forty times", checkpoint(&laughs)),
        ("a tensor of 4 TB", checkpoint(&huge_tensor())),
        ("no archive", b"not a zip".to_vec()),
    ] {
        std::fs::write(folder.path().join("pytorch_model.bin"), bytes).unwrap();
        assert_eq!(gpt2_code(folder.path()), "WEIGHTS_CORRUPT", "{name}");
    }
}

/// A safetensors file of one named tensor.
fn one_tensor(name: &str, dtype: &str, shape: &str, bytes: usize) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat()
}

#[test]
fn widths_and_classes_that_no_tensor_has() {
    let mut wide = config("bert-base");
    wide["hidden_size"] = 65536.into();
    let wide = folder(&wide);
    std::fs::copy(root().join("bert-base/model.safetensors"), wide.path().join("model.safetensors")).unwrap();
    assert_eq!(bert_code(wide.path()), "TENSOR_SHAPE");

    let many = folder(&config("bert-classify-5"));
    for (dtype, shape, bytes, code) in [
        ("I8", "[4294967295]", 0, "WEIGHTS_CORRUPT"),
        ("NEW", "[4294967295]", 0, "CONFIG_INVALID"),
        ("F32", "[0]", 0, "CONFIG_INVALID"),
    ] {
        let file = one_tensor("classifier.bias", dtype, shape, bytes);
        std::fs::write(many.path().join("model.safetensors"), file).unwrap();
        assert_eq!(bert_code(many.path()), code, "{dtype} {shape}");
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_devices() {
    let pipe = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(pipe.path().join("config.json")).status().unwrap();
    assert!(made.success());
    assert_eq!(gpt2_code(pipe.path()), "IO");

    let device = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/zero", device.path().join("config.json")).unwrap();
    assert_eq!(gpt2_code(device.path()), "IO");

    let shards = folder(&config("gpt2-base"));
    std::fs::create_dir(shards.path().join("a.safetensors")).unwrap();
    let index = r#"{"weight_map": {"wte.weight": "a.safetensors"}}"#;
    std::fs::write(shards.path().join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(gpt2_code(shards.path()), "IO");
}

/// Parts of the `tokenizers` crate panic on what they have read.
#[test]
fn a_tokenizer_that_panics() {
    let good = root().join("gpt2-base");
    let folder = folder(&config("gpt2-base"));
    std::fs::copy(good.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
        "normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"pre_tokenizer":null,"post_processor":null,
        "decoder":null,"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#;
    std::fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    let class = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), class).unwrap();
    assert_eq!(gpt2_code(folder.path()), "TOKENIZER_INVALID");
}
