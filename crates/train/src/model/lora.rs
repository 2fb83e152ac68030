//! LoRA beside a stack's linear layers, and into them.

use std::collections::BTreeMap;

use candlewick_kernels::train::{Floats, Gemm, View, random, scale};
use candlewick_models::{LoraWeights, ModelError};

use super::cpu::Cpu;
use super::linear::{Linear, Lora};
use super::params::{Param, Params};
use super::stack::Stack;
use crate::Result;

/// Of one layer's matrices.
#[derive(Debug, Clone, Copy)]
pub struct LoraShape {
    pub rank: usize,
    pub scale: f32,
}

/// Of a head's dropout masks: above those of any block.
const HEAD_SITE: u64 = 1 << 40;

/// Two matrices and their scale, as they begin.
struct Pair {
    rank: usize,
    scale: f32,
    /// (rank, in)
    a: Floats,
    /// (out, rank)
    b: Floats,
}

/// All linear layers, the stack's and then `heads`: each with its place (block, layer of the block) and the site of its
/// dropout.
fn places<'a>(
    stack: &'a mut Stack,
    heads: Vec<&'a mut Linear>,
) -> impl Iterator<Item = ([u64; 2], u64, &'a mut Linear)> {
    let blocks = stack.blocks.iter_mut().enumerate().flat_map(|(index, block)| {
        // Those that the block does not use itself.
        let first_site = block.site + 8;
        let place = move |(place, linear)| ([index as u64, place as u64], first_site + place as u64, linear);
        block.linears_mut().into_iter().enumerate().map(place)
    });
    let head = |(place, linear)| ([HEAD_SITE, place as u64], HEAD_SITE + place as u64, linear);
    blocks.chain(heads.into_iter().enumerate().map(head))
}

/// Asks `pair` for each linear layer, by its name and its place.
fn attach_each(
    stack: &mut Stack,
    heads: Vec<&mut Linear>,
    params: &mut Params,
    dropout: f32,
    mut pair: impl FnMut(&str, &Linear, [u64; 2]) -> Option<Pair>,
) {
    for (place, site, linear) in places(stack, heads) {
        let weight = params[linear.weight].name.clone();
        let name = weight.strip_suffix(".weight").unwrap_or(&weight);
        let Some(Pair { rank, scale, a, b }) = pair(name, linear, place) else { continue };
        linear.lora = Some(Lora {
            a: params.push(Param::new(format!("{name}.lora_A.weight"), &[rank, linear.input], a)),
            b: params.push(Param::new(format!("{name}.lora_B.weight"), &[linear.output, rank], b)),
            rank,
            scale,
            dropout,
            site,
        });
    }
}

/// Puts a new pair of matrices beside each linear layer of the stack and of `heads` that `shape` has one for, by its
/// name.
pub fn attach(
    stack: &mut Stack,
    heads: Vec<&mut Linear>,
    params: &mut Params,
    dropout: f32,
    seed: u64,
    mut shape: impl FnMut(&str) -> Option<LoraShape>,
) {
    attach_each(stack, heads, params, dropout, |name, linear, [index, place]| {
        let LoraShape { rank, scale } = shape(name)?;
        // As PEFT: A is uniform within 1 / √in (Kaiming's with a = √5), B is zero.
        let mut a = Floats::zeroed(rank * linear.input);
        let bound = 1.0 / (linear.input as f32).sqrt();
        let key = random::key(&[seed, u64::MAX, index, place]);
        a.iter_mut().enumerate().for_each(|(i, x)| *x = (2.0 * random::uniform(key, i as u32) - 1.0) * bound);
        let b = Floats::zeroed(linear.output * rank);
        Some(Pair { rank, scale, a, b })
    });
}

/// Puts the matrices of an adapter beside the linear layers that it names.
pub fn attach_given(
    stack: &mut Stack,
    heads: Vec<&mut Linear>,
    params: &mut Params,
    mut modules: BTreeMap<String, LoraWeights>,
    dropout: f32,
) -> Result<()> {
    attach_each(stack, heads, params, dropout, |name, linear, _| {
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
pub fn merge(cpu: &mut Cpu, stack: &mut Stack, heads: Vec<&mut Linear>, params: &mut Params) {
    for (_, _, linear) in places(stack, heads) {
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
