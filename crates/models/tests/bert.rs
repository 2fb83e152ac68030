//! BERT equals transformers', on Candle and on the packed kernels, with every head and storage.

mod support;

use candlewick_models::{
    Dtype, Encoder, EncoderHead, EncoderInput, EncoderOutput, EncoderWant, Layers, LoadOptions, PooledWant,
    PoolingMode, Tokenizer, load_encoder,
};
use support::{Fixture, backends, close, half_error, relative_error};

const ALL: EncoderWant = EncoderWant {
    last_hidden_state: true,
    hidden_states: Layers::All,
    attentions: Layers::None,
    pooled: false,
    embedding: None,
    logits: false,
};

fn load(source: &str, options: &LoadOptions) -> Box<dyn Encoder> {
    load_encoder(source, options, &()).unwrap_or_else(|e| panic!("{source}: {e}")).model
}

/// The rows of a fixture without their padding.
fn inputs(fixture: &Fixture) -> Vec<EncoderInput> {
    let (ids, types) = (fixture.rows("input_ids"), fixture.rows("token_type_ids"));
    let lengths = fixture.rows("attention_mask").into_iter().map(|mask| mask.iter().sum::<u32>() as usize);
    ids.into_iter()
        .zip(types)
        .zip(lengths)
        .map(|((ids, types), len)| EncoderInput {
            ids: ids[..len].to_vec(),
            type_ids: types[..len].to_vec(),
            ..Default::default()
        })
        .collect()
}

#[test]
fn states_pooled_outputs_and_logits_equal_pytorch() {
    let fixtures = Fixture::all("bert-");
    assert!(fixtures.len() >= 12, "{} fixtures", fixtures.len());
    for fixture in fixtures {
        let texts = inputs(&fixture);
        for options in backends() {
            let mut model = load(fixture.source(), &options);
            let head = model.info().head;
            let want =
                EncoderWant { pooled: model.info().has_pooler, logits: head != EncoderHead::None, ..ALL };
            let outputs = model.forward(&texts, &want, &|| false).unwrap();
            for (i, (text, output)) in texts.iter().zip(&outputs).enumerate() {
                let what = format!("row {i}, {options:?}");
                check_row(&fixture, head, i, text.ids.len(), output, &what);
            }
        }
    }
}

/// Each text's last states in `dtype`, and those that PyTorch has in f32.
fn last_states(fixture: &Fixture, dtype: Dtype) -> Vec<(Vec<f32>, Vec<f32>)> {
    let options = LoadOptions { dtype: Some(dtype), ..Default::default() };
    let mut model = load(fixture.source(), &options);
    // A GPU holds int8 as f16.
    let held = if model.info().device == "cuda" && dtype == Dtype::Int8 { Dtype::F16 } else { dtype };
    assert_eq!(model.info().dtype, held);
    let outputs = model.forward(&inputs(fixture), &ALL, &|| false).unwrap();
    let last = format!("hidden_states.{}", model.info().layers);
    let expected = |(i, output): (usize, EncoderOutput)| {
        let rows = output.last_hidden_state.len() / model.info().hidden_size;
        (output.last_hidden_state, fixture.row(&last, i, Some(rows)))
    };
    outputs.into_iter().enumerate().map(expected).collect()
}

/// No farther from f32 than 1.1 times what PyTorch's own bf16 is.
#[test]
fn bf16_is_as_near_as_pytorchs() {
    for fixture in Fixture::all("bert-") {
        let (found, expected): (Vec<_>, Vec<_>) = last_states(&fixture, Dtype::Bf16).into_iter().unzip();
        let (error, bound) =
            (relative_error(&found.concat(), &expected.concat()), 1.1 * half_error(&fixture));
        assert!(error <= bound, "{}: {error}, PyTorch's by 1.1: {bound}", fixture.name);
        println!("{}: {:.2} of PyTorch's error", fixture.name, error / bound * 1.1);
    }
}

/// A text's states in int8 point where those in f32 do.
#[test]
fn int8_keeps_the_states_directions() {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    for fixture in Fixture::all("bert-") {
        for (i, (found, expected)) in last_states(&fixture, Dtype::Int8).iter().enumerate() {
            let cosine = dot(found, expected) / (dot(found, found) * dot(expected, expected)).sqrt();
            assert!(cosine >= 0.999, "{}, row {i}: {cosine}", fixture.name);
        }
    }
}

