//! What the CPU models are made of: weights packed for the kernels while they are read, one tensor at a time.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use candlewick_kernels::{
    Activation as Act, Active, Epilogue, KernelError, Layout, PackedMatrix, Pool, Scratch, WeightType, matmul,
};
use half::f16;

use crate::layers::Activation;
use crate::{Dtype, LoadObserver, LoadProgress, ModelError, Result, Values, Weights};

impl From<KernelError> for ModelError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Capacity { .. } => Self::Input(error.to_string()),
            _ => Self::Internal(error.to_string()),
        }
    }
}

impl From<Activation> for Act {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Gelu => Self::Gelu,
            Activation::GeluNew => Self::GeluNew,
            Activation::Relu => Self::Relu,
            Activation::Silu => Self::Silu,
            Activation::Tanh => Self::Tanh,
        }
    }
}

impl From<Dtype> for WeightType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Q8_0 => Self::Q8_0,
            Dtype::Q4_0 => Self::Q4_0,
        }
    }
}

/// Reads a checkpoint's tensors, packs them and counts the bytes.
pub(crate) struct Loader<'a> {
    weights: &'a Weights,
    pool: &'a Pool,
    /// As asked for; `None` keeps each tensor as it is stored.
    dtype: Option<Dtype>,
    observer: &'a dyn LoadObserver,
    total: u64,
    read: Cell<u64>,
    held: Cell<u64>,
}

impl<'a> Loader<'a> {
    pub fn new(
        weights: &'a Weights,
        pool: &'a Pool,
        dtype: Option<Dtype>,
        observer: &'a dyn LoadObserver,
    ) -> Self {
        let total = weights.total_bytes();
        Self { weights, pool, dtype, observer, total, read: Cell::new(0), held: Cell::new(0) }
    }

    /// Bytes of weights in memory so far.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Values> {
        if self.observer.stop() {
            return Err(ModelError::Stopped);
        }
        let values = self.weights.read(name, shape)?;
        let read = self.read.get() + values.bytes() as u64;
        self.read.set(read);
        self.observer.progress(LoadProgress { done: read.min(self.total), total: self.total });
        Ok(values)
    }

    fn hold(&self, bytes: usize) {
        self.held.set(self.held.get() + bytes as u64);
    }

    pub fn vector(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.values(name, shape)?.into_f32();
        self.hold(4 * values.len());
        Ok(values)
    }

    /// A matrix of `n` outputs and `k` inputs. Where the block of a quantised type does not divide K, f16 takes its place.
    pub fn matrix(&self, name: &str, layout: Layout, n: usize, k: usize) -> Result<PackedMatrix> {
        let layout = self.weights.layout(layout);
        let shape = if layout == Layout::OutIn { [n, k] } else { [k, n] };
        self.pack(self.values(name, &shape)?, layout, n, k)
    }

    fn pack(&self, values: Values, layout: Layout, n: usize, k: usize) -> Result<PackedMatrix> {
        let mut weight_type = WeightType::from(self.dtype.unwrap_or(values.dtype()));
        if weight_type.is_block_quantized() && !k.is_multiple_of(candlewick_kernels::BLOCK) {
            weight_type = WeightType::F16;
        }
        let pool = self.pool;
        let packed = match values {
            Values::F16(values) => PackedMatrix::pack_from_f16(pool, weight_type, layout, n, k, &values)?,
            Values::Q8_0(blocks) if weight_type == WeightType::Q8_0 => {
                PackedMatrix::pack_q8_0(pool, n, k, &blocks)?
            }
            Values::Q4_0(blocks) if weight_type == WeightType::Q4_0 => {
                PackedMatrix::pack_q4_0(pool, n, k, &blocks)?
            }
            values => PackedMatrix::pack(pool, weight_type, layout, n, k, &values.into_f32())?,
        };
        self.hold(packed.bytes());
        Ok(packed)
    }

    /// `nn.Linear` (`Layout::OutIn`) or `Conv1D` (`Layout::InOut`).
    pub fn linear(&self, name: &str, layout: Layout, input: usize, output: usize) -> Result<PackedLinear> {
        self.linear_named(&format!("{name}.weight"), &format!("{name}.bias"), layout, input, output)
    }

    /// As `linear`, under any two names: a head that is tied to an embedding.
    pub fn linear_named(
        &self,
        weight: &str,
        bias: &str,
        layout: Layout,
        input: usize,
        output: usize,
    ) -> Result<PackedLinear> {
        let weight = self.matrix(weight, layout, output, input)?;
        Ok(PackedLinear { weight, bias: self.vector(bias, &[output])? })
    }

    /// Several `nn.Linear` of one input as one product, outputs side by side.
    pub fn fused(&self, names: &[String], input: usize, output: usize) -> Result<PackedLinear> {
        let mut all = Vec::new();
        let mut bias = Vec::new();
        for name in names {
            all.extend(self.values(&format!("{name}.weight"), &[output, input])?.into_f32());
            bias.extend(self.vector(&format!("{name}.bias"), &[output])?);
        }
        let weight = self.pack(Values::F32(all), Layout::OutIn, names.len() * output, input)?;
        Ok(PackedLinear { weight, bias })
    }

    pub fn norm(&self, name: &str, width: usize, eps: f64) -> Result<Norm> {
        let part = |part: &str| self.vector(&format!("{name}.{part}"), &[width]);
        Ok(Norm { weight: part("weight")?, bias: part("bias")?, eps: eps as f32 })
    }

    /// An embedding that is only looked up: row-major, in half precision unless the model computes in f32.
    pub fn table(&self, name: &str, rows: usize, width: usize) -> Result<Table> {
        let values = match self.values(name, &[rows, width])? {
            half @ Values::F16(_) => half,
            values if self.dtype.is_none_or(|dtype| dtype == Dtype::F32) => Values::F32(values.into_f32()),
            values => Values::F16(values.into_f32().into_iter().map(f16::from_f32).collect()),
        };
        self.hold(values.bytes());
        Ok(Table { values, width })
    }
}

