//! Every kernel again, as plain loops: the definition that the fast ones are held to, bit for bit.
//!
//! The order of every sum is written out here: products reduce K ascending into one accumulator per output (bf16 in
//! pairs, whose second value comes first); sums over a row go to lane i % 16 and are folded by [`math::fold`];
//! attention adds its keys in ascending absolute position.

use crate::attention_job::{AttentionJob, KvSource};
use crate::bf16::to_bf16;
use crate::blocks::quantize_input;
use crate::kv::{KV_BLOCK, Store};
use crate::math::fold;
use crate::types::{Activation, BLOCK, Epilogue, INT8_BLOCK, LANES};
use crate::{Input, KvPool, Output, PackedMatrix, WeightType, int8, math};

/// out[M, N] = activation(x[M, K] · wᵀ + bias) + residual.
pub fn matmul(x: &[f32], m: usize, w: &PackedMatrix, ep: &Epilogue, out: &mut [f32]) {
    let (n, k) = (w.n(), w.k());
    let mut weights = vec![0.0; k];
    for col in 0..n {
        if !w.weight_type().is_integer() {
            w.dequantize_row(col, &mut weights);
        }
        for row in 0..m {
            let x = &x[row * k..][..k];
            let sum = match w.weight_type() {
                WeightType::Q8_0 | WeightType::Q4_0 => dot_blocks(x, w, col),
                WeightType::Int8 => dot_int8(x, w, col),
                WeightType::Bf16 => dot_pairs(x, &weights),
                _ => x.iter().zip(&weights).fold(0f32, |acc, (x, w)| x.mul_add(*w, acc)),
            };
            let sum = ep.bias.map_or(sum, |bias| sum + bias[col]);
            let y = ep.activation.map_or(sum, |activation| apply(activation, sum));
            out[row * n + col] = ep.residual.map_or(y, |residual| y + residual[row * n + col]);
        }
    }
}

/// Of each pair along K the second value is added first, as VDPBF16PS does.
fn dot_pairs(x: &[f32], weights: &[f32]) -> f32 {
    x.chunks(2).zip(weights.chunks(2)).fold(0f32, |acc, (x, w)| {
        x.iter().zip(w).rev().fold(acc, |acc, (x, w)| to_bf16(*x).to_f32().mul_add(*w, acc))
    })
}

fn dot_blocks(x: &[f32], w: &PackedMatrix, col: usize) -> f32 {
    let mut acc = 0f32;
    for (block, x) in x.chunks_exact(BLOCK).enumerate() {
        let (dx, xq, _) = quantize_input(x.try_into().expect("32 values"));
        let (dw, wq) = w.block(col, block);
        let sum: i32 = xq.iter().zip(wq).map(|(x, w)| i32::from(*x) * w).sum();
        acc = (sum as f32).mul_add(dx * dw, acc);
    }
    acc
}

fn dot_int8(x: &[f32], w: &PackedMatrix, col: usize) -> f32 {
    let mut acc = 0f32;
    for (block, values) in x.chunks(INT8_BLOCK).enumerate() {
        let mut x = [0.0; INT8_BLOCK];
        x[..values.len()].copy_from_slice(values);
        let ((dx, xq), (dw, wq)) = (int8::quantize_input(x), w.int8_block(col, block));
        let sum: i32 = xq.iter().zip(wq).map(|(x, w)| i32::from(*x) * i32::from(w)).sum();
        acc = (sum as f32).mul_add(dx * dw, acc);
    }
    acc
}

pub fn apply(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::GeluNew => math::gelu_new(x),
        Activation::Gelu => math::gelu(x),
        Activation::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Activation::Silu => math::silu(x),
        Activation::Tanh => math::tanh(x),
    }
}

/// Per row of `width`: (x - mean) / sqrt(variance + eps) * weight + bias.
pub fn layer_norm(x: &[f32], width: usize, weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mut lanes = [0f32; LANES];
        x.iter().enumerate().for_each(|(i, x)| lanes[i % LANES] += x);
        let mean = fold(lanes) / width as f32;
        let mut lanes = [0f32; LANES];
        x.iter()
            .enumerate()
            .for_each(|(i, x)| lanes[i % LANES] = (x - mean).mul_add(x - mean, lanes[i % LANES]));
        let scale = 1.0 / (fold(lanes) / width as f32 + eps).sqrt();
        for i in 0..width {
            out[i] = ((x[i] - mean) * scale).mul_add(weight[i], bias[i]);
        }
    }
}

fn max(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |max, x| if max < *x { *x } else { max })
}

