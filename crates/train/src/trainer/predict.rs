//! The model in training, as `evaluate/` asks it.

use super::network::Network;
use crate::data::Task;
use crate::evaluate::{Generation, Guess, Input, Predictor};
use crate::model::Cpu;
use crate::{Result, TrainError};

pub struct InTraining<'a> {
    pub network: &'a mut Network,
    pub cpu: &'a mut Cpu,
    pub stop: &'a dyn Fn() -> bool,
}

/// Finds the names of a task's metrics without a model, by evaluating a predictor with empty answers.
pub struct Silent {
    pub task: Task,
    pub classes: usize,
    pub vocabulary: usize,
}

impl Predictor for Silent {
    type Error = TrainError;

    fn logits(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>> {
        let width = |input: &Input| match self.task {
            Task::TokenClassification => input.ids.len() * self.classes,
            Task::QuestionAnswering => input.ids.len() * 2,
            _ => self.classes,
        };
        Ok(inputs.iter().map(|input| vec![0.0; width(input)]).collect())
    }

    fn logits_at(&mut self, _: Vec<Input>, places: &[Vec<usize>]) -> Result<Vec<Vec<f32>>> {
        Ok(places.iter().map(|places| vec![0.0; places.len() * self.vocabulary]).collect())
    }

    fn embeddings(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>> {
        Ok(vec![vec![0.0]; inputs.len()])
    }

    fn guesses(&mut self, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<Guess>>> {
        let nothing = Guess { logprob: 0.0, best: false };
        Ok(sequences.iter().map(|ids| vec![nothing; ids.len().saturating_sub(1)]).collect())
    }

    fn generate(&mut self, prompts: Vec<Vec<u32>>, _: Generation) -> Result<Vec<String>> {
        Ok(vec![String::new(); prompts.len()])
    }
}

impl Predictor for InTraining<'_> {
    type Error = TrainError;

    fn logits(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>> {
        self.network.logits(self.cpu, &inputs, self.stop)
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
