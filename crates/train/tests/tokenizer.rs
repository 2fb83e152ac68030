//! Tokenizers that were trained load, and are the same each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candlewick_models::Tokenizer;
use candlewick_train::tokenizer::{TokenizerOptions, TrainedTokenizer, train_tokenizer};
use candlewick_train::{Observer, TrainError};
use serde_json::{Value, json};

/// Some English and Chinese with many equally frequent words, so that ties decide much.
fn corpus(folder: &Path) -> PathBuf {
    let mut text = String::new();
    for i in 0..4000u32 {
        let word = |x: u32| {
            ["truth", "universe", "fortunes", "wives", "neighbour", "handsomely", "it's", "12.5"]
                [(x % 8) as usize]
        };
        text += &format!("{} {}ly {} under{}\n", word(i), word(i / 3), word(i / 7), word(i / 11));
        text += &format!("我们很高兴能够与您合作{}。\n", char::from_u32(0x4e00 + i % 300).unwrap());
    }
    let path = folder.join("corpus.txt");
    std::fs::write(&path, text).unwrap();
    path
}

fn train(folder: &Path, name: &str, mut options: Value) -> Result<(TrainedTokenizer, PathBuf), TrainError> {
    let output = folder.join(name);
    options["output"] = json!(output);
    options["data"] = options["data"]
        .as_array()
        .map_or_else(|| json!([folder.join("corpus.txt")]), |_| options["data"].clone());
    let options: TokenizerOptions = serde_json::from_value(options).unwrap();
    Ok((train_tokenizer(&options, &())?, output))
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

const TEXT: &str = "It's a truth — universally handsomely 12.5,\n\n 我们很高兴能够与您合作！ 😀 ﷽";

#[test]
fn a_byte_level_bpe_gives_back_every_text_by_every_one_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let options = json!({"kind": "byte-level-bpe", "vocabularySize": 400, "specialTokens": ["<|user|>"]});
    let (trained, output) = train(folder.path(), "bpe", options).unwrap();
    assert_eq!(trained.files, ["merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]);
    assert_eq!(trained.vocabulary_size, 400);
    let tokenizer = Tokenizer::open(&output).unwrap().unwrap();
    assert_eq!(
        (tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|user|>")),
        (Some(0), Some(1))
    );
    let ids = tokenizer.encode(TEXT, false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), TEXT);
    assert!(ids.len() < TEXT.len());
    assert_eq!(tokenizer.encode("<|user|>", false).unwrap(), [1]);
    std::fs::remove_file(output.join("tokenizer.json")).unwrap();
    let files = Tokenizer::open(&output).unwrap().unwrap();
    assert_eq!(files.encode(TEXT, false).unwrap(), ids);
}

#[test]
fn word_pieces_and_characters_load_as_a_bert_by_every_one_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    for (kind, size, lower) in
        [("wordpiece", 600, true), ("wordpiece", 600, false), ("characters", 5000, true)]
    {
        let options = json!({"kind": kind, "vocabularySize": size, "lowercase": lower});
        let (trained, output) = train(folder.path(), kind, options).unwrap();
        assert_eq!(trained.files, ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]);
        let tokenizer = Tokenizer::open(&output).unwrap().unwrap();
        assert_eq!(tokenizer.vocab_size(), trained.vocabulary_size);
        let ids = tokenizer.encode("universe 我们 truth", true).unwrap();
        let names: Vec<_> = ids.iter().map(|id| tokenizer.id_to_token(*id).unwrap()).collect();
        assert_eq!((names[0].as_str(), names.last().unwrap().as_str()), ("[CLS]", "[SEP]"));
        assert!(names.contains(&"我".to_string()) && !names.contains(&"[UNK]".to_string()), "{names:?}");
        assert_eq!(names.contains(&"universe".to_string()), kind == "wordpiece");
        assert_eq!(names.contains(&"##n".to_string()), kind == "characters");
        let unknown = tokenizer.token_to_id("[UNK]").unwrap();
        assert_eq!(tokenizer.encode("TRUTH", false).unwrap().contains(&unknown), !lower);
        std::fs::remove_file(output.join("tokenizer.json")).unwrap();
        assert_eq!(
            Tokenizer::open(&output).unwrap().unwrap().encode("universe 我们 truth", true).unwrap(),
            ids
        );
    }
}

#[test]
fn the_same_corpus_gives_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    for (kind, size) in [("byte-level-bpe", 700), ("wordpiece", 800), ("characters", 200)] {
        let options = json!({"kind": kind, "vocabularySize": size, "minFrequency": 1});
        let all: Vec<_> = (0..5)
            .map(|run| contents(&train(folder.path(), &format!("{kind}-{run}"), options.clone()).unwrap().1))
            .collect();
        assert!(all.iter().all(|files| *files == all[0]), "{kind}");
    }
}

#[test]
fn rows_are_a_corpus_too_and_the_rarest_characters_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"review\": \"好好好坏坏 x\"}\n{\"review\": \"好中\"}\n").unwrap();
    let options = json!({"kind": "characters", "vocabularySize": 7, "minFrequency": 1, "data": [rows], "options": {"columns": {"text": "review"}}});
    let (_, output) = train(folder.path(), "rows", options).unwrap();
    let words = std::fs::read_to_string(output.join("vocab.txt")).unwrap();
    assert_eq!(words.lines().skip(5).collect::<Vec<_>>(), ["好", "坏"]);
}

#[test]
fn what_is_wrong_is_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let code = |options: Value| train(folder.path(), "wrong", options).err().unwrap().code();
    assert_eq!(code(json!({"kind": "byte-level-bpe", "vocabularySize": 256})), "OPTION_INVALID");
    assert_eq!(code(json!({"kind": "wordpiece", "vocabularySize": 5})), "OPTION_INVALID");
    let missing = folder.path().join("missing.txt");
    assert_eq!(code(json!({"kind": "wordpiece", "vocabularySize": 50, "data": [missing]})), "DATA_NOT_FOUND");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let options: TokenizerOptions = serde_json::from_value(json!({"kind": "wordpiece", "vocabularySize": 50, "data": [folder.path().join("corpus.txt")], "output": folder.path().join("file/inside")})).unwrap();
    assert_eq!(train_tokenizer(&options, &()).unwrap_err().code(), "IO");

    struct Stopped;
    impl Observer for Stopped {
        fn stop(&self) -> bool {
            true
        }
    }
    let options: TokenizerOptions = serde_json::from_value(json!({"kind": "wordpiece", "vocabularySize": 50, "data": [folder.path().join("corpus.txt")], "output": folder.path().join("stopped")})).unwrap();
    assert_eq!(train_tokenizer(&options, &Stopped).unwrap_err().code(), "ABORTED");
    assert!(contents(&folder.path().join("stopped")).is_empty());
}
