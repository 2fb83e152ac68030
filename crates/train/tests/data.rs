//! From files to examples, as the trainer sees them.

use std::path::{Path, PathBuf};

use candlewick_models::Tokenizer;
use candlewick_train::TrainError;
use candlewick_train::data::{DataOptions, Example, IGNORED, Opened, ProblemType, Setup, Target, Task, open};
use serde_json::{Value, json};

struct Bench {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
    eos: Option<u32>,
}

impl Bench {
    /// With the tokenizer of the model that ships, a byte-level BPE.
    fn causal() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tokenizer = Tokenizer::open(&root.join("models/default")).unwrap().unwrap();
        let eos = tokenizer.token_to_id("<|endoftext|>");
        assert!(eos.is_some());
        Self { folder: tempfile::tempdir().unwrap(), tokenizer, eos }
    }

    /// With a WordPiece of words, syllables, letters and a few Chinese characters.
    fn bert() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut words: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).into();
        words.extend(
            "new york is good bad who wrote it jane austen a in the 北 京 大 学 在 我 爱 😀"
                .split(' ')
                .map(String::from),
        );
        words.extend(["##s", "##ly", "##ing"].map(String::from));
        words.extend(('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")]));
        words.extend([".", ",", "?", "!"].map(String::from));
        let mut seen = std::collections::HashSet::new();
        words.retain(|word| seen.insert(word.clone()));
        std::fs::write(folder.path().join("vocab.txt"), words.join("\n")).unwrap();
        let class = r#"{"tokenizer_class": "BertTokenizer"}"#;
        std::fs::write(folder.path().join("tokenizer_config.json"), class).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
        Self { folder, tokenizer, eos: None }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn open(
        &self,
        task: Task,
        paths: &[PathBuf],
        options: Value,
        labels: &[&str],
    ) -> Result<Opened, TrainError> {
        let options: DataOptions = serde_json::from_value(options).unwrap();
        let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
        open(
            paths,
            &Setup {
                task,
                options: &options,
                tokenizer: &self.tokenizer,
                positions: 64,
                eos: self.eos,
                checkpoint_labels: &labels,
                seed: 1,
                trains: false,
                stop: &|| false,
            },
        )
    }

    fn lines(&self, task: Task, rows: &[Value], options: Value) -> Result<Opened, TrainError> {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        self.open(task, &[self.file("data.jsonl", text)], options, &[])
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, false).unwrap()
    }
}

fn all(opened: &mut Opened) -> Vec<Example> {
    (0..opened.examples.len()).map(|index| opened.examples.get(index).unwrap()).collect()
}

fn code<T>(result: Result<T, TrainError>) -> &'static str {
    result.err().expect("an error").code()
}

