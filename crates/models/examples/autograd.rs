//! `autograd FOLDER [ROWS [LENGTH]]`: a forward and a backward pass of a GPT-2 on Candle's autograd, without an
//! optimiser: what `crates/train`, which has its own passes, is compared with.

use std::time::Instant;

use candle_core::{Device, Tensor};
use candlewick_models::layers::{cross_entropy, ids_tensor};
use candlewick_models::{Gpt2, ModelFolder, Params, Weights, gpt2};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = ModelFolder::open(&args.next().ok_or("which folder?")?)?;
    let mut number = |default: usize| args.next().map_or(Ok(default), |text| text.parse());
    let (rows, length) = (number(4)?, number(128)?);
    let config = gpt2::Config::from_folder(&folder)?;
    let weights = Weights::open(&folder.path, "transformer")?;
    let params = Params::trainable(&weights, Device::Cpu);
    let model = Gpt2::load(&params, &config)?;
    let ids: Vec<Vec<u32>> = (0..rows)
        .map(|row| (0..length).map(|t| ((row * 7919 + t * 104_729) % config.vocab_size) as u32).collect())
        .collect();
    let slices: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let targets: Vec<u32> = ids.concat();
    for _ in 0..4 {
        let begin = Instant::now();
        let logits = model.forward(&ids_tensor(&slices, &Device::Cpu)?)?;
        let flat = logits.reshape(((), config.vocab_size))?;
        let loss = cross_entropy(&flat, &Tensor::new(targets.clone(), &Device::Cpu)?)?;
        let forward = begin.elapsed().as_secs_f64();
        loss.backward()?;
        let all = begin.elapsed().as_secs_f64();
        println!(
            "forward {forward:.2} s, backward {:.2} s, {:.0} tokens/s",
            all - forward,
            (rows * length) as f64 / all
        );
    }
    Ok(())
}