/// y = x Wᵀ + b.
pub(crate) struct PackedLinear {
    weight: PackedMatrix,
    bias: Vec<f32>,
}

impl PackedLinear {
    pub fn output(&self) -> usize {
        self.weight.n()
    }

    /// x: (M, in) → out: (M, out); out = activation(x Wᵀ + b) + residual.
    pub fn forward(
        &self,
        cpu: &mut Cpu,
        x: &[f32],
        activation: Option<Act>,
        residual: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let epilogue = Epilogue { bias: Some(&self.bias), activation, residual };
        matmul(&cpu.pool, x, x.len() / self.weight.k(), &self.weight, epilogue, &mut cpu.scratch, out);
    }
}

pub(crate) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    /// x, out: (M, width).
    pub fn forward(&self, cpu: &Cpu, x: &[f32], out: &mut [f32]) {
        let width = self.weight.len();
        let rows = x.len() / width;
        candlewick_kernels::layer_norm(&cpu.pool, x, rows, width, &self.weight, &self.bias, self.eps, out);
    }
}

/// Rows to look up.
pub(crate) struct Table {
    values: Values,
    width: usize,
}

impl Table {
    /// out += row.
    pub fn add_row(&self, row: usize, out: &mut [f32]) {
        let range = row * self.width..(row + 1) * self.width;
        match &self.values {
            Values::F32(values) => out.iter_mut().zip(&values[range]).for_each(|(o, x)| *o += x),
            Values::F16(values) => out.iter_mut().zip(&values[range]).for_each(|(o, x)| *o += x.to_f32()),
            Values::Q8_0(_) | Values::Q4_0(_) => unreachable!("tables are never quantised"),
        }
    }
}

/// The threads and the work space of one model.
pub(crate) struct Cpu {
    pub pool: Arc<Pool>,
    pub scratch: Scratch,
}

impl Cpu {
    pub fn new(threads: usize) -> Self {
        let threads = if threads == 0 { candlewick_kernels::default_threads() } else { threads };
        Self { pool: Arc::new(Pool::new(threads)), scratch: Scratch::new() }
    }

    /// Keeps the helper threads awake while the guard lives.
    pub fn awake(&self) -> Box<dyn Any> {
        let pool = Arc::clone(&self.pool);
        // SAFETY: only the lifetime changes. The pool lives at a fixed address in the Arc that the guard is stored with, and
        // the guard, declared first, is dropped before it.
        let guard = unsafe { std::mem::transmute::<Active<'_>, Active<'static>>(pool.active()) };
        Box::new(Awake { _guard: guard, _pool: pool })
    }
}

struct Awake {
    _guard: Active<'static>,
    _pool: Arc<Pool>,
}

/// A buffer of `len` values, grown when needed and kept; its content is overwritten.
pub(crate) fn space(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
