//! Six steps of AdamW with clipping, decay groups and a schedule, as PyTorch takes them.

mod support;

use candlewick_models::{ModelFolder, Weights, gpt2};
use candlewick_train::data::{Example, Target};
use candlewick_train::model::{Cpu, Dropouts, Gpt2, Pass, Source};
use candlewick_train::trainer::{FinetuneOptions, Optimizer};
use serde_json::json;
use support::{relative, root, tensors};

#[test]
fn six_steps() {
    let folder = root().join("grad-gpt2");
    let text = std::fs::read_to_string(folder.join("adamw.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let given = &expected["options"];
    let options: FinetuneOptions = serde_json::from_value(json!({
        "model": "", "task": "text-generation", "train": [], "output": "",
        "learningRate": given["learningRate"], "adamBeta1": given["beta1"], "adamBeta2": given["beta2"],
        "adamEpsilon": given["epsilon"], "weightDecay": given["weightDecay"],
        "maxGradNorm": given["maxGradNorm"], "warmupSteps": given["warmupSteps"],
    }))
    .unwrap();
    let model_folder = ModelFolder::open(folder.to_str().unwrap()).unwrap();
    let config = gpt2::Config::from_folder(&model_folder).unwrap();
    let weights = Weights::open(&folder, "transformer").unwrap();
    let mut source = Source::new(Some(&weights), 0.02, 0);
    let dropouts = Dropouts { embedding: 0.0, attention: 0.0, residual: 0.0 };
    let mut model = Gpt2::new(&mut source, config.clone(), dropouts).unwrap();
    let mut params = source.params;
    let mut cpu = Cpu::new(2);
    let steps = expected["steps"].as_array().unwrap();
    let optimizer = Optimizer::new(&options, steps.len() as u64);
    for (i, step) in steps.iter().enumerate() {
        let rows: Vec<Vec<u32>> = serde_json::from_value(expected["batches"][i].clone()).unwrap();
        let example = |ids: Vec<u32>| Example {
            target: Target::Tokens(ids.iter().map(|id| *id as i32).collect()),
            input_ids: ids,
            token_type_ids: vec![],
            pair: None,
        };
        let examples: Vec<Example> = rows.into_iter().map(example).collect();
        let scale = 1.0 / Gpt2::targets(&examples).unwrap() as f32;
        let pass = Pass::Train { scale, smoothing: 0.0 };
        let outcome = model.run(&mut cpu, &mut params, &examples, pass, &|| false).unwrap();
        let norm = optimizer.gradient_norm(&cpu, &mut params);
        optimizer.step(&cpu, &mut params, i as u64, norm);
        let close = |what: &str, found: f64| {
            let expected = step[what].as_f64().unwrap();
            assert!(
                (found - expected).abs() <= 1e-5 * expected,
                "step {i}: {what} {found}, expected {expected}"
            );
        };
        close("loss", outcome.mean());
        close("gradNorm", norm);
        close("learningRate", optimizer.learning_rate(i as u64));
    }
    for (name, expected) in tensors(folder.join("adamw.safetensors")) {
        let param = params.find(name.strip_prefix("transformer.").unwrap_or(&name)).unwrap();
        let (mut found, mut expected) = (param.value.to_vec(), expected);
        if name.ends_with("c_attn.bias") {
            // A key's bias has a gradient of rounding noise, which Adam turns into whole steps.
            let d = config.n_embd;
            found.drain(d..2 * d);
            expected.drain(d..2 * d);
        }
        let error = relative(&found, &expected);
        assert!(error <= 2e-5, "{name}: {error:e}");
    }
}
