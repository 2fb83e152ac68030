//! Differentiable layers on Candle, composed of operations whose gradients Candle keeps.
//!
//! candle-nn's fused layer norm and softmax are not used: they cut the gradient without saying so. These run on every
//! device; on the CPU they are the reference that the packed kernels are held to.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor, Var};

pub use crate::family::activation::Activation;
use crate::files::weights::Weights;
use crate::{ModelError, Result};

/// Gives a model's parameters by name, from a checkpoint; as variables where they are to be trained.
pub struct Params<'a> {
    weights: &'a Weights,
    device: Device,
    vars: Option<RefCell<BTreeMap<String, Var>>>,
}

impl<'a> Params<'a> {
    pub fn new(weights: &'a Weights, device: Device) -> Self {
        Self { weights, device, vars: None }
    }

    /// Every parameter that is asked for becomes a variable and collects a gradient.
    pub fn trainable(weights: &'a Weights, device: Device) -> Self {
        Self { weights, device, vars: Some(RefCell::default()) }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn weights(&self) -> &Weights {
        self.weights
    }

    /// The parameter `name`, which must have `shape`; f32.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let load = || self.weights.tensor(name, shape, &self.device);
        let Some(vars) = &self.vars else { return load() };
        if let Some(var) = vars.borrow().get(name) {
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&load()?)?;
        let tensor = var.as_tensor().clone();
        vars.borrow_mut().insert(name.to_string(), var);
        Ok(tensor)
    }

    /// The variables handed out, by name.
    pub fn into_vars(self) -> BTreeMap<String, Var> {
        self.vars.map(RefCell::into_inner).unwrap_or_default()
    }
}

/// y = x W + b.
pub struct Linear {
    /// (in, out), a transposed view where the checkpoint has (out, in).
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `nn.Linear`: the checkpoint's weight is (out, in).
    #[allow(clippy::self_named_constructors)] // named, as `conv1d` is, after the module whose layout it reads
    pub fn linear(params: &Params, name: &str, input: usize, output: usize) -> Result<Self> {
        let weight = params.get(&format!("{name}.weight"), &[output, input])?.t()?;
        Ok(Self { weight, bias: Some(params.get(&format!("{name}.bias"), &[output])?) })
    }

    /// GPT-2's `Conv1D`: the checkpoint's weight is (in, out).
    pub fn conv1d(params: &Params, name: &str, input: usize, output: usize) -> Result<Self> {
        let weight = params.get(&format!("{name}.weight"), &[input, output])?;
        Ok(Self { weight, bias: Some(params.get(&format!("{name}.bias"), &[output])?) })
    }

    /// A projection onto the rows of an embedding (vocabulary, width): a tied head.
    pub fn onto(embedding: &Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self { weight: embedding.t()?, bias })
    }

    /// x: (…, in) → (…, out). One product over all rows.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        let width = dims.pop().unwrap_or(0);
        let rows = x.elem_count() / width.max(1);
        let y = x.reshape((rows, width))?.matmul(&self.weight)?;
        dims.push(self.weight.dim(1)?);
        let y = y.reshape(dims)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}

/// Layer normalisation over the last dimension (Ba et al. 2016), biased variance.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub fn load(params: &Params, name: &str, width: usize, eps: f64) -> Result<Self> {
        let weight = params.get(&format!("{name}.weight"), &[width])?;
        Ok(Self { weight, bias: params.get(&format!("{name}.bias"), &[width])?, eps })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        let normal = centred.broadcast_div(&deviation)?;
        Ok(normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

/// A table of rows. `ids`: u32 of any shape → that shape + (width).
pub fn embed(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let mut dims = ids.dims().to_vec();
    dims.push(table.dim(1)?);
    Ok(table.index_select(&ids.flatten_all()?, 0)?.reshape(dims)?)
}

/// Softmax over the last dimension. The maximum is subtracted as a constant, which does not change the gradient.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}

/// Mean cross-entropy of `logits` (N, C) against class ids (N), u32.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_probabilities = shifted.broadcast_sub(&log_sum)?;
    let picked = log_probabilities.gather(&targets.unsqueeze(1)?, 1)?;
    Ok(picked.mean_all()?.neg()?)
}

/// A large negative number on masked scores: what transformers adds, so that a row with no visible key still has a
/// softmax.
pub fn mask_scores(scores: &Tensor, visible: &Tensor) -> Result<Tensor> {
    let low =
        Tensor::new(f32::MIN, scores.device())?.to_dtype(scores.dtype())?.broadcast_as(scores.shape())?;
    Ok(visible.broadcast_as(scores.shape())?.where_cond(scores, &low)?)
}

/// A causal mask for `new` queries after `past` keys: (new, past + new), u8, 1 where the key is visible.
pub fn causal_mask(past: usize, new: usize, device: &Device) -> Result<Tensor> {
    let keys = past + new;
    let mask: Vec<u8> = (0..new).flat_map(|i| (0..keys).map(move |j| u8::from(j <= past + i))).collect();
    Ok(Tensor::from_vec(mask, (new, keys), device)?)
}

impl Activation {
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu => x.gelu_erf()?,
            Self::GeluNew => {
                let inner = ((x + ((x.sqr()? * x)? * 0.044715)?)? * (2.0 / std::f64::consts::PI).sqrt())?;
                ((x * 0.5)? * (inner.tanh()? + 1.0)?)?
            }
            Self::Relu => x.relu()?,
            Self::Silu => x.silu()?,
            Self::Tanh => x.tanh()?,
        })
    }
}

/// (B, T, H·D) → (B, H, T, D).
pub fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, t, width) = x.dims3()?;
    Ok(x.reshape((b, t, heads, width / heads))?.transpose(1, 2)?.contiguous()?)
}

/// (B, H, T, D) → (B, T, H·D).
pub fn merge_heads(x: &Tensor) -> Result<Tensor> {
    let (b, h, t, d) = x.dims4()?;
    Ok(x.transpose(1, 2)?.reshape((b, t, h * d))?)
}

/// softmax(q kᵀ · scale, masked) v. q: (B, H, T, D), k and v: (B, H, S, D), visible: u8, broadcast to (B, H, T, S).
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, visible: Option<&Tensor>) -> Result<Tensor> {
    attention_with(q, k, v, scale, None, visible)
}

/// As `attention`; `bias`, broadcast to (B, H, T, S), is added to the scaled scores.
pub fn attention_with(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    bias: Option<&Tensor>,
    visible: Option<&Tensor>,
) -> Result<Tensor> {
    let scores = (q.matmul(&k.t()?.contiguous()?)? * scale)?;
    let scores = bias.map_or(Ok(scores.clone()), |bias| scores.broadcast_add(bias))?;
    let scores = visible.map_or(Ok(scores.clone()), |visible| mask_scores(&scores, visible))?;
    Ok(softmax(&scores)?.matmul(v)?)
}

/// Ids as a (B, T) u32 tensor; rows of one length.
pub fn ids_tensor(rows: &[&[u32]], device: &Device) -> Result<Tensor> {
    let t = rows.first().map_or(0, |row| row.len());
    if rows.iter().any(|row| row.len() != t) {
        return Err(ModelError::Input("rows of different lengths".into()));
    }
    let flat: Vec<u32> = rows.concat();
    Ok(Tensor::from_vec(flat, (rows.len(), t), device)?.to_dtype(DType::U32)?)
}

/// 1/√D, or 1 where a configuration turns scaling off.
pub fn softmax_scale(head_dim: usize, scaled: bool) -> f64 {
    if scaled { (head_dim as f64).sqrt().recip() } else { 1.0 }
}
