//! BERT's family and a classifying GPT-2: every parameter gets PyTorch's gradient, with every head; and what is trained
//! loads again as the model that was trained.

mod support;

use candlewick_models::{
    EncoderHead, EncoderInput, EncoderWant, LoadOptions, ModelFolder, Names, Tokenizer, Weights, family,
    gpt2, load_encoder,
};
use candlewick_train::data::{Example, ProblemType};
use candlewick_train::model::{
    Bert, BertDropouts, Classes, Cpu, Dropouts, Gpt2, HeadKind, LoraShape, Params, Pass, Source, attach,
    merge,
};
use candlewick_train::trainer::Event;
use serde_json::{Value, json};
use support::runs::{folder, options, run};
use support::{Fixture, deviation, relative};

const TOLERANCE: f64 = 1e-5;
const FAMILY: [&str; 6] = ["distilbert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"];
const NONE: BertDropouts = BertDropouts { hidden: 0.0, attention: 0.0, classifier: 0.0 };

fn never() -> bool {
    false
}

fn open(name: &str) -> (ModelFolder, Weights, Names) {
    let path = support::root().join(name);
    let mut folder = ModelFolder::open(path.to_str().unwrap()).unwrap();
    let (weights, names) = (folder.weights().unwrap(), folder.names().unwrap());
    (folder, weights, names)
}

fn head(case: &str) -> HeadKind {
    let sequence = |problem| HeadKind::Sequence { classes: 3, problem };
    match case {
        "smoothed" => sequence(ProblemType::SingleLabelClassification),
        "regression" => sequence(ProblemType::Regression),
        "tokens" => HeadKind::Token { classes: 3 },
        "questions" => HeadKind::Questions,
        "contrast" => HeadKind::Embedding,
        _ => HeadKind::MaskedLm,
    }
}

/// Every trainable parameter under the name that transformers has for it.
fn check(what: &str, fixture: &Fixture, case: &str, names: Names, prefixed: bool, params: &Params) {
    let marker = format!("{case}.grad.");
    let expected = fixture.tensors.keys().filter(|name| name.starts_with(&marker)).count();
    let trainable: Vec<_> = params.all.iter().filter(|param| param.trainable).collect();
    assert_eq!(expected, trainable.len(), "{what}, {case}: a gradient for every parameter");
    for param in trainable {
        let full = format!("{marker}{}", names.written(&param.name, prefixed));
        let of = |name: &str| &fixture.tensors.get(name).unwrap_or_else(|| panic!("{what}: {name}"))[..];
        let error = deviation(&full, &param.gradient, of);
        assert!(error <= TOLERANCE, "{what}, {full}: relative error {error:e}");
    }
}

fn pass(count: u64) -> Pass {
    Pass::Train { scale: 1.0 / count as f32, smoothing: 0.0 }
}

#[test]
fn gradients_of_each_model_with_each_head() {
    for name in FAMILY {
        let fixture = Fixture::open(&format!("grad-family/{name}"));
        let (folder, weights, names) = open(&format!("grad-family/{name}"));
        let config = family::Config::from_folder(&folder).unwrap();
        for case in fixture.expected["cases"].as_array().unwrap() {
            let title = case["name"].as_str().unwrap();
            let examples = support::examples(case);
            let run = |checkpointing: bool| {
                let mut source = Source::new(Some(&weights), 0.02, 0);
                let bias = config.decoder_bias(Some(&weights));
                let mut model = Bert::new(&mut source, config.clone(), NONE, head(title), &bias).unwrap();
                assert!(source.new.is_empty(), "{name}, {title}: {:?} are new", source.new);
                model.stack.checkpointing = checkpointing;
                let (mut cpu, mut params) = (Cpu::new(2), source.params);
                let pass = pass(model.targets(&examples));
                let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
                (outcome.mean(), params)
            };
            let (loss, params) = run(false);
            let expected = case["loss"].as_f64().unwrap();
            assert!((loss - expected).abs() <= TOLERANCE * expected, "{name}, {title}: {loss} {expected}");
            check(name, &fixture, title, names, title != "contrast", &params);
            let bits = |params: &Params| -> Vec<u32> {
                params.all.iter().flat_map(|param| param.gradient.iter().map(|x| x.to_bits())).collect()
            };
            let (again, checkpointed) = run(true);
            assert!(again == loss && bits(&checkpointed) == bits(&params), "{name}, {title}: checkpointing");
        }
    }
}

