//! Muon's steps on matrices that are wide, tall, and three in one, as `tools/fixtures/muon.py` and `torch.optim.Muon`
//! take them.

use candlewick_kernels::train::Floats;
use candlewick_train::model::{Cpu, Param, Params};
use candlewick_train::trainer::{FinetuneOptions, Optimizer};
use serde_json::{Value, json};

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn muon_steps_as_its_reference() {
    let fixture: Value = serde_json::from_str(include_str!("muon.json")).unwrap();
    let options: FinetuneOptions = serde_json::from_value(json!({
        "model": "", "task": "text-generation", "train": [], "output": "", "optimizer": "muon", "maxGradNorm": 0,
        "learningRate": fixture["learningRate"], "weightDecay": fixture["weightDecay"], "lrSchedulerType": "constant",
    }))
    .unwrap();
    let mut params = Params::default();
    for (name, shape) in fixture["shapes"].as_object().unwrap() {
        let shape: Vec<usize> =
            shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        params.push(Param::new(name, &shape, Floats::from(&numbers(&fixture["start"][name])[..])));
    }
    let steps = fixture["gradients"].as_array().unwrap();
    let mut optimizer = Optimizer::new(&options, steps.len() as u64);
    let mut cpu = Cpu::new(2);
    for (i, step) in steps.iter().enumerate() {
        for param in params.trainable() {
            let gradient = numbers(&step[param.name.as_str()]);
            param.gradient_to_add().unwrap().copy_from_slice(&gradient);
        }
        let norm = optimizer.gradient_norm(&cpu, &mut params);
        optimizer.step(&mut cpu, &mut params, i as u64, norm);
    }
    for param in &params.all {
        let expected = numbers(&fixture["end"][param.name.as_str()]);
        for (at, (found, expected)) in param.value.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{} at {at}: {found}, expected {expected}",
                param.name
            );
        }
    }
}
