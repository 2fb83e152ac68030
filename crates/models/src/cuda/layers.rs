//! What GPT-2 and BERT have in common on a GPU: weights as they are loaded, norms, attention.

use std::cell::Cell;
use std::sync::Arc;

use candlewick_kernels::Layout;
use cudarc::driver::CudaFunction;

use crate::contract::load::Reading;
use crate::cuda::gpu::{Arg, Buffer, Gpu, Kernels, Type};
use crate::cuda::linear::{Linear, Output, Products};
use crate::reference::layers::Activation;
use crate::{LoadObserver, ModelError, Result, Weights};

/// Queries of a block of `attention` (`ROWS` in kernels.cu), and of `attention_mma`.
const ROWS: usize = 16;
const ROWS_MMA: usize = 64;
/// Keys of a part: `SPLIT`.
pub(crate) const SPLIT: usize = 128;
/// Positions of a block of the cache: `TILE`.
pub(crate) const TILE: usize = 32;
/// A head's width at most.
const WIDEST: usize = 128;

pub(crate) struct Norm {
    weight: Buffer,
    bias: Buffer,
    width: usize,
    eps: f32,
}

pub(crate) struct Runner {
    pub gpu: Arc<Gpu>,
    pub kind: Type,
    pub kernels: Kernels,
    pub products: Products,
    /// On tensor cores where the type and the heads' width allow it.
    attention: CudaFunction,
    /// Queries of an item of attention.
    pub rows: usize,
    mma: bool,
}

/// A launch of `attention`.
pub(crate) struct Attention {
    pub out: u64,
    pub qkv: u64,
    /// The layer's part of the cache; 0: keys and values are in `qkv`, and every query sees all of them.
    pub cache: u64,
    /// Elements of a block of the cache.
    pub block_stride: usize,
    /// (items, 4)
    pub items: u64,
    pub count: usize,
    /// Queries of an item, at most.
    pub rows: usize,
    /// (sequences, `table_stride`)
    pub tables: u64,
    pub table_stride: usize,
    pub heads: usize,
    pub dim: usize,
    pub scale: f32,
    /// Space for the parts, and how many there are at most; `None`: a block goes through all keys.
    pub parts: Option<(u64, usize)>,
}

impl Runner {
    /// `dim`: width of a head.
    pub fn new(gpu: Arc<Gpu>, kind: Type, dim: usize) -> Result<Self> {
        let (kernels, products) = (gpu.kernels(kind)?, Products::new(gpu.clone(), kind)?);
        let mma = kind != Type::F32 && matches!(dim, 32 | 64);
        let attention = gpu.attention(kind, mma.then_some(dim))?;
        Ok(Self { gpu, kind, kernels, products, attention, rows: if mma { ROWS_MMA } else { ROWS }, mma })
    }

    /// x's rows `from` (0: the first), as `rows` rows of `out`; as floats in `same` too, unless that is 0.
    pub fn norm(&self, norm: &Norm, x: u64, from: u64, rows: usize, out: u64, same: u64) -> Result<()> {
        self.norm_apart(norm, x, norm.width, from, rows, out, same)
    }

    /// The same of rows that lie `pitch` elements apart.
    #[allow(clippy::too_many_arguments)] // of a launch
    pub fn norm_apart(
        &self,
        norm: &Norm,
        x: u64,
        pitch: usize,
        from: u64,
        rows: usize,
        out: u64,
        same: u64,
    ) -> Result<()> {
        let args = [
            Arg::At(out),
            Arg::At(same),
            Arg::At(x),
            Arg::At(from),
            Arg::At(norm.weight.at),
            Arg::At(norm.bias.at),
            Arg::Int(norm.width as i32),
            Arg::Int(pitch as i32),
            Arg::Float(norm.eps),
            Arg::Int(rows as i32),
        ];
        self.gpu.launch(&self.kernels.layer_norm, [rows.div_ceil(4), 1, 1], 128, 0, &args)
    }

    pub fn attention(&self, a: &Attention) -> Result<()> {
        let (heads, dim) = (Arg::Int(a.heads as i32), Arg::Int(a.dim as i32));
        let (parts, count) = a.parts.unwrap_or((0, 1));
        let causal = i32::from(a.cache != 0);
        let args = [
            Arg::At(a.out),
            Arg::At(a.qkv),
            Arg::At(a.cache),
            Arg::At(a.items),
            Arg::At(a.tables),
            Arg::Int(a.table_stride as i32),
            Arg::Long(a.block_stride as i64),
            heads,
            dim,
            Arg::Float(a.scale),
            Arg::At(parts),
            Arg::Int(causal),
        ];
        let shared = if self.mma { 0 } else { 4 * (TILE * (a.dim + 1) + TILE * a.dim + ROWS * a.dim) };
        self.gpu.launch(&self.attention, [a.count, a.heads, count], 128, shared, &args)?;
        if a.parts.is_none() {
            return Ok(());
        }
        let args = [
            Arg::At(a.out),
            Arg::At(parts),
            Arg::At(a.items),
            Arg::Int(count as i32),
            Arg::Int(a.heads as i32),
            Arg::Int(a.dim as i32),
            Arg::Int(causal),
        ];
        self.gpu.launch(&self.kernels.combine, [a.count, a.heads, 1], 32 * a.rows.min(16) as u32, 0, &args)
    }

