//! The thread that owns a causal language model. Each turn makes one step of all sequences that decode, as one batch,
//! and one chunk of prefill, so that neither starves the other. A sequence's result does not depend on what shares a
//! step with it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use candlewick_models::{CausalLm, LogitsOf, ModelError, SequenceStep};

use crate::error::{EngineError, Result};
use crate::likelihood::ScoreRun;
use crate::prefix::Prefixes;
use crate::processors::Scratch;
use crate::request::{Job, Request};
use crate::stream::Shared;
use crate::task::{Output, Retired, Task};
use crate::text::Codec;

/// Tokens of prefill per turn: enough for full matrix speed.
const CHUNK: usize = 256;
/// The same while others decode: a chunk is the longest pause between two of their tokens.
const CHUNK_BESIDE_DECODING: usize = 64;
/// Sequences that may run at once (paused ones aside), each with a cache of its own. A request that has none running
/// may go beyond, up to twice as many, so that a request with a thousand prompts does not shut out the rest.
const SEQUENCES: usize = 64;

pub(crate) enum Command {
    Start(Box<Job>),
    Score(Box<ScoreRun>),
    /// Wakes the thread to check its flags: a request was cancelled, the model closed, or a queue was read.
    Wake,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Decode,
    Prefill,
}

pub(crate) struct Scheduler {
    model: Box<dyn CausalLm>,
    codec: Option<Codec>,
    inbox: mpsc::Receiver<Command>,
    closing: Arc<AtomicBool>,
    requests: Vec<Request>,
    /// Calls for scores, served in order, one forward pass a turn.
    scoring: VecDeque<ScoreRun>,
    prefixes: Prefixes,
    scratch: Scratch,
}

impl Scheduler {
    pub fn new(
        model: Box<dyn CausalLm>,
        codec: Option<Codec>,
        inbox: mpsc::Receiver<Command>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        let prefixes = Prefixes::new(model.info());
        Self {
            model,
            codec,
            inbox,
            closing,
            requests: Vec::new(),
            scoring: VecDeque::new(),
            prefixes,
            scratch: Scratch::default(),
        }
    }

    /// Serves until the model is closed. Requests left over are dropped, and their streams say so.
    pub fn run(mut self) {
        while let Ok(command) = self.inbox.recv() {
            self.accept(command);
            let guard = self.model.active();
            while !self.closing.load(Ordering::Acquire) && self.turn() {
                self.drain();
            }
            drop(guard);
            if self.closing.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Wake => {}
            Command::Score(run) => self.scoring.push_back(*run),
            Command::Start(job) => {
                let request = Request::new(*job, self.model.info(), self.codec.clone());
                self.requests.push(request);
            }
        }
    }

