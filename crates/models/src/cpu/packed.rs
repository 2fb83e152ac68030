//! Building blocks of the CPU models: weights are packed for the kernels while they are read, one tensor at a time.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use candlewick_kernels::{
    Activation as Act, Epilogue, Input, KernelError, Layout, Output, PackedMatrix, Packing, Pool, Scratch,
    WeightType, layer_norm, matmul,
};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::contract::load::Reading;
use crate::reference::layers::Activation;
use crate::{Dtype, LoadObserver, LoraWeights, ModelError, Result, Stored, Values, Weights};

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
            Dtype::Bf16 => Self::Bf16,
            Dtype::Q8_0 => Self::Q8_0,
            Dtype::Q4_0 => Self::Q4_0,
            Dtype::Int8 => Self::Int8,
        }
    }
}

/// Reads a checkpoint's tensors, packs them and counts the bytes.
pub(crate) struct Loader<'a> {
    weights: &'a Weights,
    pool: &'a Pool,
    /// As asked for; `None` keeps each tensor as it is stored.
    dtype: Option<Dtype>,
    reading: Reading<'a>,
    held: Cell<u64>,
    /// Packs a matrix part by part, so that memory never holds a matrix twice.
    part: RefCell<Vec<u8>>,
}

/// Bytes that are read and packed at once: less than a core's cache.
const PART: usize = 512 << 10;
/// Outputs that the packed layout keeps together.
const PANEL: usize = 16;

impl<'a> Loader<'a> {
    pub fn new(
        weights: &'a Weights,
        pool: &'a Pool,
        dtype: Option<Dtype>,
        observer: &'a dyn LoadObserver,
    ) -> Self {
        Self {
            weights,
            pool,
            dtype,
            reading: Reading::new(observer, weights.total_bytes()),
            held: Cell::new(0),
            part: RefCell::default(),
        }
    }

