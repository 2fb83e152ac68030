//! AdamW over all trainable parameters, or Muon over those it is for, and the learning rate.

use candlewick_kernels::train::{AdamW, AdamWStep, Floats, sum_of_squares};

use super::muon::{Muon, MuonStep};
use super::options::{FinetuneOptions, Method, Schedule};
use crate::model::{Cpu, Params};

pub struct Optimizer {
    adam: AdamW,
    muon: Option<Muon>,
    weight_decay: f32,
    max_grad_norm: f32,
    learning_rate: f64,
    schedule: Schedule,
    warmup: u64,
    total: u64,
}

impl Optimizer {
    pub fn new(options: &FinetuneOptions, total: u64) -> Self {
        let warmup = match options.warmup_steps {
            0 => (options.warmup_ratio * total as f64).ceil() as u64,
            steps => steps,
        };
        Self {
            adam: AdamW {
                beta_1: options.adam_beta1,
                beta_2: options.adam_beta2,
                epsilon: options.adam_epsilon,
            },
            muon: (options.optimizer == Method::Muon).then(Muon::default),
            weight_decay: options.weight_decay,
            max_grad_norm: options.max_grad_norm,
            learning_rate: f64::from(options.learning_rate),
            schedule: options.lr_scheduler_type,
            warmup,
            total,
        }
    }

    /// transformers' schedules; `step` counts from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.learning_rate * step as f64 / self.warmup.max(1) as f64;
        }
        let after = self.total.saturating_sub(self.warmup).max(1) as f64;
        let done = ((step - self.warmup) as f64 / after).min(1.0);
        self.learning_rate
            * match self.schedule {
                Schedule::Linear => 1.0 - done,
                Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
                Schedule::Constant => 1.0,
            }
    }

    /// The norm of all gradients together.
    pub fn gradient_norm(&self, cpu: &Cpu, params: &mut Params) -> f64 {
        let mut sum = 0.0;
        for param in params.trainable() {
            // What no example touched has a gradient of zeros.
            param.gradient_to_read();
            sum += sum_of_squares(&cpu.pool, &param.gradient);
        }
        sum.sqrt()
    }

    /// Clips and steps; `step` counts from 0.
    pub fn step(&mut self, cpu: &mut Cpu, params: &mut Params, step: u64, norm: f64) {
        let clip = match self.max_grad_norm {
            0.0 => 1.0,
            max => (f64::from(max) / (norm + 1e-6)).min(1.0),
        };
        let learning_rate = self.learning_rate(step) as f32;
        for param in params.trainable() {
            let weight_decay = if param.decays { self.weight_decay } else { 0.0 };
            if let Some(muon) = self.muon.as_mut().filter(|_| Muon::takes(param)) {
                let pass = MuonStep { learning_rate, weight_decay, gradient_scale: clip as f32 };
                muon.update(cpu, param, pass);
                continue;
            }
            let len = param.value.len();
            if param.first_moment.len() != len {
                param.first_moment = Floats::zeroed(len);
                param.second_moment = Floats::zeroed(len);
            }
            let pass = AdamWStep { learning_rate, weight_decay, gradient_scale: clip as f32, step: step + 1 };
            let (m, v) = (&mut param.first_moment, &mut param.second_moment);
            self.adam.update(&cpu.pool, pass, &mut param.value, &param.gradient, m, v);
        }
        params.forget_gradients();
    }
}