fn labels(example: &Example) -> &[i32] {
    match &example.target {
        Target::Tokens(labels) => labels,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_format_gives_the_same_examples() {
    let bench = Bench::bert();
    let rows = [("new york, \"good\"", "pos"), ("bad\nbad", "neg"), ("我 爱 北京", "pos")];
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let table = |comma: &str| {
        let lines = rows.map(|(text, label)| format!("{}{comma}{label}\r\n", quoted(text)));
        format!("text{comma}label\r\n{}", lines.concat())
    };
    let lines = rows.map(|(text, label)| json!({"text": text, "label": label}).to_string()).join("\n\n");
    let files = [
        bench.file("a.jsonl", format!("\u{feff}{lines}")),
        bench.file("a.csv", format!("\u{feff}{}", table(","))),
        bench.file("a.tsv", table("\t")),
    ];
    let read = |path: &PathBuf| {
        let mut opened =
            bench.open(Task::TextClassification, std::slice::from_ref(path), json!({}), &[]).unwrap();
        assert_eq!(opened.labels, ["neg", "pos"]);
        assert_eq!(opened.problem_type, Some(ProblemType::SingleLabelClassification));
        all(&mut opened)
    };
    let first = read(&files[0]);
    assert_eq!(first.iter().map(|e| e.target.clone()).collect::<Vec<_>>(), [1, 0, 1].map(Target::Class));
    assert_eq!(bench.decode(&first[1].input_ids), "[CLS] bad bad [SEP]");
    assert!(files[1..].iter().all(|path| read(path) == first));
    // Several files are one data set.
    let mut both = bench.open(Task::TextClassification, &files, json!({}), &[]).unwrap();
    assert_eq!(all(&mut both), [first.clone(), first.clone(), first].concat());
}

#[test]
fn columns_go_by_their_usual_names_or_by_option() {
    let bench = Bench::bert();
    let rows = [
        json!({"sentence1": "new", "sentence2": "york", "category": 1, "x": "good"}),
        json!({"sentence1": "a", "sentence2": "b", "category": 0, "x": "bad"}),
    ];
    let mut opened = bench.lines(Task::TextClassification, &rows, json!({})).unwrap();
    let example = opened.examples.get(0).unwrap();
    assert_eq!(bench.decode(&example.input_ids), "[CLS] new [SEP] york [SEP]");
    assert_eq!((example.token_type_ids, example.target), (vec![0, 0, 0, 1, 1], Target::Class(1)));
    let named = json!({"columns": {"text": "x", "label": "sentence1"}});
    let opened = bench.lines(Task::TextClassification, &rows, named).unwrap();
    assert_eq!(opened.labels, ["a", "new"]);
    match bench.lines(Task::TextClassification, &rows, json!({"columns": {"text": "review"}})).err().unwrap()
    {
        TrainError::ColumnUnknown { wanted, mut known, .. } => {
            known.sort();
            assert_eq!(
                (wanted.as_str(), known.join(" ")),
                ("review", "category sentence1 sentence2 x".into())
            );
        }
        other => panic!("{other}"),
    }
    assert_eq!(
        code(bench.lines(Task::TextClassification, &rows, json!({"columns": {"review": "x"}}))),
        "OPTION_INVALID"
    );
    assert_eq!(code(bench.lines(Task::FillMask, &[json!({"id": 1})], json!({}))), "COLUMN_UNKNOWN");
}

#[test]
fn labels_are_the_checkpoints_the_options_or_the_datas() {
    let bench = Bench::bert();
    let rows = |labels: &[Value]| {
        labels.iter().map(|label| json!({"text": "a", "label": label})).collect::<Vec<_>>()
    };
    let text = |labels: &[Value]| rows(labels).iter().map(|row| format!("{row}\n")).collect::<String>();
    let opened = |labels: &[Value], options: Value, checkpoint: &[&str]| {
        let path = bench.file("labels.jsonl", text(labels));
        bench.open(Task::TextClassification, &[path], options, checkpoint)
    };
    let names = |labels: &[Value], options: Value, checkpoint: &[&str]| {
        opened(labels, options, checkpoint).unwrap().labels
    };
    assert_eq!(names(&[json!("b"), json!("a")], json!({}), &[]), ["a", "b"]);
    assert_eq!(names(&[json!(10), json!(2), json!(0)], json!({}), &[]).len(), 11);
    assert_eq!(names(&[json!("b"), json!("a")], json!({}), &["c", "b", "a"]), ["c", "b", "a"]);
    assert_eq!(names(&[json!(0), json!(1)], json!({}), &["no", "yes"]), ["no", "yes"]);
    assert_eq!(names(&[json!("b"), json!("a")], json!({}), &["LABEL_0", "LABEL_1"]), ["a", "b"]);
    assert_eq!(names(&[json!(true), json!(false)], json!({}), &[]), ["false", "true"]);
    let fixed = json!({"labels": ["x", "y"]});
    assert_eq!(names(&[json!("y"), json!(0)], fixed.clone(), &["c", "b"]), ["x", "y"]);
    assert_eq!(code(opened(&[json!("y"), json!("z")], fixed.clone(), &[])), "LABEL_UNKNOWN");
    assert_eq!(code(opened(&[json!(2)], fixed, &[])), "LABEL_UNKNOWN");
    assert_eq!(code(opened(&[json!({"a": 1})], json!({}), &[])), "DATA_INVALID");
    assert_eq!(code(opened(&[json!("same"), json!("same")], json!({}), &[])), "OPTION_INVALID");
}

#[test]
fn several_labels_and_numbers_are_known_from_the_data() {
    let bench = Bench::bert();
    let row = |label: Value| json!({"text": "a", "label": label});
    let mut several = bench
        .lines(
            Task::TextClassification,
            &[row(json!(["b", "a"])), row(json!([])), row(json!(["c"]))],
            json!({}),
        )
        .unwrap();
    assert_eq!(several.problem_type, Some(ProblemType::MultiLabelClassification));
    let targets: Vec<_> = all(&mut several).into_iter().map(|example| example.target).collect();
    assert_eq!(targets, [vec![1.0, 1.0, 0.0], vec![0.0; 3], vec![0.0, 0.0, 1.0]].map(Target::Scores));
    let mut number =
        bench.lines(Task::TextClassification, &[row(json!(0.5)), row(json!(-2))], json!({})).unwrap();
    assert_eq!(number.problem_type, Some(ProblemType::Regression));
    let targets: Vec<_> = all(&mut number).into_iter().map(|example| example.target).collect();
    assert_eq!(targets, [vec![0.5], vec![-2.0]].map(Target::Scores));
    // One output says regression, whatever the numbers look like.
    let path = bench.file("whole.csv", "text,label\na,1\nb,2\n");
    let whole = bench.open(Task::TextClassification, &[path], json!({}), &["LABEL_0"]).unwrap();
    assert_eq!(whole.problem_type, Some(ProblemType::Regression));
}

#[test]
fn blocks_are_the_text_end_to_end() {
    let bench = Bench::causal();
    let eos = bench.eos.unwrap();
    let documents =
        ["It is a truth universally acknowledged,\n\n  that a single man", "我们很高兴能够与您合作！", "x"];
    let mut stream = Vec::new();
    for document in documents {
        stream.extend(bench.tokenizer.encode(document, false).unwrap());
        stream.push(eos);
    }
    let rows = documents.map(|text| json!({"text": text}));
    for length in [4, 7, 64] {
        let mut opened = bench.lines(Task::TextGeneration, &rows, json!({"maxLength": length})).unwrap();
        let examples = all(&mut opened);
        let joined: Vec<u32> = examples.iter().flat_map(|example| example.input_ids.clone()).collect();
        let dropped = usize::from(stream.len() % length == 1);
        assert_eq!(joined, stream[..stream.len() - dropped], "{length}");
        for example in &examples {
            assert!(example.input_ids.len() <= length && example.input_ids.len() > 1);
            assert!(labels(example).iter().zip(&example.input_ids).all(|(label, id)| *label == *id as i32));
        }
    }
    // With a stride, each token is learned once and the rest is context.
    let mut opened = bench.lines(Task::TextGeneration, &rows, json!({"maxLength": 8, "stride": 3})).unwrap();
    let learned: Vec<i32> =
        all(&mut opened).iter().flat_map(|e| labels(e).to_vec()).filter(|label| *label != IGNORED).collect();
    assert_eq!(learned, stream.iter().map(|id| *id as i32).collect::<Vec<_>>());
}

#[test]
fn a_large_plain_text_has_the_tokens_of_the_whole() {
    let bench = Bench::causal();
    let mut text = String::new();
    for i in 0..9000 {
        text += match i % 7 {
            0 => "A line, with 12 numbers.\n",
            1 => "\n",
            2 => "  indented it's\t\n",
            3 => "我们很高兴能够与您合作！\n",
            4 => "no end of line ",
            5 => "“Quoted”\r\n",
            _ => "\u{3000}wide space\n",
        };
    }
    assert!(text.len() > 150_000);
    let path = bench.file("book.txt", &text);
    let mut opened = bench.open(Task::TextGeneration, &[path], json!({}), &[]).unwrap();
    let joined: Vec<u32> = all(&mut opened).into_iter().flat_map(|example| example.input_ids).collect();
    let mut whole = bench.tokenizer.encode(&text, false).unwrap();
    whole.extend(bench.eos);
    assert!(joined == whole);
}

#[test]
fn a_completion_is_learned_and_its_prompt_is_not() {
    let bench = Bench::causal();
    let encode = |text: &str| bench.tokenizer.encode(text, false).unwrap();
    let eos = bench.eos.unwrap();
    let rows = [
        json!({"source": "good morning", "target": "早上好"}),
        json!({"source": "long ".repeat(100), "target": "短"}),
    ];
    let mut opened = bench.lines(Task::Translation, &rows, json!({})).unwrap();
    let example = opened.examples.get(0).unwrap();
    let (prompt, target) = (encode("good morning\n"), [encode("早上好"), vec![eos]].concat());
    assert_eq!(example.input_ids, [prompt.clone(), target.clone()].concat());
    let expected = [vec![IGNORED; prompt.len()], target.iter().map(|id| *id as i32).collect()].concat();
    assert_eq!(labels(&example), expected);
    // Too long: the prompt loses its beginning.
    let long = opened.examples.get(1).unwrap();
    assert_eq!(long.input_ids.len(), 64);
    assert!(bench.decode(&long.input_ids).ends_with("long \n短<|endoftext|>"));

    let turns = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "bye"}, {"role": "assistant", "content": "see you"}]});
    let strings = json!({"messages": ["hi", "hello", "bye", "see you"]});
    for row in [turns, strings] {
        let mut opened = bench.lines(Task::Dialogue, &[row], json!({})).unwrap();
        let example = opened.examples.get(0).unwrap();
        assert_eq!(
            bench.decode(&example.input_ids),
            "hi<|endoftext|>hello<|endoftext|>bye<|endoftext|>see you<|endoftext|>"
        );
        let learned: Vec<u32> =
            labels(&example).iter().filter(|label| **label != IGNORED).map(|label| *label as u32).collect();
        assert_eq!(bench.decode(&learned), "hello<|endoftext|>see you<|endoftext|>");
    }
    // Too long a conversation loses its oldest turns whole.
    let turn = "word ".repeat(20);
    let long = json!({"messages": [turn, turn, turn, turn, "last", "answer"]});
    let example = bench.lines(Task::Dialogue, &[long], json!({})).unwrap().examples.get(0).unwrap();
    assert!(example.input_ids.len() <= 64 && bench.decode(&example.input_ids).starts_with("word"));
    assert!(bench.decode(&example.input_ids).ends_with("last<|endoftext|>answer<|endoftext|>"));
    assert_eq!(
        code(bench.lines(
            Task::Dialogue,
            &[json!({"messages": [{"role": "user", "content": "?"}]})],
            json!({})
        )),
        "DATA_INVALID"
    );
    assert_eq!(
        code(bench.lines(
            Task::Dialogue,
            &[json!({"messages": [{"role": "robot", "content": "?"}]})],
            json!({})
        )),
        "DATA_INVALID"
    );
}