/// x ← exp(x - max); returns their sum.
fn exponentials(x: &mut [f32]) -> f32 {
    let max = max(x);
    let mut lanes = [0f32; LANES];
    for (i, x) in x.iter_mut().enumerate() {
        *x = math::exp(*x - max);
        lanes[i % LANES] += *x;
    }
    fold(lanes)
}

pub fn softmax_row(x: &mut [f32]) {
    let scale = 1.0 / exponentials(x);
    x.iter_mut().for_each(|x| *x *= scale);
}

pub fn log_softmax_row(x: &mut [f32]) {
    let max = max(x);
    let log_sum = f64::from(exponentials(&mut x.to_vec())).ln() as f32;
    x.iter_mut().for_each(|x| *x = *x - max - log_sum);
}

/// The first index of the largest value; 0 for an empty row or one of NaNs.
pub fn argmax(x: &[f32]) -> usize {
    let mut best = (f32::NEG_INFINITY, 0);
    for (i, x) in x.iter().enumerate() {
        if best.0 < *x {
            best = (*x, i);
        }
    }
    best.1
}

/// One job, one head and one row at a time.
pub fn attention(job: &mut AttentionJob, heads: usize, head_dim: usize, scale: f32, causal: bool) {
    for row in 0..job.rows {
        for head in 0..heads {
            let keys = if causal { job.start + row + 1 } else { job.kv.len() };
            let q = |d: usize| value_of(&job.q, row * job.q_stride + head * head_dim + d);
            let bf16 = job.kv.is_bf16();
            let input = |x: f32| if bf16 { to_bf16(x).to_f32() } else { x };
            let mut scores: Vec<f32> = (0..keys)
                .map(|j| {
                    let k = |d: usize| input(key(&job.kv, head, head_dim, j, d));
                    let score = sum(bf16, head_dim, |acc, d| input(q(d)).mul_add(k(d), acc)) * scale;
                    job.bias.map_or(score, |bias| score + bias.of(head, job.start + row)[j])
                })
                .collect();
            let total = 1.0 / exponentials(&mut scores);
            for d in 0..head_dim {
                let v = |j: usize| input(value(&job.kv, head, head_dim, j, d));
                let sum = sum(bf16, keys, |acc, j| input(scores[j]).mul_add(v(j), acc));
                let at = (row * heads + head) * head_dim + d;
                match &mut job.out {
                    Output::F32(out) => out[at] = sum * total,
                    Output::Bf16(out) => out[at] = to_bf16(sum * total),
                }
            }
        }
    }
}

fn value_of(x: &Input, at: usize) -> f32 {
    match x {
        Input::F32(x) => x[at],
        Input::Bf16(x) => x[at].to_f32(),
    }
}

/// Adds for each i in 0..n, ascending; in bf16 in pairs, whose second comes first.
fn sum(bf16: bool, n: usize, add: impl Fn(f32, usize) -> f32) -> f32 {
    let step = if bf16 { 2 } else { 1 };
    (0..n).step_by(step).fold(0.0, |acc, i| (i..n.min(i + step)).rev().fold(acc, &add))
}

fn key(kv: &KvSource, head: usize, head_dim: usize, j: usize, d: usize) -> f32 {
    match kv {
        KvSource::Rows { k, k_stride, .. } => value_of(k, j * k_stride + head * head_dim + d),
        KvSource::Blocks { pool, layer, blocks, .. } => {
            let (shape, at) = (pool.shape(), j % KV_BLOCK);
            let step = shape.kv_type.depth();
            let at = (at / LANES * head_dim.div_ceil(step) + d / step) * LANES + at % LANES;
            element(pool, blocks[j / KV_BLOCK], shape.offset(*layer, head) + at, d % step)
        }
    }
}

fn value(kv: &KvSource, head: usize, head_dim: usize, j: usize, d: usize) -> f32 {
    match kv {
        KvSource::Rows { v, v_stride, .. } => value_of(v, j * v_stride + head * head_dim + d),
        KvSource::Blocks { pool, layer, blocks, .. } => {
            let shape = pool.shape();
            let step = shape.kv_type.depth();
            let at = shape.keys() + j % KV_BLOCK / step * shape.padded_dim() + d;
            element(pool, blocks[j / KV_BLOCK], shape.offset(*layer, head) + at, j % step)
        }
    }
}

/// The `part`-th value of element `at`.
fn element(pool: &KvPool, block: u32, at: usize, part: usize) -> f32 {
    let block = block as usize;
    match pool.store() {
        Store::F32(blocks) => blocks[block].as_ref().expect("a block that was written")[at],
        Store::F16(blocks) => blocks[block].as_ref().expect("a block that was written")[at].to_f32(),
        Store::Bf16(blocks) => blocks[block].as_ref().expect("a block that was written")[at][part].to_f32(),
    }
}
