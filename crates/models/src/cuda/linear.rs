//! y = x W + b by cublasLt: one algorithm for each matrix, whatever the number of rows, and none that splits K between
//! blocks, so that a row's bits do not depend on the rows beside it.

use std::ffi::c_void;

use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t as Compute, cublasLtEpilogue_t as Epilogue, cublasLtMatmulAlgo_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreferenceAttributes_t as Preference,
    cudaDataType_t as DataType,
};

use crate::cuda::gpu::{Buffer, Gpu, Type, pointer};
use crate::{ModelError, Result};

/// What a product writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// In the type of the weights.
    Same,
    /// In the type of the weights, through GELU's tanh approximation.
    Gelu,
    F32,
    /// Added to the floats that are there.
    Added,
}

impl Output {
    /// The type of what is written, and of the bias, where weights are of type `kind`.
    fn of(self, kind: Type) -> Type {
        match self {
            Self::Same | Self::Gelu => kind,
            Self::F32 | Self::Added => Type::F32,
        }
    }
}

pub(crate) struct Linear {
    kind: Type,
    weight: u64,
    /// (in, out) as GPT-2's Conv1D has it, or (out, in).
    in_out: bool,
    pub input: usize,
    pub output: usize,
    /// Elements from one row of the result to the next.
    pub stride: usize,
    bias: Option<Buffer>,
    to: Output,
    algorithm: cublasLtMatmulAlgo_t,
    _weight: Option<Buffer>,
}

/// Rows for which an algorithm is chosen.
const TYPICAL_ROWS: u64 = 128;

impl Linear {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        gpu: &Gpu,
        kind: Type,
        weight: Weight,
        bias: Option<&[f32]>,
        (input, output): (usize, usize),
        in_out: bool,
        to: Output,
    ) -> Result<Self> {
        let stride = output.next_multiple_of(if to == Output::F32 { 4 } else { 1 });
        let (at, owned) = match weight {
            Weight::Owned(buffer) => (buffer.at, Some(buffer)),
            Weight::Shared(at) => (at, None),
        };
        let bias = bias.map(|bias| gpu.filled(&to.of(kind).encode(bias)));
        let mut linear = Self {
            kind,
            weight: at,
            in_out,
            input,
            output,
            stride,
            bias: bias.transpose()?,
            to,
            // SAFETY: plain numbers, which are overwritten before they are used.
            algorithm: unsafe { std::mem::zeroed() },
            _weight: owned,
        };
        linear.algorithm = linear.choose(gpu)?;
        Ok(linear)
    }

    /// Whether an activation is the caller's to launch.
    pub fn needs_activation(&self) -> bool {
        self.to != Output::Gelu
    }

    fn choose(&self, gpu: &Gpu) -> Result<cublasLtMatmulAlgo_t> {
        let call = Call::new(self, TYPICAL_ROWS)?;
        let preference = lt::create_matmul_pref().map_err(failed)?;
        let none = 0u32;
        // SAFETY: the attributes have the types that are given; the descriptors live until the end.
        let found = unsafe {
            let set = |attribute, value: *const c_void, size| {
                lt::set_matmul_pref_attribute(preference, attribute, value, size).map_err(failed)
            };
            let size = gpu.workspace.len();
            set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const size).cast(), 8)?;
            set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const none).cast(), 4)?;
            let found = lt::get_matmul_algo_heuristic(
                gpu.lt,
                call.product,
                call.a,
                call.b,
                call.d,
                call.d,
                preference,
            );
            let _ = lt::destroy_matmul_pref(preference);
            found.map_err(failed)?
        };
        Ok(found.algo)
    }

    /// x (rows, in) → y (rows, out), at addresses of the GPU.
    pub fn forward(&self, gpu: &Gpu, rows: usize, x: u64, y: u64) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let call = Call::new(self, rows as u64)?;
        let (one, beta) = (1f32, if self.to == Output::Added { 1f32 } else { 0f32 });
        // SAFETY: the layouts describe the buffers that are given.
        unsafe {
            lt::matmul(
                gpu.lt,
                call.product,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                pointer(self.weight),
                call.a,
                pointer(x),
                call.b,
                pointer(y),
                call.d,
                pointer(y),
                call.d,
                &raw const self.algorithm,
                pointer(gpu.workspace.at),
                gpu.workspace.len(),
                gpu.stream.cu_stream().cast(),
            )
        }
        .map_err(failed)
    }
}

pub(crate) enum Weight {
    Owned(Buffer),
    /// At an address that outlives the product.
    Shared(u64),
}

/// cublasLt's descriptors of one product. It reads columns first, so our rows are its columns: y' = W' x'.
struct Call {
    product: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    d: sys::cublasLtMatrixLayout_t,
}

impl Call {
    fn new(linear: &Linear, rows: u64) -> Result<Self> {
        let data = |kind: Type| match kind {
            Type::F32 => DataType::CUDA_R_32F,
            Type::F16 => DataType::CUDA_R_16F,
            Type::BF16 => DataType::CUDA_R_16BF,
        };
        let kind = data(linear.kind);
        let to = data(linear.to.of(linear.kind));
        let (input, output) = (linear.input as u64, linear.output as u64);
        let (a_rows, a_columns) = if linear.in_out { (output, input) } else { (input, output) };
        // Without TF32: that is another compute type.
        let product =
            lt::create_matmul_desc(Compute::CUBLAS_COMPUTE_32F, DataType::CUDA_R_32F).map_err(failed)?;
        let call = Self {
            product,
            a: lt::create_matrix_layout(kind, a_rows, a_columns, a_rows as i64).map_err(failed)?,
            b: lt::create_matrix_layout(kind, input, rows, input as i64).map_err(failed)?,
            d: lt::create_matrix_layout(to, output, rows, linear.stride as i64).map_err(failed)?,
        };
        let set = |attribute: Attribute, value: *const c_void, size: usize| {
            // SAFETY: callers give values of the attribute's type.
            unsafe { lt::set_matmul_desc_attribute(product, attribute, value, size) }.map_err(failed)
        };
        let transposed = i32::from(!linear.in_out);
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, (&raw const transposed).cast(), 4)?;
        if let Some(bias) = &linear.bias {
            let epilogue = match linear.to {
                Output::Gelu => Epilogue::CUBLASLT_EPILOGUE_GELU_BIAS,
                _ => Epilogue::CUBLASLT_EPILOGUE_BIAS,
            };
            set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, (&raw const epilogue).cast(), 4)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, (&raw const bias.at).cast(), 8)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (&raw const to).cast(), 4)?;
        }
        Ok(call)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and destroyed here alone.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.product);
            for layout in [self.a, self.b, self.d] {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

fn failed(error: lt::CublasError) -> ModelError {
    ModelError::Internal(format!("cublasLt: {:?}", error.0))
}
