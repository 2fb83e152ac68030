//! Ids equal Python's on hard text, from each kind of tokenizer file.

mod support;

use std::path::{Path, PathBuf};

use candlewick_models::{Cut, Tokenizer, Truncation};
use serde_json::Value;
use support::root;

fn read(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(root().join("tokenizer").join(name)).unwrap()).unwrap()
}

fn lines() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("tokenizer/lines.jsonl")).unwrap();
    let lines: Vec<String> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 2000, "{} lines", lines.len());
    lines
}

/// A megabyte: all lines, a space after each, again and again.
fn long_line(lines: &[String]) -> String {
    let mut long = String::new();
    for line in lines.iter().cycle() {
        if long.len() >= 1_000_000 {
            break;
        }
        long.push_str(line);
        long.push(' ');
    }
    long
}

/// FNV-1a, 64 bits, over little-endian u32.
fn hash(ids: &[u32]) -> String {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// A folder under the cache of real models, or `None` with a line that says so.
fn real(name: &str) -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = std::env::var("CANDLEWICK_CACHE").unwrap_or_else(|_| format!("{home}/.cache/candlewick"));
    let folder = Path::new(&cache).join("models").join(name);
    if folder.exists() {
        return Some(folder);
    }
    eprintln!("skipped: {} is absent; tools/fetch-models.sh fetches it", folder.display());
    None
}

fn check(tokenizer: &Tokenizer, expected: &Value, special: bool, name: &str) {
    let lines = lines();
    let encode = |line: &str| tokenizer.encode(line, special).unwrap();
    for (index, ids) in expected["line_ids"].as_object().unwrap() {
        let line = &lines[index.parse::<usize>().unwrap()];
        let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
        assert_eq!(encode(line), ids, "{name}, line {index}: {line:?}");
    }
    for (i, line) in lines.iter().enumerate() {
        let ids = encode(line);
        assert_eq!(
            hash(&ids),
            expected["hashes"][i].as_str().unwrap(),
            "{name}, line {i}: {line:?} gave {ids:?}"
        );
    }
    let long = long_line(&lines);
    let ids = encode(&long);
    let of_long = &expected["long"];
    assert_eq!(
        (long.len() as u64, ids.len() as u64),
        (of_long["bytes"].as_u64().unwrap(), of_long["count"].as_u64().unwrap())
    );
    assert_eq!(hash(&ids), of_long["hash"].as_str().unwrap(), "{name}, the long line");
}

/// GPT-2's real tokenizer, which is a vocabulary alone.
fn real_gpt2() -> Option<tempfile::TempDir> {
    let config = r#"{"tokenizer_class": "GPT2Tokenizer"}"#;
    real("gpt2-tokenizer").map(|folder| only(&folder, &["vocab.json", "merges.txt"], config))
}

/// A folder with only the named files of `from`.
fn only(from: &Path, files: &[&str], config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(from.join(file), folder.path().join(file)).unwrap();
    }
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    folder
}

#[test]
fn gpt2_vocab_and_merges() {
    let Some(folder) = real_gpt2() else { return };
    let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
    assert_eq!(tokenizer.vocab_size(), 50257);
    check(&tokenizer, &read("gpt2.json"), false, "gpt2");
}

#[test]
fn minilm_tokenizer_json() {
    let Some(folder) = real("minilm") else { return };
    let tokenizer = Tokenizer::open(&folder).unwrap().unwrap();
    let expected = read("minilm.json");
    check(&tokenizer, &expected, true, "minilm");
    check(&tokenizer, &expected["plain"], false, "minilm, plain");
}

#[test]
fn minilm_vocab_txt() {
    let Some(folder) = real("minilm") else { return };
    for (lower, name) in [(true, "minilm-vocab-lower.json"), (false, "minilm-vocab-cased.json")] {
        let config = serde_json::json!({ "tokenizer_class": "BertTokenizer", "do_lower_case": lower });
        let folder = only(&folder, &["vocab.txt"], &config.to_string());
        let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
        check(&tokenizer, &read(name), true, name);
    }
}

#[test]
fn pairs_and_truncation() {
    let Some(folder) = real("minilm") else { return };
    let tokenizer = Tokenizer::open(&folder).unwrap().unwrap();
    let expected = read("pairs.json");
    let mut checked = 0;
    for case in expected["cases"].as_array().unwrap() {
        let options = &case["options"];
        let truncation = match options["truncation"].as_str() {
            Some("only_first") => Truncation::First,
            Some("only_second") => Truncation::Second,
            None | Some("longest_first") => Truncation::Longest,
            Some(other) => panic!("{other}"),
        };
        let max_length = options["maxLength"].as_u64().map(|n| n as usize);
        let cut = Cut { max_length, truncation, stride: None };
        let encoded =
            tokenizer.encode_pair(case["text"].as_str().unwrap(), case["text_pair"].as_str(), cut).unwrap();
        let ids = |key: &str| serde_json::from_value::<Vec<u32>>(case[key].clone()).unwrap();
        assert_eq!(encoded.ids, ids("ids"), "{case}");
        assert_eq!(encoded.type_ids, ids("token_type_ids"), "{case}");
        checked += 1;
    }
    assert!(checked >= 4, "{checked} cases");
}

