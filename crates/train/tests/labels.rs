//! What labels are taken for: classes, numbers or lists, by name or by number, after all rows have been read.

use std::path::PathBuf;

use candlewick_models::Tokenizer;
use candlewick_train::TrainError;
use candlewick_train::data::{By, DataOptions, Opened, ProblemType, Setup, Target, Task, open};
use serde_json::{Value, json};

struct Bench {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"];
        std::fs::write(folder.path().join("vocab.txt"), words.join("\n")).unwrap();
        let class = r#"{"tokenizer_class": "BertTokenizer"}"#;
        std::fs::write(folder.path().join("tokenizer_config.json"), class).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap().unwrap();
        Self { folder, tokenizer }
    }

    fn open(&self, path: PathBuf, options: DataOptions, checkpoint: &[&str]) -> Result<Opened, TrainError> {
        let labels: Vec<String> = checkpoint.iter().map(|label| label.to_string()).collect();
        let setup = Setup {
            task: Task::TextClassification,
            options: &options,
            tokenizer: &self.tokenizer,
            positions: 16,
            eos: None,
            checkpoint_labels: &labels,
            seed: 1,
            trains: true,
            stop: &|| false,
        };
        open(&[path], &setup)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A row for each label, as JSON lines.
    fn labels(&self, labels: &Value, options: Value, checkpoint: &[&str]) -> Result<Opened, TrainError> {
        let rows = labels.as_array().unwrap().iter().map(|label| json!({"text": "a b", "label": label}));
        let path = self.file("labels.jsonl", &rows.map(|row| format!("{row}\n")).collect::<String>());
        self.open(path, serde_json::from_value(options).unwrap(), checkpoint)
    }
}

fn targets(opened: &mut Opened) -> Vec<Target> {
    (0..opened.examples.len()).map(|index| opened.examples.get(index).unwrap().target).collect()
}

fn classes(ids: &[u32]) -> Vec<Target> {
    ids.iter().map(|id| Target::Class(*id)).collect()
}

const SINGLE: Option<ProblemType> = Some(ProblemType::SingleLabelClassification);
const SEVERAL: Option<ProblemType> = Some(ProblemType::MultiLabelClassification);
const NUMBERS: Option<ProblemType> = Some(ProblemType::Regression);

#[test]
fn labels_of_any_kind_are_classes() {
    let bench = Bench::new();
    // Labels, the classes that they become, the class of each row.
    let cases: [(Value, &[&str], &[u32]); 17] = [
        (json!([-2, 2, "0.5", "n/a"]), &["-2", "0.5", "2", "n/a"], &[0, 2, 1, 3]),
        (json!([-2, 2, "n/a", "n/a"]), &["-2", "2", "n/a"], &[0, 1, 2, 2]),
        (json!([2, -2, -1, 10]), &["-2", "-1", "2", "10"], &[2, 0, 1, 3]),
        (json!([-1, 1]), &["-1", "1"], &[0, 1]),
        (json!(["-1", "1", "0"]), &["-1", "0", "1"], &[0, 2, 1]),
        (json!(["0.5", "n/a", 0.25]), &["0.25", "0.5", "n/a"], &[1, 2, 0]),
        (json!([1, "1", 1.0, 0]), &["0", "1"], &[1, 1, 1, 0]),
        (json!(["1.0", "1", "2"]), &["1", "1.0", "2"], &[1, 0, 2]),
        (json!([3, 1]), &["0", "1", "2", "3"], &[3, 1]),
        (json!([10, 2, 0]), &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], &[10, 2, 0]),
        (json!(["1a", 2, "10"]), &["10", "1a", "2"], &[1, 2, 0]),
        (json!([true, false]), &["false", "true"], &[1, 0]),
        (json!([true, "true", "no"]), &["no", "true"], &[1, 1, 0]),
        (json!([1, true]), &["1", "true"], &[0, 1]),
        (json!(["nan", "inf", "1"]), &["1", "inf", "nan"], &[2, 1, 0]),
        (json!([" a", "a"]), &[" a", "a"], &[0, 1]),
        (json!(["01", "1"]), &["01", "1"], &[0, 1]),
    ];
    for (labels, names, ids) in cases {
        let mut opened = bench.labels(&labels, json!({}), &[]).unwrap_or_else(|e| panic!("{labels}: {e}"));
        assert_eq!(opened.labels, names, "{labels}");
        assert_eq!(opened.problem_type, SINGLE, "{labels}");
        assert_eq!(targets(&mut opened), classes(ids), "{labels}");
    }
}