#[test]
fn gradients_of_a_gpt2_that_classifies() {
    let fixture = Fixture::open("grad-family/gpt2");
    let (folder, weights, names) = open("classify-gpt2");
    let config = gpt2::Config::of_classifier(&folder).unwrap();
    let padding = gpt2::padding_of(&folder).unwrap();
    for case in fixture.expected["cases"].as_array().unwrap() {
        let title = case["name"].as_str().unwrap();
        let HeadKind::Sequence { classes: count, problem } = head(title) else {
            unreachable!("of sequences")
        };
        let mut source = Source::new(Some(&weights), 0.02, 0);
        let dropouts = Dropouts { embedding: 0.0, attention: 0.0, residual: 0.0 };
        let classes = Classes { count, problem, padding };
        let mut model = Gpt2::classifier(&mut source, config.clone(), dropouts, classes).unwrap();
        assert!(source.new.is_empty(), "{:?} are new", source.new);
        let (mut cpu, mut params) = (Cpu::new(2), source.params);
        // Rows are without Python's padding; a text that ends in the padding token itself keeps it.
        let examples: Vec<Example> = support::examples(case);
        let pass = pass(model.targets_of(&examples).unwrap());
        let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
        let expected = case["loss"].as_f64().unwrap();
        assert!((outcome.mean() - expected).abs() <= TOLERANCE * expected, "{title}: {expected}");
        check("gpt2", &fixture, title, names, true, &params);
    }
}

/// PEFT's loss, gradients and merged weights, its modules by the names that a DistilBERT has for them.
#[test]
fn lora_of_a_distilbert() {
    let fixture = Fixture::open("grad-family/distilbert");
    let text = std::fs::read_to_string(fixture.folder.join("lora.json")).unwrap();
    let facts: Value = serde_json::from_str(&text).unwrap();
    let tensors = support::tensors(fixture.folder.join("lora.safetensors"));
    let (folder, weights, names) = open("grad-family/distilbert");
    let config = family::Config::from_folder(&folder).unwrap();
    let mut source = Source::new(Some(&weights), 0.02, 0);
    let mut model = Bert::new(&mut source, config, NONE, head("smoothed"), "").unwrap();
    let mut params = source.params;
    for param in &mut params.all {
        param.trainable = param.name.contains("classifier.");
    }
    let rank = facts["rank"].as_u64().unwrap() as usize;
    let lora = LoraShape { rank, scale: facts["alpha"].as_f64().unwrap() as f32 / rank as f32 };
    let targets = [".q_lin", ".v_lin", ".lin2"];
    let targeted = |name: &str| targets.iter().any(|end| names.own(name).ends_with(end)).then_some(lora);
    attach(&mut model.stack, Vec::new(), &mut params, 0.0, 1, targeted);
    for param in params.all.iter_mut().filter(|param| param.trainable) {
        param.value.copy_from_slice(&tensors[&names.written(&param.name, true)]);
    }
    let examples = support::examples(&fixture.expected["cases"][0]);
    let mut cpu = Cpu::new(2);
    let outcome = model.run(&mut cpu, &mut params, &examples, pass(4), &never).unwrap();
    let expected = facts["loss"].as_f64().unwrap();
    assert!((outcome.mean() - expected).abs() <= TOLERANCE * expected, "{} {expected}", outcome.mean());
    let mut compared = 0;
    for param in params.all.iter().filter(|param| param.trainable) {
        let name = names.written(&param.name, true);
        let error = relative(&param.gradient, &tensors[&format!("grad.{name}")]);
        assert!(error <= TOLERANCE, "{name}: {error:e}");
        compared += 1;
    }
    assert_eq!(compared, 16);
    let (stack, heads) = model.linears_mut();
    merge(&mut cpu, stack, heads, &mut params);
    for param in &params.all {
        if let Some(expected) = tensors.get(&format!("merged.{}", names.written(&param.name, true))) {
            assert!(relative(&param.value, expected) <= 1e-6, "{}", param.name);
        }
    }
}