/// What indexes a JavaScript string, also where the tokenizer drops accents, splits Chinese, or the text is beyond the
/// BMP.
#[test]
fn offsets_in_utf16() {
    let (Some(minilm), Some(gpt2)) = (real("minilm"), real_gpt2()) else { return };
    let open = |folder: &Path| Tokenizer::open(folder).unwrap().unwrap();
    let (minilm, gpt2) = (open(&minilm), open(gpt2.path()));
    let cases = read("offsets.json");
    for case in cases["cases"].as_array().unwrap() {
        let tokenizer = if case["tokenizer"] == "minilm" { &minilm } else { &gpt2 };
        let windows = tokenizer.windows(case["text"].as_str().unwrap(), None, &Cut::default()).unwrap();
        assert_eq!(windows.len(), 1);
        assert_eq!(serde_json::json!(windows[0].ids), case["ids"], "{}", case["text"]);
        assert_eq!(serde_json::json!(windows[0].offsets), case["offsets_utf16"], "{}", case["text"]);
    }
}

/// With a stride the windows have every token, each but the first begins with the last `stride` tokens of the one
/// before, and the uncut text of a pair is in all of them.
#[test]
fn windows_overlap_by_their_stride() {
    let Some(folder) = real("minilm") else { return };
    let tokenizer = Tokenizer::open(&folder).unwrap().unwrap();
    let text = "我们 unbelievably good 👍🏽 café ".repeat(40);
    let whole = tokenizer.encode(&text, false).unwrap();
    for (pair, max_length, stride) in [(None, 50, 7), (None, 30, 0), (Some("what is it?"), 64, 20)] {
        let cut = Cut { max_length: Some(max_length), truncation: Truncation::Second, stride: Some(stride) };
        let first = Cut { truncation: Truncation::First, ..cut };
        let windows = match pair {
            None => tokenizer.windows(&text, None, &first),
            Some(question) => tokenizer.windows(question, Some(&text), &cut),
        };
        let windows = windows.unwrap();
        assert!(windows.len() > 3);
        let side = u8::from(pair.is_some());
        let (mut joined, mut question) = (Vec::<u32>::new(), None);
        for (index, window) in windows.iter().enumerate() {
            assert!(window.ids.len() <= max_length);
            for (text, type_id) in window.texts.iter().zip(&window.type_ids) {
                assert!(text.is_none_or(|text| u32::from(text) == *type_id), "{index}");
            }
            let of = |side| {
                let ids = window.ids.iter().zip(&window.texts).filter(move |(_, text)| **text == Some(side));
                ids.map(|(id, _)| *id).collect::<Vec<u32>>()
            };
            let ids = of(side);
            let shared = if index == 0 { 0 } else { stride };
            assert_eq!(joined[joined.len() - shared..], ids[..shared]);
            joined.extend(&ids[shared..]);
            if side == 1 {
                assert_eq!(*question.get_or_insert_with(|| of(0)), of(0));
            }
        }
        assert_eq!(joined, whole);
    }
    let too_much = Cut { max_length: Some(20), truncation: Truncation::First, stride: Some(18) };
    assert_eq!(tokenizer.windows(&text, None, &too_much).unwrap_err().code(), "INPUT_INVALID");
}

#[test]
fn decoding() {
    let (Some(gpt2), Some(minilm)) = (real_gpt2(), real("minilm")) else { return };
    for (name, folder) in [("gpt2", gpt2.path()), ("minilm", minilm.as_path())] {
        let tokenizer = Tokenizer::open(folder).unwrap().unwrap();
        for case in read("decode.json")["cases"].as_array().unwrap().iter().filter(|c| c["tokenizer"] == name)
        {
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["text"].as_str().unwrap());
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["text_with_special"].as_str().unwrap());
        }
    }
}

/// A byte-level token's bytes, put together, are what the tokenizer decodes.
#[test]
fn token_bytes_add_up_to_the_text() {
    let Some(folder) = real_gpt2() else { return };
    let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
    for line in lines() {
        let ids = tokenizer.encode(&line, false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap()).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), line);
    }
}
