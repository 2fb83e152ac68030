//! GPT-2 equals transformers', on Candle and on the packed kernels, in every configuration and storage.

mod support;

use candlewick_models::{
    Cache, CausalLm, Dtype, Gpt2, LoadOptions, LogitsOf, ModelFolder, Params, SequenceStep, Weights, gpt2,
    layers::ids_tensor, load_causal,
};
use support::{Fixture, argmax, backends, devices};

fn load(fixture: &Fixture, options: &LoadOptions) -> Box<dyn CausalLm> {
    load_causal(fixture.source(), options, &()).unwrap_or_else(|e| panic!("{}: {e}", fixture.name)).model
}

fn step(model: &mut dyn CausalLm, cache: &mut dyn Cache, tokens: &[u32], want: LogitsOf) -> Vec<f32> {
    let mut logits = Vec::new();
    model.forward(&mut [SequenceStep { tokens, cache, want, logits: &mut logits }], &|| false).unwrap();
    logits
}

/// Logits of a whole row, from one forward pass.
fn all_logits(model: &mut dyn CausalLm, ids: &[u32]) -> Vec<f32> {
    let mut cache = model.new_cache(ids.len()).unwrap();
    step(model, cache.as_mut(), ids, LogitsOf::All)
}

#[test]
fn logits_equal_pytorch() {
    let fixtures = Fixture::all("gpt2-");
    assert!(fixtures.len() >= 12, "{} fixtures", fixtures.len());
    for fixture in fixtures {
        for options in backends() {
            let mut model = load(&fixture, &options);
            for (i, ids) in fixture.rows("input_ids").iter().enumerate() {
                let what = format!("logits of row {i}, {options:?}");
                fixture.check(&what, &all_logits(model.as_mut(), ids), &fixture.row("logits", i, None));
            }
            if fixture.has("long.logits") {
                let ids = &fixture.rows("long_input_ids")[0];
                fixture.check("long", &all_logits(model.as_mut(), ids), &fixture.row("long.logits", 0, None));
            }
        }
    }
}

#[test]
fn hidden_states_equal_pytorch() {
    for fixture in Fixture::all("gpt2-").into_iter().filter(|f| f.has("hidden_states.0")) {
        let folder = ModelFolder::open(fixture.source()).unwrap();
        let config = gpt2::Config::from_folder(&folder).unwrap();
        let weights = Weights::open(&folder.path, "transformer").unwrap();
        for device in devices() {
            let model = Gpt2::load(&Params::new(&weights, device.clone()), &config).unwrap();
            let rows = fixture.rows("input_ids");
            let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            let states = model.hidden_states(&ids_tensor(&rows, &device).unwrap()).unwrap();
            assert_eq!(states.len(), config.n_layer + 1);
            for (i, state) in states.iter().enumerate() {
                let found: Vec<f32> = state.flatten_all().unwrap().to_vec1().unwrap();
                fixture.check(&format!("state {i}"), &found, &fixture.values(&format!("hidden_states.{i}")));
            }
        }
    }
}

#[test]
fn greedy_text_equals_pytorch() {
    for fixture in Fixture::all("gpt2-") {
        let Some(case) =
            fixture.expected["greedy"].as_array().and_then(|g| g.iter().find(|c| c["name"] == "plain"))
        else {
            continue;
        };
        let ids = |key: &str| serde_json::from_value::<Vec<u32>>(case[key].clone()).unwrap();
        let (prompt, expected) = (ids("prompt"), ids("tokens"));
        for options in backends() {
            let mut model = load(&fixture, &options);
            let mut cache = model.new_cache(prompt.len() + expected.len()).unwrap();
            let mut logits = step(model.as_mut(), cache.as_mut(), &prompt, LogitsOf::Last);
            let mut found = vec![argmax(&logits)];
            while found.len() < expected.len() {
                logits = step(model.as_mut(), cache.as_mut(), &[found[found.len() - 1]], LogitsOf::Last);
                found.push(argmax(&logits));
            }
            assert_eq!(found, expected, "{}, {options:?}", fixture.name);
        }
    }
}

#[test]
fn quantised_logits_stay_close() {
    let fixture = Fixture::open("gpt2-wide");
    let ids = &fixture.rows("input_ids")[0];
    let exact = fixture.row("logits", 0, None);
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    for (dtype, bound) in [(Dtype::F16, 2e-3), (Dtype::Q8_0, 0.05), (Dtype::Q4_0, 0.6)] {
        let options = LoadOptions { dtype: Some(dtype), ..Default::default() };
        let mut model = load_causal(fixture.source(), &options, &()).unwrap().model;
        let found = all_logits(model.as_mut(), ids);
        let error =
            norm(&mut found.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
        assert!(error < bound, "{dtype:?}: relative error {error}");
    }
}

#[test]
fn a_stopped_step_leaves_the_cache_as_it_was() {
    let fixture = Fixture::open("gpt2-base");
    let ids = &fixture.rows("input_ids")[0];
    for options in backends() {
        let mut model = load(&fixture, &options);
        let mut cache = model.new_cache(ids.len()).unwrap();
        step(model.as_mut(), cache.as_mut(), &ids[..4], LogitsOf::None);
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == 1; // in the middle: before the second layer
        let mut logits = Vec::new();
        let steps = &mut [SequenceStep {
            tokens: &ids[4..],
            cache: cache.as_mut(),
            want: LogitsOf::All,
            logits: &mut logits,
        }];
        let error = model.forward(steps, &stop).unwrap_err();
        assert_eq!((error.code(), asked.get(), cache.len()), ("ABORTED", 2, 4));
        let rest = step(model.as_mut(), cache.as_mut(), &ids[4..], LogitsOf::All);
        fixture.check(
            "after the stop",
            &rest,
            &fixture.row("logits", 0, None)[4 * model.info().vocab_size..],
        );
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    let fixture = Fixture::open("gpt2-base");
    let ids = &fixture.rows("input_ids")[0];
    for options in backends() {
        let mut model = load(&fixture, &options);
        let mut cache = model.new_cache(ids.len()).unwrap();
        step(model.as_mut(), cache.as_mut(), &ids[..5], LogitsOf::None);
        let mut fork = cache.fork(ids.len() + 3).unwrap();
        step(model.as_mut(), cache.as_mut(), &[ids[0]], LogitsOf::None);
        let found = step(model.as_mut(), fork.as_mut(), &ids[5..], LogitsOf::All);
        fixture.check("fork", &found, &fixture.row("logits", 0, None)[5 * model.info().vocab_size..]);
        assert_eq!((cache.len(), fork.len(), fork.capacity()), (6, ids.len(), ids.len() + 3));
    }
}
