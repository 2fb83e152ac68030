//! One `generate` call on the model's thread: its waiting prompts, its running tasks, its results.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use candlewick_models::CausalInfo;

use crate::error::{EngineError, Result};
use crate::options::GenerateOptions;
use crate::plan::{Ended, Plan};
use crate::result::{FinishReason, GenerationResult, SequenceResult, Timings, TokenEvent, Usage};
use crate::stream::{Producer, Stop};
use crate::task::Task;
use crate::text::Codec;

/// A request on its way to the model's thread: each prompt's ids and how many tokens may follow them.
pub(crate) struct Job {
    pub producer: Producer,
    pub options: GenerateOptions,
    pub prompts: Vec<(Vec<u32>, usize)>,
    pub submitted: Instant,
}

#[derive(Default)]
struct Clocks {
    started: Option<Instant>,
    first_token: Option<Instant>,
    prefill: f64,
    /// Prompt tokens computed.
    prefilled: usize,
    decode: f64,
}

pub(crate) struct Request {
    pub producer: Producer,
    pub plan: Arc<Plan>,
    /// Prompts that do not run yet: index, ids, new tokens.
    pub waiting: VecDeque<(usize, Vec<u32>, usize)>,
    pub tasks: Vec<Task>,
    /// The reader's queue is full: no task of this request runs in this turn.
    pub paused: bool,
    submitted: Instant,
    clocks: Clocks,
    usage: Usage,
    results: Vec<Option<SequenceResult>>,
    /// Tokens of this step, on their way to the reader.
    fresh: Vec<TokenEvent>,
}

impl Request {
    pub fn new(job: Job, info: &CausalInfo, codec: Option<Codec>) -> Self {
        let plan = Plan::new(job.options, info, codec);
        let usage =
            Usage { prompt_tokens: job.prompts.iter().map(|(ids, _)| ids.len()).sum(), ..Usage::default() };
        let results = (0..job.prompts.len() * plan.width()).map(|_| None).collect();
        let prompts = job.prompts.into_iter().enumerate();
        Self {
            producer: job.producer,
            plan: Arc::new(plan),
            waiting: prompts.map(|(index, (ids, room))| (index, ids, room)).collect(),
            tasks: Vec::new(),
            paused: false,
            submitted: job.submitted,
            clocks: Clocks::default(),
            usage,
            results,
            fresh: Vec::new(),
        }
    }

    pub fn cached(&mut self, tokens: usize) {
        self.usage.cached_tokens += tokens;
    }

    pub fn starts(&mut self, now: Instant) {
        self.clocks.started.get_or_insert(now);
    }

    /// Counts the time of a step in which `tokens` of this request took part.
    pub fn spent(&mut self, seconds: f64, tokens: usize, prefill: bool) {
        if prefill {
            self.clocks.prefill += seconds;
            self.clocks.prefilled += tokens;
        } else {
            self.clocks.decode += seconds;
        }
    }

    pub fn emit(&mut self, event: TokenEvent) {
        self.fresh.push(event);
    }

    /// Hands this step's tokens to the reader.
    pub fn flush(&mut self) {
        if !self.fresh.is_empty() {
            self.clocks.first_token.get_or_insert_with(Instant::now);
            self.producer.push(self.fresh.drain(..));
        }
    }

    pub fn ended(&mut self, ended: Ended) {
        let Ended { sequence, tokens, reason, stop, score } = ended;
        self.usage.completion_tokens += tokens.len();
        self.results[sequence as usize] = Some(SequenceResult {
            prompt: sequence as usize / self.plan.width(),
            text: tokens.iter().map(|token| token.text.as_str()).collect(),
            tokens,
            finish_reason: reason,
            stop_sequence: stop.map(|which| self.plan.stops[which].clone()),
            score,
        });
    }

    pub fn is_complete(&self) -> bool {
        self.tasks.is_empty() && self.waiting.is_empty()
    }

    /// Ends the request with what there is, or with an error.
    pub fn finish(mut self, end: Result<()>) {
        self.flush();
        let stop = self.producer.stop();
        let outcome = match (end, stop) {
            (Err(EngineError::Aborted), Some(Stop::Reader)) => Ok(()),
            (end, _) => end,
        };
        if let Err(error) = outcome {
            return self.producer.finish(Err(error));
        }
        for task in std::mem::take(&mut self.tasks) {
            task.cut_short().into_iter().for_each(|ended| self.ended(ended));
        }
        let result = self.result();
        self.producer.finish(Ok(result));
    }

    fn result(&mut self) -> GenerationResult {
        let width = self.plan.width();
        let nothing = |index: usize| SequenceResult {
            prompt: index / width,
            text: String::new(),
            tokens: Vec::new(),
            finish_reason: FinishReason::Aborted,
            stop_sequence: None,
            score: None,
        };
        let results = std::mem::take(&mut self.results).into_iter().enumerate();
        let sequences: Vec<_> =
            results.map(|(index, result)| result.unwrap_or_else(|| nothing(index))).collect();
        let (usage, clocks) = (self.usage, &self.clocks);
        let since = |then: Option<Instant>| {
            then.unwrap_or_else(Instant::now).duration_since(self.submitted).as_secs_f64() * 1e3
        };
        let rate = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        let first_tokens = sequences.iter().filter(|sequence| !sequence.tokens.is_empty()).count();
        let timings = Timings {
            queued_ms: since(clocks.started),
            prefill_ms: clocks.prefill * 1e3,
            decode_ms: clocks.decode * 1e3,
            first_token_ms: since(clocks.first_token),
            prefill_tokens_per_second: rate(clocks.prefilled, clocks.prefill),
            decode_tokens_per_second: rate(usage.completion_tokens - first_tokens, clocks.decode),
        };
        GenerationResult { sequences, usage, timings, seed: self.plan.seed }
    }
}
