//! What the options do to a token's scores, in the order of transformers' `_get_logits_processor`: logit bias,
//! repetition penalty, presence and frequency penalty (OpenAI's), n-gram ban, bad words, minimal length, suppressed
//! tokens; then, when sampling, temperature, top-k, top-p, min-p. A token that is out has the score minus infinity.

use crate::generation::options::GenerateOptions;
use crate::generation::sampling::bans::Bans;
use crate::logits::{self, Entry, largest};

const BANNED: f32 = f32::NEG_INFINITY;

/// Up to here the k best are kept in a heap; beyond, a partial selection over a copy is cheaper.
const HEAP_LIMIT: usize = 1024;

/// The options that act on scores, taken from a request once.
#[derive(Debug, Clone)]
pub struct Processors {
    logit_bias: Vec<(u32, f32)>,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    no_repeat_ngram_size: usize,
    bans: Bans,
    min_new_tokens: usize,
    /// Banned until `min_new_tokens`.
    end_ids: Vec<u32>,
    suppress_tokens: Vec<u32>,
    /// As the first token of the continuation.
    begin_suppress_tokens: Vec<u32>,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
}

/// Buffers over the vocabulary, kept by the thread that samples so that no token allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) weights: Vec<f32>,
    pub(crate) sums: Vec<f64>,
    /// Per bin of [`keep_top_p`].
    mass: Vec<f64>,
    /// Per token; all zero between uses.
    counts: Vec<u32>,
}

impl Processors {
    pub fn new(options: &GenerateOptions, bans: Bans, end_ids: Vec<u32>) -> Self {
        Self {
            logit_bias: options.logit_bias.clone(),
            repetition_penalty: options.repetition_penalty,
            presence_penalty: options.presence_penalty,
            frequency_penalty: options.frequency_penalty,
            no_repeat_ngram_size: options.no_repeat_ngram_size,
            bans,
            min_new_tokens: options.min_new_tokens,
            end_ids,
            suppress_tokens: options.suppress_tokens.clone(),
            begin_suppress_tokens: options.begin_suppress_tokens.clone(),
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
        }
    }

    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether the token after `tokens` tokens, of which the first `prompt` are the prompt, is the likeliest one by the
    /// raw logits.
    pub fn takes_likeliest(&self, tokens: usize, prompt: usize) -> bool {
        self.is_greedy()
            && self.logit_bias.is_empty()
            && self.repetition_penalty == 1.0
            && self.presence_penalty == 0.0
            && self.frequency_penalty == 0.0
            && self.no_repeat_ngram_size == 0
            && self.bans.is_empty()
            && tokens - prompt >= self.min_new_tokens
            && self.suppress_tokens.is_empty()
            && (self.begin_suppress_tokens.is_empty() || tokens > prompt)
    }

    /// The option to name where no token is left.
    pub fn banning(&self) -> &'static str {
        match self {
            _ if self.logit_bias.iter().any(|(_, bias)| *bias == BANNED) => "logitBias",
            _ if !self.suppress_tokens.is_empty() => "suppressTokens",
            _ if !self.begin_suppress_tokens.is_empty() => "beginSuppressTokens",
            _ if !self.bans.is_empty() => "badWords",
            _ => "noRepeatNgramSize",
        }
    }

    /// What acts on logits when sampling or greedy, and on log-probabilities in beam search. `tokens` are prompt and
    /// continuation, of which the prompt is the first `prompt`.
    pub fn adjust(&self, scores: &mut [f32], tokens: &[u32], prompt: usize, scratch: &mut Scratch) {
        for (id, bias) in &self.logit_bias {
            scores[*id as usize] += bias;
        }
        if self.repetition_penalty != 1.0 {
            for_counts(tokens, scores.len(), &mut scratch.counts, |id, _| {
                let score = &mut scores[id];
                *score = if *score < 0.0 {
                    *score * self.repetition_penalty
                } else {
                    *score / self.repetition_penalty
                };
            });
        }
        if self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 {
            for_counts(&tokens[prompt..], scores.len(), &mut scratch.counts, |id, count| {
                scores[id] -= self.frequency_penalty * count as f32 + self.presence_penalty;
            });
        }
        if self.no_repeat_ngram_size > 0 {
            ban_ngrams(scores, tokens, self.no_repeat_ngram_size);
        }
        self.bans.after(tokens, |id| scores[id as usize] = BANNED);
        if tokens.len() - prompt < self.min_new_tokens {
            self.end_ids.iter().for_each(|id| scores[*id as usize] = BANNED);
        }
        self.suppress_tokens.iter().for_each(|id| scores[*id as usize] = BANNED);
        if tokens.len() == prompt {
            self.begin_suppress_tokens.iter().for_each(|id| scores[*id as usize] = BANNED);
        }
    }

    /// What shapes the distribution that is sampled from.
    pub fn warp(&self, scores: &mut [f32], scratch: &mut Scratch) {
        if self.temperature != 1.0 {
            scores.iter_mut().for_each(|score| *score /= self.temperature);
        }
        if self.top_k > 0 && self.top_k < scores.len() {
            keep_top_k(scores, self.top_k, scratch);
        }
        if self.top_p < 1.0 {
            keep_top_p(scores, self.top_p, scratch);
        }
        if self.min_p > 0.0 {
            let max = logits::max(scores);
            let drop = |score: &mut f32| {
                if logits::exp(*score - max) < self.min_p {
                    *score = BANNED;
                }
            };
            scores.iter_mut().for_each(drop);
        }
    }
}