#[test]
fn the_first_token_of_a_word_has_its_label() {
    let bench = Bench::bert();
    let rows = [json!({"tokens": ["newly", "york", "is", "北京"], "tags": ["B-LOC", "I-LOC", "O", "B-LOC"]})];
    let mut opened = bench.lines(Task::TokenClassification, &rows, json!({})).unwrap();
    assert_eq!(opened.labels, ["B-LOC", "I-LOC", "O"]);
    let example = opened.examples.get(0).unwrap();
    assert_eq!(bench.decode(&example.input_ids), "[CLS] newly york is 北 京 [SEP]");
    assert_eq!(labels(&example), [-100, 0, -100, 1, 2, 0, -100, -100]);
    // The same in CSV, and by entities with offsets in UTF-16: the emoji is two units.
    let csv = bench.file("a.csv", "tokens,tags\nnewly york is,B-LOC I-LOC O\n");
    let example =
        bench.open(Task::TokenClassification, &[csv], json!({}), &[]).unwrap().examples.get(0).unwrap();
    assert_eq!(labels(&example), [-100, 0, -100, 1, 2, -100]);
    let rows = [
        json!({"text": "😀 newly york is 北京", "entities": [{"start": 3, "end": 13, "label": "LOC"}, {"start": 17, "end": 19, "label": "LOC"}]}),
    ];
    let mut opened = bench.lines(Task::TokenClassification, &rows, json!({})).unwrap();
    assert_eq!(opened.labels, ["B-LOC", "I-LOC", "O"]);
    let example = opened.examples.get(0).unwrap();
    assert_eq!(bench.decode(&example.input_ids), "[CLS] 😀 newly york is 北 京 [SEP]");
    assert_eq!(labels(&example), [-100, 2, 0, -100, 1, 2, 0, 1, -100]);
    for wrong in [
        json!({"tokens": ["a"], "tags": ["O", "O"]}),
        json!({"tokens": "a", "tags": 3}),
        json!({"text": "a", "entities": [{"start": 0, "end": 2, "label": "X"}]}),
    ] {
        assert_eq!(code(bench.lines(Task::TokenClassification, &[wrong], json!({}))), "DATA_INVALID");
    }
}

