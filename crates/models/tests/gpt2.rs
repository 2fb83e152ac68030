//! GPT-2 equals transformers', on Candle and on the packed kernels, in every configuration and storage.

mod support;

use candlewick_models::{
    CausalBackend, Dtype, Gpt2, LoadOptions, ModelFolder, Params, Step, Weights, gpt2, layers::ids_tensor,
    load_causal,
};
use support::sequences::{Blocks, all_logits, step};
use support::{Fixture, argmax, backends, half_error, relative_error};

fn load(fixture: &Fixture, options: &LoadOptions) -> Box<dyn CausalBackend> {
    load_causal(fixture.source(), options, &()).unwrap_or_else(|e| panic!("{}: {e}", fixture.name)).model
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
        for device in [candle_core::Device::Cpu] {
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
            let mut sequence = Blocks::of(model.as_ref()).sequence(prompt.len() + expected.len());
            let mut logits = step(model.as_mut(), &mut sequence, &prompt, 1);
            let mut found = vec![argmax(&logits)];
            while found.len() < expected.len() {
                logits = step(model.as_mut(), &mut sequence, &[found[found.len() - 1]], 1);
                found.push(argmax(&logits));
            }
            assert_eq!(found, expected, "{}, {options:?}", fixture.name);
        }
    }
}

/// No farther from f32 than 1.1 times what PyTorch's own bf16 is.
#[test]
fn bf16_is_as_near_as_pytorchs() {
    for fixture in Fixture::all("gpt2-") {
        let options = LoadOptions { dtype: Some(Dtype::Bf16), ..Default::default() };
        let mut model = load(&fixture, &options);
        assert_eq!(model.info().dtype, Dtype::Bf16);
        let rows = fixture.rows("input_ids");
        let found: Vec<f32> = rows.iter().flat_map(|ids| all_logits(model.as_mut(), ids)).collect();
        let error = relative_error(&found, &fixture.values("logits"));
        let bound = 1.1 * half_error(&fixture);
        assert!(error <= bound, "{}: {error}, PyTorch's by 1.1: {bound}", fixture.name);
        println!("{}: {:.2} of PyTorch's error", fixture.name, error / bound * 1.1);
    }
}

#[test]
fn quantised_logits_stay_close() {
    let fixture = Fixture::open("gpt2-wide");
    let ids = &fixture.rows("input_ids")[0];
    let exact = fixture.row("logits", 0, None);
    for (dtype, bound) in [(Dtype::F16, 2e-3), (Dtype::Q8_0, 0.05), (Dtype::Int8, 0.05), (Dtype::Q4_0, 0.6)] {
        let options = LoadOptions { dtype: Some(dtype), ..Default::default() };
        let mut model = load_causal(fixture.source(), &options, &()).unwrap().model;
        let found = all_logits(model.as_mut(), ids);
        let error = relative_error(&found, &exact);
        assert!(error < bound, "{dtype:?}: relative error {error}");
    }
}

#[test]
fn a_stopped_step_leaves_what_was_computed_before() {
    let fixture = Fixture::open("gpt2-base");
    let ids = &fixture.rows("input_ids")[0];
    for options in backends() {
        let mut model = load(&fixture, &options);
        let mut sequence = Blocks::of(model.as_ref()).sequence(ids.len());
        step(model.as_mut(), &mut sequence, &ids[..4], 0);
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == 1; // in the middle: before the second layer
        let (tokens, blocks) = (&ids[4..], &sequence.blocks);
        let steps = [Step { tokens, start: 4, blocks, adapter: None, logits: tokens.len() }];
        let error = model.forward(&steps, &stop).err().unwrap();
        assert_eq!((error.code(), asked.get()), ("ABORTED", 2));
        let rest = step(model.as_mut(), &mut sequence, &ids[4..], ids.len() - 4);
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
        let mut blocks = Blocks::of(model.as_ref());
        let mut sequence = blocks.sequence(ids.len());
        step(model.as_mut(), &mut sequence, &ids[..5], 0);
        let mut fork = blocks.fork(model.as_mut(), &sequence, ids.len());
        step(model.as_mut(), &mut sequence, &[ids[0]], 0);
        let found = step(model.as_mut(), &mut fork, &ids[5..], ids.len() - 5);
        fixture.check("fork", &found, &fixture.row("logits", 0, None)[5 * model.info().vocab_size..]);
    }
}

/// What a backend on a GPU may answer without sending the logits: the same as whoever reads them finds.
#[test]
fn the_likeliest_tokens_are_those_of_the_rows() {
    let fixture = Fixture::open("gpt2-base");
    let ids = &fixture.rows("input_ids")[0];
    for options in backends() {
        let mut model = load(&fixture, &options);
        let all = all_logits(model.as_mut(), ids);
        let blocks = Blocks::of(model.as_ref()).sequence(ids.len()).blocks;
        let steps = [Step { tokens: ids, start: 0, blocks: &blocks, adapter: None, logits: ids.len() }];
        let mut logits = model.forward(&steps, &|| false).unwrap();
        let (best, top) = (logits.argmax().unwrap(), logits.top(3).unwrap());
        assert_eq!(logits.rows(), ids.len());
        assert!(logits.row(ids.len()).is_err());
        for ((row, best), top) in all.chunks_exact(all.len() / ids.len()).zip(best).zip(top) {
            assert_eq!(best, argmax(row));
            let mut order: Vec<u32> = (0..row.len() as u32).collect();
            order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
            let expected: Vec<_> = order[..3].iter().map(|id| (*id, row[*id as usize])).collect();
            assert_eq!(top, expected);
        }
    }
}

#[test]
fn a_step_that_cannot_be_is_refused() {
    let fixture = Fixture::open("gpt2-base");
    let ids = &fixture.rows("input_ids")[0];
    for options in backends() {
        let mut model = load(&fixture, &options);
        let positions = model.info().n_positions;
        let good = Step { tokens: &ids[..2], start: 0, blocks: &[0], adapter: None, logits: 2 };
        for (bad, code) in [
            (Step { tokens: &[], ..good }, "INPUT_INVALID"),
            (Step { tokens: &[u32::MAX], ..good }, "INPUT_INVALID"),
            (Step { start: positions - 1, ..good }, "INPUT_INVALID"),
            (Step { blocks: &[], ..good }, "INPUT_INVALID"),
            (Step { blocks: &[u32::MAX], ..good }, "INTERNAL"),
            (Step { adapter: Some(0), ..good }, "INPUT_INVALID"),
            (Step { logits: 3, ..good }, "INTERNAL"),
        ] {
            assert_eq!(model.forward(&[bad], &|| false).err().unwrap().code(), code, "{bad:?}");
        }
        assert!(model.forward(&[good], &|| false).is_ok());
    }
}
