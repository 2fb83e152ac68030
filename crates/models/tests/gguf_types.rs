//! GGUF files of every type that is read: logits by PyTorch; ids, texts and greedy tokens by llama.cpp
//! (`tools/fixtures/gguf_types.py`, `gguf_llama.mjs`).

mod support;

use candlewick_models::{
    CausalBackend, ChatMessage, ChatRequest, Dtype, LoadOptions, Loaded, ModelError, load_causal,
};
use serde_json::Value as Json;
use support::gguf::{GgufFile, Value};
use support::sequences::all_logits;
use support::{Fixture, root};

fn load(path: &str, dtype: Option<Dtype>) -> candlewick_models::Result<Loaded<dyn CausalBackend>> {
    load_causal(path, &LoadOptions { dtype, threads: 1, ..Default::default() }, &())
}

fn file(kind: &str) -> String {
    root().join(format!("gguf-types/{kind}.gguf")).to_str().unwrap().to_string()
}

fn written(file: &GgufFile) -> candlewick_models::Result<Loaded<dyn CausalBackend>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    file.write(&path);
    load(path.to_str().unwrap(), None)
}

/// What each file is held as without `dtype`, of most of its values.
const HELD: [(&str, Dtype); 10] = [
    ("BF16", Dtype::F32),
    ("Q4_1", Dtype::Q8_0),
    ("Q5_0", Dtype::Q8_0),
    ("Q5_1", Dtype::Q8_0),
    ("Q8_1", Dtype::Q8_0),
    ("IQ4_NL", Dtype::Q8_0),
    ("MXFP4", Dtype::Q8_0),
    ("k_quants", Dtype::Q8_0),
    ("others", Dtype::Q8_0),
    ("quantised", Dtype::Q4_0),
];

fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied())
}

#[test]
fn logits_equal_pytorch_on_what_each_file_holds() {
    let fixture = Fixture::open("gguf-types");
    for (name, held) in HELD {
        let ids: Vec<Vec<u32>> = serde_json::from_value(fixture.expected["input_ids"][name].clone()).unwrap();
        let expected = fixture.row(&format!("logits.{name}"), 0, None);
        let mut exact = load(&file(name), Some(Dtype::F32)).unwrap().model;
        fixture.check(name, &all_logits(exact.as_mut(), &ids[0]), &expected);
        let mut native = load(&file(name), None).unwrap().model;
        assert_eq!(native.info().dtype, held, "{name}");
        let error = relative_error(&all_logits(native.as_mut(), &ids[0]), &expected);
        eprintln!("{name}: relative error {error:.5}, {} bytes", native.info().weight_bytes);
        assert!(error < if held == Dtype::F32 { 1e-5 } else { 0.03 }, "{name}: {error}");
    }
}

/// Why other blocks become q8_0: a second rounding to q4_0 costs several times as much, f16 saves next to nothing.
#[test]
fn decoded_blocks_lose_little_as_q8_0() {
    let fixture = Fixture::open("gguf-types");
    let ids: Vec<Vec<u32>> =
        serde_json::from_value(fixture.expected["input_ids"]["k_quants"].clone()).unwrap();
    let expected = fixture.row("logits.k_quants", 0, None);
    let [q8, f16, q4] = [None, Some(Dtype::F16), Some(Dtype::Q4_0)].map(|dtype| {
        let mut model = load(&file("k_quants"), dtype).unwrap().model;
        let error = relative_error(&all_logits(model.as_mut(), &ids[0]), &expected);
        eprintln!("{dtype:?}: relative error {error:.5}, {} bytes", model.info().weight_bytes);
        error
    });
    assert!(3.0 * q8 < q4 && f16 < q8, "{q8} {f16} {q4}");
}

/// A file of Q4_0 with its embedding in Q6_K keeps the Q4_0 as it is: half the memory of q8_0.
#[test]
fn a_mixed_file_keeps_what_the_kernels_know() {
    let held = |dtype| load(&file("quantised"), dtype).unwrap().model.info().weight_bytes;
    let (native, q8, q4) = (held(None), held(Some(Dtype::Q8_0)), held(Some(Dtype::Q4_0)));
    assert!(q4 < native && native < q8, "{q4} {native} {q8}");
}