#[test]
fn an_answer_is_where_a_window_has_all_of_it() {
    let bench = Bench::bert();
    let context =
        format!("😀 {} jane austen wrote it in 北京 . {}", "a ".repeat(50), "it is good ".repeat(20));
    let units = |text: &str| context[..context.find(text).unwrap()].encode_utf16().count();
    let answer = |text: &str| json!([{"text": text, "answerStart": units(text)}]);
    let rows = [
        json!({"question": "who wrote it?", "context": context, "answers": answer("jane austen")}),
        json!({"question": "who wrote it?", "context": context, "answers": {"text": ["北京"], "answer_start": [context[..context.find("北京").unwrap()].chars().count()]}}),
        json!({"question": "who?", "context": context, "answers": []}),
    ];
    let mut opened =
        bench.lines(Task::QuestionAnswering, &rows, json!({"maxLength": 40, "stride": 12})).unwrap();
    let mut found = Vec::new();
    for example in all(&mut opened) {
        assert!(example.input_ids.len() <= 40);
        let Target::Span { start, end } = example.target else { panic!() };
        if end > 0 {
            assert!(
                example.token_type_ids[start as usize] == 1,
                "{start} {end} {:?} {}",
                example.token_type_ids,
                bench.decode(&example.input_ids)
            );
            found.push(bench.decode(&example.input_ids[start as usize..=end as usize]));
        }
    }
    found.dedup();
    assert_eq!(found, ["jane austen", "北 京"]);
    for wrong in [
        json!([{"text": "jane", "answerStart": 0}]),
        json!([{"text": "", "answerStart": 0}]),
        json!("jane"),
        json!([{"text": "jane"}]),
    ] {
        let row = json!({"question": "who?", "context": context, "answers": wrong});
        assert_eq!(code(bench.lines(Task::QuestionAnswering, &[row], json!({}))), "DATA_INVALID");
    }
    assert_eq!(
        code(bench.lines(Task::QuestionAnswering, &rows, json!({"maxLength": 20, "stride": 19}))),
        "DATA_INVALID"
    );
}

