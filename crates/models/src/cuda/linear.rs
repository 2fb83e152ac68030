//! y = x W + b (`crates/models/cuda/gemm.h`): tiles of several sizes, whose sums over K all have the same order, so
//! that a row's bits do not depend on the rows beside it; the number of rows chooses the fastest.

use std::sync::Arc;

use cudarc::driver::{CudaFunction, sys::CUfunction_attribute};

use crate::Result;
use crate::cuda::gpu::{Arg, Buffer, Gpu, Type, failed};
use crate::reference::layers::Activation;

/// What a product writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// In the type of the weights.
    Same,
    F32,
    /// Added to the floats that are there.
    Added,
}

/// A kernel of gemm.h: the rows and columns of a block, its threads and its shared memory.
struct Tile {
    rows: usize,
    columns: usize,
    threads: u32,
    shared: usize,
    function: CudaFunction,
}

/// What computes products with weights of one type on a GPU.
pub(crate) struct Products {
    gpu: Arc<Gpu>,
    kind: Type,
    /// The largest first.
    tiles: Vec<Tile>,
    place: CudaFunction,
}

/// Kernel, rows, columns, threads, elements of a stage, stages: as kernels.cu exports them.
type Kernel = (&'static str, usize, usize, u32, usize, usize);

const FLOATS: [Kernel; 3] = [
    ("gemm128x64", 128, 64, 128, 128 * 20 + 64 * 16, 3),
    ("gemm64x64", 64, 64, 256, 64 * 20 + 64 * 16, 4),
    ("gemm16x32", 16, 32, 128, 16 * 68 + 32 * 64, 6),
];
/// Hopper's own.
const WGMMA: [Kernel; 2] = [
    ("wgmma128x192", 128, 192, 256, (128 + 192) * 64, 5),
    ("wgmma128x128", 128, 128, 256, (128 + 128) * 64, 6),
];
const HALF: [Kernel; 5] = [
    ("gemm128x128", 128, 128, 128, (128 + 128) * 64, 3),
    ("gemm64x64", 64, 64, 128, (64 + 64) * 64, 4),
    ("gemm64x32", 64, 32, 128, (64 + 32) * 128, 3),
    ("gemm32x32", 32, 32, 128, (32 + 32) * 128, 5),
    ("gemm16x32", 16, 32, 128, (16 + 32) * 128, 8),
];

impl Products {
    pub fn new(gpu: Arc<Gpu>, kind: Type) -> Result<Self> {
        let kernels = match kind {
            Type::F32 => FLOATS.to_vec(),
            _ if gpu.capability == "9.0" => [&WGMMA[..], &HALF[..]].concat(),
            _ => HALF.to_vec(),
        };
        let tiles = kernels.into_iter().map(|(name, rows, columns, threads, stage, stages)| {
            let function = gpu.function(&format!("{name}_{}", kind.suffix()))?;
            let shared = stage * stages * kind.bytes();
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared as i32).map_err(failed)?;
            Ok(Tile { rows, columns, threads, shared, function })
        });
        let tiles = tiles.collect::<Result<_>>()?;
        let place = gpu.function(&format!("place_{}", kind.suffix()))?;
        Self { gpu, kind, tiles, place }.checked()
    }

    /// Without the tiles that do not give, on this GPU, the bits of the smallest: that each sums K in one order is what
    /// their code says, and how tensor cores round within an instruction is the GPU's to say.
    fn checked(mut self) -> Result<Self> {
        let (gpu, kind) = (&self.gpu, self.kind);
        // More of K than any tile has on its way at once.
        let (rows, input, output) = (130, 2056, 200);
        // Values of many sizes, so that what is rounded first shows.
        let values = |count: usize| -> Vec<f32> {
            let value = |i: usize| {
                ((i * 7919 % 8191) as f32 / 4096.0 - 1.0) * f32::powi(2.0, (i * 31 % 17) as i32 - 8)
            };
            (0..count).map(value).collect()
        };
        let (x, w) = (kind.encode(&values(rows * input)), kind.encode(&values(input * output + 1)[1..]));
        let (x, w, y) = (gpu.filled(&x)?, gpu.filled(&w)?, gpu.buffer(4 * rows * output)?);
        gpu.stream.synchronize().map_err(failed)?;
        let pitch = if kind == Type::F32 { output } else { input };
        let product =
            Product { rows, input, output, pitch, to: Output::F32, activation: None, bias: 0, append: NONE };
        let mut expected = Vec::new();
        let mut equal = Vec::new();
        for tile in self.tiles.iter().rev() {
            let mut found = vec![0u32; rows * output];
            product.launch(gpu, tile, x.at, w.at, y.at)?;
            gpu.download(&y, &mut found)?;
            if expected.is_empty() {
                expected.clone_from(&found);
            }
            equal.push(found == expected);
        }
        self.tiles.retain(|_| equal.pop() == Some(true));
        Ok(self)
    }

    /// The largest tile that still gives most multiprocessors a block; else the smallest.
    fn choose(&self, rows: usize, output: usize) -> &Tile {
        let enough = |tile: &&Tile| {
            let blocks = rows.div_ceil(tile.rows) * output.div_ceil(tile.columns);
            rows > tile.rows / 2 && 4 * blocks >= 3 * self.gpu.multiprocessors
        };
        self.tiles.iter().find(enough).unwrap_or(&self.tiles[self.tiles.len() - 1])
    }
}