#[test]
fn texts_are_read_and_written_as_llama_cpp_does() {
    let fixture = Fixture::open("gguf-types");
    let text = std::fs::read_to_string(root().join("gguf-types/llama.json")).unwrap();
    let llama: Json = serde_json::from_str(&text).unwrap();
    let tokenizer = load(&file("quantised"), None).unwrap().tokenizer.unwrap();
    let texts: Vec<String> = serde_json::from_value(fixture.expected["texts"].clone()).unwrap();
    let rows: Vec<Vec<u32>> = serde_json::from_value(llama["ids"].clone()).unwrap();
    for (index, (text, ids)) in texts.iter().zip(&rows).enumerate() {
        assert_eq!(&tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
        let decoded = |skip| Json::from(tokenizer.decode(ids, skip).unwrap());
        assert_eq!(decoded(true), llama["texts"][index], "{text:?}");
        assert_eq!(decoded(false), llama["special"][index], "{text:?}");
        let streamed: Vec<u8> = ids
            .iter()
            .filter(|id| !tokenizer.is_special(**id))
            .filter_map(|id| tokenizer.token_bytes(*id))
            .flatten()
            .collect();
        assert_eq!(Json::from(String::from_utf8(streamed).unwrap()), llama["texts"][index], "{text:?}");
    }
    for (id, piece) in llama["pieces"].as_object().unwrap() {
        let decoded = |skip| Json::from(tokenizer.decode(&[id.parse().unwrap()], skip).unwrap());
        assert_eq!((&decoded(true), &decoded(false)), (&piece[0], &piece[1]), "token {id}");
    }
}

/// In f32, and with rounded weights and inputs where the best token is clearly best.
#[test]
fn greedy_tokens_are_llama_cpps() {
    let text = std::fs::read_to_string(root().join("gguf-types/llama.json")).unwrap();
    let llama: Json = serde_json::from_str(&text).unwrap();
    let own = Fixture::open("gguf-types");
    for (dtype, least) in [(Some(Dtype::F32), 0.0), (None, 0.2)] {
        let mut model = load(&file("quantised"), dtype).unwrap().model;
        let cases = llama["greedy"].as_array().unwrap().iter();
        let clear = cases.zip(own.expected["greedy"].as_array().unwrap());
        for (case, _) in clear.filter(|(_, own)| own["margin"].as_f64().unwrap() >= least) {
            let mut ids: Vec<u32> = serde_json::from_value(case["prompt"].clone()).unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["tokens"].clone()).unwrap();
            let vocab = model.info().vocab_size;
            for token in expected {
                let logits = all_logits(model.as_mut(), &ids);
                let last = &logits[logits.len() - vocab..];
                let best = (0..vocab).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
                assert_eq!(best as u32, token, "{dtype:?} after {ids:?}");
                ids.push(token);
            }
        }
    }
}

const ADDED: [(&str, i32); 4] = [("<end>", 3), ("<turn>", 4), ("<bye>", 3), ("<hole>", 5)];

#[test]
fn flags_and_ids_are_obeyed() {
    let base = GgufFile::with_tokenizer(&ADDED);
    let end = 260;
    let encoded = |file: &GgufFile, special| {
        written(file).unwrap().tokenizer.unwrap().encode("hello<turn>", special).unwrap()
    };
    assert_eq!(encoded(&base, true), [259, end + 1]);
    for (bos, eos) in [(true, false), (false, true), (true, true), (false, false)] {
        let mut file = base.clone();
        file.set("tokenizer.ggml.add_bos_token", Value::Bool(bos.into()));
        file.set("tokenizer.ggml.add_eos_token", Value::Bool(eos.into()));
        file.set("tokenizer.ggml.eos_token_id", Value::U32(end + 2));
        let mut expected = vec![259, end + 1];
        assert_eq!(encoded(&file, false), expected);
        expected.splice(0..0, bos.then_some(end));
        expected.extend(eos.then_some(end + 2));
        assert_eq!(encoded(&file, true), expected, "{bos} {eos}");
    }
    let mut file = base.clone();
    file.set("tokenizer.ggml.eot_token_id", Value::I32(262));
    file.set("tokenizer.ggml.add_space_prefix", Value::Bool(0));
    file.set("tokenizer.ggml.padding_token_id", Value::U32(0));
    file.set("general.type", Value::Text("model"));
    file.set("general.name", Value::Text("any"));
    file.set("gpt2.attention.head_count_kv", Value::U32(2));
    let loaded = written(&file).unwrap();
    assert_eq!(loaded.model.info().eos_token_ids, [end, end + 2]);
    assert_eq!(loaded.model.info().bos_token_id, Some(end));
    // Without types the ids that end a text are still no text.
    let mut file = base.clone();
    file.remove("tokenizer.ggml.token_type");
    let tokenizer = written(&file).unwrap().tokenizer.unwrap();
    assert_eq!(tokenizer.encode("<end>he", true).unwrap(), [end, 256]);
    assert!(tokenizer.is_special(end) && !tokenizer.is_special(end + 2));
    assert_eq!(tokenizer.encode("<bye>", true).unwrap().len(), 5);
}

#[test]
fn a_file_without_a_tokenizer_is_a_model_of_ids() {
    for named in [None, Some("none"), Some("no_vocab")] {
        let mut file = GgufFile::gpt2(20);
        if let Some(name) = named {
            file.set("tokenizer.ggml.model", Value::Text(name));
        }
        file.set("tokenizer.ggml.eos_token_id", Value::U32(19));
        let mut loaded = written(&file).unwrap();
        assert!(loaded.tokenizer.is_none());
        assert_eq!(loaded.model.info().eos_token_ids, [19]);
        assert_eq!(all_logits(loaded.model.as_mut(), &[1, 2, 3]).len(), 3 * 20);
    }
    assert!(load(&file("others"), None).unwrap().tokenizer.is_none());
}

#[test]
fn a_template_names_the_files_tokens() {
    let mut file = GgufFile::with_tokenizer(&ADDED);
    file.set("tokenizer.chat_template", Value::Text("{{ messages[0].content ~ eos_token ~ pad_token }}"));
    file.set("tokenizer.ggml.padding_token_id", Value::U32(261));
    let loaded = written(&file).unwrap();
    let message = ChatMessage { role: "user".into(), content: "he".into() };
    let request = ChatRequest { messages: vec![message], add_generation_prompt: true, now: 0 };
    let tokenizer = loaded.tokenizer.unwrap();
    let text = loaded.chat.unwrap().text(&tokenizer, &request, 16).unwrap();
    assert_eq!(text.ids(&tokenizer).unwrap(), [256, 260, 261]);
    file.set("tokenizer.chat_template", Value::U32(1));
    assert!(matches!(written(&file).err(), Some(ModelError::Tokenizer(_))));
}
