//! What evaluation asks of a model.

use serde::Deserialize;

use crate::TrainError;

/// Ids and their token types (T); empty types are zeros.
#[derive(Debug, Clone, Default)]
pub struct Input {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
}

/// A language model's prediction of a token.
#[derive(Debug, Clone, Copy)]
pub struct Guess {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// No other token was likelier.
    pub best: bool,
}

/// How a language model generates during evaluation.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Generation {
    pub max_new_tokens: usize,
    pub num_beams: usize,
    pub length_penalty: f32,
    pub repetition_penalty: f32,
    pub no_repeat_ngram_size: usize,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            num_beams: 1,
            length_penalty: 1.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
        }
    }
}

/// What evaluation asks of a model. A model has the answers of its kind; the others are an error.
pub trait Predictor {
    type Error: From<TrainError>;

    /// The head's logits of each input: (C); token classification (T, C); question answering (T, 2).
    fn logits(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// A masked language model's logits at some tokens of each input: (n, V).
    fn logits_at(&mut self, inputs: Vec<Input>, places: &[Vec<usize>]) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// One vector for each input.
    fn embeddings(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// The prediction of each token of each sequence, from the second on: (T − 1).
    fn guesses(&mut self, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<Guess>>, Self::Error>;

    /// The likeliest continuation of each prompt, to its end.
    fn generate(
        &mut self,
        prompts: Vec<Vec<u32>>,
        generation: Generation,
    ) -> Result<Vec<String>, Self::Error>;
}