/// Where the keys and values go that a product makes: a layer's part of the cache, each row's slot, elements of a block
/// and of a head.
#[derive(Clone, Copy)]
pub(crate) struct Append {
    pub cache: u64,
    pub slots: u64,
    pub stride: usize,
    pub dim: usize,
}

const NONE: Append = Append { cache: 0, slots: 0, stride: 0, dim: 0 };

/// W and b on the GPU, as gemm.h has them: half types as (out, in padded to 8), floats as (in, out padded to 4).
pub(crate) struct Linear {
    weight: Buffer,
    bias: Option<Buffer>,
    pub input: usize,
    pub output: usize,
    /// Elements from one row of W to the next.
    pitch: usize,
    /// Elements from one row of the result to the next.
    pub stride: usize,
    to: Output,
    activation: Option<Activation>,
}

impl Linear {
    /// Weights of zero, which `place` fills.
    pub fn new(
        products: &Products,
        (input, output): (usize, usize),
        bias: Option<&[f32]>,
        to: Output,
        activation: Option<Activation>,
    ) -> Result<Self> {
        let (lines, pitch) = match products.kind {
            Type::F32 => (input, output.next_multiple_of(4)),
            _ => (output, input.next_multiple_of(8)),
        };
        let bias = bias.map(|bias| {
            let mut bias = bias.to_vec();
            bias.resize(output.next_multiple_of(4), 0.0);
            products.gpu.filled(bytemuck::cast_slice(&bias))
        });
        Ok(Self {
            weight: products.gpu.zeros(lines * pitch * products.kind.bytes())?,
            bias: bias.transpose()?,
            input,
            output,
            pitch,
            stride: if to == Output::F32 { output.next_multiple_of(4) } else { output },
            to,
            activation,
        })
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        self.weight.len()
    }

    /// Puts the weights `from`, (in, `count`) as GPT-2's Conv1D has them or (`count`, in), into the columns from
    /// `first` on.
    pub fn place(
        &self,
        products: &Products,
        from: u64,
        first: usize,
        count: usize,
        in_out: bool,
    ) -> Result<()> {
        let floats = products.kind == Type::F32;
        let (lines, columns) = if floats { (self.input, count) } else { (count, self.input) };
        let offset = if floats { first } else { first * self.pitch } * products.kind.bytes();
        let args = [
            Arg::At(self.weight.at + offset as u64),
            Arg::At(from),
            Arg::Int(lines as i32),
            Arg::Int(columns as i32),
            Arg::Int(self.pitch as i32),
            Arg::Int(i32::from(floats != in_out)),
        ];
        let blocks = (self.input * count).div_ceil(1024).min(4096);
        products.gpu.launch(&products.place, [blocks, 1, 1], 256, 0, &args)
    }

    /// x (rows, in) → y (rows, stride), at addresses of the GPU.
    pub fn forward(&self, products: &Products, rows: usize, x: u64, y: u64) -> Result<()> {
        self.forward_append(products, rows, x, y, NONE)
    }

    /// The same; y is queries, keys and values, and the latter two go into the cache as well.
    pub fn forward_append(
        &self,
        products: &Products,
        rows: usize,
        x: u64,
        y: u64,
        append: Append,
    ) -> Result<()> {
        let tile = products.choose(rows, self.output);
        let product = Product {
            rows,
            input: self.input,
            output: self.output,
            pitch: self.pitch,
            to: self.to,
            activation: self.activation,
            bias: self.bias.as_ref().map_or(0, |bias| bias.at),
            append,
        };
        product.launch(&products.gpu, tile, x, self.weight.at, y)
    }
}

/// The numbers of a launch.
struct Product {
    rows: usize,
    input: usize,
    output: usize,
    pitch: usize,
    to: Output,
    activation: Option<Activation>,
    bias: u64,
    append: Append,
}

impl Product {
    fn launch(&self, gpu: &Gpu, tile: &Tile, x: u64, w: u64, y: u64) -> Result<()> {
        let args = [
            Arg::At(y),
            Arg::At(x),
            Arg::At(w),
            Arg::At(self.bias),
            Arg::Int(self.rows as i32),
            Arg::Int(self.input as i32),
            Arg::Int(self.output as i32),
            Arg::Int(self.pitch as i32),
            Arg::Int(match self.to {
                Output::Same => 0,
                Output::F32 => 1,
                Output::Added => 2,
            }),
            Arg::Int(match self.activation {
                None => -1,
                Some(Activation::Gelu) => 0,
                Some(Activation::GeluNew) => 1,
                Some(Activation::Relu) => 2,
                Some(Activation::Silu) => 3,
                Some(Activation::Tanh) => 4,
            }),
            Arg::At(self.append.cache),
            Arg::At(self.append.slots),
            Arg::Long(self.append.stride as i64),
            Arg::Int(self.append.dim as i32),
        ];
        let grid = [self.rows.div_ceil(tile.rows), self.output.div_ceil(tile.columns), 1];
        gpu.launch(&tile.function, grid, tile.threads, tile.shared, &args)
    }
}
