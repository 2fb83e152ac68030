//! Every field of tokenizer_config.json, special_tokens_map.json and added_tokens.json set to each of its legal values:
//! the tokenizer answers what transformers answers, or is refused by name. There is no third outcome.

mod support;

use std::fs;
use std::path::Path;

use candlewick_models::{ModelError, Tokenizer};
use serde_json::{Map, Value, json};
use support::root;
use tempfile::TempDir;

/// Most tokens of the first text, where the fixture cuts it.
const CUT: usize = 6;

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The base's folder with these fields in that file.
fn folder_of(base: &Path, file: &str, fields: &Map<String, Value>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(base).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    if !fields.is_empty() {
        let path = folder.path().join(file);
        let mut content = if path.is_file() { read_json(&path) } else { json!({}) };
        for (field, value) in fields {
            match value.get("$delete") {
                Some(_) => drop(content.as_object_mut().unwrap().remove(field)),
                None => content[field] = value.clone(),
            }
        }
        fs::write(path, content.to_string()).unwrap();
    }
    folder
}

/// What the tokenizer answers, in the fixture's form.
fn ours(folder: &Path, texts: &[(String, Option<String>)]) -> Result<Value, ModelError> {
    let tokenizer = Tokenizer::open(folder)?.expect("a tokenizer's folder");
    let (mut ids, mut types, mut all, mut plain) = (vec![], vec![], vec![], vec![]);
    for (text, pair) in texts {
        let found = tokenizer.encode_pair(text, pair.as_deref(), None)?;
        all.push(tokenizer.decode(&found.ids, false)?);
        plain.push(tokenizer.decode(&found.ids, true)?);
        ids.push(found.ids);
        types.push(found.type_ids);
    }
    let cut = tokenizer.encode_pair(&texts[0].0, None, Some(CUT))?.ids;
    Ok(json!({ "ids": ids, "types": types, "all": all, "text": plain, "cut": cut }))
}

#[test]
fn each_field_is_obeyed_or_refused_by_name() {
    let fixture = root().join("tokenizer-fields");
    let data = read_json(&fixture.join("cases.json"));
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let singles = data["texts"].as_array().unwrap().iter().map(|one| (text(one), None));
    let pairs = data["pairs"].as_array().unwrap().iter().map(|pair| (text(&pair[0]), Some(text(&pair[1]))));
    let texts: Vec<_> = singles.chain(pairs).collect();
    let mut wrong = Vec::new();
    for case in data["cases"].as_array().unwrap() {
        let (base, file) = (text(&case[0]), text(&case[1]));
        let fields = case[2].as_object().unwrap();
        let expected = &data["outcomes"][case[3].as_u64().unwrap() as usize];
        let folder = folder_of(&fixture.join(&base), &file, fields);
        let said = format!("{base}, {file} {}", case[2]);
        match ours(folder.path(), &texts) {
            // A refusal names the fault; a panic inside the tokenizers crate is no such thing.
            Err(error) if error.to_string().contains("is damaged") => wrong.push(format!("{said}: {error}")),
            Err(_) => {}
            Ok(found) => match expected.get("refused") {
                Some(why) => wrong.push(format!("{said}: taken, transformers: {why}")),
                None => {
                    let differs = ["ids", "types", "all", "text", "cut"]
                        .into_iter()
                        .find(|key| found[key] != expected[key]);
                    if let Some(key) = differs {
                        let at = (0..texts.len()).find(|i| found[key][i] != expected[key][i]).unwrap_or(0);
                        let shown =
                            [&found, expected].map(|all| all[key].get(at).unwrap_or(&all[key]).to_string());
                        wrong.push(format!("{said}: {key} {:?}: {} not {}", texts[at], shown[0], shown[1]));
                    }
                }
            },
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        data["cases"].as_array().unwrap().len(),
        wrong.join("\n")
    );
}
