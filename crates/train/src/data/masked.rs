//! Masked language modelling (Devlin et al. 2018): of the predicted tokens, 80% are replaced by `[MASK]`, 10% by a
//! random token, and 10% stay.

use std::path::PathBuf;

use candlewick_models::Tokenizer;

use super::blocks::shared;
use super::frame::Frame;
use super::random::stream;
use super::spool::Spool;
use super::texts::names;
use super::{Example, Examples, IGNORED, Setup, Target};
use crate::{Result, TrainError};

/// A row's tokens in windows of the model's length; which are masked is a function of seed, epoch and window.
pub(super) struct Masked {
    spool: Spool,
    frame: Frame,
    tokenizer: Tokenizer,
    mask: u32,
    /// Share of the tokens that are predicted.
    share: f64,
    length: usize,
    step: usize,
    /// Document, and number of the window in it.
    places: Vec<(u32, u32)>,
    seed: u64,
    epoch: u64,
}

const MASK: &str = "[MASK]";

impl Masked {
    pub fn open(paths: &[PathBuf], setup: &Setup<'_>) -> Result<Self> {
        let mask = setup.tokenizer.token_to_id(MASK);
        let mask = mask.ok_or_else(|| TrainError::option("task", format!("the tokenizer has no {MASK}")))?;
        let share = f64::from(setup.options.masking.unwrap_or(0.15));
        if !(0.0..=1.0).contains(&share) || share == 0.0 {
            return Err(TrainError::option(
                "masking",
                format!("expected more than 0, at most 1, got {share}"),
            ));
        }
        let frame = Frame::of(setup.tokenizer)?;
        let length = setup.length()? - frame.len();
        let step = length - shared(setup.options.stride.unwrap_or(0), length)?;
        let spool = Spool::fill(paths, setup, false)?;
        let windows = |document: usize| match spool.length(document) {
            0 => 0,
            total => 1 + total.saturating_sub(length).div_ceil(step) as u32,
        };
        let places = (0..spool.documents())
            .flat_map(|document| (0..windows(document)).map(move |w| (document as u32, w)));
        let places: Vec<_> = places.collect();
        if places.is_empty() {
            return Err(TrainError::DataEmpty(names(paths)));
        }
        let (tokenizer, seed) = (setup.tokenizer.clone(), setup.seed);
        Ok(Self { spool, frame, tokenizer, mask, share, length, step, places, seed, epoch: 0 })
    }
}

impl Examples for Masked {
    fn len(&self) -> usize {
        self.places.len()
    }

    /// At least one token is predicted.
    fn get(&mut self, index: usize) -> Result<Example> {
        let (document, window) = self.places[index];
        let from = window as usize * self.step;
        let to = self.spool.length(document as usize).min(from + self.length);
        let mut ids = self.spool.read(document as usize, from, to)?;
        let mut random = stream(self.seed, self.epoch, index as u64);
        let mut labels = vec![IGNORED; ids.len()];
        let chosen = random.below(ids.len() as u64) as usize;
        let vocabulary = self.tokenizer.vocab_size() as u64;
        let picked: Vec<usize> = (0..ids.len()).filter(|_| random.uniform() < self.share).collect();
        for at in if picked.is_empty() { vec![chosen] } else { picked } {
            labels[at] = ids[at] as i32;
            match random.uniform() {
                x if x < 0.8 => ids[at] = self.mask,
                x if x < 0.9 => ids[at] = random.below(vocabulary) as u32,
                _ => {}
            }
        }
        let input_ids = self.frame.around(ids, |id| id);
        let labels = self.frame.around(labels, |_| IGNORED);
        Ok(Example { input_ids, token_type_ids: Vec::new(), target: Target::Tokens(labels), pair: None })
    }

    fn length_hint(&mut self, index: usize) -> Result<usize> {
        let (document, window) = self.places[index];
        Ok((self.spool.length(document as usize) - window as usize * self.step).min(self.length))
    }

    fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }
}
