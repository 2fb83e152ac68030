//! GGUF files: equal to PyTorch on the weights they hold; hostile ones end in a typed error, at once.

mod support;

use std::time::Instant;

use candlewick_models::{CausalBackend, ChatMessage, ChatRequest, Dtype, LoadOptions, Loaded, load_causal};
use support::sequences::all_logits;
use support::{Fixture, root};

fn load(path: &str, dtype: Option<Dtype>) -> candlewick_models::Result<Loaded<dyn CausalBackend>> {
    load_causal(path, &LoadOptions { dtype, threads: 1, ..Default::default() }, &())
}

fn file(kind: &str) -> String {
    root().join(format!("gguf/{kind}.gguf")).to_str().unwrap().to_string()
}

const KINDS: [(&str, Dtype); 4] =
    [("f32", Dtype::F32), ("f16", Dtype::F16), ("q8_0", Dtype::Q8_0), ("q4_0", Dtype::Q4_0)];

#[test]
fn logits_equal_pytorch_on_what_the_file_holds() {
    let fixture = Fixture::open("gguf");
    let rows = fixture.rows("input_ids");
    for (kind, dtype) in KINDS {
        let mut exact = load(&file(kind), Some(Dtype::F32)).unwrap().model;
        let mut native = load(&file(kind), None).unwrap().model;
        assert_eq!(native.info().dtype, dtype);
        for (i, ids) in rows.iter().enumerate() {
            let expected = fixture.row(&format!("logits.{kind}"), i, None);
            fixture.check(&format!("{kind}, row {i}"), &all_logits(exact.as_mut(), ids), &expected);
            // Quantised products also round their inputs, to 8 bits in blocks of 32.
            let found = all_logits(native.as_mut(), ids);
            let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
            let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b))
                / norm(&mut expected.iter().copied());
            assert!(error < if dtype == Dtype::F32 { 1e-5 } else { 0.03 }, "{kind}: relative error {error}");
        }
    }
}

#[test]
fn the_tokenizer_inside_is_python_s() {
    let fixture = Fixture::open("gguf");
    let loaded = load(&file("q8_0"), None).unwrap();
    let tokenizer = loaded.tokenizer.unwrap();
    let texts: Vec<String> = serde_json::from_value(fixture.expected["texts"].clone()).unwrap();
    for (text, ids) in texts.iter().zip(fixture.rows("ids")) {
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(&tokenizer.decode(&ids, false).unwrap(), text);
    }
    assert_eq!(loaded.model.info().eos_token_ids, [tokenizer.token_to_id("<|endoftext|>").unwrap()]);
}

#[test]
fn a_chat_template_in_the_file_is_the_models() {
    assert!(load(&file("q8_0"), None).unwrap().chat.is_none());
    let mut bytes = std::fs::read(file("q8_0")).unwrap();
    let pairs = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    bytes[16..24].copy_from_slice(&(pairs + 1).to_le_bytes());
    let (key, mut template) =
        ("tokenizer.chat_template", "{{ messages[0].content ~ eos_token }}".to_string());
    // The tensors after the header are aligned to 32 bytes: the pair is as long as some of them.
    let length = |template: &str| 8 + key.len() + 4 + 8 + template.len();
    while length(&template) % 32 != 0 {
        template.push(' ');
    }
    let mut pair = (key.len() as u64).to_le_bytes().to_vec();
    pair.extend(key.bytes());
    pair.extend(8u32.to_le_bytes());
    pair.extend((template.len() as u64).to_le_bytes());
    pair.extend(template.bytes());
    bytes.splice(24..24, pair);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.gguf");
    std::fs::write(&path, bytes).unwrap();
    let loaded = load(path.to_str().unwrap(), None).unwrap();
    let messages = vec![ChatMessage { role: "user".into(), content: "Hello".into() }];
    let request = ChatRequest { messages, add_generation_prompt: true, now: 0 };
    let text = loaded.chat.unwrap().text(&loaded.tokenizer.unwrap(), &request, 64).unwrap().text;
    assert_eq!(text.trim_end(), "Hello<|endoftext|>");
}

/// Where `needle` starts.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|w| w == needle).expect("the needle")
}

