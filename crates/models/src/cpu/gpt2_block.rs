//! A block of GPT-2 on packed kernels, over the rows of any number of sequences: what generation (`gpt2.rs`) and
//! classification (`gpt2_classifier.rs`) share. Where keys and values are is the caller's.

use candlewick_kernels::{Activation as Act, Layout, activation};

use crate::Result;
use crate::cpu::packed::{Cpu, Loader, Norm, PackedLinear, space};
use crate::reference::gpt2::Config;

pub(crate) struct Block {
    ln_1: Norm,
    c_attn: PackedLinear,
    attn_c_proj: PackedLinear,
    ln_2: Norm,
    c_fc: PackedLinear,
    mlp_c_proj: PackedLinear,
    activation: Act,
    /// What attention's scores are multiplied by.
    pub scale: f32,
}

/// The linear layers of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    AttentionInput,
    AttentionOutput,
    Fc,
    Proj,
}

/// What a block leaves to its caller.
pub(crate) trait Around {
    /// qkv: (M, 3 D), queries, keys and values side by side → out: (M, D).
    fn attend(&mut self, cpu: &mut Cpu, qkv: &[f32], out: &mut [f32]) -> Result<()>;

    /// Whether `adapt` changes anything in this pass.
    fn adapts(&self) -> bool {
        false
    }

    /// Adds to `out` (M, out) of the layer `part`, whose input was `x` (M, in).
    fn adapt(&self, _cpu: &mut Cpu, _part: Part, _x: &[f32], _out: &mut [f32]) {}
}

/// Activations of one pass; each grows to the largest one and stays.
#[derive(Default)]
pub(crate) struct Space {
    /// (M, D): the residual stream, before and after a half-block.
    pub x: Vec<f32>,
    pub y: Vec<f32>,
    /// (M, D)
    pub normal: Vec<f32>,
    /// (M, 3 D)
    pub qkv: Vec<f32>,
    /// (M, D)
    mixed: Vec<f32>,
    /// (M, inner)
    inner: Vec<f32>,
}

impl Block {
    pub fn load(load: &Loader<'_>, config: &Config, index: usize) -> Result<Self> {
        let (d, inner, eps) = (config.n_embd, config.n_inner(), config.layer_norm_epsilon);
        let name = |part: &str| format!("h.{index}.{part}");
        Ok(Self {
            ln_1: load.norm(&name("ln_1"), d, eps)?,
            c_attn: load.linear(&name("attn.c_attn"), Layout::InOut, d, 3 * d)?,
            attn_c_proj: load.linear(&name("attn.c_proj"), Layout::InOut, d, d)?,
            ln_2: load.norm(&name("ln_2"), d, eps)?,
            c_fc: load.linear(&name("mlp.c_fc"), Layout::InOut, d, inner)?,
            mlp_c_proj: load.linear(&name("mlp.c_proj"), Layout::InOut, inner, d)?,
            activation: config.activation_function.into(),
            scale: config.attention_scale(index) as f32,
        })
    }

    /// From `space.x` to `space.x`, (M, D).
    pub fn forward(
        &self,
        cpu: &mut Cpu,
        space_of: &mut Space,
        m: usize,
        around: &mut impl Around,
    ) -> Result<()> {
        let (d, wide) = (self.attn_c_proj.output(), self.c_fc.output());
        let Space { x, y, normal, qkv, mixed, inner } = space_of;
        let (x, y, normal) = (space(x, m * d), space(y, m * d), space(normal, m * d));
        let (qkv, mixed, inner) = (space(qkv, m * 3 * d), space(mixed, m * d), space(inner, m * wide));
        // An adapter's part comes after the base's own epilogue, row by row, so the other rows keep their bits.
        self.ln_1.forward(cpu, x, normal);
        self.c_attn.forward(cpu, &*normal, None, None, &mut *qkv);
        around.adapt(cpu, Part::AttentionInput, normal, qkv);
        around.attend(cpu, qkv, mixed)?;
        self.attn_c_proj.forward(cpu, &*mixed, None, Some(x), &mut *y);
        around.adapt(cpu, Part::AttentionOutput, mixed, y);
        self.ln_2.forward(cpu, y, normal);
        if around.adapts() {
            self.c_fc.forward(cpu, &*normal, None, None, &mut *inner);
            around.adapt(cpu, Part::Fc, normal, inner);
            activation(&cpu.pool, self.activation, inner);
        } else {
            self.c_fc.forward(cpu, &*normal, Some(self.activation), None, &mut *inner);
        }
        self.mlp_c_proj.forward(cpu, &*inner, None, Some(y), &mut *x);
        around.adapt(cpu, Part::Proj, inner, x);
        Ok(())
    }
}