#[test]
fn masks_are_the_share_that_was_asked_for_and_a_function_of_seed_epoch_and_row() {
    let bench = Bench::bert();
    let text = "new york is good in the ".repeat(20);
    let rows: Vec<_> = (0..50).map(|_| json!({"text": text})).collect();
    let mut opened = bench.lines(Task::FillMask, &rows, json!({})).unwrap();
    let original: Vec<u32> = bench.tokenizer.encode(&text, false).unwrap();
    let mask = bench.tokenizer.token_to_id("[MASK]").unwrap();
    let first = all(&mut opened);
    let (mut guessed, mut masked, mut kept, mut all_tokens) = (0, 0, 0, 0);
    let windows = first.len() / 50;
    let mut restored = Vec::new();
    for (index, example) in first.iter().enumerate() {
        assert!(example.input_ids.len() <= 64);
        assert_eq!((labels(example)[0], *labels(example).last().unwrap()), (IGNORED, IGNORED));
        assert!(labels(example).iter().any(|label| *label != IGNORED));
        for (id, label) in example.input_ids.iter().zip(labels(example)) {
            guessed += usize::from(*label != IGNORED);
            masked += usize::from(*label != IGNORED && *id == mask);
            kept += usize::from(*label == *id as i32);
        }
        all_tokens += example.input_ids.len() - 2;
        if index < windows {
            let inner = example
                .input_ids
                .iter()
                .zip(labels(example))
                .map(|(id, label)| if *label == IGNORED { *id } else { *label as u32 });
            let inner: Vec<u32> = inner.collect();
            restored.extend_from_slice(&inner[1..inner.len() - 1]);
        }
    }
    assert_eq!(restored, original, "nothing of a long text is left out");
    let share = |part: usize, whole: usize| part as f64 / whole as f64;
    assert!((share(guessed, all_tokens) - 0.15).abs() < 0.01, "{}", share(guessed, all_tokens));
    assert!((share(masked, guessed) - 0.8).abs() < 0.03 && (share(kept, guessed) - 0.1).abs() < 0.03);
    assert_ne!(first[0], first[windows], "two rows have two masks");
    opened.examples.set_epoch(1);
    assert_ne!(all(&mut opened), first);
    opened.examples.set_epoch(0);
    assert_eq!(all(&mut opened), first);
}

