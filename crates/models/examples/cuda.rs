//! What a GPU does with GPT-2 and BERT, without Node: logits for a comparison with PyTorch, equal bits in every batch,
//! and speeds. The kit runs it (`npm run test:cuda -- --bundle`).
//!
//!     cuda GPT2_FOLDER BERT_FOLDER DTYPE OUT [profile]
//!
//! `profile` runs prefills, a few decoded tokens and a batch of texts once, for a profiler (ncu) that shows launches.
use std::fs;
use std::time::Instant;

use candlewick_models::{
    CausalBackend, Device, Dtype, EncoderInput, EncoderWant, LoadOptions, PooledWant, PoolingMode, Step,
    load_causal, load_encoder,
};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// Token `i` of sequence `lane`: any ids.
fn token(lane: usize, i: usize, vocabulary: usize) -> u32 {
    ((lane * 7919 + i * 104_729 + 17) % vocabulary) as u32
}

fn tokens(lane: usize, count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|i| token(lane, i, vocabulary)).collect()
}

struct Lane {
    tokens: Vec<u32>,
    blocks: Vec<u32>,
    done: usize,
}

/// Runs `counts[i]` tokens of each lane and returns the last row's logits, or only the likeliest ids.
fn step(
    model: &mut dyn CausalBackend,
    lanes: &mut [Lane],
    count: usize,
    read: bool,
) -> Anyhow<Vec<Vec<f32>>> {
    let steps: Vec<Step<'_>> = lanes
        .iter()
        .map(|lane| Step {
            tokens: &lane.tokens[lane.done..lane.done + count],
            start: lane.done,
            blocks: &lane.blocks,
            adapter: None,
            logits: 1,
        })
        .collect();
    let mut logits = model.forward(&steps, &|| false)?;
    let mut rows = Vec::new();
    let mut next = Vec::new();
    for index in 0..logits.rows() {
        if read {
            rows.push(logits.row(index)?.to_vec());
        }
        next.push(logits.best(index)?.unwrap_or(0));
    }
    drop(logits);
    for (lane, next) in lanes.iter_mut().zip(next) {
        lane.done += count;
        if lane.done == lane.tokens.len() {
            lane.tokens.push(next);
        }
    }
    Ok(rows)
}

/// Lanes with blocks of their own, in an order that is not ascending.
fn lanes(
    count: usize,
    length: usize,
    most: usize,
    spec: candlewick_models::KvSpec,
    vocabulary: usize,
) -> Vec<Lane> {
    let each = most.div_ceil(spec.positions);
    (0..count)
        .map(|lane| {
            let blocks = (0..each).map(|i| ((lane * each + i) * 3 + 1) as u32 % spec.blocks as u32);
            Lane { tokens: tokens(lane, length, vocabulary), blocks: blocks.collect(), done: 0 }
        })
        .collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn seconds<T>(run: impl FnOnce() -> Anyhow<T>) -> Anyhow<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64())
}

fn show(what: &str, count: usize, length: usize, times: Vec<f64>) {
    let time = median(times);
    let speed = (count * length) as f64 / time;
    println!("{what} {count} x {length}: {:.2} ms, {speed:.0} tok/s", 1e3 * time);
}

fn decode(model: &mut dyn CausalBackend, count: usize, context: usize) -> Anyhow<f64> {
    let (spec, v) = (model.kv(), model.info().vocab_size);
    let mut all = lanes(count, context, context + 80, spec, v);
    let mut at = 0;
    while at < context {
        let part = (8192 / count).clamp(1, context - at);
        step(model, &mut all, part, false)?;
        at += part;
    }
    let mut times = Vec::new();
    for index in 0..64 {
        let time = seconds(|| step(model, &mut all, 1, false))?;
        if index >= 8 {
            times.push(time);
        }
    }
    Ok(count as f64 / median(times))
}

fn gpt2(folder: &str, options: &LoadOptions, out: &str) -> Anyhow<()> {
    let start = Instant::now();
    let mut model = load_causal(folder, options, &())?.model;
    println!(
        "gpt2 load_s {:.2} device {} dtype {:?}",
        start.elapsed().as_secs_f64(),
        model.info().device,
        model.info().dtype
    );
    let (spec, v) = (model.kv(), model.info().vocab_size);
    // A prompt of 300 tokens in one step, then 20 tokens one by one: the last row's logits after each.
    let whole = |model: &mut dyn CausalBackend, lane: usize| -> Anyhow<Vec<Vec<f32>>> {
        let mut one = vec![lanes(lane + 1, 320, 340, spec, v).swap_remove(lane)];
        let mut rows = step(model, &mut one, 300, true)?;
        for _ in 0..19 {
            rows.extend(step(model, &mut one, 1, true)?);
        }
        Ok(rows)
    };
    let alone = whole(model.as_mut(), 0)?;
    let bytes: Vec<u8> = alone.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(format!("{out}/gpt2-logits.f32"), bytes)?;
    // Equal bits: again; in batches; in other chunks.
    let mut same = vec![("again".to_owned(), whole(model.as_mut(), 0)? == alone)];
    for count in [2, 7, 16, 33] {
        let mut all = lanes(count, 320, 340, spec, v);
        let mut rows = vec![step(model.as_mut(), &mut all, 300, true)?.swap_remove(0)];
        for _ in 0..19 {
            rows.push(step(model.as_mut(), &mut all, 1, true)?.swap_remove(0));
        }
        same.push((format!("batch{count}"), rows == alone));
    }
    let mut chunks = lanes(1, 320, 340, spec, v);
    let mut last = Vec::new();
    for part in [1, 2, 13, 16, 17, 100, 151] {
        last = step(model.as_mut(), &mut chunks, part, true)?;
    }
    same.push(("chunks".to_owned(), last[0] == alone[0]));
    println!("gpt2 equal bits {same:?}");
    for (count, context) in [(1, 128), (1, 900), (8, 256), (64, 256), (256, 256), (512, 256)] {
        if count * (context + 80usize).div_ceil(spec.positions) > spec.blocks {
            println!("gpt2 decode {count} x {context}: the cache holds {} blocks", spec.blocks);
            continue;
        }
        println!("gpt2 decode {count} x {context}: {:.0} tok/s", decode(model.as_mut(), count, context)?);
    }
    for (count, length) in [(1, 512), (16, 512)] {
        let mut times = Vec::new();
        for _ in 0..8 {
            let mut all = lanes(count, length, length, spec, v);
            times.push(seconds(|| step(model.as_mut(), &mut all, length, false))?);
        }
        show("gpt2 prefill", count, length, times);
    }
    Ok(())
}

