//! Folders as people leave them, against what transformers makes of them (tools/fixtures/tokenizer_folders.py).

use std::path::Path;

use candlewick_models::{Cut, Encoded, Tokenizer};
use serde_json::{Value, json};

fn fixture(name: &str) -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/tokenizer-folders").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `new` over `old`, objects in objects.
fn merge(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                merge(old.entry(name).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new.clone(),
    }
}

fn write(folder: &Path, name: &str, content: &Value) {
    let text = content.as_str().map_or_else(|| content.to_string(), str::to_string);
    std::fs::write(folder.join(name), text).unwrap();
}

/// A base's files, and over them a folder's own.
fn folder(bases: &Value, base: &Value, files: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let base = bases["bases"][base.as_str().unwrap()].as_object().unwrap();
    for (name, content) in base {
        write(folder.path(), name, content);
    }
    for (name, over) in files.as_object().unwrap() {
        let mut content = base.get(name).cloned().unwrap_or(Value::Null);
        match over {
            Value::Null => {
                if content != Value::Null {
                    std::fs::remove_file(folder.path().join(name)).unwrap();
                }
                continue;
            }
            Value::String(_) => content = over.clone(),
            over => {
                if let Some(new) = over.get("merge") {
                    merge(&mut content, new);
                }
                for (key, value) in over["replace"].as_object().into_iter().flatten() {
                    content[key] = value.clone();
                }
                if let Some(model) = over.get("model") {
                    let vocabulary = content["model"]["vocab"].take();
                    content["model"] = model.clone();
                    content["model"]["vocab"] = vocabulary;
                }
            }
        }
        write(folder.path(), name, &content);
    }
    folder
}

/// FNV-1a, 64 bits, over little-endian u32.
fn hash(numbers: impl Iterator<Item = u32>) -> String {
    let bytes = numbers.flat_map(u32::to_le_bytes);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// A case in the form of the fixture: its hash, and all of it.
fn made(tokenizer: &Tokenizer, case: &Value) -> (String, Value) {
    let cut = Cut::from(case[2].as_u64().map(|length| length as usize));
    let Encoded { ids, type_ids } =
        tokenizer.encode_pair(case[0].as_str().unwrap(), case[1].as_str(), cut).unwrap();
    let [text, all] = [true, false].map(|skip| tokenizer.decode(&ids, skip).unwrap());
    let characters = |text: &str| text.chars().map(u32::from).chain([0]).collect::<Vec<_>>();
    let numbers = ids.iter().copied().chain([u32::MAX]).chain(type_ids.iter().copied()).chain([u32::MAX]);
    let digest = hash(numbers.chain(characters(&text)).chain(characters(&all)));
    (digest, json!({ "ids": ids, "types": type_ids, "text": text, "all": all }))
}

/// What differs from transformers in one folder.
fn differences(tokenizer: &Tokenizer, cases: &[Value], expected: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let named: Vec<Value> =
        tokenizer.named_tokens().iter().map(|(name, token)| json!([name, token])).collect();
    for (what, own, theirs) in [
        ("named tokens", json!(named), &expected["named"]),
        ("max length", json!(tokenizer.max_length()), &expected["maxLength"]),
        ("vocabulary", json!(tokenizer.vocab_size()), &expected["size"]),
    ] {
        if own != *theirs {
            found.push(format!("{what}: {own}, not {theirs}"));
        }
    }
    for (at, case) in cases.iter().enumerate() {
        let (digest, own) = made(tokenizer, case);
        let theirs = &expected["full"][at.to_string()];
        if !theirs.is_null() && own != *theirs {
            found.push(format!("{case}: {own}, not {theirs}"));
        } else if expected["hashes"][at] != digest {
            found.push(format!("{case}: {own}"));
        }
    }
    found
}

#[test]
fn ids_and_texts_are_those_of_transformers_or_the_folder_is_refused() {
    let (bases, fixture) = (fixture("bases.json"), fixture("folders.json"));
    let cases = fixture["cases"].as_array().unwrap();
    let (mut equal, mut refused, mut wrong) = (0, 0, Vec::new());
    for entry in fixture["folders"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let folder = folder(&bases, &entry["base"], &entry["files"]);
        let contradicts = entry["contradicts"].as_array();
        let must_refuse = contradicts.is_some() || entry["expected"].get("refused").is_some();
        match (Tokenizer::open(folder.path()), must_refuse) {
            (Ok(Some(tokenizer)), false) => {
                equal += 1;
                let found = differences(&tokenizer, cases, &entry["expected"]);
                wrong.extend(found.iter().take(3).map(|what| format!("{name}: {what}")));
            }
            (Err(error), true) => {
                refused += 1;
                let message = error.to_string();
                let files = contradicts.into_iter().flatten().map(|file| file.as_str().unwrap());
                let unnamed: Vec<_> = files.filter(|file| !message.contains(file)).collect();
                if error.code() != "TOKENIZER_INVALID" || !unnamed.is_empty() {
                    wrong.push(format!("{name}: {message} ({}) does not name {unnamed:?}", error.code()));
                }
            }
            (Ok(None), _) => wrong.push(format!("{name}: no tokenizer")),
            (Ok(Some(_)), true) => wrong.push(format!("{name}: read")),
            (Err(error), false) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {equal} + {refused}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal >= 100 && refused >= 30 && cases.len() >= 100, "{equal} {refused}");
}

/// Fields with random values: equal to transformers, or refused; there is no third.
#[test]
fn fields_at_random_are_obeyed_or_refused() {
    let (bases, cases, fixture) = (fixture("bases.json"), fixture("folders.json"), fixture("random.json"));
    let cases = cases["cases"].as_array().unwrap();
    let (mut equal, mut refused, mut wrong) = (0, 0, Vec::new());
    for entry in fixture["folders"].as_array().unwrap() {
        let folder = folder(&bases, &entry[0], &entry[1]);
        match Tokenizer::open(folder.path()) {
            Err(error) => {
                refused += usize::from(!entry[2].is_null());
                if error.code() != "TOKENIZER_INVALID" {
                    wrong.push(format!("{error}: {entry}"));
                }
            }
            Ok(None) => wrong.push(format!("none: {entry}")),
            Ok(Some(_)) if entry[2].is_null() => wrong.push(format!("read: {entry}")),
            Ok(Some(tokenizer)) => {
                let mut text: String = cases.iter().map(|case| made(&tokenizer, case).0).collect();
                for (name, token) in tokenizer.named_tokens() {
                    text += &format!("{name}={token};");
                }
                text += &format!("|{}|{}", tokenizer.max_length().unwrap_or(0), tokenizer.vocab_size());
                equal += 1;
                if entry[2] != hash(text.chars().map(u32::from)) {
                    wrong.push(format!("differs: {entry}"));
                }
            }
        }
    }
    let some = wrong.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {equal}:\n{some}", wrong.len());
    assert!(equal >= 1000 && refused <= equal / 2, "{equal} {refused}");
    println!("{equal} equal; {refused} refused that transformers reads");
}
