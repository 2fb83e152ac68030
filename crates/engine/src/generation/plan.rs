//! What is decided of a request before it runs: options with their defaults, what ends a sequence, the seed.

use std::sync::Arc;

use candlewick_models::CausalInfo;

use crate::generation::options::{GenerateOptions, adapter_index};
use crate::generation::result::{FinishReason, TokenEvent};
use crate::generation::sampling::bans::Bans;
use crate::generation::sampling::beam::BeamSettings;
use crate::generation::sampling::processors::Processors;
use crate::generation::sampling::rng::fresh_seed;
use crate::runtime::codec::Codec;

/// What all continuations of a request share.
pub(crate) struct Plan {
    pub options: GenerateOptions,
    pub processors: Processors,
    pub stops: Arc<[String]>,
    /// Ids at which a sequence ends.
    pub end_ids: Vec<u32>,
    pub seed: u64,
    /// Of the model's adapters.
    pub adapter: Option<usize>,
    pub codec: Option<Codec>,
}

impl Plan {
    /// `bans`: of `options`.
    pub fn new(mut options: GenerateOptions, bans: Bans, info: &CausalInfo, codec: Option<Codec>) -> Self {
        let end_ids = options.end_ids(info);
        let stops = std::mem::take(&mut options.stop).into();
        let seed = options.seed.unwrap_or_else(fresh_seed);
        // Names that are not known were refused before the request was queued.
        let adapter = adapter_index(options.adapter.as_deref(), info).ok().flatten();
        let processors = Processors::new(&options, bans, end_ids.clone());
        Self { processors, options, stops, end_ids, seed, adapter, codec }
    }

    pub fn is_beam_search(&self) -> bool {
        self.options.num_beams > 1
    }

    /// Sequences in the result for each prompt.
    pub fn width(&self) -> usize {
        if self.is_beam_search() { self.options.num_return_sequences } else { self.options.n }
    }

    /// Sequences that run side by side for each prompt.
    pub fn lanes(&self) -> usize {
        self.options.n.max(self.options.num_beams)
    }

    pub fn beams(&self, max_new_tokens: usize) -> BeamSettings {
        BeamSettings {
            num_beams: self.options.num_beams,
            length_penalty: self.options.length_penalty,
            early_stopping: self.options.early_stopping,
            max_new_tokens,
            end_ids: self.end_ids.len(),
        }
    }
}

/// What a sequence of the result is made of when it has ended.
pub(crate) struct Ended {
    pub sequence: u32,
    pub tokens: Vec<TokenEvent>,
    pub reason: FinishReason,
    pub stop: Option<usize>,
    pub score: Option<f32>,
}