fn bert(folder: &str, options: &LoadOptions, out: &str) -> Anyhow<()> {
    let start = Instant::now();
    let mut model = load_encoder(folder, options, &())?.model;
    println!("bert load_s {:.2} dtype {:?}", start.elapsed().as_secs_f64(), model.info().dtype);
    let v = model.info().vocab_size;
    let input = |lane: usize, length: usize| EncoderInput {
        ids: tokens(lane, length, v),
        type_ids: vec![0; length],
        logits_at: Vec::new(),
    };
    let want = EncoderWant { last_hidden_state: true, ..EncoderWant::default() };
    let batch: Vec<_> =
        [128, 5, 77, 300].iter().enumerate().map(|(lane, length)| input(lane, *length)).collect();
    let states = model.forward(&batch, &want, &|| false)?;
    let bytes: Vec<u8> =
        states.iter().flat_map(|o| &o.last_hidden_state).flat_map(|x| x.to_le_bytes()).collect();
    fs::write(format!("{out}/bert-states.f32"), bytes)?;
    let mut same = true;
    for (index, one) in batch.iter().enumerate() {
        let alone = model.forward(std::slice::from_ref(one), &want, &|| false)?;
        same &= alone[0].last_hidden_state == states[index].last_hidden_state;
    }
    println!("bert equal bits {same}");
    let pooled = PooledWant { modes: vec![PoolingMode::Cls], normalize: true, skipped: 0 };
    let want = EncoderWant { embedding: Some(pooled), ..EncoderWant::default() };
    for (count, length) in [(1, 16), (1, 128), (32, 128), (128, 128)] {
        let batch: Vec<_> = (0..count).map(|lane| input(lane, length)).collect();
        let mut times = Vec::new();
        for _ in 0..12 {
            times.push(seconds(|| Ok(model.forward(&batch, &want, &|| false)?))?);
        }
        show("bert", count, length, times);
    }
    Ok(())
}

fn profile(causal: &str, encoder: &str, options: &LoadOptions) -> Anyhow<()> {
    let mut model = load_causal(causal, options, &())?.model;
    let (spec, v) = (model.kv(), model.info().vocab_size);
    for count in [1, 16, 64] {
        let mut all = lanes(count, 128, 132, spec, v);
        step(model.as_mut(), &mut all, 128, false)?;
        (0..2).try_for_each(|_| step(model.as_mut(), &mut all, 1, false).map(drop))?;
    }
    step(model.as_mut(), &mut lanes(16, 512, 512, spec, v), 512, false)?;
    let mut model = load_encoder(encoder, options, &())?.model;
    let ids = tokens(0, 128, model.info().vocab_size);
    let text = EncoderInput { ids, type_ids: vec![0; 128], logits_at: Vec::new() };
    let pooled = PooledWant { modes: vec![PoolingMode::Cls], normalize: true, skipped: 0 };
    let want = EncoderWant { embedding: Some(pooled), ..EncoderWant::default() };
    model.forward(&vec![text; 32], &want, &|| false)?;
    Ok(())
}

fn main() -> Anyhow<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [causal, encoder, dtype, out, rest @ ..] = arguments.as_slice() else {
        return Err("cuda GPT2_FOLDER BERT_FOLDER f32|f16|bf16 OUT [profile]".into());
    };
    let dtype = match dtype.as_str() {
        "f32" => Dtype::F32,
        "f16" => Dtype::F16,
        _ => Dtype::Bf16,
    };
    let kv_cache_bytes = Some(20 << 30);
    let options =
        LoadOptions { dtype: Some(dtype), device: Device::Cuda(0), kv_cache_bytes, ..LoadOptions::default() };
    if rest.iter().any(|mode| mode == "profile") {
        return profile(causal, encoder, &options);
    }
    fs::create_dir_all(out)?;
    gpt2(causal, &options, out)?;
    bert(encoder, &options, out)
}
