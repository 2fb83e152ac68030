//! Metrics against the references that define them: `tools/fixtures/metrics.py`.

use candlewick_train::metrics::{
    BleuTokenizer, Scores, answer_scores, bleu, chrf, classes, entities, regression, several_labels,
};
use serde_json::Value;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/fixtures/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

#[track_caller]
fn close(ours: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((ours - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what}: {ours}, expected {expected}");
}

#[track_caller]
fn same(ours: Scores, expected: &Value, what: &str) {
    close(ours.precision, &expected[0], what);
    close(ours.recall, &expected[1], what);
    close(ours.f1, &expected[2], what);
}

#[test]
fn classes_are_scored_as_by_scikit_learn() {
    for case in fixture()["classes"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let ours =
            classes(&list::<String>(&case["labels"]), &list(&case["truth"]), &list(&case["predicted"]));
        close(ours.accuracy, &case["accuracy"], name);
        close(ours.mcc, &case["mcc"], name);
        same(ours.averages.micro, &case["micro"], name);
        same(ours.averages.macro_average, &case["macro"], name);
        same(ours.averages.weighted, &case["weighted"], name);
        for (ours, expected) in ours.per_class.iter().zip(case["per_class"].as_array().unwrap()) {
            same(ours.scores, expected, name);
            close(ours.support as f64, &expected[3], name);
        }
        assert_eq!(ours.confusion_matrix.unwrap(), list::<Vec<u64>>(&case["confusion_matrix"]), "{name}");
    }
}

#[test]
fn thousands_of_classes_have_scores_and_no_matrix_of_millions() {
    let labels: Vec<String> = (0..20_000).map(|id| id.to_string()).collect();
    let ours = classes(&labels, &[0, 19_999, 7], &[0, 7, 7]);
    assert!(ours.confusion_matrix.is_none());
    assert_eq!((ours.averages.micro.f1, ours.per_class[7].support), (2.0 / 3.0, 1));
}

#[test]
fn several_labels_are_scored_as_by_scikit_learn() {
    let case = &fixture()["several_labels"];
    let rows = |key: &str| -> Vec<Vec<bool>> {
        list::<Vec<u8>>(&case[key])
            .into_iter()
            .map(|row| row.into_iter().map(|bit| bit == 1).collect())
            .collect()
    };
    let labels: Vec<String> = (0..4).map(|i| i.to_string()).collect();
    let ours = several_labels(&labels, &rows("truth"), &rows("predicted"));
    close(ours.accuracy, &case["accuracy"], "accuracy");
    close(ours.hamming_loss, &case["hamming_loss"], "hamming");
    same(ours.averages.micro, &case["micro"], "micro");
    same(ours.averages.macro_average, &case["macro"], "macro");
    same(ours.averages.weighted, &case["weighted"], "weighted");
}

fn tags(rows: &[Vec<String>]) -> Vec<Vec<&str>> {
    rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect()
}

#[test]
fn entities_are_scored_as_by_seqeval() {
    let case = &fixture()["entities"];
    let (truth, predicted): (Vec<Vec<String>>, Vec<Vec<String>>) =
        (list(&case["truth"]), list(&case["predicted"]));
    let ours = entities(&tags(&truth), &tags(&predicted));
    close(ours.accuracy, &case["accuracy"], "accuracy");
    same(ours.scores, &case["micro"], "micro");
    same(ours.macro_average, &case["macro"], "macro");
    same(ours.weighted, &case["weighted"], "weighted");
    assert_eq!(ours.per_class.len(), case["per_class"].as_object().unwrap().len());
    for class in &ours.per_class {
        same(class.scores, &case["per_class"][&class.label], &class.label);
        close(class.support as f64, &case["per_class"][&class.label][3], &class.label);
    }
}

#[test]
fn translations_are_scored_as_by_sacrebleu() {
    for case in fixture()["translations"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (said, references): (Vec<String>, Vec<Vec<String>>) =
            (list(&case["said"]), list(&case["references"]));
        let rows = || said.iter().map(String::as_str).zip(references.iter().map(Vec::as_slice));
        let tokenizers =
            [("13a", BleuTokenizer::V13a), ("zh", BleuTokenizer::Zh), ("none", BleuTokenizer::None)];
        for (tokenizer, ours) in tokenizers {
            let what = format!("{name}, {tokenizer}");
            let (ours, expected) = (bleu(rows(), ours), &case[tokenizer]);
            close(ours.score, &expected[0], &what);
            (0..4).for_each(|order| close(ours.precisions[order], &expected[1][order], &what));
            close(ours.brevity_penalty, &expected[2], &what);
            close(ours.length as f64, &expected[3], &what);
            close(ours.reference_length as f64, &expected[4], &what);
        }
        close(chrf(rows(), 0), &case["chrf"], name);
        close(chrf(rows(), 2), &case["chrf++"], name);
    }
}

#[test]
fn answers_are_scored_as_by_squad() {
    let case = &fixture()["answers"];
    let (said, answers): (Vec<String>, Vec<Vec<String>>) = (list(&case["said"]), list(&case["answers"]));
    let expected = list::<[f64; 2]>(&case["scores"]);
    for ((said, answers), [exact, f1]) in said.iter().zip(&answers).zip(&expected) {
        let ours = answer_scores([(said.as_str(), answers.as_slice())].into_iter());
        assert_eq!((ours.exact_match, ours.f1), (*exact, *f1), "{said:?}, {answers:?}");
    }
    let all = answer_scores(said.iter().map(String::as_str).zip(answers.iter().map(Vec::as_slice)));
    let mean = |i: usize| expected.iter().map(|row| row[i]).sum::<f64>() / expected.len() as f64;
    assert!((all.exact_match - mean(0)).abs() < 1e-12 && (all.f1 - mean(1)).abs() < 1e-12);
}

#[test]
fn a_chinese_answer_that_is_nearly_right_scores_by_its_characters() {
    let answers = ["北京大学，在北京".to_string()];
    let ours = answer_scores([("北京大学", answers.as_slice())].into_iter());
    assert_eq!(ours.f1, 0.0);
    assert!((ours.character_f1 - 8.0 / 11.0).abs() < 1e-12, "{}", ours.character_f1);
}

#[test]
fn numbers_are_compared_as_by_scipy() {
    let case = &fixture()["numbers"];
    let ours = regression(&list::<f32>(&case["truth"]), &list::<f32>(&case["predicted"]));
    close(ours.mean_squared_error, &case["mse"], "mse");
    close(ours.mean_absolute_error, &case["mae"], "mae");
    close(ours.pearson, &case["pearson"], "pearson");
    close(ours.spearman, &case["spearman"], "spearman");
}

#[test]
fn what_is_undefined_is_zero() {
    let labels = ["a".to_string(), "b".to_string()];
    let none = classes(&labels, &[], &[]);
    assert_eq!((none.accuracy, none.mcc, none.averages.macro_average.f1), (0.0, 0.0, 0.0));
    assert_eq!(regression(&[1.0, 1.0], &[0.0, 2.0]).pearson, 0.0);
    assert_eq!(bleu([].into_iter().map(|x: (&str, &[String])| x), BleuTokenizer::V13a).score, 0.0);
}
