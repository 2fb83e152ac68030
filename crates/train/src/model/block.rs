//! A transformer block, with its norms before what they normalise (GPT-2) or after the sum (BERT).

use candlewick_kernels::Activation;
use candlewick_kernels::train::{
    Attention, Bias, Floats, Start, activation_backward, activation_forward, add_dropout, attention_backward,
    attention_forward, dropout_backward, layer_norm_backward, layer_norm_forward,
};

use super::cpu::Cpu;
use super::linear::Linear;
use super::params::{Id, Params};
use super::relative::Distances;

#[derive(Debug, Clone)]
pub struct Norm {
    pub weight: Id,
    pub bias: Id,
    pub eps: f32,
}

impl Norm {
    /// x, out: (rows, D); stats: (rows, 2).
    pub fn forward(&self, cpu: &Cpu, params: &Params, x: &[f32], stats: &mut [f32], out: &mut [f32]) {
        let (weight, bias) = (params.value(self.weight), params.value(self.bias));
        layer_norm_forward(&cpu.pool, x, weight, bias, self.eps, stats, out);
    }

    /// dx (+)= the gradient of the norm's input.
    #[allow(clippy::too_many_arguments)] // the operands of one formula
    pub fn backward(
        &self,
        cpu: &Cpu,
        params: &mut Params,
        dy: &[f32],
        x: &[f32],
        stats: &[f32],
        start: Start,
        dx: &mut [f32],
    ) {
        let [weight, bias] = params.all.get_disjoint_mut([self.weight, self.bias]).expect("two parameters");
        let add = start == Start::Add;
        match (weight.gradient(), bias.gradient()) {
            (Some((value, dweight, start)), Some((_, dbias, _))) => {
                let gradients = Some((dweight, dbias, start == Start::Zero));
                layer_norm_backward(&cpu.pool, dy, x, value, stats, add, dx, gradients);
            }
            _ => layer_norm_backward(&cpu.pool, dy, x, &weight.value, stats, add, dx, None),
        }
    }
}

pub struct Block {
    /// GPT-2; otherwise BERT.
    pub norm_first: bool,
    pub ln_1: Norm,
    /// One with outputs for queries, keys and values, or three.
    pub qkv: Vec<Linear>,
    pub proj: Linear,
    pub ln_2: Norm,
    pub fc: Linear,
    pub out: Linear,
    pub heads: usize,
    pub scale: f32,
    pub activation: Activation,
    pub attention_dropout: f32,
    /// Of what is added to the residual stream: attention's output, and the feed-forward layers'.
    pub attention_output_dropout: f32,
    pub dropout: f32,
    /// First of the numbers of this block's dropout masks.
    pub site: u64,
}

/// What a block's backward pass needs of its forward pass.
#[derive(Default)]
pub struct Saved {
    /// (rows, D): the input.
    pub x: Floats,
    qkv: Floats,
    /// (rows, D): attention's output.
    mixed: Floats,
    /// (heads, rows)
    sums: Floats,
    /// (rows, D): the residual stream after attention; before its norm in BERT.
    middle: Floats,
    /// (rows, inner): before the activation.
    inner: Floats,
    /// (rows, D): BERT's sum before the last norm.
    last: Floats,
    stats_1: Floats,
    stats_2: Floats,
}

/// Work space that all blocks share.
#[derive(Default)]
pub struct Space {
    a: Floats,
    b: Floats,
    wide: Floats,
    dwide: Floats,
    dqkv: Floats,
    pub distances: Distances,
}

