//! The thread that owns a causal language model. Each turn makes one step: all sequences that decode, and as much of
//! prompts and of what is scored as fits in a step's time, in one pass over the weights. A sequence's result does not
//! depend on what shares a step with it.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use candlewick_models::{CausalBackend, ModelError, StepLogits};

use crate::error::{EngineError, Result};
use crate::generation::guess::Guesser;
use crate::generation::kv::guests::Guests;
use crate::generation::kv::memory::Memory;
use crate::generation::request::{Job, Request, StepSize};
use crate::generation::sampling::processors::Scratch;
use crate::generation::score::{ScoreJob, ScoreRun};
use crate::generation::speculative::Cost;
use crate::generation::speculative::draft::DraftCommand;
use crate::generation::speculative::drafting::Drafting;
use crate::generation::work::Work;
use crate::runtime::admission::Queue;
use crate::runtime::codec::Codec;
use crate::runtime::pace::Pace;
use crate::runtime::stats::{Board, GeneratorStats};

pub(crate) enum Command {
    Start(Box<Job>),
    Score(Box<ScoreJob>),
    /// Of another model, for which this one guesses.
    Draft(DraftCommand),
    /// Wakes the thread to check its flags: a request was cancelled, the model closed, or a queue was read.
    Wake,
}

pub(crate) struct Scheduler {
    model: Box<dyn CausalBackend>,
    codec: Option<Codec>,
    inbox: mpsc::Receiver<Command>,
    closing: Arc<AtomicBool>,
    work: Work,
    memory: Memory,
    pace: Pace,
    cost: Cost,
    guesser: Guesser,
    /// Guesses that other models wait for.
    drafts: VecDeque<Drafting>,
    /// Keeps the model's helper threads awake.
    active: Option<Box<dyn Any>>,
    scratch: Scratch,
    /// Groups started so far.
    serial: u64,
    queue: Arc<Queue>,
    board: Arc<Board<GeneratorStats>>,
}

impl Scheduler {
    pub fn new(
        model: Box<dyn CausalBackend>,
        codec: Option<Codec>,
        inbox: mpsc::Receiver<Command>,
        closing: Arc<AtomicBool>,
        queue: Arc<Queue>,
        board: Arc<Board<GeneratorStats>>,
    ) -> Self {
        let (spec, most) = (model.kv(), model.info().step_tokens);
        let memory = Memory::new(spec);
        board.update(|stats| {
            (stats.blocks, stats.free_blocks) = (spec.blocks, spec.blocks);
            (stats.block_positions, stats.block_bytes) = (spec.positions, spec.bytes);
        });
        Self {
            model,
            codec,
            inbox,
            closing,
            work: Work::default(),
            memory,
            pace: Pace::new(queue.limits().max_step, most),
            cost: Cost::default(),
            guesser: Guesser::default(),
            drafts: VecDeque::new(),
            active: None,
            scratch: Scratch::default(),
            serial: 0,
            queue,
            board,
        }
    }

    /// Serves until the model is closed. Requests left over are dropped, and their streams say so.
    pub fn run(mut self) {
        while self.receive() {
            while !self.closing.load(Ordering::Acquire) && self.guarded_turn() {
                self.drain();
            }
            self.active = None;
            if self.closing.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Sleeps until a command comes or a deadline passes; `false`: the model is closed.
    fn receive(&mut self) -> bool {
        let command = match self.work.next_deadline() {
            None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match command {
            Ok(command) => self.accept(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Wake => {}
            Command::Draft(DraftCommand::Draft(job)) => {
                self.drafts.push_back(Drafting::begin(job, &mut self.memory));
            }
            Command::Draft(DraftCommand::Forget(sequence)) => {
                self.memory.guests.forget(sequence);
                self.drafts.iter_mut().for_each(|drafting| drafting.forget(sequence));
            }
            Command::Score(job) => self.work.scoring.push(ScoreRun::new(*job)),
            Command::Start(job) => {
                let request = Request::new(*job, self.model.info(), self.codec.clone());
                self.work.requests.push(request);
            }
        }
    }

    fn drain(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            self.accept(command);
        }
    }

    /// As [`turn`](Self::turn). After a panic nothing that runs is trusted, nor what lies in memory; the model serves
    /// on.
    fn guarded_turn(&mut self) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.turn())).unwrap_or_else(|panic| {
            self.work.fail_all(&EngineError::panicked(&*panic));
            self.drafts.clear();
            self.memory = Memory::new(self.model.kv());
            true
        })
    }

    /// `false`: nothing to do until a command comes.
    fn turn(&mut self) -> bool {
        self.drain();
        self.wake();
        self.draft();
        self.work.end_stopped();
        self.admit();
        let alone = self.work.is_alone();
        let budget = self.pace.tokens(alone);
        self.work.end_complete();
        // While another model guesses, this one's threads sleep.
        let patience = self.queue.limits().max_step;
        self.guesser.guess(&mut self.work.requests, &self.cost, patience, || self.active = None);
        self.wake();
        let size = self.work.schedule(&mut self.memory, budget);
        if let Some(size) = size {
            self.step(size, alone);
        }
        self.show();
        size.is_some() || !self.drafts.is_empty()
    }

    /// One pass of guesses for another model.
    fn draft(&mut self) {
        let Some(mut drafting) = self.drafts.pop_front() else { return };
        let Self { model, memory, closing, .. } = self;
        let stop = || closing.load(Ordering::Acquire);
        let pass = || drafting.pass(model.as_mut(), memory, &stop);
        match catch_unwind(AssertUnwindSafe(pass)) {
            Ok(Ok(true)) => self.drafts.push_front(drafting),
            Ok(_) => drafting.finish(&mut self.memory),
            // What it has computed is not trusted; whoever waits for it goes on without.
            Err(_) => drop(drafting),
        }
    }

