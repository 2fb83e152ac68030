//! One `generate` call on the model's thread: its waiting prompts, its running groups, its results.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use candlewick_models::{CausalInfo, StepLogits};

use crate::error::{EngineError, Result};
use crate::generation::batch::Priority;
use crate::generation::group::{Output, Prompt, SequenceGroup};
use crate::generation::kv::memory::Memory;
use crate::generation::kv::prefix::{Prefixes, Realm};
use crate::generation::options::GenerateOptions;
use crate::generation::plan::{Ended, Plan};
use crate::generation::result::{FinishReason, GenerationResult, SequenceResult, Timings, TokenEvent, Usage};
use crate::generation::sampling::bans::Bans;
use crate::generation::sampling::processors::Scratch;
use crate::generation::stream::{Producer, Stop};
use crate::runtime::admission::Ticket;
use crate::runtime::codec::Codec;

/// A request on its way to the model's thread: each prompt's ids and how many tokens may follow them.
pub(crate) struct Job {
    pub producer: Producer,
    pub options: GenerateOptions,
    /// Those of the options.
    pub bans: Bans,
    pub prompts: Vec<(Vec<u32>, usize)>,
    pub submitted: Instant,
    /// With whom its turns are shared.
    pub client: u64,
    /// Its place in the queue.
    pub ticket: Ticket,
    pub deadline: Option<Deadline>,
}

/// When a request must have ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub at: Instant,
    /// As it was asked for.
    pub ms: u64,
}

impl Deadline {
    pub fn has_passed(&self) -> bool {
        self.at <= Instant::now()
    }
}

/// Tokens of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StepSize {
    pub tokens: usize,
    pub sequences: usize,
    /// Those of prompts, and of what is computed again after a pause.
    pub prefill: usize,
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
    /// With whom its turns are shared.
    pub client: u64,
    pub priority: Priority,
    pub deadline: Option<Deadline>,
    ticket: Ticket,
    /// What its prefixes are shared within.
    pub realm: Realm,
    /// Prompts that do not run yet.
    pub waiting: VecDeque<Prompt>,
    pub groups: Vec<SequenceGroup>,
    /// The reader's queue is full: no group of this request runs in this turn.
    pub paused: bool,
    /// Its part of the step that is being made.
    pub scheduled: StepSize,
    submitted: Instant,
    clocks: Clocks,
    usage: Usage,
    results: Vec<Option<SequenceResult>>,
    /// Tokens of this step, on their way to the reader.
    fresh: Vec<TokenEvent>,
}

impl Request {
    pub fn new(job: Job, info: &CausalInfo, codec: Option<Codec>) -> Self {
        let mut plan = Plan::new(job.options, job.bans, info, codec);
        let usage =
            Usage { prompt_tokens: job.prompts.iter().map(|(ids, _)| ids.len()).sum(), ..Usage::default() };
        let results = (0..job.prompts.len() * plan.width()).map(|_| None).collect();
        let mut existing = std::mem::take(&mut plan.options.continue_from);
        let waiting = job.prompts.into_iter().enumerate().map(|(index, (tokens, max_new_tokens))| {
            let count = plan.width().min(existing.len());
            Prompt { index, tokens, max_new_tokens, existing: existing.drain(..count).collect() }
        });
        let waiting = waiting.collect();
        let scope = plan.options.scope.as_deref().map(Arc::from);
        let (realm, priority) = (Realm { adapter: plan.adapter, scope }, plan.options.priority);
        Self {
            producer: job.producer,
            plan: Arc::new(plan),
            client: job.client,
            priority,
            deadline: job.deadline,
            ticket: job.ticket,
            realm,
            waiting,
            groups: Vec::new(),
            paused: false,
            scheduled: StepSize::default(),
            submitted: job.submitted,
            clocks: Clocks::default(),
            usage,
            results,
            fresh: Vec::new(),
        }
    }

    /// Takes the next prompt off the queue.
    pub fn next_prompt(&mut self) -> Option<Prompt> {
        let next = self.waiting.pop_front()?;
        self.ticket.start(next.tokens.len());
        if self.waiting.is_empty() {
            self.ticket.leave();
        }
        Some(next)
    }

    /// Whether its deadline has passed.
    pub fn is_late(&self) -> bool {
        self.deadline.as_ref().is_some_and(Deadline::has_passed)
    }

    pub fn cached(&mut self, tokens: usize) {
        self.usage.cached_tokens += tokens;
    }

    pub fn starts(&mut self, now: Instant) {
        self.clocks.started.get_or_insert(now);
    }

    /// Takes the logits of a step. Returns how many tokens were guessed, and how many of them were right.
    pub fn advance(
        &mut self,
        logits: &mut dyn StepLogits,
        scratch: &mut Scratch,
        prefixes: &mut Prefixes,
    ) -> Result<(usize, usize)> {
        let mut output = Output::default();
        for group in &mut self.groups {
            group.advance(&self.plan, logits, scratch, &mut output)?;
        }
        self.groups.retain(|group| !group.is_over());
        let guesses = (output.drafted, output.accepted);
        self.settle(output, prefixes);
        Ok(guesses)
    }

    /// Begins with a prompt.
    pub fn start(&mut self, prompt: Prompt, serial: u64, memory: &mut Memory) -> Result<()> {
        let mut group = SequenceGroup::new(&self.plan, prompt, memory.block, serial)?;
        let mut output = Output::default();
        group.ended(&mut output);
        if !group.is_over() {
            self.groups.push(group);
        }
        self.settle(output, &mut memory.prefixes);
        Ok(())
    }

    fn settle(&mut self, mut output: Output, prefixes: &mut Prefixes) {
        output.retired.iter_mut().for_each(|sequence| sequence.publish_end(prefixes, &self.realm));
        self.fresh.extend(output.events);
        output.ended.into_iter().for_each(|ended| self.ended(ended));
        self.usage.drafted_tokens += output.drafted;
        self.usage.accepted_tokens += output.accepted;
    }

    /// Counts the time of a step: by its tokens, where some were of prompts and others not.
    pub fn spent(&mut self, seconds: f64) {
        let StepSize { tokens, prefill, .. } = std::mem::take(&mut self.scheduled);
        if tokens > 0 {
            let part = seconds * prefill as f64 / tokens as f64;
            self.clocks.prefill += part;
            self.clocks.prefilled += prefill;
            self.clocks.decode += seconds - part;
        }
    }

    /// Hands this step's tokens to the reader.
    pub fn flush(&mut self) {
        if !self.fresh.is_empty() {
            self.clocks.first_token.get_or_insert_with(Instant::now);
            self.producer.push(self.fresh.drain(..));
        }
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { sequence, tokens, reason, stop, score } = ended;
        self.usage.completion_tokens += tokens.len();
        self.results[sequence as usize] = Some(SequenceResult {
            prompt: sequence as usize / self.plan.width(),
            text: tokens.iter().map(|token| token.text.as_str()).collect(),
            stop_token_id: tokens.last().map(|token| token.id).filter(|id| {
                reason == FinishReason::Stop
                    && stop.is_none()
                    && self.plan.options.stop_token_ids.contains(id)
            }),
            tokens,
            finish_reason: reason,
            stop_sequence: stop.map(|which| self.plan.stops[which].clone()),
            score,
        });
    }

    pub fn is_complete(&self) -> bool {
        self.groups.is_empty() && self.waiting.is_empty()
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
        for group in std::mem::take(&mut self.groups) {
            group.cut_short().into_iter().for_each(|ended| self.ended(ended));
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
            stop_token_id: None,
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