/// Calls `act` once for each different token, with its count. Costs the tokens, not the vocabulary.
fn for_counts(tokens: &[u32], vocab_size: usize, counts: &mut Vec<u32>, mut act: impl FnMut(usize, u32)) {
    counts.resize(vocab_size, 0);
    for id in tokens {
        counts[*id as usize] += 1;
    }
    for id in tokens {
        let count = std::mem::take(&mut counts[*id as usize]);
        if count > 0 {
            act(*id as usize, count);
        }
    }
}

/// Bans every token that would complete an n-gram for the second time.
fn ban_ngrams(scores: &mut [f32], tokens: &[u32], n: usize) {
    let Some(start) = (tokens.len() + 1).checked_sub(n) else { return };
    let last = &tokens[start..]; // n - 1 tokens
    for window in tokens.windows(n) {
        if window[..n - 1] == *last {
            scores[window[n - 1] as usize] = BANNED;
        }
    }
}

/// Keeps the `k` best and all that equal the last of them.
fn keep_top_k(scores: &mut [f32], k: usize, scratch: &mut Scratch) {
    let bar = if k <= HEAP_LIMIT {
        largest(scores, k).last().map_or(BANNED, |entry| entry.score)
    } else {
        scratch.weights.clear();
        scratch.weights.extend_from_slice(scores);
        *scratch.weights.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    };
    for score in scores {
        *score = if *score < bar { BANNED } else { *score };
    }
}