/// Classes of the trained folder's texts by the model that serves: mean loss and, of each text, the logits.
fn served(folder: &str, rows: &[(String, usize)]) -> (f64, Vec<Vec<f32>>) {
    let mut loaded = load_encoder(folder, &LoadOptions::default(), &()).unwrap();
    let tokenizer: Tokenizer = loaded.tokenizer.take().unwrap();
    // Training cuts texts at as many.
    let positions = loaded.model.info().max_positions;
    let inputs: Vec<EncoderInput> = rows
        .iter()
        .map(|(text, _)| {
            let encoded = tokenizer.encode_pair(text, None, Some(positions)).unwrap();
            EncoderInput { ids: encoded.ids, type_ids: encoded.type_ids, logits_at: vec![] }
        })
        .collect();
    let want = EncoderWant { logits: true, ..EncoderWant::default() };
    let outputs = loaded.model.forward(&inputs, &want, &never).unwrap();
    let mut loss = 0.0;
    for (output, (_, class)) in outputs.iter().zip(rows) {
        let sum: f64 = output.logits.iter().map(|x| f64::from(*x).exp()).sum();
        loss += sum.ln() - f64::from(output.logits[*class]);
    }
    (loss / rows.len() as f64, outputs.into_iter().map(|output| output.logits).collect())
}

const TRAINED: [(&str, &str, &str); 6] = [
    ("bert", "BertForSequenceClassification", "bert.encoder.layer.0.attention.self.query.weight"),
    (
        "distilbert",
        "DistilBertForSequenceClassification",
        "distilbert.transformer.layer.0.attention.q_lin.weight",
    ),
    ("roberta", "RobertaForSequenceClassification", "classifier.out_proj.weight"),
    ("electra", "ElectraForSequenceClassification", "electra.embeddings_project.weight"),
    ("mpnet", "MPNetForSequenceClassification", "mpnet.encoder.layer.1.attention.attn.q.weight"),
    ("gpt2", "GPT2ForSequenceClassification", "score.weight"),
];

#[test]
fn a_trained_model_loads_as_the_model_that_was_trained() {
    for (kind, class, tensor) in TRAINED {
        let source = folder(kind);
        let output = tempfile::tempdir().unwrap();
        let labelled = source.path().join("labelled.jsonl");
        for lora in [None, Some(json!({ "rank": 4 }))] {
            let output = output.path().join(if lora.is_some() { "lora" } else { "full" });
            let mut more = json!({ "validation": [labelled], "epochs": 3.0, "loadBestModelAtEnd": false });
            let start = output.parent().unwrap().join("full");
            if let Some(lora) = &lora {
                // Over the model that was trained before: of a model from scratch there is nothing to keep.
                let over = json!({ "model": start, "fromScratch": false, "lora": lora });
                more.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
            }
            let (watch, result) = run(&options(source.path(), &output, "text-classification", more), None);
            result.unwrap_or_else(|error| panic!("{kind}: {error}"));
            let evaluated = |event: &Event| match event {
                Event::Evaluation { loss, .. } => Some(*loss),
                _ => None,
            };
            let trained = watch.events.borrow().iter().filter_map(evaluated).next_back().unwrap();
            let config: Value =
                serde_json::from_str(&std::fs::read_to_string(output.join("config.json")).unwrap()).unwrap();
            assert_eq!(config["architectures"][0], class);
            let names = support::tensors(output.join("model.safetensors"));
            assert!(names.contains_key(tensor), "{kind}: {tensor} among {:?}", names.keys());
            let rows: Vec<(String, usize)> = std::fs::read_to_string(&labelled)
                .unwrap()
                .lines()
                .map(|line| {
                    let row: Value = serde_json::from_str(line).unwrap();
                    let class = usize::from(row["label"] == "none");
                    (row["text"].as_str().unwrap().to_string(), class)
                })
                .collect();
            let (loss, logits) = served(output.to_str().unwrap(), &rows);
            assert!((loss - trained).abs() <= 1e-5, "{kind}, {lora:?}: {loss}, in training {trained}");
            if lora.is_some() {
                let adapter = output.join("adapter");
                let (_, same) = served_over(adapter.to_str().unwrap(), start.to_str().unwrap(), &rows);
                for (a, b) in same.iter().flatten().zip(logits.iter().flatten()) {
                    assert!((a - b).abs() <= 1e-4, "{kind}: {a} {b}");
                }
            }
        }
    }
}

