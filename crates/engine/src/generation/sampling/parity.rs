//! The processors against what transformers computes: `__test__/fixtures/processors.json`.

use serde_json::Value;

use crate::generation::options::GenerateOptions;
use crate::generation::sampling::bans::Bans;
use crate::generation::sampling::processors::{Processors, Scratch};

fn floats(value: &Value) -> Vec<f32> {
    let one = |x: &Value| x.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32);
    value.as_array().unwrap().iter().map(one).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn options(case: &Value) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    for (name, value) in case["options"].as_object().unwrap() {
        let number = || value.as_f64().unwrap() as f32;
        let count = || value.as_u64().unwrap() as usize;
        match name.as_str() {
            "logitBias" => {
                let pairs = value.as_object().unwrap().iter();
                options.logit_bias =
                    pairs.map(|(id, bias)| (id.parse().unwrap(), bias.as_f64().unwrap() as f32)).collect();
            }
            "repetitionPenalty" => options.repetition_penalty = number(),
            "presencePenalty" => options.presence_penalty = number(),
            "frequencyPenalty" => options.frequency_penalty = number(),
            "noRepeatNgramSize" => options.no_repeat_ngram_size = count(),
            "badWords" => options.bad_word_ids = value.as_array().unwrap().iter().map(ids).collect(),
            "minNewTokens" => options.min_new_tokens = count(),
            "suppressTokens" => options.suppress_tokens = ids(value),
            "beginSuppressTokens" => options.begin_suppress_tokens = ids(value),
            "temperature" => options.temperature = number(),
            "topK" => options.top_k = count(),
            "topP" => options.top_p = number(),
            "minP" => options.min_p = number(),
            other => panic!("unknown option {other}"),
        }
    }
    options
}

#[test]
fn processors_do_what_transformers_do() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../__test__/fixtures/processors.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    let mut scratch = Scratch::default();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut scores = floats(&fixture["logits"][case["logits"].as_str().unwrap()]);
        let history = &fixture["histories"][case["history"].as_str().unwrap()];
        let prompt = ids(&history["prompt"]);
        let tokens = [&prompt[..], &ids(&history["generated"])].concat();
        let end_ids = case.get("endIds").map(ids).unwrap_or_default();
        let options = options(case);
        let processors = Processors::new(&options, Bans::new(&options.bad_word_ids, &end_ids), end_ids);
        processors.adjust(&mut scores, &tokens, prompt.len(), &mut scratch);
        processors.warp(&mut scores, &mut scratch);
        let mut expected = floats(&case["expected"]);
        if case["compare"] == "multiset" {
            scores.sort_by(f32::total_cmp);
            expected.sort_by(f32::total_cmp);
        }
        assert_eq!(scores.len(), expected.len());
        for (at, (ours, theirs)) in scores.iter().zip(&expected).enumerate() {
            let same = ours == theirs || (ours - theirs).abs() <= 1e-5 + 1e-5 * theirs.abs();
            assert!(same, "{name}, token {at}: {ours}, expected {theirs}");
        }
    }
}
