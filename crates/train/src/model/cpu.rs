//! The threads and the work space of a training run, and where dropout's masks come from.

use candlewick_kernels::Pool;
use candlewick_kernels::train::random::{self, Dropout};
use candlewick_kernels::train::{Floats, Gemm, Precision, View, gemm};

pub struct Cpu {
    pub pool: Pool,
    /// Of the products.
    pub products: Floats,
    /// Of attention.
    pub attention: Floats,
    /// Of the layers' products.
    pub precision: Precision,
    /// Key of this batch's masks; `None` outside training.
    masks: Option<u64>,
}

impl Cpu {
    /// `threads`: 0 for as many as the machine has cores.
    pub fn new(threads: usize) -> Self {
        let threads = if threads == 0 { candlewick_kernels::default_threads() } else { threads };
        Self {
            pool: Pool::new(threads),
            products: Floats::default(),
            attention: Floats::default(),
            precision: Precision::F32,
            masks: None,
        }
    }

    /// Switches to training, with the dropout masks of this step and micro-batch.
    pub fn train(&mut self, seed: u64, step: u64, micro_batch: u64) {
        self.masks = Some(random::key(&[seed, step, micro_batch]));
    }

    /// Switches dropout off.
    pub fn evaluate(&mut self) {
        self.masks = None;
    }

    /// The mask of one place in the model.
    pub fn dropout(&self, p: f32, site: u64) -> Option<Dropout> {
        Dropout::new(p, random::key(&[self.masks?, site]))
    }

    /// A product of the weights themselves, in f32 whatever the layers' precision.
    pub fn exact_gemm(&mut self, a: View, b: View, options: Gemm, out: &mut [f32]) {
        gemm(&self.pool, Precision::F32, a, b, options, &mut self.products, out);
    }

    pub fn gemm(&mut self, a: View, b: View, options: Gemm, out: &mut [f32]) {
        gemm(&self.pool, self.precision, a, b, options, &mut self.products, out);
    }
}