#[test]
fn pairs_and_their_scores() {
    let bench = Bench::bert();
    let rows = [json!({"anchor": "new york", "positive": "york"})];
    let example = bench.lines(Task::FeatureExtraction, &rows, json!({})).unwrap().examples.get(0).unwrap();
    assert_eq!(bench.decode(&example.pair.unwrap().input_ids), "[CLS] york [SEP]");
    assert_eq!(
        (bench.decode(&example.input_ids).as_str(), example.target),
        ("[CLS] new york [SEP]", Target::None)
    );
    let csv = bench.file("sts.csv", "sentence1,sentence2,score\na,b,4.5\n");
    let example =
        bench.open(Task::FeatureExtraction, &[csv], json!({}), &[]).unwrap().examples.get(0).unwrap();
    assert_eq!(example.target, Target::Scores(vec![4.5]));
}

#[test]
fn what_is_wrong_is_said_before_the_first_step_with_file_and_line() {
    let bench = Bench::bert();
    let good = "{\"text\": \"a\", \"label\": \"x\"}\n";
    let place = |name: &str, content: &[u8]| match bench.open(
        Task::TextClassification,
        &[bench.file(name, content)],
        json!({}),
        &[],
    ) {
        Err(TrainError::DataInvalid { place, .. }) => place.rsplit(':').next().unwrap().to_string(),
        Err(other) => panic!("{name}: {other}"),
        Ok(_) => panic!("{name}: opened"),
    };
    for (name, bad) in [
        ("a", "{\"text\": \"a\""),
        ("b", "[1]"),
        ("c", "{\"text\": 3, \"label\": \"x\"}"),
        ("d", "{\"text\": \"a\"}"),
        ("e", "{\"text\": \"a\", \"label\": null}"),
    ] {
        assert_eq!(
            place(&format!("{name}.jsonl"), format!("{good}\n{good}{bad}\n{good}").as_bytes()),
            "4",
            "{name}"
        );
    }
    assert_eq!(place("utf8.jsonl", &[good.as_bytes(), b"{\"text\": \"\xff\"}\n"].concat()), "2");
    assert_eq!(place("ragged.csv", b"text,label\na,x\nb\nc,y\n"), "3");
    assert_eq!(place("quoted.csv", b"text,label\n\"a\nb\",x\nc,\n"), "4");
    let open = |path: PathBuf| code(bench.open(Task::TextClassification, &[path], json!({}), &[]));
    assert_eq!(open(bench.file("empty.jsonl", "\n\n")), "DATA_EMPTY");
    assert_eq!(open(bench.file("empty.csv", "text,label\n")), "DATA_EMPTY");
    assert_eq!(open(bench.file("nothing.csv", "")), "DATA_EMPTY");
    assert_eq!(open("/nowhere/at/all.csv".into()), "DATA_NOT_FOUND");
    assert_eq!(open(bench.folder.path().to_path_buf()), "IO");
    let causal = Bench::causal();
    let latin = causal.file("latin.txt", b"caf\xe9 ole");
    assert_eq!(code(causal.open(Task::TextGeneration, &[latin], json!({}), &[])), "DATA_INVALID");
    assert_eq!(
        code(causal.open(Task::TextGeneration, &[causal.file("no.txt", "")], json!({}), &[])),
        "DATA_EMPTY"
    );
    assert_eq!(
        code(causal.open(Task::FillMask, &[causal.file("a.txt", "a")], json!({}), &[])),
        "OPTION_INVALID"
    );
    for options in [json!({"maxLength": 2}), json!({"maxLength": 65}), json!({"maxLength": 8, "stride": 8})] {
        assert_eq!(
            code(causal.open(Task::TextGeneration, &[causal.file("b.txt", "a b c")], options, &[])),
            "OPTION_INVALID"
        );
    }
}

