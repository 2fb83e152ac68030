//! How much of a text a tokenizer does not know: a vocabulary of another language or script turns most of it into
//! `[UNK]`, and training or evaluating on such tokens is meaningless.

use candlewick_models::Tokenizer;

use crate::Observer;
use crate::data::Examples;
use crate::evaluate::{Generation, Guess, Input, Predictor};

/// Examples that are looked at before a training begins, from all over the data set.
const SAMPLE: usize = 200;

/// The share of unknown tokens, special ones not counted; `None` for a vocabulary that knows every text (byte-level).
pub(crate) fn share_of(examples: &mut dyn Examples, tokenizer: &Tokenizer) -> crate::Result<Option<f64>> {
    let Some(mut counter) = Counter::new(tokenizer) else { return Ok(None) };
    let sampled = examples.len().min(SAMPLE);
    for i in 0..sampled {
        counter.add(&examples.get(i * examples.len() / sampled)?.input_ids);
    }
    Ok(Some(counter.share()))
}

struct Counter<'a> {
    tokenizer: &'a Tokenizer,
    unknown: u32,
    seen: usize,
    of_them: usize,
}

impl<'a> Counter<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Option<Self> {
        let unknown = tokenizer.token_to_id(tokenizer.unknown_token()?)?;
        Some(Self { tokenizer, unknown, seen: 0, of_them: 0 })
    }

    fn add(&mut self, ids: &[u32]) {
        let unknown = ids.iter().filter(|id| **id == self.unknown).count();
        let ordinary = ids.iter().filter(|id| !self.tokenizer.is_special(**id)).count();
        // The unknown token is a special one in most vocabularies.
        self.seen += ordinary + if self.tokenizer.is_special(self.unknown) { unknown } else { 0 };
        self.of_them += unknown;
    }

    fn share(&self) -> f64 {
        self.of_them as f64 / self.seen.max(1) as f64
    }
}

/// A predictor that reports, once, the share of unknown tokens in its first inputs.
pub(crate) struct Watching<'a, P> {
    inner: &'a mut P,
    counter: Option<Counter<'a>>,
    observer: &'a dyn Observer,
}

impl<'a, P: Predictor> Watching<'a, P> {
    pub fn new(inner: &'a mut P, tokenizer: &'a Tokenizer, observer: &'a dyn Observer) -> Self {
        Self { inner, counter: Counter::new(tokenizer), observer }
    }

    fn look<'i>(&mut self, inputs: impl Iterator<Item = &'i [u32]>) {
        let Some(mut counter) = self.counter.take() else { return };
        inputs.for_each(|ids| counter.add(ids));
        self.observer.unknown(counter.share());
    }
}

impl<P: Predictor> Predictor for Watching<'_, P> {
    type Error = P::Error;

    fn logits(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>, P::Error> {
        self.look(inputs.iter().map(|input| &*input.ids));
        self.inner.logits(inputs)
    }

    fn logits_at(&mut self, inputs: Vec<Input>, places: &[Vec<usize>]) -> Result<Vec<Vec<f32>>, P::Error> {
        self.look(inputs.iter().map(|input| &*input.ids));
        self.inner.logits_at(inputs, places)
    }

    fn embeddings(&mut self, inputs: Vec<Input>) -> Result<Vec<Vec<f32>>, P::Error> {
        self.look(inputs.iter().map(|input| &*input.ids));
        self.inner.embeddings(inputs)
    }

    fn guesses(&mut self, sequences: Vec<Vec<u32>>) -> Result<Vec<Vec<Guess>>, P::Error> {
        self.look(sequences.iter().map(|ids| &**ids));
        self.inner.guesses(sequences)
    }

    fn generate(&mut self, prompts: Vec<Vec<u32>>, generation: Generation) -> Result<Vec<String>, P::Error> {
        self.look(prompts.iter().map(|ids| &**ids));
        self.inner.generate(prompts, generation)
    }
}