impl Block {
    /// In the order of the forward pass.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.qkv.iter_mut().chain([&mut self.proj, &mut self.fc, &mut self.out]).collect()
    }

    fn d(&self) -> usize {
        self.proj.output
    }

    fn attention<'a>(&self, cpu: &Cpu, starts: &'a [usize], bias: Option<Bias<'a>>) -> Attention<'a> {
        Attention {
            starts,
            heads: self.heads,
            width: self.d() / self.heads,
            scale: self.scale,
            causal: self.norm_first,
            dropout: cpu.dropout(self.attention_dropout, self.site),
            bias,
        }
    }

    /// Columns of queries, keys and values that the i-th of `qkv` computes.
    fn columns(&self, i: usize) -> Option<(usize, usize)> {
        (self.qkv.len() == 3).then_some((3 * self.d(), i * self.d()))
    }

    /// saved.x (rows, D) → y (rows, D).
    pub fn forward(
        &self,
        cpu: &mut Cpu,
        params: &Params,
        starts: &[usize],
        saved: &mut Saved,
        space: &mut Space,
        y: &mut [f32],
    ) {
        let (d, inner) = (self.d(), self.fc.output);
        let rows = y.len() / d;
        let x = &saved.x[..rows * d];
        let stats_1 = saved.stats_1.at_least(2 * rows);
        let stats_2 = saved.stats_2.at_least(2 * rows);
        let a = space.a.at_least(rows * d);
        let qkv = saved.qkv.at_least(rows * 3 * d);
        let from = if self.norm_first {
            self.ln_1.forward(cpu, params, x, stats_1, a);
            &*a
        } else {
            x
        };
        for (i, linear) in self.qkv.iter().enumerate() {
            linear.forward(cpu, params, from, self.columns(i), qkv);
        }
        let mixed = saved.mixed.at_least(rows * d);
        let attention = self.attention(cpu, starts, space.distances.bias());
        let sums = saved.sums.at_least(rows * self.heads);
        attention_forward(&cpu.pool, attention, qkv, &mut cpu.attention, mixed, sums);
        let b = space.b.at_least(rows * d);
        self.proj.forward(cpu, params, mixed, None, b);
        let middle = saved.middle.at_least(rows * d);
        middle.copy_from_slice(x);
        add_dropout(&cpu.pool, cpu.dropout(self.attention_output_dropout, self.site + 1), b, middle);
        if self.norm_first {
            self.ln_2.forward(cpu, params, middle, stats_2, a);
        } else {
            self.ln_1.forward(cpu, params, middle, stats_1, a);
        }
        let before = saved.inner.at_least(rows * inner);
        self.fc.forward(cpu, params, a, None, before);
        let wide = space.wide.at_least(rows * inner);
        activation_forward(&cpu.pool, self.activation, before, wide);
        self.out.forward(cpu, params, wide, None, b);
        let dropout = cpu.dropout(self.dropout, self.site + 2);
        if self.norm_first {
            y.copy_from_slice(middle);
            add_dropout(&cpu.pool, dropout, b, y);
        } else {
            let last = saved.last.at_least(rows * d);
            last.copy_from_slice(a);
            add_dropout(&cpu.pool, dropout, b, last);
            self.ln_2.forward(cpu, params, last, stats_2, y);
        }
    }

    /// dy ← dx. `forward` has filled `saved` with the same masks.
    pub fn backward(
        &self,
        cpu: &mut Cpu,
        params: &mut Params,
        starts: &[usize],
        saved: &mut Saved,
        space: &mut Space,
        dy: &mut [f32],
    ) {
        let (d, inner) = (self.d(), self.fc.output);
        let rows = dy.len() / d;
        let x = &saved.x[..rows * d];
        let stats_1 = &mut saved.stats_1[..2 * rows];
        let stats_2 = &mut saved.stats_2[..2 * rows];
        let middle = &saved.middle[..rows * d];
        let before = &saved.inner[..rows * inner];
        let (a, b) = (space.a.at_least(rows * d), space.b.at_least(rows * d));

        if !self.norm_first {
            self.ln_2.backward(cpu, params, dy, &saved.last[..rows * d], stats_2, Start::Zero, b);
            dy.copy_from_slice(b);
        }
        // dy is the gradient of both addends of the last sum.
        b.copy_from_slice(dy);
        dropout_backward(&cpu.pool, cpu.dropout(self.dropout, self.site + 2), b);
        let wide = space.wide.at_least(rows * inner);
        activation_forward(&cpu.pool, self.activation, before, wide);
        let dwide = space.dwide.at_least(rows * inner);
        self.out.backward(cpu, params, wide, b, None, Some((dwide, Start::Zero)));
        activation_backward(&cpu.pool, self.activation, before, dwide);
        if self.norm_first {
            self.ln_2.forward(cpu, params, middle, stats_2, a);
            self.fc.backward(cpu, params, a, dwide, None, Some((b, Start::Zero)));
            self.ln_2.backward(cpu, params, b, middle, stats_2, Start::Add, dy);
        } else {
            self.ln_1.forward(cpu, params, middle, stats_1, a);
            self.fc.backward(cpu, params, a, dwide, None, Some((dy, Start::Add)));
            self.ln_1.backward(cpu, params, dy, middle, stats_1, Start::Zero, b);
            dy.copy_from_slice(b);
        }
        // dy is the gradient of both addends of the first sum.
        b.copy_from_slice(dy);
        dropout_backward(&cpu.pool, cpu.dropout(self.attention_output_dropout, self.site + 1), b);
        let mixed = &saved.mixed[..rows * d];
        let dqkv = space.dqkv.at_least(rows * 3 * d);
        self.proj.backward(cpu, params, mixed, b, None, Some((a, Start::Zero)));
        let (bias, dbias) = space.distances.for_backward();
        let attention = self.attention(cpu, starts, bias);
        let (qkv, sums) = (&saved.qkv[..rows * 3 * d], &saved.sums[..rows * self.heads]);
        attention_backward(&cpu.pool, attention, qkv, mixed, sums, a, &mut cpu.attention, dqkv, dbias);
        if self.norm_first {
            self.ln_1.forward(cpu, params, x, stats_1, a);
            for (i, linear) in self.qkv.iter().enumerate() {
                let start = if i == 0 { Start::Zero } else { Start::Add };
                linear.backward(cpu, params, a, dqkv, self.columns(i), Some((b, start)));
            }
            self.ln_1.backward(cpu, params, b, x, stats_1, Start::Add, dy);
        } else {
            for (i, linear) in self.qkv.iter().enumerate() {
                linear.backward(cpu, params, x, dqkv, self.columns(i), Some((dy, Start::Add)));
            }
        }
    }
}
