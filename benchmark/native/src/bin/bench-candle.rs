//! Plain Candle on the CPU in f32, as a program that uses it would: candle-transformers' `BertModel`, and for GPT-2,
//! which candle-transformers does not have, Candlewick's readable model on Candle's own operations with a key-value
//! cache that grows by concatenation. Candle takes its number of threads from `RAYON_NUM_THREADS`.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use candlewick_benchmark::{Result, locked_version, serve};
use candlewick_models::{Gpt2, ModelFolder, Params, Past, Weights, gpt2};
use serde_json::{Value, json};

#[derive(Default)]
struct Models {
    gpt2: Option<Gpt2>,
    bert: Option<BertModel>,
}

fn main() -> Result<()> {
    let mut models = Models::default();
    serve(|op, args| match op {
        "hello" => Ok(json!({ "version": locked_version("candle-core") })),
        "open" => models.open(args),
        "close" => {
            models = Models::default();
            Ok(Value::Null)
        }
        "generate" => models.generate(args),
        "encode" => models.encode(args),
        _ => Err(format!("no {op} here").into()),
    })
}

impl Models {
    fn open(&mut self, args: &Value) -> Result<Value> {
        let path = args["path"].as_str().ok_or("no path")?;
        if args["dtype"] != "f32" {
            return Err("f32 alone".into());
        }
        if args["kind"] == "bert" {
            self.bert = Some(load_bert(Path::new(path))?);
        } else {
            let folder = ModelFolder::open(path)?;
            let config = gpt2::Config::from_folder(&folder)?;
            let weights = Weights::open(&folder.path, "transformer")?;
            self.gpt2 = Some(Gpt2::load(&Params::new(&weights, Device::Cpu), &config)?);
        }
        Ok(Value::Null)
    }

    /// Greedy; the time of each token since the call, in milliseconds.
    fn generate(&self, args: &Value) -> Result<Value> {
        let model = self.gpt2.as_ref().ok_or("no GPT-2 is open")?;
        let prompt: Vec<u32> = serde_json::from_value(args["ids"].clone())?;
        let count = args["tokens"].as_u64().ok_or("how many tokens?")? as usize;
        let mut past: Vec<Past> = vec![None; model.config.n_layer];
        let (mut times, mut ids, mut next, mut seen) = (vec![], vec![], prompt, 0);
        let begin = Instant::now();
        while ids.len() < count {
            let tokens = next.len();
            let input = Tensor::new(next, &Device::Cpu)?.unsqueeze(0)?;
            let x = model.extend(&input, seen, &mut past, &|| false)?;
            seen += tokens;
            let logits = model.logits(&x.narrow(1, tokens - 1, 1)?.contiguous()?)?;
            let id = logits.flatten_all()?.argmax(0)?.to_scalar::<u32>()?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            ids.push(id);
            next = vec![id];
        }
        Ok(json!({ "times": times, "ids": ids }))
    }

    /// Texts of one length to the last hidden states of all tokens.
    fn encode(&self, args: &Value) -> Result<Value> {
        let model = self.bert.as_ref().ok_or("no BERT is open")?;
        let ids: Vec<Vec<u32>> = serde_json::from_value(args["ids"].clone())?;
        let begin = Instant::now();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let states = model.forward(&ids, &ids.zeros_like()?, None)?;
        let first = states.get(0)?.get(0)?.narrow(0, 0, 8)?.to_vec1::<f32>()?;
        Ok(json!({ "ms": begin.elapsed().as_secs_f64() * 1e3, "sample": first }))
    }
}

fn load_bert(folder: &Path) -> Result<BertModel> {
    let config: Config = serde_json::from_str(&std::fs::read_to_string(folder.join("config.json"))?)?;
    let file = folder.join("model.safetensors");
    // SAFETY: the benchmark's own file, which nobody changes while it is measured.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[file], DType::F32, &Device::Cpu)? };
    Ok(BertModel::load(weights, &config)?)
}
