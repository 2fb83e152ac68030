//! A GPT-2 that classifies texts is PyTorch's, whatever its texts end with, on the reference and on the packed kernels.

mod support;

use std::path::Path;

use candlewick_models::{
    Dtype, Encoder, EncoderHead, EncoderInput, EncoderWant, Layers, LoadOptions, load_causal, load_encoder,
};
use serde_json::{Value, json};
use support::{Fixture, argmax, backends, relative_error};

fn load(source: &str, options: &LoadOptions) -> Box<dyn Encoder> {
    load_encoder(source, options, &()).unwrap_or_else(|e| panic!("{source}: {e}")).model
}

/// Everything but a GPU, which does not run it.
fn on_cpu() -> impl Iterator<Item = LoadOptions> {
    backends().into_iter().filter(|options| options.device == candlewick_models::Device::Cpu)
}

fn inputs(fixture: &Fixture) -> Vec<EncoderInput> {
    let input = |ids: Vec<u32>| EncoderInput { type_ids: vec![0; ids.len()], ids, logits_at: vec![] };
    fixture.rows("input_ids").into_iter().map(input).collect()
}

/// The fixture's folder with another configuration.
fn changed(fixture: &Fixture, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture.folder.join(name), folder.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(fixture.folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    change(&mut config);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn logits_are_those_of_the_last_token_that_is_not_padding() {
    let fixture = Fixture::open("classify-gpt2");
    let without = changed(&fixture, |config| {
        config.as_object_mut().unwrap().remove("pad_token_id");
    });
    let never = changed(&fixture, |config| config["pad_token_id"] = json!(-1));
    let want = EncoderWant { logits: true, ..EncoderWant::default() };
    for options in on_cpu() {
        for (source, name) in [
            (fixture.source(), "logits"),
            (text(without.path()), "logits.without_padding"),
            (text(never.path()), "logits.without_padding"),
        ] {
            let mut model = load(source, &options);
            assert_eq!(model.info().head, EncoderHead::SequenceClassification);
            assert_eq!(model.info().labels, ["anger", "joy", "中性"]);
            let outputs = model.forward(&inputs(&fixture), &want, &|| false).unwrap();
            for (i, output) in outputs.iter().enumerate() {
                let what = format!("{name}, row {i}, reference {}", options.reference);
                fixture.check(&what, &output.logits, &fixture.row(name, i, None));
            }
        }
    }
}

#[test]
fn states_and_attentions_are_transformers() {
    let fixture = Fixture::open("classify-gpt2");
    let row = fixture.expected["inside"].as_u64().unwrap() as usize;
    let input = inputs(&fixture).swap_remove(row);
    for options in on_cpu() {
        let mut model = load(fixture.source(), &options);
        let attentions = if options.reference { Layers::None } else { Layers::All };
        let want = EncoderWant {
            last_hidden_state: true,
            hidden_states: Layers::All,
            attentions,
            ..EncoderWant::default()
        };
        let output = &model.forward(std::slice::from_ref(&input), &want, &|| false).unwrap()[0];
        fixture.check("the last state", &output.last_hidden_state, &fixture.values("last_hidden_state"));
        assert_eq!(output.hidden_states.len(), 3);
        for (i, state) in output.hidden_states.iter().enumerate() {
            fixture.check(&format!("state {i}"), state, &fixture.values(&format!("hidden_states.{i}")));
        }
        for (i, weights) in output.attentions.iter().enumerate() {
            fixture.check(&format!("layer {i}"), weights, &fixture.values(&format!("attentions.{i}")));
        }
        let pooled = EncoderWant { pooled: true, ..EncoderWant::default() };
        if !options.reference {
            assert_eq!(output.attentions.len(), 2);
            let refused = model.forward(std::slice::from_ref(&input), &pooled, &|| false).unwrap_err();
            assert_eq!(refused.code(), "INPUT_INVALID", "{refused}");
        }
        let stopped = model.forward(std::slice::from_ref(&input), &want, &|| true).unwrap_err();
        assert_eq!(stopped.code(), "ABORTED");
    }
}

/// Every type of weights: the logits' direction stays, and the clear winners win.
#[test]
fn every_dtype_classifies_alike() {
    let fixture = Fixture::open("classify-gpt2");
    let want = EncoderWant { logits: true, ..EncoderWant::default() };
    for (dtype, bound) in [
        (Dtype::F16, 2e-3),
        (Dtype::Bf16, 2e-2),
        (Dtype::Int8, 4e-2),
        (Dtype::Q8_0, 2e-2),
        (Dtype::Q4_0, 4e-1),
    ] {
        let options = LoadOptions { dtype: Some(dtype), threads: 2, ..LoadOptions::default() };
        let mut model = load(fixture.source(), &options);
        assert_eq!(model.info().dtype, dtype);
        let outputs = model.forward(&inputs(&fixture), &want, &|| false).unwrap();
        let found: Vec<f32> = outputs.iter().flat_map(|output| output.logits.clone()).collect();
        let error = relative_error(&found, &fixture.values("logits"));
        assert!(error > 0.0 && error <= bound, "{dtype:?}: {error}");
        for (i, output) in outputs.iter().enumerate() {
            let exact = fixture.row("logits", i, None);
            let mut sorted = exact.clone();
            sorted.sort_by(f32::total_cmp);
            if sorted[2] - sorted[1] > 2.0 {
                assert_eq!(argmax(&output.logits), argmax(&exact), "{dtype:?}, row {i}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let fixture = Fixture::open("classify-gpt2");
    let options = LoadOptions::default();
    let says = |error: candlewick_models::ModelError, code: &str, part: &str| {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let error = load_causal(fixture.source(), &options, &()).err().unwrap();
    says(error, "UNSUPPORTED_MODEL", "loadBERT()");
    let architecture = |name: &str| changed(&fixture, |config| config["architectures"] = json!([name]));
    for (name, part) in [
        ("GPT2LMHeadModel", "loadGPT2()"),
        ("GPT2ForTokenClassification", "GPT2ForTokenClassification"),
        ("GPT2ForQuestionAnswering", "GPT2ForQuestionAnswering"),
    ] {
        let folder = architecture(name);
        let error = load_encoder(text(folder.path()), &options, &()).err().unwrap();
        says(error, "UNSUPPORTED_MODEL", part);
    }
    let unnamed = changed(&fixture, |config| {
        config.as_object_mut().unwrap().remove("architectures");
    });
    assert_eq!(load(text(unnamed.path()), &options).info().labels.len(), 3, "by its tensors");
    let wrong = changed(&fixture, |config| config["pad_token_id"] = json!("<|pad|>"));
    says(load_encoder(text(wrong.path()), &options, &()).err().unwrap(), "CONFIG_INVALID", "pad_token_id");
}
