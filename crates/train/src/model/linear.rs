//! y = x W + b, with or without a LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models") beside
//! it.

use candlewick_kernels::train::{
    Floats, Gemm, Start, View, add_dropout, column_sums, dropout_forward, scale,
};

use super::cpu::Cpu;
use super::params::{Id, Params};

/// y += scale · dropout(x) Aᵀ Bᵀ, A: (rank, in), B: (out, rank).
#[derive(Debug, Clone)]
pub struct Lora {
    pub a: Id,
    pub b: Id,
    pub rank: usize,
    /// alpha / rank.
    pub scale: f32,
    pub dropout: f32,
    /// Of the dropout's mask.
    pub site: u64,
}

#[derive(Debug, Clone)]
pub struct Linear {
    pub weight: Id,
    pub bias: Option<Id>,
    pub input: usize,
    pub output: usize,
    /// The weight is (in, out), as GPT-2's `Conv1D` has it; otherwise (out, in).
    pub conv1d: bool,
    pub lora: Option<Lora>,
}

/// Columns of a wider row-major matrix: its width, and where they begin.
pub type Columns = (usize, usize);

impl Linear {
    /// The weight as (in, out).
    fn view<'a>(&self, weight: &'a [f32]) -> View<'a> {
        if self.conv1d {
            View::new(weight, self.input, self.output)
        } else {
            View::new(weight, self.output, self.input).transposed()
        }
    }

    /// x: (rows, in) → out: (rows, out), or those columns of a wider matrix.
    pub fn forward(
        &self,
        cpu: &mut Cpu,
        params: &Params,
        x: &[f32],
        columns: Option<Columns>,
        out: &mut [f32],
    ) {
        let rows = x.len() / self.input;
        let x_view = View::new(x, rows, self.input);
        let bias = self.bias.map(|bias| params.value(bias));
        cpu.gemm(x_view, self.view(params.value(self.weight)), Gemm { bias, columns, ..Gemm::SET }, out);
        if let Some(lora) = &self.lora {
            let inner = lora.inner(cpu, params, &lora.dropped(cpu, x), self.input);
            let b = View::new(params.value(lora.b), self.output, lora.rank).transposed();
            cpu.gemm(View::new(&inner, rows, lora.rank), b, Gemm { columns, ..Gemm::ADD }, out);
        }
    }

    /// The gradients of the weights, and `dx` (rows, in) (+)= dy Wᵀ where it is wanted. `dy`: (rows, out), or those
    /// columns of a wider matrix.
    pub fn backward(
        &self,
        cpu: &mut Cpu,
        params: &mut Params,
        x: &[f32],
        dy: &[f32],
        columns: Option<Columns>,
        dx: Option<(&mut [f32], Start)>,
    ) {
        let rows = x.len() / self.input;
        let (width, first) = columns.unwrap_or((self.output, 0));
        let x_view = View::new(x, rows, self.input);
        let dy_view = View::columns(dy, rows, width, first, self.output);
        if let Some((_, gradient, start)) = params[self.weight].gradient() {
            let options = Gemm { start, ..Gemm::SET };
            if self.conv1d {
                cpu.gemm(x_view.transposed(), dy_view, options, gradient);
            } else {
                cpu.gemm(dy_view.transposed(), x_view, options, gradient);
            }
        }
        if let Some(bias) = self.bias
            && let Some((_, gradient, start)) = params[bias].gradient()
        {
            column_sums(&cpu.pool, dy, width, first, start == Start::Zero, gradient);
        }
        let mut dx = dx;
        if let Some((dx, start)) = &mut dx {
            let options = Gemm { start: *start, ..Gemm::SET };
            cpu.gemm(dy_view, self.view(params.value(self.weight)).transposed(), options, dx);
        }
        if let Some(lora) = &self.lora {
            lora.backward(cpu, params, x, dy_view, self, dx.map(|(dx, _)| dx));
        }
    }
}

impl Lora {
    fn dropped(&self, cpu: &Cpu, x: &[f32]) -> Floats {
        let mut dropped = Floats::zeroed(x.len());
        dropout_forward(&cpu.pool, cpu.dropout(self.dropout, self.site), x, &mut dropped);
        dropped
    }

    /// scale · dropout(x) Aᵀ: (rows, rank).
    fn inner(&self, cpu: &mut Cpu, params: &Params, dropped: &[f32], input: usize) -> Floats {
        let rows = dropped.len() / input;
        let mut inner = Floats::zeroed(rows * self.rank);
        let a = View::new(params.value(self.a), self.rank, input).transposed();
        cpu.gemm(View::new(dropped, rows, input), a, Gemm::SET, &mut inner);
        scale(&cpu.pool, self.scale, &mut inner);
        inner
    }

    fn backward(
        &self,
        cpu: &mut Cpu,
        params: &mut Params,
        x: &[f32],
        dy: View,
        linear: &Linear,
        dx: Option<&mut [f32]>,
    ) {
        let (input, output, rank) = (linear.input, linear.output, self.rank);
        let rows = x.len() / input;
        let dropped = self.dropped(cpu, x);
        let inner = self.inner(cpu, params, &dropped, input);
        let mut dinner = Floats::zeroed(rows * rank);
        cpu.gemm(dy, View::new(params.value(self.b), output, rank), Gemm::SET, &mut dinner);
        scale(&cpu.pool, self.scale, &mut dinner);
        if let Some((_, gradient, start)) = params[self.b].gradient() {
            let options = Gemm { start, ..Gemm::SET };
            cpu.gemm(dy.transposed(), View::new(&inner, rows, rank), options, gradient);
        }
        let dinner = View::new(&dinner, rows, rank);
        if let Some((_, gradient, start)) = params[self.a].gradient() {
            let options = Gemm { start, ..Gemm::SET };
            cpu.gemm(dinner.transposed(), View::new(&dropped, rows, input), options, gradient);
        }
        if let Some(dx) = dx {
            let mut ddropped = dropped;
            cpu.gemm(dinner, View::new(params.value(self.a), rank, input), Gemm::SET, &mut ddropped);
            add_dropout(&cpu.pool, cpu.dropout(self.dropout, self.site), &ddropped, dx);
        }
    }
}