    /// Bytes of weights in memory so far.
    pub fn held(&self) -> u64 {
        self.held.get()
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Values> {
        self.reading.proceed()?;
        let values = self.weights.read(name, shape)?;
        self.reading.took(values.bytes());
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

    /// A matrix of `n` outputs and `k` inputs. Where the block of a quantised type does not divide K, f16 takes its
    /// place.
    pub fn matrix(&self, name: &str, layout: Layout, n: usize, k: usize) -> Result<PackedMatrix> {
        self.matrices(self.dtype, &[name], layout, n, k)
    }

    /// Matrices of one shape as one, outputs side by side: (names × n) outputs.
    fn matrices(
        &self,
        dtype: Option<Dtype>,
        names: &[&str],
        layout: Layout,
        n: usize,
        k: usize,
    ) -> Result<PackedMatrix> {
        let layout = self.weights.layout(layout);
        let shape = if layout == Layout::OutIn { [n, k] } else { [k, n] };
        let stored: Vec<_> =
            names.iter().map(|name| self.weights.stored(name, &shape)).collect::<Result<_>>()?;
        let mut weight_type = WeightType::from(dtype.unwrap_or_else(|| self.weights.native_dtype(names[0])));
        if weight_type.is_block_quantized() && !k.is_multiple_of(candlewick_kernels::BLOCK) {
            weight_type = WeightType::F16;
        }
        let packed = if stored.len() > 1 && !n.is_multiple_of(PANEL) {
            // A panel with outputs of two matrices: rare and small, so through one copy of them all.
            let mut all = Vec::new();
            for name in names {
                all.extend(self.values(name, &shape)?.into_f32());
            }
            PackedMatrix::pack(self.pool, weight_type, layout, names.len() * n, k, &all)?
        } else {
            let mut packing = Packing::new(self.pool, weight_type, names.len() * n, k)?;
            for (i, stored) in stored.iter().enumerate() {
                self.pack(stored, layout, i * n, n, k, &mut packing)?;
                if !packing.is_finite() {
                    return Err(ModelError::not_finite(names[i]));
                }
            }
            packing.finish()
        };
        self.hold(packed.bytes());
        Ok(packed)
    }

    /// Packs a matrix as the outputs from `first` on.
    fn pack(
        &self,
        stored: &Stored<'_>,
        layout: Layout,
        first: usize,
        n: usize,
        k: usize,
        packing: &mut Packing<'_>,
    ) -> Result<()> {
        let row = stored.source.row_bytes(k);
        let part = match layout {
            Layout::OutIn => (PART / row / PANEL * PANEL).clamp(PANEL, n.next_multiple_of(PANEL)),
            Layout::InOut => n,
        };
        let mut bytes = self.part.borrow_mut();
        for at in (0..n).step_by(part) {
            self.reading.proceed()?;
            let rows = part.min(n - at);
            let size = if layout == Layout::OutIn { rows * row } else { stored.bytes };
            if bytes.len() < size {
                bytes.resize(size, 0);
            }
            stored.read(at * row, &mut bytes[..size])?;
            match layout {
                Layout::OutIn => packing.rows(first + at, rows, stored.source, &bytes[..size])?,
                Layout::InOut => packing.columns(stored.source, &bytes[..size])?,
            }
            self.reading.took(size);
        }
        Ok(())
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

    /// A layer that few rows pass, or that has few outputs: int8 would save nothing there.
    pub fn head(&self, name: &str, input: usize, output: usize) -> Result<PackedLinear> {
        let dtype = if self.dtype == Some(Dtype::Int8) { Some(Dtype::Bf16) } else { self.dtype };
        self.fused(dtype, &[name], input, output)
    }

    /// As `head`, of a layer without a bias.
    pub fn head_without_bias(&self, name: &str, input: usize, output: usize) -> Result<PackedLinear> {
        let dtype = if self.dtype == Some(Dtype::Int8) { Some(Dtype::Bf16) } else { self.dtype };
        let weight = self.matrices(dtype, &[name], Layout::OutIn, output, input)?;
        Ok(PackedLinear { weight, bias: vec![0.0; output] })
    }

    /// Query, key and value: `nn.Linear`s of one input as one product, outputs side by side; or as two, the second
    /// being the value.
    pub fn attention_input(
        &self,
        names: [&str; 3],
        input: usize,
        output: usize,
    ) -> Result<(PackedLinear, Option<PackedLinear>)> {
        let fused = |dtype, names: &[&str]| self.fused(dtype, names, input, output);
        match self.dtype {
            // Of all products the value's is the one that int8 costs most: with it in bf16 the least cosine of
            // MiniLM's vectors over 3,060 texts is 0.9993, else 0.9988.
            Some(Dtype::Int8) => {
                Ok((fused(Some(Dtype::Int8), &names[..2])?, Some(fused(Some(Dtype::Bf16), &names[2..])?)))
            }
            // The softmax over q·k magnifies what quantising costs: with these three in half precision the vectors of
            // MiniLM in q8_0 keep a cosine of 0.9995 to those in f32, else 0.9989 (the least of 440 hard texts).
            Some(Dtype::Q8_0 | Dtype::Q4_0) => Ok((fused(Some(Dtype::F16), &names)?, None)),
            dtype => Ok((fused(dtype, &names)?, None)),
        }
    }

    /// Several `nn.Linear` of one input as one product, outputs side by side.
    fn fused(
        &self,
        dtype: Option<Dtype>,
        names: &[&str],
        input: usize,
        output: usize,
    ) -> Result<PackedLinear> {
        let weights: Vec<_> = names.iter().map(|name| format!("{name}.weight")).collect();
        let weights: Vec<_> = weights.iter().map(String::as_str).collect();
        let weight = self.matrices(dtype, &weights, Layout::OutIn, output, input)?;
        let mut bias = Vec::new();
        for name in names {
            bias.extend(self.vector(&format!("{name}.bias"), &[output])?);
        }
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
            values => {
                let halves = Values::F16(values.into_f32().into_iter().map(f16::from_f32).collect());
                if !halves.are_finite() {
                    return Err(ModelError::not_finite(name));
                }
                halves
            }
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
    pub fn forward<'a>(
        &self,
        cpu: &mut Cpu,
        x: impl Into<Input<'a>>,
        activation: Option<Act>,
        residual: Option<&[f32]>,
        out: impl Into<Output<'a>>,
    ) {
        let (x, epilogue) = (x.into(), Epilogue { bias: Some(&self.bias), activation, residual });
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
        self.forward_rounded(cpu, x, out, None);
    }

    /// As `forward`; `rounded` gets the same in bf16.
    pub fn forward_rounded(&self, cpu: &Cpu, x: &[f32], out: &mut [f32], rounded: Option<&mut [bf16]>) {
        let (width, weight, bias) = (self.weight.len(), &self.weight, &self.bias);
        layer_norm(&cpu.pool, x, x.len() / width, width, weight, bias, self.eps, out, rounded);
    }
}

/// What an adapter adds to one linear layer.
pub(crate) struct PackedLora {
    /// (rank, in) and, with the scale in it, (out, rank): always f32, for they are small.
    a: PackedMatrix,
    b: PackedMatrix,
}

impl PackedLora {
    pub fn new(pool: &Pool, lora: &LoraWeights) -> Result<Self> {
        let scaled: Vec<f32> = lora.b.iter().map(|b| b * lora.scale).collect();
        let pack =
            |n, k, values: &[f32]| PackedMatrix::pack(pool, WeightType::F32, Layout::OutIn, n, k, values);
        Ok(Self { a: pack(lora.rank, lora.input, &lora.a)?, b: pack(lora.output, lora.rank, &scaled)? })
    }

    pub fn bytes(&self) -> usize {
        self.a.bytes() + self.b.bytes()
    }

    /// x: (M, in) → out += scale · (x Aᵀ) Bᵀ: (M, out).
    pub fn add(&self, cpu: &mut Cpu, x: &[f32], out: &mut [f32]) {
        let m = x.len() / self.a.k();
        let mut low = vec![0.0; m * self.a.n()];
        let mut delta = vec![0.0; out.len()];
        matmul(&cpu.pool, x, m, &self.a, Epilogue::default(), &mut cpu.scratch, &mut low);
        matmul(&cpu.pool, &low, m, &self.b, Epilogue::default(), &mut cpu.scratch, &mut delta);
        out.iter_mut().zip(&delta).for_each(|(out, delta)| *out += delta);
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
            Values::F16(values) => {
                // Whole vectors: a single value's conversion is a call.
                let mut some = [0.0; 64];
                for (out, values) in out.chunks_mut(some.len()).zip(values[range].chunks(some.len())) {
                    let some = &mut some[..values.len()];
                    values.convert_to_f32_slice(some);
                    out.iter_mut().zip(some).for_each(|(o, x)| *o += *x);
                }
            }
            Values::Q8_0(_) | Values::Q4_0(_) => unreachable!("tables are never quantised"),
        }
    }
}

/// The environment variable that names another instruction set than the machine's best: to compare them.
const ISA: &str = "CANDLEWICK_ISA";

/// The threads and the work space of one model.
pub(crate) struct Cpu {
    pub pool: Arc<Pool>,
    pub scratch: Scratch,
}

impl Cpu {
    /// # Errors
    /// `UnsupportedDevice`: `CANDLEWICK_ISA` names an instruction set that there is not, or that this machine lacks.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = if threads == 0 { candlewick_kernels::default_threads() } else { threads };
        let pool = match std::env::var(ISA) {
            Ok(name) => name.parse().and_then(|isa| Pool::with_isa(threads, isa)),
            Err(_) => Ok(Pool::new(threads)),
        };
        let pool = pool.map_err(|error| ModelError::UnsupportedDevice(format!("{ISA}: {error}")))?;
        Ok(Self { pool: Arc::new(pool), scratch: Scratch::new() })
    }

    /// Keeps the helper threads awake while the guard lives.
    pub fn awake(&self) -> Box<dyn Any> {
        Box::new(self.pool.active())
    }
}

/// Activations that only products and attention read: in bf16 where those round them anyway.
pub(crate) enum Rows {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Default for Rows {
    fn default() -> Self {
        Self::F32(Vec::new())
    }
}

impl Rows {
    pub fn new(rounded: bool) -> Self {
        if rounded { Self::Bf16(Vec::new()) } else { Self::default() }
    }

    /// Room for `len` values, whose content is overwritten.
    pub fn space(&mut self, len: usize) -> Output<'_> {
        match self {
            Self::F32(values) => Output::F32(space(values, len)),
            Self::Bf16(values) => Output::Bf16(space(values, len)),
        }
    }

    /// The first `len` values.
    pub fn first(&self, len: usize) -> Input<'_> {
        match self {
            Self::F32(values) => Input::F32(&values[..len]),
            Self::Bf16(values) => Input::Bf16(&values[..len]),
        }
    }

    /// The first `len` values in f32.
    pub fn to_f32(&self, len: usize) -> Vec<f32> {
        match self {
            Self::F32(values) => values[..len].to_vec(),
            Self::Bf16(values) => values[..len].to_f32_vec(),
        }
    }
}

/// A buffer of `len` values, grown when needed and kept; its content is overwritten.
pub(crate) fn space<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