#[test]
fn hostile_files_end_in_typed_errors() {
    let good = std::fs::read(file("f32")).unwrap();
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let put = |at: usize, value: u64| -> Change {
        Box::new(move |b| b[at..at + 8].copy_from_slice(&value.to_le_bytes()))
    };
    // A tensor's entry: its name, then dimensions (u32), sizes (u64 each), type (u32), offset (u64).
    let entry = find(&good, b"position_embd.weight") + b"position_embd.weight".len();
    let (sizes, kind, offset) = (entry + 4, entry + 20, entry + 24);
    // The tokens: key, type 9 (u32), element type (u32), count (u64), first string's length (u64).
    let tokens = find(&good, b"tokenizer.ggml.tokens") + b"tokenizer.ggml.tokens".len();
    let heads = find(&good, b"head_count") + b"head_count".len();
    let cases: Vec<(&str, &str, Change)> = vec![
        ("empty", "WEIGHTS_CORRUPT", Box::new(Vec::clear)),
        ("wrong magic", "WEIGHTS_CORRUPT", Box::new(|b| b[0] = b'X')),
        ("version 9", "UNSUPPORTED_MODEL", Box::new(|b| b[4] = 9)),
        ("cut in the header", "WEIGHTS_CORRUPT", Box::new(|b| b.truncate(3000))),
        ("cut in the data", "WEIGHTS_CORRUPT", Box::new(|b| b.truncate(b.len() - 1000))),
        ("2^63 tensors", "WEIGHTS_CORRUPT", put(8, 1 << 63)),
        ("tensors as the file could just hold", "WEIGHTS_CORRUPT", put(8, good.len() as u64 / 25)),
        ("2^63 pairs", "WEIGHTS_CORRUPT", put(16, 1 << 63)),
        ("a pair too many", "WEIGHTS_CORRUPT", put(16, 1000)),
        ("2^62 tokens", "WEIGHTS_CORRUPT", put(tokens + 8, 1 << 62)),
        ("tokens past the end", "WEIGHTS_CORRUPT", put(tokens + 8, 60_000)),
        ("a string past the end", "WEIGHTS_CORRUPT", put(tokens + 16, u64::MAX)),
        ("a long string", "WEIGHTS_CORRUPT", put(tokens + 16, 400_000)),
        ("no heads", "CONFIG_INVALID", Box::new(move |b| b[heads + 4..heads + 8].fill(0))),
        ("a huge tensor", "WEIGHTS_CORRUPT", put(sizes, 1 << 40)),
        ("an overflowing tensor", "WEIGHTS_CORRUPT", put(sizes, u64::MAX)),
        ("a tensor that is too small", "TENSOR_SHAPE", put(sizes, 32)),
        ("an unknown quantisation", "UNSUPPORTED_DTYPE", Box::new(move |b| b[kind] = 99)),
        ("a tensor outside the file", "WEIGHTS_CORRUPT", put(offset, 1 << 40)),
        ("an overflowing offset", "WEIGHTS_CORRUPT", put(offset, u64::MAX)),
        ("overlapping tensors", "WEIGHTS_CORRUPT", put(offset, 0)),
        (
            "another architecture",
            "UNSUPPORTED_MODEL",
            Box::new(|b| {
                let at = find(b, b"general.architecture") + b"general.architecture".len() + 12;
                b[at..at + 4].copy_from_slice(b"lama");
            }),
        ),
        (
            "another tokenizer",
            "TOKENIZER_INVALID",
            Box::new(|b| {
                let at = find(b, b"tokenizer.ggml.model") + b"tokenizer.ggml.model".len() + 12;
                b[at..at + 4].copy_from_slice(b"bert");
            }),
        ),
        (
            "a missing tensor",
            "TENSOR_MISSING",
            Box::new(|b| {
                let at = find(b, b"output_norm.bias");
                b[at..at + 6].copy_from_slice(b"elsewh");
            }),
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.gguf");
    for (name, code, change) in cases {
        let mut bytes = good.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let started = Instant::now();
        match load(path.to_str().unwrap(), None) {
            Ok(_) => panic!("{name}: loaded"),
            Err(error) => assert_eq!(error.code(), code, "{name}: {error}"),
        }
        eprintln!("{name}: {:?}", started.elapsed());
    }
}

/// Every byte of the header changed, a few ways: an error or a model, never a panic or an allocation out of all
/// proportion.
#[test]
fn no_flipped_byte_in_the_header_breaks_the_reader() {
    let good = std::fs::read(file("q4_0")).unwrap();
    let header = find(&good, b"blk.1.ffn_down.bias") + 60;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flipped.gguf");
    for at in (0..header).step_by(3) {
        let mut bytes = good.clone();
        bytes[at] ^= [0xff, 0x01, 0x80][at / 3 % 3];
        std::fs::write(&path, bytes).unwrap();
        let _ = load(path.to_str().unwrap(), None);
    }
}