    /// Bytes of the space for parts.
    pub fn parts_bytes(rows: usize, heads: usize, parts: usize, dim: usize) -> usize {
        4 * rows * heads * parts * (dim + 2)
    }

    /// x's rows `from` (0: the first), which lie `pitch` elements apart, as `rows` rows of `out`.
    pub fn gather(&self, x: u64, pitch: usize, from: u64, rows: usize, width: usize, out: u64) -> Result<()> {
        let args = [Arg::At(out), Arg::At(x), Arg::At(from), Arg::Int(width as i32), Arg::Int(pitch as i32)];
        self.gpu.launch(&self.kernels.gather, [rows, 1, 1], 128, 0, &args)
    }
}

/// Puts a checkpoint's tensors on a GPU.
pub(crate) struct Loader<'a> {
    weights: &'a Weights,
    runner: &'a Runner,
    reading: Reading<'a>,
    held: Cell<u64>,
}

impl<'a> Loader<'a> {
    pub fn new(weights: &'a Weights, runner: &'a Runner, observer: &'a dyn LoadObserver) -> Self {
        let reading = Reading::new(observer, weights.total_bytes());
        Self { weights, runner, reading, held: Cell::new(0) }
    }

    /// Bytes on the GPU so far.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.reading.proceed()?;
        let values = self.weights.read(name, shape)?;
        self.reading.took(values.bytes());
        Ok(values.into_f32())
    }

    fn hold(&self, bytes: usize) {
        self.held.set(self.held.get() + bytes as u64);
    }

    /// As it lies in the file, for a product that takes it from there; not held.
    pub fn raw(&self, name: &str, shape: &[usize]) -> Result<Buffer> {
        self.runner.gpu.filled(&self.runner.kind.encode(&self.values(name, shape)?))
    }

    pub fn table(&self, name: &str, shape: &[usize]) -> Result<Buffer> {
        let table = self.raw(name, shape)?;
        self.hold(table.len());
        Ok(table)
    }

    pub fn norm(&self, name: &str, width: usize, eps: f64) -> Result<Norm> {
        let vector = |part: &str| {
            let values = self.values(&format!("{name}.{part}"), &[width])?;
            self.hold(4 * width);
            self.runner.gpu.filled(bytemuck::cast_slice(&values))
        };
        Ok(Norm { weight: vector("weight")?, bias: vector("bias")?, width, eps: eps as f32 })
    }

    /// `name`.weight and .bias; `in_out`: GPT-2's Conv1D.
    pub fn linear(
        &self,
        name: &str,
        sizes: (usize, usize),
        in_out: bool,
        to: Output,
        activation: Option<Activation>,
    ) -> Result<Linear> {
        let layout = if in_out { Layout::InOut } else { Layout::OutIn };
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        self.product(&[(weight, bias)], sizes, layout, to, activation)
    }

    /// Several layers of equal sizes (out, in) as one, their outputs one after the other.
    pub fn fused(&self, names: &[String], sizes: (usize, usize), to: Output) -> Result<Linear> {
        let names: Vec<_> =
            names.iter().map(|name| (format!("{name}.weight"), format!("{name}.bias"))).collect();
        self.product(&names, sizes, Layout::OutIn, to, None)
    }

    /// A head whose weight (out, in) and bias have names of their own, as floats.
    pub fn named(&self, weight: &str, bias: &str, sizes: (usize, usize)) -> Result<Linear> {
        self.product(&[(weight.to_owned(), bias.to_owned())], sizes, Layout::OutIn, Output::F32, None)
    }

    /// `names`: of weights and biases.
    fn product(
        &self,
        names: &[(String, String)],
        (input, output): (usize, usize),
        layout: Layout,
        to: Output,
        activation: Option<Activation>,
    ) -> Result<Linear> {
        let in_out = self.weights.layout(layout) == Layout::InOut;
        let shape = if in_out { [input, output] } else { [output, input] };
        let mut biases = Vec::new();
        for (_, bias) in names {
            biases.extend(self.values(bias, &[output])?);
        }
        let linear =
            Linear::new(&self.runner.products, (input, output * names.len()), Some(&biases), to, activation)?;
        for (index, (weight, _)) in names.iter().enumerate() {
            let raw = self.raw(weight, &shape)?;
            linear.place(&self.runner.products, raw.at, index * output, output, in_out)?;
        }
        self.hold(linear.bytes());
        Ok(linear)
    }

    /// The product with a table (out, in) that is on the GPU, without bias, as floats.
    pub fn tied(&self, table: &Buffer, (input, output): (usize, usize)) -> Result<Linear> {
        let linear = Linear::new(&self.runner.products, (input, output), None, Output::F32, None)?;
        linear.place(&self.runner.products, table.at, 0, output, false)?;
        self.hold(linear.bytes());
        Ok(linear)
    }
}

/// What the kernels can take of a model's shape.
pub(crate) fn check_shape(width: usize, heads: usize) -> Result<()> {
    let dim = width / heads;
    if dim > WIDEST {
        return Err(ModelError::UnsupportedModel(format!(
            "heads of {dim} elements on cuda, at most {WIDEST}"
        )));
    }
    Ok(())
}
