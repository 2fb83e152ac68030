//! LoRA beside a stack's linear layers, and into them.

use std::collections::BTreeMap;

use candlewick_kernels::train::{Floats, Gemm, View, random, scale};
use candlewick_models::{LoraWeights, ModelError, Names};

use super::cpu::Cpu;
use super::linear::{Linear, Lora};
use super::params::{Param, Params};
use super::stack::Stack;
use crate::{Result, TrainError};

#[derive(Debug, Clone, Copy)]
pub struct LoraShape {
    pub rank: usize,
    pub alpha: f32,
    pub dropout: f32,
}

/// Two matrices and their scale, as they begin.
struct Pair {
    rank: usize,
    scale: f32,
    /// (rank, in)
    a: Floats,
    /// (out, rank)
    b: Floats,
}

/// Asks `pair` for each linear layer, by its name and its place (block, layer of the block).
fn attach_each(
    stack: &mut Stack,
    params: &mut Params,
    dropout: f32,
    mut pair: impl FnMut(&str, &Linear, [u64; 2]) -> Option<Pair>,
) {
    for (index, block) in stack.blocks.iter_mut().enumerate() {
        // Those that the block does not use itself.
        let first_site = block.site + 8;
        for (place, linear) in block.linears_mut().into_iter().enumerate() {
            let weight = params[linear.weight].name.clone();
            let name = weight.strip_suffix(".weight").unwrap_or(&weight);
            let Some(Pair { rank, scale, a, b }) = pair(name, linear, [index as u64, place as u64]) else {
                continue;
            };
            linear.lora = Some(Lora {
                a: params.push(Param::new(format!("{name}.lora_A.weight"), &[rank, linear.input], a)),
                b: params.push(Param::new(format!("{name}.lora_B.weight"), &[linear.output, rank], b)),
                rank,
                scale,
                dropout,
                site: first_site + place as u64,
            });
        }
    }
}

/// Puts a new pair of matrices beside each linear layer whose name, as the checkpoint has it, ends in one of `targets`.
pub fn attach(
    stack: &mut Stack,
    params: &mut Params,
    lora: LoraShape,
    targets: &[String],
    names: Names,
    seed: u64,
) -> Result<()> {
    let mut unused: Vec<&String> = targets.iter().collect();
    attach_each(stack, params, lora.dropout, |name, linear, [index, place]| {
        let name = names.own(name);
        let fits = |target: &String| name == *target || name.ends_with(&format!(".{target}"));
        if !targets.iter().any(fits) {
            return None;
        }
        unused.retain(|target| !fits(target));
        // As PEFT: A is uniform within 1 / √in (Kaiming's with a = √5), B is zero.
        let mut a = Floats::zeroed(lora.rank * linear.input);
        let bound = 1.0 / (linear.input as f32).sqrt();
        let key = random::key(&[seed, u64::MAX, index, place]);
        a.iter_mut().enumerate().for_each(|(i, x)| *x = (2.0 * random::uniform(key, i as u32) - 1.0) * bound);
        let b = Floats::zeroed(linear.output * lora.rank);
        Some(Pair { rank: lora.rank, scale: lora.alpha / lora.rank as f32, a, b })
    });
    match unused.first() {
        Some(target) => Err(TrainError::option("lora", format!("no linear layer is named {target}"))),
        None => Ok(()),
    }
}

/// Puts the matrices of an adapter beside the linear layers that it names.
pub fn attach_given(
    stack: &mut Stack,
    params: &mut Params,
    mut modules: BTreeMap<String, LoraWeights>,
    dropout: f32,
) -> Result<()> {
    attach_each(stack, params, dropout, |name, linear, _| {
        let fits = |lora: &LoraWeights| (lora.input, lora.output) == (linear.input, linear.output);
        let LoraWeights { rank, scale, a, b, .. } = modules.remove(name).filter(fits)?;
        Some(Pair { rank, scale, a: Floats::from(&a[..]), b: Floats::from(&b[..]) })
    });
    match modules.into_keys().next() {
        Some(name) => Err(ModelError::UnsupportedModel(format!("training an adapter of {name}")).into()),
        None => Ok(()),
    }
}

/// W += scale · (B A), in the weight's own orientation; the adapters are then removed.
pub fn merge(cpu: &mut Cpu, stack: &mut Stack, params: &mut Params) {
    for linear in stack.blocks.iter_mut().flat_map(|block| block.linears_mut()) {
        let Linear { weight, input, output, conv1d, .. } = *linear;
        let Some(lora) = linear.lora.take() else { continue };
        let mut a = Floats::from(params.value(lora.a));
        scale(&cpu.pool, lora.scale, &mut a);
        let b = Floats::from(params.value(lora.b));
        let (a, b) = (View::new(&a, lora.rank, input), View::new(&b, output, lora.rank));
        let value = &mut params[weight].value;
        if conv1d {
            cpu.exact_gemm(a.transposed(), b.transposed(), Gemm::ADD, value);
        } else {
            cpu.exact_gemm(b, a, Gemm::ADD, value);
        }
    }
}