    fn drain(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            self.accept(command);
        }
    }

    /// `false`: nothing to do until a command comes.
    fn turn(&mut self) -> bool {
        self.drain();
        self.end_stopped();
        self.admit();
        let decoded = self.step(Phase::Decode);
        let filled = self.step(Phase::Prefill);
        let scored = self.score();
        decoded || filled || scored
    }

    /// One pass for the call that is first in line; `false`: there is none.
    fn score(&mut self) -> bool {
        let Some(mut run) = self.scoring.pop_front() else { return false };
        if run.is_cancelled() {
            run.finish(Err(EngineError::Aborted));
            return true;
        }
        let (model, closing) = (&mut self.model, &self.closing);
        let stop = || closing.load(Ordering::Acquire);
        match catch_unwind(AssertUnwindSafe(|| run.step(model.as_mut(), &stop))) {
            Ok(Ok(())) if run.is_complete() => run.finish(Ok(())),
            Ok(Ok(())) => self.scoring.push_back(run),
            // Dropped, the reply says that the model was closed.
            Ok(Err(EngineError::Aborted)) if !run.is_cancelled() => drop(run),
            Ok(Err(error)) => run.finish(Err(error)),
            Err(panic) => run.finish(Err(EngineError::panicked(&*panic))),
        }
        true
    }

    fn end_stopped(&mut self) {
        let stopped = self.requests.extract_if(.., |request| request.producer.stop().is_some());
        for request in stopped.collect::<Vec<_>>() {
            request.finish(Err(EngineError::Aborted));
        }
    }

    /// Starts waiting prompts while there is room, first those of the request that has the fewest running.
    fn admit(&mut self) {
        for request in &mut self.requests {
            let sequences = request.tasks.iter().map(|task| task.sequences.len()).sum();
            request.paused = !request.producer.has_room(sequences);
        }
        loop {
            let running = self.requests.iter().filter(|request| !request.paused);
            let lanes: usize = running.map(|request| request.tasks.len() * request.plan.lanes()).sum();
            let fits = |request: &Request| {
                let limit = if request.tasks.is_empty() { 2 * SEQUENCES } else { SEQUENCES };
                lanes + request.plan.lanes() <= limit
            };
            let ready = self.requests.iter().enumerate().filter(|(_, r)| !r.paused && !r.waiting.is_empty());
            let next =
                ready.filter(|(_, request)| fits(request)).min_by_key(|(_, request)| request.tasks.len());
            let Some((index, _)) = next else { return };
            if let Err(error) = self.start_prompt(index) {
                self.requests.remove(index).finish(Err(error));
            }
        }
    }

    fn start_prompt(&mut self, index: usize) -> Result<()> {
        let request = &mut self.requests[index];
        let Some((prompt, tokens, room)) = request.waiting.pop_front() else { return Ok(()) };
        let capacity = tokens.len() + room;
        let adapter = request.plan.adapter;
        let cache = match self.prefixes.longest(&tokens, adapter) {
            Some((shared, known)) => {
                let mut cache = known.fork(capacity.max(known.len()))?;
                cache.truncate(shared);
                request.cached(shared);
                cache
            }
            None => match adapter {
                Some(adapter) => self.model.new_adapted_cache(capacity, adapter)?,
                None => self.model.new_cache(capacity)?,
            },
        };
        let task = Task::new(&request.plan, prompt, tokens, cache, room);
        request.tasks.push(task);
        Ok(())
    }

    /// Runs one forward pass over the sequences of this phase; `false`: there are none.
    fn step(&mut self, phase: Phase) -> bool {
        if !self.schedule(phase) {
            return false;
        }
        let start = Instant::now();
        let scheduled = |request: &Request| request.scheduled() > 0;
        for request in self.requests.iter_mut().filter(|request| scheduled(request)) {
            request.starts(start);
        }
        let result = self.forward(phase);
        let computed: Vec<usize> = self.requests.iter_mut().map(Request::take_scheduled).collect();
        match result {
            Ok(()) => self.advance(&computed, phase, start),
            // Cancelled requests end at the next turn; the others repeat the step.
            Err(EngineError::Aborted) => {}
            Err(error) => self.fail(&computed, error),
        }
        true
    }

    /// Decides how many tokens of each sequence the step takes.
    fn schedule(&mut self, phase: Phase) -> bool {
        let decoding = self.requests.iter().any(|r| !r.paused && r.tasks.iter().any(|task| task.started));
        let mut budget = if decoding { CHUNK_BESIDE_DECODING } else { CHUNK };
        let mut any = false;
        for request in self.requests.iter_mut().filter(|request| !request.paused) {
            for task in request.tasks.iter_mut().filter(|task| task.started == (phase == Phase::Decode)) {
                for sequence in &mut task.sequences {
                    sequence.scheduled = match phase {
                        Phase::Decode => sequence.unseen(),
                        Phase::Prefill => sequence.unseen().min(budget),
                    };
                    if phase == Phase::Prefill {
                        budget -= sequence.scheduled;
                    }
                    any |= sequence.scheduled > 0;
                }
            }
        }
        any
    }

    fn forward(&mut self, phase: Phase) -> Result<()> {
        let mut readers: Vec<Arc<Shared>> = Vec::new();
        let mut batch: Vec<SequenceStep<'_>> = Vec::new();
        for request in &mut self.requests {
            let before = batch.len();
            for sequence in request.tasks.iter_mut().flat_map(|task| &mut task.sequences) {
                if sequence.scheduled > 0 {
                    let seen = sequence.cache.len();
                    let end = seen + sequence.scheduled;
                    let last = end == sequence.tokens.len();
                    batch.push(SequenceStep {
                        tokens: &sequence.tokens[seen..end],
                        cache: sequence.cache.as_mut(),
                        want: if last { LogitsOf::Last } else { LogitsOf::None },
                        logits: &mut sequence.logits,
                    });
                }
            }
            if batch.len() > before {
                readers.push(request.producer.shared().clone());
            }
        }
        let closing = &self.closing;
        let stop = || {
            closing.load(Ordering::Acquire)
                || match phase {
                    // A chunk is long: a cancelled request ends it, and the other requests start it again.
                    Phase::Prefill => readers.iter().any(|reader| reader.stopped()),
                    Phase::Decode => readers.iter().all(|reader| reader.stopped()),
                }
        };
        let model = &mut self.model;
        match catch_unwind(AssertUnwindSafe(|| model.forward(&mut batch, &stop))) {
            Ok(Err(ModelError::Stopped)) if !stop() => {
                Err(EngineError::Internal("the model stopped by itself".into()))
            }
            Ok(result) => Ok(result?),
            Err(panic) => {
                self.prefixes.clear();
                Err(EngineError::panicked(&*panic))
            }
        }
    }

    /// After a step: chooses the next tokens, sends them, and ends finished requests.
    fn advance(&mut self, computed: &[usize], phase: Phase, start: Instant) {
        let mut failed: Vec<(usize, EngineError)> = Vec::new();
        let mut retired = Vec::new();
        let took_part = |index: &usize| computed[*index] > 0;
        for index in (0..self.requests.len()).filter(took_part) {
            match self.requests[index].advance(phase == Phase::Decode, &mut self.scratch, &mut retired) {
                Ok(()) => self.requests[index].flush(),
                Err(error) => failed.push((index, error)),
            }
        }
        retired.into_iter().for_each(|(tokens, cache)| self.prefixes.keep(tokens, cache));
        let seconds = start.elapsed().as_secs_f64();
        for index in (0..self.requests.len()).filter(took_part) {
            self.requests[index].spent(seconds, computed[index], phase == Phase::Prefill);
        }
        for (index, error) in failed.into_iter().rev() {
            self.requests.remove(index).finish(Err(error));
        }
        let complete = self.requests.extract_if(.., |request| request.is_complete());
        complete.collect::<Vec<_>>().into_iter().for_each(|request| request.finish(Ok(())));
    }

    /// Ends every request that took part in a step that failed.
    fn fail(&mut self, computed: &[usize], error: EngineError) {
        for index in (0..computed.len()).rev().filter(|index| computed[*index] > 0) {
            self.requests.remove(index).finish(Err(error.clone()));
        }
    }
}

impl Request {
    fn scheduled(&self) -> usize {
        self.tasks.iter().flat_map(|task| &task.sequences).map(|sequence| sequence.scheduled).sum()
    }

    fn take_scheduled(&mut self) -> usize {
        let sequences = self.tasks.iter_mut().flat_map(|task| &mut task.sequences);
        sequences.map(|sequence| std::mem::take(&mut sequence.scheduled)).sum()
    }

    /// Advances the tasks whose logits the step has made: the running ones or those whose prefill is complete.
    fn advance(&mut self, decode: bool, scratch: &mut Scratch, retired: &mut Vec<Retired>) -> Result<()> {
        let mut output = Output::default();
        for task in self.tasks.iter_mut().filter(|task| task.started == decode) {
            // Of several prompts in prefill the step may have reached the end of some.
            if task.sequences.iter().all(|sequence| sequence.unseen() == 0) {
                task.advance(&self.plan, scratch, &mut output)?;
            }
        }
        self.tasks.retain(|task| !task.is_over());
        output.events.into_iter().for_each(|event| self.emit(event));
        output.ended.into_iter().for_each(|ended| self.ended(ended));
        retired.extend(output.retired);
        Ok(())
    }
}
