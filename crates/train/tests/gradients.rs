//! Every parameter gets the gradient that PyTorch gives it: the difference is at most 1e-5 of its norm.

mod support;

use candlewick_models::{ModelFolder, Weights, gpt2};
use candlewick_train::data::{Example, Target};
use candlewick_train::model::{Cpu, Dropouts, Gpt2, Params, Pass, Source};
use support::{Fixture, relative};

const TOLERANCE: f64 = 1e-5;

fn never() -> bool {
    false
}

/// Compares the case's gradients, `prefix` taken off their names.
fn check(fixture: &Fixture, case: &str, prefix: &str, params: &Params) {
    let marker = format!("{case}.grad.");
    let expected: Vec<_> = fixture.tensors.iter().filter(|(name, _)| name.starts_with(&marker)).collect();
    assert_eq!(expected.len(), params.all.len(), "{case}: a gradient for every parameter");
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let largest = expected.iter().map(|(_, values)| norm(values)).fold(0.0, f64::max);
    for (full, expected) in expected {
        let name = full.strip_prefix(&marker).unwrap();
        let param =
            params.find(name.strip_prefix(prefix).unwrap_or(name)).unwrap_or_else(|| panic!("{name}"));
        // A gradient that is zero but for rounding (a key's bias) is held against the largest.
        let scale = norm(expected).max(1e-3 * largest);
        let error = relative(&param.gradient, expected) * norm(expected) / scale;
        assert!(error <= TOLERANCE, "{full}: relative error {error:e}");
    }
}

#[test]
fn gpt2() {
    let fixture = Fixture::open("grad-gpt2");
    let folder = ModelFolder::open(fixture.folder.to_str().unwrap()).unwrap();
    let config = gpt2::Config::from_folder(&folder).unwrap();
    let weights = Weights::open(&folder.path, "transformer").unwrap();
    let dropouts = Dropouts { embedding: 0.0, attention: 0.0, residual: 0.0 };
    for checkpointing in [false, true] {
        for case in fixture.expected["cases"].as_array().unwrap() {
            let mut source = Source::new(Some(&weights), 0.02, 0);
            let mut model = Gpt2::new(&mut source, config.clone(), dropouts).unwrap();
            model.stack.checkpointing = checkpointing;
            let mut params = source.params;
            let labels: Vec<Vec<i32>> = serde_json::from_value(case["labels"].clone()).unwrap();
            let examples: Vec<Example> = (fixture.rows("input_ids").into_iter().zip(labels))
                .map(|(input_ids, labels)| Example {
                    input_ids,
                    token_type_ids: vec![],
                    target: Target::Tokens(labels),
                    pair: None,
                })
                .collect();
            let name = case["name"].as_str().unwrap();
            let scale = 1.0 / Gpt2::targets(&examples).unwrap() as f32;
            let mut cpu = Cpu::new(2);
            cpu.train(1, 2, 3);
            let pass = Pass::Train { scale, smoothing: 0.0 };
            let outcome = model.run(&mut cpu, &mut params, &examples, pass, &never).unwrap();
            let expected = f64::from(fixture.tensors[&format!("{name}.loss")][0]);
            assert!(
                (outcome.mean() - expected).abs() <= 1e-5 * expected,
                "{name}: {} {expected}",
                outcome.mean()
            );
            check(&fixture, name, "transformer.", &params);
        }
    }
}