#[test]
fn only_numbers_with_fractions_are_values_and_only_lists_are_several() {
    let bench = Bench::new();
    let problem = |labels: Value, options: Value| bench.labels(&labels, options, &[]).unwrap().problem_type;
    assert_eq!(problem(json!([0.5, 0.25]), json!({})), NUMBERS);
    assert_eq!(problem(json!([0.5, -2]), json!({})), NUMBERS);
    assert_eq!(problem(json!(["0.5", "4.0", "3"]), json!({})), NUMBERS);
    assert_eq!(problem(json!([-2, 2]), json!({})), SINGLE);
    assert_eq!(problem(json!(["1.0", "2.0"]), json!({})), SINGLE);
    assert_eq!(problem(json!([0.5, "n/a"]), json!({})), SINGLE);
    assert_eq!(problem(json!([-2, 2]), json!({"problemType": "regression"})), NUMBERS);
    let single = json!({"problemType": "single_label_classification"});
    assert_eq!(bench.labels(&json!([0.5, -2, 0.5]), single, &[]).unwrap().labels, ["-2", "0.5"]);
    assert_eq!(problem(json!([["a"], ["b", -1], []]), json!({})), SEVERAL);
    assert_eq!(problem(json!([["a"], "b"]), json!({})), SEVERAL);
    let mut opened = bench.labels(&json!([[0.5, "x"], [-1]]), json!({}), &[]).unwrap();
    assert_eq!(opened.labels, ["-1", "0.5", "x"]);
    assert_eq!(targets(&mut opened), [vec![0.0, 1.0, 1.0], vec![1.0, 0.0, 0.0]].map(Target::Scores));
}

#[test]
fn what_is_no_label_is_an_error_with_its_row() {
    let bench = Bench::new();
    let fails = |labels: Value, options: Value, checkpoint: &[&str]| {
        let error = bench.labels(&labels, options, checkpoint).err().unwrap_or_else(|| panic!("{labels}"));
        (error.code(), error.to_string())
    };
    for wrong in [json!(null), json!(""), json!({"a": 1}), json!([["a"]]), json!([null]), json!([""])] {
        let (code, message) = fails(json!(["a", "b", wrong]), json!({}), &[]);
        assert_eq!(code, "DATA_INVALID", "{wrong}");
        assert!(message.contains("labels.jsonl:3"), "{message}");
    }
    // A 0 or 1 for each class, as other libraries have it.
    assert_eq!(fails(json!([[0, 1, 0], [1, 0, 0]]), json!({}), &[]).0, "DATA_INVALID");
    assert_eq!(fails(json!([1, "n/a"]), json!({"problemType": "regression"}), &[]).0, "DATA_INVALID");
    assert_eq!(
        fails(json!(["a", ["b"]]), json!({"problemType": "single_label_classification"}), &[]).0,
        "DATA_INVALID"
    );
    let (code, message) = fails(json!(["x", "y", "z", "x", "w"]), json!({"labels": ["x", "y"]}), &[]);
    assert_eq!(code, "LABEL_UNKNOWN");
    assert!(message.contains("labels.jsonl:3") && message.contains("\"z\""), "{message}");
    // Numbers that could be names, and are neither all names nor all ids.
    assert_eq!(fails(json!([1, 3, 0]), json!({"labels": ["1", "2", "3"]}), &[]).0, "LABEL_UNKNOWN");
    assert_eq!(fails(json!([-1, 0]), json!({"labels": ["x", "y"]}), &[]).0, "LABEL_UNKNOWN");
}

