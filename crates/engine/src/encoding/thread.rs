//! The thread that owns an encoder: it fills each forward pass with inputs of all waiting calls.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use candlewick_models::{Encoder, EncoderHead, EncoderInput, EncoderOutput, EncoderWant};

use crate::error::{EngineError, Result};
use crate::runtime::admission::{Queue, Ticket};
use crate::runtime::cancel::CancelToken;
use crate::runtime::pace::Pace;
use crate::runtime::stats::{Board, EncoderStats};

/// Tokens of a pass while one call runs: enough for full matrix speed.
const MOST: usize = 512;
/// Of these, how many may get logits over the whole vocabulary: 256 × 30,522 × 4 bytes are 31 MB.
const BATCH_VOCABULARY_ROWS: usize = 256;

pub(crate) enum Command {
    Run(Box<Run>),
    Wake,
}

/// Where a call's outputs go, on the model's thread. If it is dropped before its end, the waiting caller gets an error.
pub(crate) trait Sink: Send {
    fn take(&mut self, index: usize, input: &EncoderInput, output: EncoderOutput) -> Result<()>;
    fn end(self: Box<Self>, result: Result<()>);
}

/// Called with the number of a call's inputs that have run, and of all of them.
pub type Progress = Box<dyn Fn(usize, usize) + Send>;

/// One call.
pub(crate) struct Run {
    inputs: Vec<EncoderInput>,
    /// Indices of inputs that have not run, the next one last. Longest first, so that the last batches are the small
    /// ones.
    todo: Vec<usize>,
    /// Outputs still to come.
    missing: usize,
    want: EncoderWant,
    cancel: CancelToken,
    progress: Option<Progress>,
    sink: Box<dyn Sink>,
    /// Its place in the queue.
    ticket: Ticket,
}

impl Run {
    pub fn new(
        inputs: Vec<EncoderInput>,
        want: EncoderWant,
        cancel: CancelToken,
        progress: Option<Progress>,
        sink: Box<dyn Sink>,
        ticket: Ticket,
    ) -> Self {
        let mut todo: Vec<usize> = (0..inputs.len()).collect();
        todo.sort_by_key(|index| (inputs[*index].ids.len(), std::cmp::Reverse(*index)));
        Self { missing: inputs.len(), inputs, todo, want, cancel, progress, sink, ticket }
    }

    fn take(&mut self, index: usize, output: EncoderOutput) -> Result<()> {
        let (sink, input) = (&mut self.sink, &self.inputs[index]);
        self.ticket.start(input.ids.len());
        self.missing -= 1;
        output.check_finite()?;
        guarded(|| sink.take(index, input, output))
    }

    fn report(&self) {
        if let Some(progress) = &self.progress {
            let _ = guarded(|| {
                progress(self.inputs.len() - self.missing, self.inputs.len());
                Ok(())
            });
        }
    }

    fn end(self, result: Result<()>) {
        let sink = self.sink;
        let _ = guarded(|| {
            sink.end(result);
            Ok(())
        });
    }
}

/// Catches a panic in a task's callback, so that the model's thread survives it.
fn guarded(run: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(EngineError::panicked(&*panic)))
}

pub(crate) struct EncoderThread {
    model: Box<dyn Encoder>,
    inbox: mpsc::Receiver<Command>,
    closing: Arc<AtomicBool>,
    runs: VecDeque<Run>,
    queue: Arc<Queue>,
    board: Arc<Board<EncoderStats>>,
    pace: Pace,
}

/// An input's place: run and index in it.
type Place = (usize, usize);

impl EncoderThread {
    pub fn new(
        model: Box<dyn Encoder>,
        inbox: mpsc::Receiver<Command>,
        closing: Arc<AtomicBool>,
        queue: Arc<Queue>,
        board: Arc<Board<EncoderStats>>,
    ) -> Self {
        let pace = Pace::new(queue.limits().max_step, MOST);
        Self { model, inbox, closing, runs: VecDeque::new(), queue, board, pace }
    }

    /// Serves until the model is closed. Runs left over are dropped, and their replies say so.
    pub fn run(mut self) {
        while self.receive() {
            let guard = self.model.active();
            while !self.runs.is_empty() && !self.closing.load(Ordering::Acquire) {
                self.end_cancelled();
                self.step();
                self.show();
                while let Ok(command) = self.inbox.try_recv() {
                    self.accept(command);
                }
            }
            drop(guard);
        }
    }

    fn show(&self) {
        let waiting = self.runs.iter().map(|run| run.todo.len()).sum();
        self.board.update(|stats| (stats.running, stats.waiting) = (self.runs.len(), waiting));
    }