/// As `served`, of an adapter over its base.
fn served_over(adapter: &str, base: &str, rows: &[(String, usize)]) -> (f64, Vec<Vec<f32>>) {
    let config = std::path::Path::new(adapter).join("adapter_config.json");
    let value: Value = serde_json::from_str(&std::fs::read_to_string(config).unwrap()).unwrap();
    assert_eq!(value["base_model_name_or_path"], base);
    served(adapter, rows)
}

/// The other heads: what is written has the class and the names by which the serving model finds its head.
#[test]
fn every_head_is_saved_under_its_models_names() {
    for kind in ["distilbert", "roberta", "electra", "mpnet"] {
        let source = folder(kind);
        let write = |name: &str, rows: Vec<Value>| {
            let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
            let path = source.path().join(name);
            std::fs::write(&path, lines.join("\n")).unwrap();
            path
        };
        let rows = |row: &dyn Fn(usize) -> Value| (0..8).map(row).collect::<Vec<_>>();
        let tags = write(
            "tags.jsonl",
            rows(
                &|i| json!({ "tokens": ["a", "dog"], "tags": ["O", if i % 2 == 0 { "B-A" } else { "B-B" }] }),
            ),
        );
        let pairs = write("pairs.jsonl", rows(&|i| json!({ "text": format!("a {i}"), "textPair": "dog" })));
        let answers = json!({ "text": ["dog"], "answer_start": [2] });
        let asked = write(
            "asked.jsonl",
            rows(&|_| json!({ "question": "a", "context": "a dog", "answers": answers })),
        );
        for (task, data, head, class) in [
            ("fill-mask", source.path().join("texts.jsonl"), EncoderHead::MaskedLm, "MaskedLM"),
            ("token-classification", tags, EncoderHead::TokenClassification, "TokenClassification"),
            ("question-answering", asked, EncoderHead::QuestionAnswering, "QuestionAnswering"),
            ("feature-extraction", pairs, EncoderHead::None, ""),
        ] {
            let output = tempfile::tempdir().unwrap();
            let more = json!({ "train": [data], "maxSteps": 2, "batchSize": 4 });
            let (_, result) = run(&options(source.path(), output.path(), task, more), None);
            result.unwrap_or_else(|error| panic!("{kind}, {task}: {error}"));
            let path = output.path().to_str().unwrap();
            let loaded = load_encoder(path, &LoadOptions::default(), &()).unwrap().model;
            assert_eq!(loaded.info().head, head, "{kind}, {task}");
            let written = ModelFolder::open(path).unwrap();
            let expected = written.encoder().unwrap().unwrap().class_for(class);
            assert_eq!(written.config["architectures"][0], expected, "{kind}, {task}");
        }
    }
}
