//! Parameters from a checkpoint, or initialised at random.

use candlewick_kernels::train::{Floats, random};
use candlewick_models::Weights;

use super::block::Norm;
use super::linear::Linear;
use super::params::{Id, Param, Params};
use crate::Result;

/// Where a model's parameters come from.
pub struct Source<'a> {
    /// `None`: all parameters are initialised at random.
    weights: Option<&'a Weights>,
    /// Parameters that the checkpoint lacks (a new head) are initialised at random instead of an error.
    pub may_be_new: bool,
    /// The standard deviation of new matrices (`initializer_range`).
    pub deviation: f32,
    seed: u64,
    pub params: Params,
    /// Names of the parameters that were initialised at random.
    pub new: Vec<String>,
}

impl<'a> Source<'a> {
    pub fn new(weights: Option<&'a Weights>, deviation: f32, seed: u64) -> Self {
        Self { weights, may_be_new: false, deviation, seed, params: Params::default(), new: Vec::new() }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.weights.is_some_and(|weights| weights.contains(name))
    }

    fn add(&mut self, name: &str, shape: &[usize], draw: impl Fn(u32, u64) -> f32 + Sync) -> Result<Id> {
        let value = match self.weights {
            Some(weights) if !self.may_be_new || weights.contains(name) => {
                Floats::from(&weights.read(name, shape)?.into_f32()[..])
            }
            _ => {
                let mut value = Floats::zeroed(shape.iter().product());
                let key = random::key(&[self.seed, self.params.all.len() as u64]);
                let part = value.len().div_ceil(candlewick_kernels::default_threads()).max(1);
                std::thread::scope(|scope| {
                    for (at, values) in value.chunks_mut(part).enumerate() {
                        let (first, draw) = (at * part, &draw);
                        scope.spawn(move || {
                            values
                                .iter_mut()
                                .enumerate()
                                .for_each(|(i, x)| *x = draw((first + i) as u32, key));
                        });
                    }
                });
                self.new.push(name.to_string());
                value
            }
        };
        Ok(self.params.push(Param::new(name, shape, value)))
    }

    /// Normally distributed where it is new.
    pub fn matrix(&mut self, name: &str, shape: &[usize], deviation: f32) -> Result<Id> {
        self.add(name, shape, |i, key| deviation * random::normal(key, i))
    }

    pub fn vector(&mut self, name: &str, len: usize, value: f32) -> Result<Id> {
        self.add(name, &[len], |_, _| value)
    }

    /// `nn.Linear`, or GPT-2's `Conv1D`.
    pub fn linear(
        &mut self,
        name: &str,
        input: usize,
        output: usize,
        conv1d: bool,
        deviation: f32,
    ) -> Result<Linear> {
        let shape = if conv1d { [input, output] } else { [output, input] };
        let weight = self.matrix(&format!("{name}.weight"), &shape, deviation)?;
        let bias = Some(self.vector(&format!("{name}.bias"), output, 0.0)?);
        Ok(Linear { weight, bias, input, output, conv1d, lora: None })
    }

    /// `nn.Linear` without a bias.
    pub fn linear_without_bias(
        &mut self,
        name: &str,
        input: usize,
        output: usize,
        deviation: f32,
    ) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), &[output, input], deviation)?;
        Ok(Linear { weight, bias: None, input, output, conv1d: false, lora: None })
    }

    pub fn norm(&mut self, name: &str, width: usize, eps: f64) -> Result<Norm> {
        let weight = self.vector(&format!("{name}.weight"), width, 1.0)?;
        let bias = self.vector(&format!("{name}.bias"), width, 0.0)?;
        Ok(Norm { weight, bias, eps: eps as f32 })
    }
}
