//! BERT's tasks equal Python's, through the handle: the same fixtures as the TypeScript tests, without Node.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use candlewick_engine::*;
use candlewick_models::{LoadOptions, load_encoder};
use serde_json::Value;
use support::wait;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../__test__/fixtures/pipelines")
}

fn open(name: &str) -> (EncoderHandle, Value) {
    let source = folder().join(name);
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    let loaded = load_encoder(source.to_str().unwrap(), &options, &()).unwrap();
    let codec = loaded.tokenizer.map(|tokenizer| Arc::new(tokenizer) as Arc<dyn TextCodec>);
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    (
        EncoderHandle::from_parts(loaded.model, codec, Limits::default()).unwrap(),
        serde_json::from_str(&text).unwrap(),
    )
}

fn control() -> Control {
    Control::of(&CancelToken::new())
}

/// As Python's tokenizer cuts.
fn encode() -> EncodeOptions {
    EncodeOptions { max_length: Some(64), ..EncodeOptions::default() }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

fn near(found: f32, wanted: &Value) -> bool {
    (f64::from(found) - wanted.as_f64().unwrap()).abs() < 1e-4
}

/// UTF-16 offsets on a Rust string.
fn slice(text: &str, start: u32, end: u32) -> String {
    let units: Vec<u16> = text.encode_utf16().collect();
    String::from_utf16(&units[start as usize..end as usize]).unwrap()
}

#[test]
fn entities() {
    let (model, expected) = open("ner");
    let find = |texts: Vec<String>, aggregation, stride| {
        let options = EntitiesOptions { encode: encode(), aggregation, ignore: vec!["O".into()], stride };
        wait(|done| model.entities(texts, options, control(), done)).unwrap()
    };
    let check = |found: &[Entity], rows: &Value, what: &str| {
        let rows = rows.as_array().unwrap();
        assert_eq!(found.len(), rows.len(), "{what}");
        for (entity, row) in found.iter().zip(rows) {
            let same = (entity.label.as_str(), entity.word.as_str())
                == (row[0].as_str().unwrap(), row[4].as_str().unwrap());
            let there = (u64::from(entity.start), u64::from(entity.end))
                == (row[2].as_u64().unwrap(), row[3].as_u64().unwrap());
            assert!(same && there && near(entity.score, &row[1]), "{what}: {entity:?}, expected {row}");
        }
    };
    let ways = [
        ("none", Aggregation::None),
        ("simple", Aggregation::Simple),
        ("first", Aggregation::First),
        ("average", Aggregation::Average),
        ("max", Aggregation::Max),
    ];
    for (name, aggregation) in ways {
        let cases: Vec<&Value> =
            expected["cases"].as_array().unwrap().iter().filter(|case| !case[name].is_null()).collect();
        assert!(cases.len() > 200, "{name}");
        let found = find(cases.iter().map(|case| text(&case["text"])).collect(), aggregation, None);
        for (case, found) in cases.iter().zip(&found) {
            check(found, &case[name], &format!("{name}, {}", case["text"]));
        }
    }
    for case in expected["long"].as_array().unwrap() {
        let (_, aggregation) = ways.into_iter().find(|(name, _)| case["strategy"] == *name).unwrap();
        let stride = case["stride"].as_u64().map(|stride| stride as usize);
        check(&find(vec![text(&case["text"])], aggregation, stride)[0], &case["entities"], "long");
    }
}

#[test]
fn answers() {
    let (model, expected) = open("questions");
    for case in expected["cases"].as_array().unwrap() {
        let option =
            |name: &str, default: usize| case["options"][name].as_u64().map_or(default, |n| n as usize);
        let flag = |name: &str, default: bool| case["options"][name].as_bool().unwrap_or(default);
        let max_length = option("max_seq_len", 64);
        let options = AnswerOptions {
            encode: EncodeOptions { max_length: Some(max_length), ..EncodeOptions::default() },
            stride: option("doc_stride", max_length / 2),
            top_k: option("top_k", 1),
            max_answer_length: option("max_answer_len", 15),
            impossible: flag("handle_impossible_answer", false),
            align_to_words: flag("align_to_words", true),
        };
        let asked = Question { question: text(&case["question"]), context: text(&case["context"]) };
        let context = asked.context.clone();
        let found = wait(|done| model.answer(vec![asked], options, control(), done)).unwrap().remove(0);
        let rows = case["answers"].as_array().unwrap();
        assert_eq!(found.len(), rows.len(), "{case}");
        for (answer, row) in found.iter().zip(rows) {
            assert_eq!(slice(&context, answer.start, answer.end), row[3].as_str().unwrap(), "{case}");
            assert!(near(answer.score, &row[0]), "{answer:?}, expected {row}: {case}");
        }
    }
}

#[test]
fn fills() {
    let (model, expected) = open("mlm");
    for case in expected["cases"].as_array().unwrap() {
        let targets = case["targets"].as_array().into_iter().flatten().map(text).collect();
        let options =
            FillOptions { encode: encode(), top_k: case["topK"].as_u64().unwrap() as usize, targets };
        let given = vec![EncoderText::Single(text(&case["text"]))];
        let found = wait(|done| model.fill(given, options, control(), done)).unwrap().remove(0);
        let masks = case["fills"].as_array().unwrap();
        assert_eq!(found.len(), masks.len(), "{case}");
        for (fills, rows) in found.iter().zip(masks) {
            for (fill, row) in fills.iter().zip(rows.as_array().unwrap()) {
                assert_eq!(
                    (u64::from(fill.token), fill.text.as_str()),
                    (row[0].as_u64().unwrap(), row[2].as_str().unwrap())
                );
                assert!(near(fill.score, &row[1]), "{fill:?}, expected {row}");
            }
        }
    }
    let none = vec![EncoderText::Single("nothing is missing".into())];
    let options = FillOptions { encode: encode(), top_k: 1, targets: Vec::new() };
    assert_eq!(wait(|done| model.fill(none, options, control(), done)).unwrap_err().code(), "INPUT_INVALID");
}

/// A task that a listener or a cancelled token ends leaves the model serving.
#[test]
fn a_panicking_listener_and_a_cancelled_task_leave_the_model_serving() {
    let (model, _) = open("ner");
    let texts = || vec!["Alice in London".to_string(); 3];
    let options = || EntitiesOptions {
        encode: encode(),
        aggregation: Aggregation::Simple,
        ignore: Vec::new(),
        stride: None,
    };
    let progress: Option<Progress> = Some(Box::new(|_, _| panic!("a listener panics")));
    let watched = Control { cancel: CancelToken::new(), progress };
    assert_eq!(wait(|done| model.entities(texts(), options(), watched, done)).unwrap().len(), 3);
    let cancel = CancelToken::new();
    cancel.cancel();
    let ended = wait(|done| model.entities(texts(), options(), Control::of(&cancel), done));
    assert_eq!(ended.unwrap_err().code(), "ABORTED");
    assert_eq!(wait(|done| model.entities(texts(), options(), control(), done)).unwrap().len(), 3);
    wait(|done| model.close(done)).unwrap();
    let closed = wait(|done| model.entities(texts(), options(), control(), done));
    assert_eq!(closed.unwrap_err().code(), "MODEL_CLOSED");
}
