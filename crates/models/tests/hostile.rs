//! Folders that lie about their sizes or are not made of files: a typed error at once, never an abort or a hang.

mod support;

use std::io::Write;
use std::path::Path;

use candlewick_models::{LoadOptions, Tokenizer, load_causal, load_encoder};
use support::gguf::{GgufFile, Value};
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

/// What a file says that a GPT-2, its tokenizer or its tensors cannot be: named, at once.
/// Oniguruma counts its steps, so that an expression without an end is an error, and says what it is.
#[test]
fn a_regular_expression_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": "(a+)+$" }, "behavior": "Isolated", "invert": false
        },
        "model": { "type": "WordLevel", "vocab": { "a": 0 }, "unk_token": "a" }
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let class = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), class).unwrap();
    let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
    assert_eq!(tokenizer.encode("aaa", true).unwrap(), [0]);
    let error = tokenizer.encode(&("a".repeat(40) + "b"), true).unwrap_err();
    assert_eq!(error.code(), "TOKENIZER_INVALID");
    assert!(error.to_string().contains("regular expression"), "{error}");
}

#[test]
fn gguf_files_that_contradict_themselves() {
    type Change = Box<dyn Fn(&mut GgufFile)>;
    let set =
        |key: &'static str, value: Value| -> Change { Box::new(move |file| file.set(key, value.clone())) };
    let drop = |key: &'static str| -> Change { Box::new(move |file| file.remove(key)) };
    let kind = |code: u32| -> Change { Box::new(move |file| file.tensors[0].2 = code) };
    let tokens = |change: fn(&mut Vec<String>)| -> Change {
        Box::new(move |file| {
            let pair = file.pairs.iter_mut().find(|(key, _)| key == "tokenizer.ggml.tokens").unwrap();
            if let Value::Texts(tokens) = &mut pair.1 {
                change(tokens);
            }
        })
    };
    let texts = |items: &[&str]| Value::Texts(items.iter().map(|item| item.to_string()).collect());
    let types = |last: i32| Value::I32s([vec![1; 260], vec![3, 4, last]].concat());
    let cases: Vec<(&str, &str, Change)> = vec![
        // The tokenizer.
        ("merges is missing", "TOKENIZER_INVALID", drop("tokenizer.ggml.merges")),
        ("merges is empty", "TOKENIZER_INVALID", set("tokenizer.ggml.merges", texts(&[]))),
        ("one\" at 0", "TOKENIZER_INVALID", set("tokenizer.ggml.merges", texts(&["one"]))),
        ("merges and", "TOKENIZER_INVALID", set("tokenizer.ggml.merges", texts(&["x yz"]))),
        ("merges is a string", "TOKENIZER_INVALID", set("tokenizer.ggml.merges", Value::Text("h e"))),
        (
            "tokens is an array of numbers",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.tokens", Value::F32s(vec![1.0])),
        ),
        ("as 256 and as 261", "TOKENIZER_INVALID", tokens(|tokens| tokens[261] = "he".into())),
        (
            "263 entries",
            "VOCABULARY_MISMATCH",
            Box::new(|file| {
                file.tensors[0].1[1] = 262;
                file.tensors[0].3.truncate(262 * 16);
            }),
        ),
        (
            "token_type has 2 items",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.token_type", Value::I32s(vec![1, 1])),
        ),
        ("token 262: type 6", "TOKENIZER_INVALID", set("tokenizer.ggml.token_type", types(6))),
        ("token 262: type 0", "TOKENIZER_INVALID", set("tokenizer.ggml.token_type", types(0))),
        ("token 262: type -1", "TOKENIZER_INVALID", set("tokenizer.ggml.token_type", types(-1))),
        (
            "token_type is an array of numbers",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.token_type", Value::F32s(vec![1.0])),
        ),
        ("without tokenizer.ggml.tokens", "TOKENIZER_INVALID", drop("tokenizer.ggml.tokens")),
        ("expected \"gpt2\"", "TOKENIZER_INVALID", drop("tokenizer.ggml.model")),
        ("\"llama\"", "TOKENIZER_INVALID", set("tokenizer.ggml.model", Value::Text("llama"))),
        ("\"default\"", "TOKENIZER_INVALID", set("tokenizer.ggml.pre", Value::Text("default"))),
        ("pre is an integer", "TOKENIZER_INVALID", set("tokenizer.ggml.pre", Value::U32(1))),
        (
            "add_space_prefix is true",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.add_space_prefix", Value::Bool(1)),
        ),
        ("add_sep_token is true", "TOKENIZER_INVALID", set("tokenizer.ggml.add_sep_token", Value::Bool(1))),
        (
            "add_bos_token is an integer",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.add_bos_token", Value::U32(1)),
        ),
        ("a bool of 2", "WEIGHTS_CORRUPT", set("tokenizer.ggml.add_bos_token", Value::Bool(2))),
        (
            "precompiled_charsmap",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.precompiled_charsmap", Value::F32s(vec![])),
        ),
        ("bos_token_id is 263", "TOKENIZER_INVALID", set("tokenizer.ggml.bos_token_id", Value::U32(263))),
        (
            "eot_token_id is 4000000000",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.eot_token_id", Value::U32(4_000_000_000)),
        ),
        (
            "padding_token_id is -1",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.padding_token_id", Value::I32(-1)),
        ),
        (
            "mask_token_id is a float",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.mask_token_id", Value::F32(1.0)),
        ),
        (
            "missing beside",
            "TOKENIZER_INVALID",
            set("tokenizer.chat_template.tool_use", Value::Text("{{ 1 }}")),
        ),
        (
            "a key that is long",
            "TOKENIZER_INVALID",
            Box::new(|file| file.set(&format!("tokenizer.{}", "x".repeat(9_000)), Value::U32(1))),
        ),
        ("a name that is long", "WEIGHTS_CORRUPT", Box::new(|file| file.tensors[3].0 = "x".repeat(9_000))),
        (
            "expected \"gpt-2\"",
            "TOKENIZER_INVALID",
            set("tokenizer.ggml.pre", Value::Text(Box::leak("x".repeat(9_000).into_boxed_str()))),
        ),
        ("chat_template is a float", "TOKENIZER_INVALID", set("tokenizer.chat_template", Value::F32(1.0))),
        (
            "without tokenizer.ggml.bos_token_id",
            "TOKENIZER_INVALID",
            Box::new(|file| {
                file.remove("tokenizer.ggml.bos_token_id");
                file.set("tokenizer.ggml.add_bos_token", Value::Bool(1));
            }),
        ),
        // The model.
        ("head_count is a string", "CONFIG_INVALID", set("gpt2.attention.head_count", Value::Text("two"))),
        ("context_length is -1", "CONFIG_INVALID", set("gpt2.context_length", Value::I32(-1))),
        ("context_length is missing", "CONFIG_INVALID", drop("gpt2.context_length")),
        ("layer_norm_epsilon is missing", "CONFIG_INVALID", drop("gpt2.attention.layer_norm_epsilon")),
        (
            "layer_norm_epsilon is an integer",
            "CONFIG_INVALID",
            set("gpt2.attention.layer_norm_epsilon", Value::U32(0)),
        ),
        ("head_count_kv is 1", "CONFIG_INVALID", set("gpt2.attention.head_count_kv", Value::U32(1))),
        ("causal is false", "CONFIG_INVALID", set("gpt2.attention.causal", Value::Bool(0))),
        ("gpt2.rope.freq_base", "UNSUPPORTED_MODEL", set("gpt2.rope.freq_base", Value::F32(1e4))),
        ("a LoRA adapter", "UNSUPPORTED_MODEL", set("general.type", Value::Text("adapter"))),
        ("one of 3 parts", "UNSUPPORTED_MODEL", set("split.count", Value::U32(3))),
        ("general.alignment is 24", "CONFIG_INVALID", set("general.alignment", Value::U32(24))),
        ("general.alignment is a string", "CONFIG_INVALID", set("general.alignment", Value::Text("32"))),
        ("block_count", "UNSUPPORTED_MODEL", Box::new(|file| file.tensor("blk.1.attn_norm.weight", &[4]))),
        ("output.bias", "UNSUPPORTED_MODEL", Box::new(|file| file.tensor("output.bias", &[263]))),
        // Keys and tensors.
        ("there twice", "WEIGHTS_CORRUPT", Box::new(|file| file.pairs.push(file.pairs[1].clone()))),
        (
            "is there twice",
            "WEIGHTS_CORRUPT",
            Box::new(|file| file.tensors[2].0 = "token_embd.weight".into()),
        ),
        ("IQ2_XXS", "UNSUPPORTED_DTYPE", kind(16)),
        ("I32", "UNSUPPORTED_DTYPE", kind(26)),
        ("F64", "UNSUPPORTED_DTYPE", kind(28)),
        ("Q4_0_4_4", "UNSUPPORTED_DTYPE", kind(31)),
        ("not known, 99", "UNSUPPORTED_DTYPE", kind(99)),
        ("not known, 4294967295", "UNSUPPORTED_DTYPE", kind(u32::MAX)),
        ("rows of 4 values in blocks of 256, Q6_K", "WEIGHTS_CORRUPT", kind(14)),
        ("expected", "WEIGHTS_CORRUPT", kind(1)),
        ("a gap", "WEIGHTS_CORRUPT", Box::new(|file| file.tensors[0].3.extend([0; 32]))),
        (
            "general.quantization_version 1",
            "UNSUPPORTED_DTYPE",
            Box::new(|file| {
                file.set("general.quantization_version", Value::U32(1));
                file.tensors[1] = ("position_embd.weight".into(), vec![32, 2], 2, vec![0; 36]);
            }),
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let good = GgufFile::with_tokenizer(&[("<end>", 3), ("<turn>", 4), ("<bye>", 3)]);
    good.write(&path);
    load_causal(path.to_str().unwrap(), &LoadOptions::default(), &()).map(|_| ()).unwrap();
    for (says, code, change) in cases {
        let mut file = good.clone();
        change(&mut file);
        file.write(&path);
        match load_causal(path.to_str().unwrap(), &LoadOptions::default(), &()) {
            Ok(_) => panic!("{says}: loaded"),
            Err(error) => {
                assert_eq!(error.code(), code, "{says}: {error}");
                let named = error.to_string();
                let shown = ["block_count", "a gap", "a key that is long", "a name that is long"]
                    .contains(&says)
                    || named.contains(says);
                assert!(shown && named.len() < 300, "{says}: {error}");
            }
        }
    }
}

/// Cut anywhere in its head, a file is an error; and so is one whose data end early.
#[test]
fn gguf_files_that_are_cut() {
    let good = GgufFile::with_tokenizer(&[("<end>", 3)]).bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // A byte of the last tensor is the file's last one.
    for length in (0..good.len()).step_by(7).chain([good.len() - 1]) {
        std::fs::write(&path, &good[..length]).unwrap();
        assert_eq!(gpt2_code(&path), "WEIGHTS_CORRUPT", "{length} of {}", good.len());
    }
    let mut longer = good.clone();
    longer.extend([7; 1000]);
    std::fs::write(&path, longer).unwrap();
    load_causal(path.to_str().unwrap(), &LoadOptions::default(), &()).map(|_| ()).unwrap();
}

/// A scale that is no number, in blocks that are decoded.
#[test]
fn gguf_blocks_that_are_not_finite() {
    for (kind, at) in [("Q4_1", 0), ("Q5_1", 2), ("IQ4_NL", 0)] {
        let mut bytes = std::fs::read(root().join(format!("gguf-types/{kind}.gguf"))).unwrap();
        let data = data_of(&bytes);
        bytes[data + at..data + at + 2].copy_from_slice(&0x7c00u16.to_le_bytes());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(gpt2_code(&path), "NOT_FINITE", "{kind}");
    }
}

/// Where a file's data begin: behind the entry of its last tensor.
fn data_of(bytes: &[u8]) -> usize {
    let last = b"blk.0.ffn_down.bias";
    let name = bytes.windows(last.len()).rposition(|window| window == last).expect("the last tensor's entry");
    (name + last.len() + 4 + 8 + 4 + 8).next_multiple_of(32)
}