fn check_row(fixture: &Fixture, head: EncoderHead, i: usize, len: usize, output: &EncoderOutput, what: &str) {
    for (layer, state) in output.hidden_states.iter().enumerate() {
        let name = format!("hidden_states.{layer}");
        if fixture.has(&name) {
            fixture.check(&format!("{what}, {name}"), state, &fixture.row(&name, i, Some(len)));
        }
    }
    assert_eq!(Some(&output.last_hidden_state), output.hidden_states.last());
    if fixture.has("pooler_output") {
        fixture.check(&format!("{what}, pooled"), &output.pooled, &fixture.row("pooler_output", i, None));
    }
    match head {
        EncoderHead::QuestionAnswering => {
            let (starts, ends): (Vec<f32>, Vec<f32>) =
                output.logits.as_chunks::<2>().0.iter().map(|[s, e]| (*s, *e)).unzip();
            fixture.check(&format!("{what}, starts"), &starts, &fixture.row("start_logits", i, Some(len)));
            fixture.check(&format!("{what}, ends"), &ends, &fixture.row("end_logits", i, Some(len)));
        }
        EncoderHead::None => {}
        _ => {
            let len = (head != EncoderHead::SequenceClassification).then_some(len);
            fixture.check(&format!("{what}, logits"), &output.logits, &fixture.row("logits", i, len));
        }
    }
}

#[test]
fn a_stop_ends_between_layers() {
    let fixture = Fixture::open("bert-base");
    for options in backends() {
        let mut model = load(fixture.source(), &options);
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == 1;
        let error = model.forward(&inputs(&fixture), &ALL, &stop).unwrap_err();
        assert_eq!(error.code(), "ABORTED");
    }
}

/// all-MiniLM-L6-v2, where `tools/fetch-models.sh` has put it.
#[test]
fn the_real_minilm_equals_pytorch() {
    let cache = std::env::var("CANDLEWICK_CACHE")
        .unwrap_or_else(|_| format!("{}/.cache/candlewick", std::env::var("HOME").unwrap_or_default()));
    let folder = format!("{cache}/models/minilm");
    if !std::path::Path::new(&folder).exists() {
        eprintln!("skipped: {folder} is absent; tools/fetch-models.sh fetches it");
        return;
    }
    let fixture = Fixture::open("minilm");
    let texts: Vec<String> = serde_json::from_value(fixture.expected["texts"].clone()).unwrap();
    let ids = fixture.rows("ids");
    let tokenizer = Tokenizer::open(folder.as_ref()).unwrap().expect("a tokenizer");
    let encoded: Vec<_> = texts.iter().map(|text| tokenizer.encode_pair(text, None, None).unwrap()).collect();
    for (text, (encoded, ids)) in texts.iter().zip(encoded.iter().zip(&ids)) {
        assert_eq!(&encoded.ids, ids, "{text:?}");
    }
    let inputs: Vec<_> = encoded
        .into_iter()
        .map(|e| EncoderInput { ids: e.ids, type_ids: e.type_ids, ..Default::default() })
        .collect();
    for options in backends() {
        let mut model = load(&folder, &options);
        let want = EncoderWant { last_hidden_state: true, pooled: true, ..Default::default() };
        let outputs = model.forward(&inputs, &want, &|| false).unwrap();
        for (i, output) in outputs.iter().enumerate() {
            fixture.check(&format!("pooled {i}"), &output.pooled, &fixture.row("pooler_output", i, None));
            let name = format!("last_hidden_state.{i}");
            if fixture.has(&name) {
                fixture.check(&name, &output.last_hidden_state, &fixture.values(&name));
            }
            let h = output.pooled.len();
            let mut mean = vec![0.0f32; h];
            for row in output.last_hidden_state.chunks_exact(h) {
                mean.iter_mut().zip(row).for_each(|(m, x)| *m += x);
            }
            let norm = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
            mean.iter_mut().for_each(|x| *x /= norm);
            close(&format!("embedding {i}"), &mean, &fixture.row("embeddings", i, None), 1e-5, 0.0);
        }
    }
}

/// Every backend pools its own last hidden state, as the definition does.
#[test]
fn a_vector_is_pooled_where_the_states_are() {
    use PoolingMode::{Cls, Last, Max, Mean, MeanSqrtLength, WeightedMean};
    let fixture = Fixture::open("bert-classify-5");
    let texts = inputs(&fixture);
    for options in backends() {
        let mut model = load(fixture.source(), &options);
        for (modes, normalize, skipped) in [
            (vec![Mean], true, 0),
            (vec![Cls, Last], false, 1),
            (vec![Max, MeanSqrtLength, WeightedMean], false, 2),
        ] {
            let pooled = PooledWant { modes, normalize, skipped };
            let want = EncoderWant {
                last_hidden_state: true,
                embedding: Some(pooled.clone()),
                ..EncoderWant::default()
            };
            for (text, output) in texts.iter().zip(model.forward(&texts, &want, &|| false).unwrap()) {
                assert_eq!(output.embedding, pooled.apply(&output.last_hidden_state, text.ids.len()));
                let width = model.info().hidden_size;
                assert_eq!(output.embedding.len(), width * pooled.modes.len());
                if normalize {
                    let mean = |h: usize| {
                        let column = output.last_hidden_state.iter().skip(h).step_by(width);
                        column.map(|x| f64::from(*x)).sum::<f64>() / text.ids.len() as f64
                    };
                    let length = (0..width).map(|h| mean(h).powi(2)).sum::<f64>().sqrt();
                    for (h, x) in output.embedding.iter().enumerate() {
                        assert!((f64::from(*x) - mean(h) / length).abs() < 1e-5);
                    }
                }
            }
        }
    }
}