/// Keeps the smallest set of likeliest tokens whose probabilities reach `p`: those before which less than `p` is spent,
/// and the first in any case. Tokens are binned by the leading bits of their weight, which order them as the weights
/// do, in bins of a few percent; only the bin in which `p` is reached needs an order.
fn keep_top_p(scores: &mut [f32], p: f32, scratch: &mut Scratch) {
    const SHIFT: u32 = 18; // 5 bits of mantissa
    const BINS: usize = (1.0f32.to_bits() >> SHIFT) as usize + 1;
    let max = logits::max(scores);
    if max == BANNED {
        return;
    }
    let Scratch { weights, sums, mass, .. } = scratch;
    let goal = f64::from(p) * logits::exponentials(scores, max, weights, sums);
    let bin_of = |weight: f32| ((weight.to_bits() >> SHIFT) as usize).min(BINS - 1);
    mass.clear();
    mass.resize(BINS, 0.0);
    for weight in weights.iter().filter(|weight| **weight > 0.0) {
        mass[bin_of(*weight)] += f64::from(*weight);
    }
    let (mut spent, mut border) = (0f64, BINS - 1);
    while border > 0 && spent + mass[border] < goal {
        spent += mass[border];
        border -= 1;
    }
    let mut within: Vec<Entry> = Vec::new();
    for (id, (score, weight)) in scores.iter_mut().zip(weights.iter()).enumerate() {
        let bin = bin_of(*weight);
        if bin == border {
            within.push(Entry { score: *score, id: id as u32 });
        }
        *score = if bin < border { BANNED } else { *score };
    }
    within.sort_unstable_by(|a, b| b.cmp(a));
    for (rank, entry) in within.iter().enumerate() {
        let first = border == BINS - 1 && rank == 0;
        if spent >= goal && !first {
            scores[entry.id as usize] = BANNED;
        }
        spent += f64::from(weights[entry.id as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::sampling::rng::uniform;

    fn processors(change: impl FnOnce(&mut GenerateOptions)) -> Processors {
        let mut options = GenerateOptions::default();
        change(&mut options);
        let bans = Bans::new(&options.bad_word_ids, &[0]);
        Processors::new(&options, bans, vec![0])
    }

    fn kept(scores: &[f32]) -> Vec<usize> {
        (0..scores.len()).filter(|id| scores[*id] != BANNED).collect()
    }

    #[test]
    fn top_p_agrees_with_a_full_sort() {
        let mut scratch = Scratch::default();
        for case in 0..200u64 {
            let spread = [0.5f32, 5.0, 60.0][case as usize % 3];
            let scores: Vec<f32> = (0..300).map(|i| uniform(case, i, 0) as f32 * spread).collect();
            let p = uniform(case, 0, 1) as f32;
            let max = logits::max(&scores);
            let weight = |id: usize| f64::from(scores[id] - max).exp();
            let total: f64 = (0..300).map(weight).sum();
            let mut order: Vec<usize> = (0..300).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            let mut spent = 0.0;
            let mut expected: Vec<usize> = order
                .into_iter()
                .take_while(|id| {
                    let keep = spent == 0.0 || spent < f64::from(p) * total;
                    spent += weight(*id);
                    keep
                })
                .collect();
            expected.sort_unstable();
            let mut ours = scores.clone();
            processors(|o| o.top_p = p).warp(&mut ours, &mut scratch);
            assert_eq!(kept(&ours), expected, "case {case}");
        }
    }

    #[test]
    fn both_ways_to_top_k_agree_and_keep_ties() {
        let scores: Vec<f32> = (0..5000).map(|i| (uniform(2, i, 0) * 300.0).round() as f32).collect();
        let mut scratch = Scratch::default();
        for k in [1, 40, HEAP_LIMIT, HEAP_LIMIT + 1, 4999] {
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let mut ours = scores.clone();
            processors(|o| o.top_k = k).warp(&mut ours, &mut scratch);
            let expected: Vec<usize> = (0..scores.len()).filter(|id| scores[*id] >= sorted[k - 1]).collect();
            assert_eq!(kept(&ours), expected, "{k}");
        }
    }

    #[test]
    fn the_likeliest_token_is_taken_unread_only_where_no_option_changes_the_choice() {
        let takes = |change: fn(&mut GenerateOptions), tokens: usize| {
            let greedy = |o: &mut GenerateOptions| {
                o.temperature = 0.0;
                change(o);
            };
            processors(greedy).takes_likeliest(tokens, 2)
        };
        assert!(takes(|_| {}, 2));
        // What only shapes a distribution does not move its largest value.
        assert!(takes(|o| (o.top_k, o.top_p, o.min_p) = (5, 0.5, 0.1), 2));
        let changes: [fn(&mut GenerateOptions); 9] = [
            |o| o.temperature = 1.0,
            |o| o.logit_bias = vec![(3, 1.0)],
            |o| o.repetition_penalty = 1.1,
            |o| o.presence_penalty = 0.1,
            |o| o.frequency_penalty = 0.1,
            |o| o.no_repeat_ngram_size = 2,
            |o| o.bad_word_ids = vec![vec![1, 2]],
            |o| o.suppress_tokens = vec![3],
            |o| o.begin_suppress_tokens = vec![3],
        ];
        assert!(changes.iter().all(|change| !takes(*change, 2)));
        assert!(takes(|o| o.begin_suppress_tokens = vec![3], 3), "only the first token is another one");
        assert!(!takes(|o| o.min_new_tokens = 2, 3) && takes(|o| o.min_new_tokens = 2, 4));
    }

    #[test]
    fn the_minimal_length_bans_end_tokens() {
        let processors = processors(|o| o.min_new_tokens = 2);
        let mut scratch = Scratch::default();
        for (tokens, banned) in [(&[5, 6][..], true), (&[5, 6, 7], true), (&[5, 6, 7, 8], false)] {
            let mut scores = vec![1.0; 10];
            processors.adjust(&mut scores, tokens, 2, &mut scratch);
            assert_eq!(scores[0] == BANNED, banned);
        }
    }
}
