//! What models in training say about inputs, without targets.

use candlewick_kernels::train::{Floats, Gemm, View, activation_forward};

use super::batch::{Batch, Pass};
use super::bert::Bert;
use super::cpu::Cpu;
use super::gpt2::Gpt2;
use super::heads::Head;
use super::loss::Selected;
use super::params::Params;
use crate::data::{Example, Target};
use crate::evaluate::{Guess, Input};
use crate::{Result, TrainError};

fn example(input: &Input) -> Example {
    Example {
        input_ids: input.ids.clone(),
        token_type_ids: input.type_ids.clone(),
        target: Target::None,
        pair: None,
    }
}

impl Bert {
    fn encoded(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        inputs: &[Input],
        stop: &dyn Fn() -> bool,
    ) -> Result<Batch> {
        let examples: Vec<Example> = inputs.iter().map(example).collect();
        let batch = self.batch(&examples)?;
        cpu.evaluate();
        self.encode(cpu, params, &batch, false, stop)?;
        Ok(batch)
    }

    /// A classifying head's logits of each input: (C), or (T, C).
    pub fn logits(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        inputs: &[Input],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let per_token = match &self.head {
            Head::Sequence { .. } => false,
            Head::Token { .. } => true,
            _ => return Err(TrainError::Internal("the head has no classes".into())),
        };
        let batch = self.encoded(cpu, params, inputs, stop)?;
        let classified = self.classify(cpu, params, &batch);
        let rows = |i: usize| if per_token { batch.starts[i]..batch.starts[i + 1] } else { i..i + 1 };
        let classes = classified.classes;
        let of = |i: usize| classified.logits[rows(i).start * classes..rows(i).end * classes].to_vec();
        Ok((0..inputs.len()).map(of).collect())
    }

    /// The masked-LM head's logits at some tokens of each input: (n, V).
    pub fn logits_at(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        inputs: &[Input],
        places: &[Vec<usize>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let batch = self.encoded(cpu, params, inputs, stop)?;
        let Head::MaskedLm { dense, norm, decoder, bias, activation } = &self.head else {
            return Err(TrainError::Internal("the head guesses no tokens".into()));
        };
        let [vocabulary, e] = params[*decoder].shape[..] else { unreachable!("an embedding is a matrix") };
        let d = self.config.hidden_size;
        let mut all = Vec::with_capacity(inputs.len());
        for (places, start) in places.iter().zip(&batch.starts) {
            let rows: Vec<u32> = places.iter().map(|place| (start + place) as u32).collect();
            let count = rows.len();
            let hidden = Selected { rows, targets: Vec::new() }.gather(cpu, &self.stack.output, d);
            let [mut before, mut after, mut normal] = [(); 3].map(|()| Floats::zeroed(count * e));
            dense.forward(cpu, params, &hidden, None, &mut before);
            activation_forward(&cpu.pool, *activation, &before, &mut after);
            norm.forward(cpu, params, &after, &mut Floats::zeroed(2 * count), &mut normal);
            let mut logits = vec![0.0; count * vocabulary];
            let weight = View::new(params.value(*decoder), vocabulary, e).transposed();
            let options = Gemm { bias: Some(params.value(*bias)), ..Gemm::SET };
            cpu.gemm(View::new(&normal, count, e), weight, options, &mut logits);
            all.push(logits);
        }
        Ok(all)
    }

    /// The mean of each input's last hidden states.
    pub fn embeddings(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        inputs: &[Input],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let batch = self.encoded(cpu, params, inputs, stop)?;
        let d = self.config.hidden_size;
        let mean = |pair: &[usize]| {
            let mut mean = vec![0.0; d];
            for row in self.stack.output[pair[0] * d..pair[1] * d].chunks_exact(d) {
                mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            mean.iter_mut().for_each(|x| *x /= (pair[1] - pair[0]) as f32);
            mean
        };
        Ok(batch.starts.windows(2).map(mean).collect())
    }
}

impl Gpt2 {
    /// A classifier's logits of each input: (C).
    pub fn logits(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        inputs: &[Input],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let examples: Vec<Example> = inputs.iter().map(example).collect();
        cpu.evaluate();
        self.classify(cpu, params, &examples, stop)
    }

    /// The prediction of each token of each sequence, from the second on.
    pub fn guesses(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        sequences: &[Vec<u32>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<Guess>>> {
        let example = |ids: &Vec<u32>| Example {
            input_ids: ids.clone(),
            token_type_ids: Vec::new(),
            target: Target::Tokens(ids.iter().map(|id| *id as i32).collect()),
            pair: None,
        };
        let examples: Vec<Example> = sequences.iter().map(example).collect();
        cpu.evaluate();
        self.run(cpu, params, &examples, Pass::Evaluate, stop)?;
        let mut losses = self.loss.losses.iter();
        let guess = |(loss, hit): &(f32, bool)| Guess { logprob: -loss, best: *hit };
        let of = |ids: &Vec<u32>| losses.by_ref().take(ids.len().saturating_sub(1)).map(guess).collect();
        Ok(sequences.iter().map(of).collect())
    }
}