#[test]
fn a_row_that_changed_since_is_named_by_file_and_line() {
    let bench = Bench::bert();
    for (name, before, after, line) in [
        (
            "a.jsonl",
            "{\"text\": \"a\"}\n\n{\"text\": \"new\"}\n",
            "{\"text\": \"a\"}\n\n{\"text\": 12345}\n",
            3,
        ),
        ("a.csv", "text,other\n\"a\nb\",c\nnew,york\n", "text,other\n\"a\nb\",c\nnew,\"ork\n", 4),
    ] {
        let path = bench.file(name, before);
        let mut rows =
            candlewick_train::data::Rows::open(std::slice::from_ref(&path), None, &|| false, &mut |_| Ok(()))
                .unwrap();
        let was = rows.get(1).unwrap();
        assert_eq!(was.place(), format!("{}:{line}", path.display()));
        std::fs::write(&path, after).unwrap();
        let row = rows.get(1).unwrap();
        assert!(row.fields != was.fields && row.place() == was.place());
    }
}

#[test]
fn opening_stops_when_asked() {
    let bench = Bench::bert();
    let path = bench.file("many.txt", "new york\n".repeat(10_000));
    let asked = std::cell::Cell::new(0);
    let options = DataOptions::default();
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    let setup = Setup {
        task: Task::FillMask,
        options: &options,
        tokenizer: &bench.tokenizer,
        positions: 64,
        eos: None,
        checkpoint_labels: &[],
        seed: 1,
        trains: true,
        stop: &stop,
    };
    assert_eq!(code(open(&[path], &setup)), "ABORTED");
}

#[test]
fn a_quotation_mark_that_is_never_closed_does_not_fill_the_memory() {
    let bench = Bench::bert();
    let table = format!("text,label\na,b\n\"c,d\n{}", "e,f\n".repeat(20 << 20));
    let path = bench.file("open.csv", table);
    assert_eq!(code(bench.open(Task::TextClassification, &[path], json!({}), &[])), "DATA_INVALID");
}