    /// Wakes the model's helper threads, which spin for work from then on.
    fn wake(&mut self) {
        self.active.get_or_insert_with(|| self.model.active());
    }

    /// Starts waiting prompts while there is room, first those of the request that has the fewest running.
    fn admit(&mut self) {
        for request in &mut self.work.requests {
            let sequences = request.groups.iter().map(|group| group.sequences.len()).sum();
            request.paused = !request.producer.has_room(sequences);
        }
        if self.work.requests.iter().all(|request| request.waiting.is_empty()) {
            return;
        }
        let (block, most) = (self.memory.block, self.model.info().lanes);
        let mut left = self.memory.available().saturating_sub(self.work.promised());
        loop {
            let running = self.work.requests.iter().filter(|request| !request.paused);
            let lanes: usize = running.map(|request| request.groups.len() * request.plan.lanes()).sum();
            let fits = |request: &Request| {
                // A request that has none running may go beyond, so that one with a thousand prompts does not shut out
                // the rest.
                let limit = if request.groups.is_empty() { 2 * most } else { most };
                let blocks = request.waiting.front().map_or(0, |prompt| prompt.tokens.len() / block + 1);
                lanes + request.plan.lanes() <= limit && (blocks <= left || lanes == 0)
            };
            let requests = self.work.requests.iter().enumerate();
            let ready = requests.filter(|(_, r)| !r.paused && !r.waiting.is_empty() && fits(r));
            let Some((index, _)) = ready.min_by_key(|(_, request)| request.groups.len()) else { return };
            let request = &mut self.work.requests[index];
            let Some(prompt) = request.next_prompt() else { return };
            left = left.saturating_sub(prompt.tokens.len() / block + 1);
            self.work.prompt_tokens += prompt.tokens.len() as u64;
            self.serial += 1;
            if let Err(error) = request.start(prompt, self.serial, &mut self.memory) {
                self.work.requests.remove(index).finish(Err(error));
            }
        }
    }

    fn show(&self) {
        let (running, waiting) = self.work.count();
        self.board.update(|stats| {
            (stats.running, stats.waiting) = (running, waiting);
            stats.free_blocks = self.memory.free();
            stats.prefix_blocks = self.memory.prefixes.blocks();
            (stats.prompt_tokens, stats.cached_tokens) = (self.work.prompt_tokens, self.work.cached_tokens);
            (stats.drafted_tokens, stats.accepted_tokens) =
                (self.work.drafted_tokens, self.work.accepted_tokens);
            stats.pauses = self.work.pauses;
        });
    }

    /// `alone`: the step may be long, and is left if somebody comes.
    fn step(&mut self, size: StepSize, alone: bool) {
        let start = Instant::now();
        for request in self.work.requests.iter_mut().filter(|request| request.scheduled.tokens > 0) {
            request.starts(start);
        }
        let Self { model, work, memory, scratch, closing, queue, .. } = self;
        let arrivals = queue.arrivals();
        let interrupted = || closing.load(Ordering::Acquire) || alone && queue.arrivals() != arrivals;
        let result = forward(model.as_mut(), work, &interrupted);
        match result {
            Ok(mut logits) => {
                work.computed(memory);
                work.advance(logits.as_mut(), scratch, memory, start);
                drop(logits);
                let seconds = start.elapsed().as_secs_f64();
                self.pace.took(size.tokens, seconds);
                if size.prefill == 0 {
                    self.cost.took(size.tokens, seconds);
                }
                self.board.step(size.tokens, size.sequences, seconds);
            }
            // Somebody left, who ends at the next turn, or came; the others repeat the step.
            Err(EngineError::Aborted) => work.undo(),
            // Nothing that is on it can go on, nor begin.
            Err(error @ EngineError::Model(ModelError::DeviceLost(_))) => work.fail_all(&error),
            Err(error) => {
                if matches!(error, EngineError::Internal(_)) {
                    memory.prefixes.clear();
                    memory.guests = Guests::default();
                }
                work.fail(&error);
            }
        }
    }
}

/// The pass over the weights, with the copies of blocks that it needs before.
fn forward<'a>(
    model: &'a mut dyn CausalBackend,
    work: &Work,
    interrupted: &dyn Fn() -> bool,
) -> Result<Box<dyn StepLogits + 'a>> {
    let participants = work.participants();
    let total: usize = participants.iter().map(|(_, tokens)| tokens).sum();
    // Who leaves ends the step if most of it was theirs; what it computed for the others is computed again.
    let stop = || {
        let left = participants.iter().filter(|(who, _)| who.has_left()).map(|(_, tokens)| tokens);
        interrupted() || 2 * left.sum::<usize>() > total
    };
    let (steps, stop) = (&work.steps(), &stop);
    let pass = catch_unwind(AssertUnwindSafe(move || {
        let model = model; // moved, not borrowed: the logits outlive the closure
        model.copy_blocks(&work.copies)?;
        model.forward(steps, stop)
    }));
    match pass {
        Ok(Err(ModelError::Stopped)) if !stop() => {
            Err(EngineError::Internal("the model stopped by itself".into()))
        }
        Ok(result) => Ok(result?),
        Err(panic) => Err(EngineError::panicked(&*panic)),
    }
}
