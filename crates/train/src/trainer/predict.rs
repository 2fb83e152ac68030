//! The model in training, as `evaluate/` asks it.

use super::network::Network;
use crate::evaluate::{Generation, Guess, Input, Predictor};
use crate::model::Cpu;
use crate::{Result, TrainError};

pub struct InTraining<'a> {
    pub network: &'a mut Network,
    pub cpu: &'a mut Cpu,
    pub stop: &'a dyn Fn() -> bool,
}

impl Predictor for InTraining<'_> {
    type Error = TrainError;

    fn logits(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>> {
        let (bert, params) = self.network.bert()?;
        bert.logits(self.cpu, params, &inputs, self.stop)
    }

    fn logits_at(&mut self, inputs: Vec<Input>, places: &[Vec<usize>]) -> Result<Vec<Vec<f32>>> {
        let (bert, params) = self.network.bert()?;
        bert.logits_at(self.cpu, params, &inputs, places, self.stop)
    }

    fn embeddings(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>> {
        let (bert, params) = self.network.bert()?;
        bert.embeddings(self.cpu, params, &inputs, self.stop)
    }

    fn guesses(&mut self, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<Guess>>> {
        let (gpt2, params) = self.network.gpt2()?;
        gpt2.guesses(self.cpu, params, &sequences, self.stop)
    }

    fn generate(&mut self, _: Vec<Vec<u32>>, _: Generation) -> Result<Vec<String>> {
        Err(TrainError::Internal("a model in training writes nothing".into()))
    }
}