    /// Sleeps until there is something to do; `false`: the model is closing.
    fn receive(&mut self) -> bool {
        while self.runs.is_empty() && !self.closing.load(Ordering::Acquire) {
            match self.inbox.recv() {
                Ok(command) => self.accept(command),
                Err(_) => return false,
            }
        }
        !self.closing.load(Ordering::Acquire)
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Wake => {}
            Command::Run(run) if run.inputs.is_empty() => run.end(Ok(())),
            Command::Run(run) => self.runs.push_back(*run),
        }
    }

    fn end_cancelled(&mut self) {
        let (gone, runs) = self.runs.drain(..).partition(|run| run.cancel.is_cancelled());
        self.runs = runs;
        let gone: VecDeque<Run> = gone;
        gone.into_iter().for_each(|run| run.end(Err(EngineError::Aborted)));
    }

    /// One forward pass over inputs of all calls that want the same as the oldest, taken one by one in turn, so that a
    /// small call is not held up by a large one.
    fn step(&mut self) {
        let Some(want) = self.runs.front().map(|run| run.want.clone()) else { return };
        let mut places: Vec<Place> = Vec::new();
        let mut batch: Vec<EncoderInput> = Vec::new();
        let vocabulary = want.logits && self.model.info().head == EncoderHead::MaskedLm;
        let rows = |input: &EncoderInput| match (vocabulary, input.logits_at.len()) {
            (false, _) => 0,
            (true, 0) => input.ids.len(),
            (true, chosen) => chosen,
        };
        let alone = self.runs.len() == 1;
        let mut room = (self.pace.tokens(alone), BATCH_VOCABULARY_ROWS);
        let mut full = false;
        while !full {
            let before = places.len();
            for (index, run) in self.runs.iter_mut().enumerate().filter(|(_, run)| run.want == want) {
                let Some(next) = run.todo.last().copied() else { continue };
                let cost = (run.inputs[next].ids.len(), rows(&run.inputs[next]));
                if (cost.0 > room.0 || cost.1 > room.1) && !batch.is_empty() {
                    full = true;
                    break;
                }
                room = (room.0.saturating_sub(cost.0), room.1.saturating_sub(cost.1));
                run.todo.pop();
                places.push((index, next));
                batch.push(run.inputs[next].clone());
            }
            full |= places.len() == before;
        }
        let start = Instant::now();
        let result = self.forward(&places, &batch, &want, alone);
        if result.is_ok() {
            let (tokens, seconds) =
                (batch.iter().map(|input| input.ids.len()).sum(), start.elapsed().as_secs_f64());
            self.pace.took(tokens, seconds);
            self.board.step(tokens, batch.len(), seconds);
        }
        self.settle(places, result);
        // The oldest goes to the back, so that another `want` gets its turn.
        if let Some(run) = self.runs.pop_front() {
            self.runs.push_back(run);
        }
        let mut at = 0;
        while at < self.runs.len() {
            if self.runs[at].missing > 0 {
                at += 1;
            } else if let Some(run) = self.runs.remove(at) {
                run.end(Ok(()));
            }
        }
    }

    fn forward(
        &mut self,
        places: &[Place],
        batch: &[EncoderInput],
        want: &EncoderWant,
        alone: bool,
    ) -> Result<Vec<EncoderOutput>> {
        let closing = self.closing.clone();
        let mut tokens: Vec<CancelToken> = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            if places.iter().any(|(place, _)| *place == index) {
                tokens.push(run.cancel.clone());
            }
        }
        // One cancelled call ends the pass for all, and a call that comes ends a long one: the inputs run again, at
        // once.
        let (queue, arrivals) = (self.queue.clone(), self.queue.arrivals());
        let newcomer = || alone && batch.len() > 1 && queue.arrivals() != arrivals;
        let stop =
            || closing.load(Ordering::Acquire) || newcomer() || tokens.iter().any(CancelToken::is_cancelled);
        let outputs = catch_unwind(AssertUnwindSafe(|| self.model.forward(batch, want, &stop)))
            .map_err(|panic| EngineError::panicked(&*panic))??;
        match outputs.len() == batch.len() {
            true => Ok(outputs),
            false => {
                Err(EngineError::Internal(format!("{} outputs for {} inputs", outputs.len(), batch.len())))
            }
        }
    }

    fn settle(&mut self, places: Vec<Place>, result: Result<Vec<EncoderOutput>>) {
        match result {
            Ok(outputs) => {
                let mut failed = Vec::new();
                let mut moved = BTreeSet::new();
                for ((run, index), output) in places.into_iter().zip(outputs) {
                    moved.insert(run);
                    if let Err(error) = self.runs[run].take(index, output) {
                        failed.push((run, error));
                    }
                }
                moved.into_iter().for_each(|run| self.runs[run].report());
                failed.sort_by_key(|(run, _)| std::cmp::Reverse(*run));
                failed.dedup_by_key(|(run, _)| *run);
                for (run, error) in failed {
                    if let Some(run) = self.runs.remove(run) {
                        run.end(Err(error));
                    }
                }
            }
            // The pass was stopped: the inputs go back to their runs; cancelled runs end before the next step.
            Err(EngineError::Aborted) => {
                for (run, index) in places.into_iter().rev() {
                    self.runs[run].todo.push(index);
                }
            }
            Err(error) => {
                let mut index = 0;
                let (failed, kept) = self.runs.drain(..).partition(|_| {
                    index += 1;
                    places.iter().any(|(place, _)| *place == index - 1)
                });
                self.runs = kept;
                let failed: Vec<Run> = VecDeque::into(failed);
                failed.into_iter().for_each(|run| run.end(Err(error.clone())));
            }
        }
    }
}