#[test]
fn labels_are_read_by_name_or_by_number_and_in_one_way() {
    let bench = Bench::new();
    let read = |labels: Value, options: Value, checkpoint: &[&str]| {
        let mut opened = bench.labels(&labels, options, checkpoint).unwrap();
        let targets = targets(&mut opened);
        (opened.labels, opened.label_by.unwrap(), targets)
    };
    let stars = ["1", "2", "3"];
    // Once a label is no name, none of them is one.
    assert_eq!(read(json!([0, 1, 2]), json!({}), &stars).1, By::Id);
    assert_eq!(read(json!([0, 1, 2]), json!({}), &stars).2, classes(&[0, 1, 2]));
    assert_eq!(read(json!([3, "1", 2.0]), json!({}), &stars).2, classes(&[2, 0, 1]));
    assert_eq!(read(json!([0, 1]), json!({"labels": stars}), &[]).2, classes(&[0, 1]));
    assert_eq!(read(json!(["1", "2"]), json!({"labels": stars}), &[]).2, classes(&[0, 1]));
    assert_eq!(read(json!(["y", 0]), json!({"labels": ["x", "y"]}), &[]).1, By::Either);
    assert_eq!(read(json!([-1, 1]), json!({}), &["-1", "0", "1"]).2, classes(&[0, 2]));
    assert_eq!(read(json!([-1, 1]), json!({}), &["neg", "neu", "pos"]).0, ["-1", "1"]);
    // Another split is read as the first one was.
    let by = |label_by| DataOptions {
        labels: Some(stars.map(String::from).into()),
        label_by,
        ..Default::default()
    };
    let path = bench.file("two.csv", "text,label\na,1\nb,2\n");
    let ids = |by| targets(&mut bench.open(path.clone(), by, &[]).unwrap());
    assert_eq!(ids(by(None)), classes(&[0, 1]));
    assert_eq!(ids(by(Some(By::Id))), classes(&[1, 2]));
}

#[test]
fn every_format_has_the_same_classes() {
    let bench = Bench::new();
    let labels = ["-2", "2", "0.5", "n/a"];
    let csv = format!("text,label\n{}", labels.map(|label| format!("a,{label}\n")).concat());
    let files = [
        bench.file("x.csv", &csv),
        bench.file("x.tsv", &csv.replace(',', "\t")),
        bench.file(
            "x.json",
            &labels.map(|label| format!("{}\n", json!({"text": "a", "label": label}))).concat(),
        ),
    ];
    for file in files {
        let opened = bench.open(file.clone(), DataOptions::default(), &[]).unwrap();
        assert_eq!(opened.labels, ["-2", "0.5", "2", "n/a"], "{}", file.display());
    }
    let lists = bench.file("lists.csv", "text,label\na,\"[\"\"x\"\", -1]\"\nb,[]\n");
    let opened = bench.open(lists, DataOptions::default(), &[]).unwrap();
    assert_eq!((opened.labels, opened.problem_type), (vec!["-1".to_string(), "x".into()], SEVERAL));
}

#[test]
fn a_line_says_what_was_inferred() {
    let bench = Bench::new();
    let note = |labels: Value, options: Value, checkpoint: &[&str]| {
        bench.labels(&labels, options, checkpoint).unwrap().notes.join("\n")
    };
    let single = "problem type single_label_classification";
    assert_eq!(
        note(json!([-2, "n/a", 2]), json!({}), &[]),
        format!("labels: 3 classes (-2, 2, n/a); {single}, inferred")
    );
    assert_eq!(
        note(json!([3, 1]), json!({"problemType": "single_label_classification"}), &[]),
        format!("labels: 4 classes (0, 1, 2, 3), of which no row has 0, 2; {single}")
    );
    assert_eq!(
        note(json!([0, 1]), json!({}), &["no", "yes"]),
        format!("labels: 2 classes (no, yes), by number; {single}, inferred")
    );
    assert_eq!(
        note(json!(["a", "b"]), json!({}), &["x", "y", "z"]),
        format!("labels: 2 classes (a, b), in place of the model's 3; {single}, inferred")
    );
    assert_eq!(
        note(json!([0.5, -2]), json!({}), &[]),
        "labels: numbers from -2 to 0.5; problem type regression, inferred"
    );
    assert_eq!(
        note(json!([["a"], ["b"]]), json!({}), &[]),
        "labels: 2 classes (a, b); problem type multi_label_classification, inferred"
    );
}

#[test]
fn many_values_are_no_classes_but_may_be_numbers() {
    let bench = Bench::new();
    let rows = |whole: bool| -> String {
        let label = |i: usize| if whole { format!("x{i}") } else { format!("{}.5", i) };
        (0..20_050).map(|i| format!("{{\"text\": \"a\", \"label\": \"{}\"}}\n", label(i))).collect()
    };
    let numbers = bench.open(bench.file("n.jsonl", &rows(false)), DataOptions::default(), &[]).unwrap();
    assert_eq!(numbers.problem_type, NUMBERS);
    let error = bench.open(bench.file("t.jsonl", &rows(true)), DataOptions::default(), &[]).err().unwrap();
    assert!(error.code() == "DATA_INVALID" && error.to_string().contains("t.jsonl:20001"), "{error}");
}
