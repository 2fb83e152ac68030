//! What runs on a model's thread: requests with their groups of sequences, and calls for scores. Decides who takes part
//! in a step, with how many tokens, and finds the blocks for them.

use std::sync::Arc;
use std::time::Instant;

use candlewick_models::{Step, StepLogits};

use crate::error::EngineError;
use crate::generation::batch::{Planner, Want};
use crate::generation::kv::memory::Memory;
use crate::generation::kv::table::{Copies, Table};
use crate::generation::request::{Deadline, Request, StepSize};
use crate::generation::sampling::processors::Scratch;
use crate::generation::score::ScoreRun;
use crate::generation::sequence::Sequence;
use crate::generation::stream::Shared;
use crate::runtime::cancel::CancelToken;

/// Where something that takes part in a step stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// Request, group, sequence.
    Sequence(usize, usize, usize),
    /// Request, group: all its sequences, by one token each.
    Beams(usize, usize),
    /// Call, part.
    Score(usize, usize),
}

/// Order of age: groups in the order of their start, then their sequences; what is scored is younger than all.
type Age = (u64, usize);

struct Entry {
    place: Place,
    want: Want,
    age: Age,
    /// It reads a prompt, or what a pause made it forget.
    reads: bool,
}

#[derive(Default)]
pub(crate) struct Work {
    pub requests: Vec<Request>,
    pub scoring: Vec<ScoreRun>,
    planner: Planner,
    pub copies: Copies,
    /// Counts for those who serve.
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub pauses: u64,
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
}

impl Work {
    /// Decides what takes part in the next step. `None`: nothing can.
    pub fn schedule(&mut self, memory: &mut Memory, budget: usize) -> Option<StepSize> {
        let mut entries = self.wants(memory, budget);
        // Who decodes comes before who reads a prompt, then who is older.
        entries.sort_by_key(|entry| (entry.reads, entry.age));
        let wants: Vec<Want> = entries.iter().map(|entry| entry.want).collect();
        let taken = self.planner.plan(&wants, budget);
        let mut chosen: Vec<(Entry, usize)> =
            entries.into_iter().zip(taken).filter(|(_, tokens)| *tokens > 0).collect();
        chosen.sort_by_key(|(entry, _)| entry.age);
        self.copies.clear();
        for (entry, tokens) in chosen {
            self.give_blocks(memory, entry, tokens);
        }
        self.number_rows()
    }

    /// What wants to take part.
    fn wants(&mut self, memory: &mut Memory, budget: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        // Counted only if somebody waits for blocks.
        let mut available = None;
        for (r, request) in self.requests.iter_mut().enumerate().filter(|(_, request)| !request.paused) {
            let (client, priority) = (request.client, request.priority);
            let mut cached = 0;
            for (g, group) in request.groups.iter_mut().enumerate() {
                let serial = group.serial;
                let fresh = !group.started;
                let mut add = |place, tokens, whole, age, reads: bool| {
                    entries.push(Entry {
                        place,
                        want: Want { client, priority, tokens, whole, urgent: !reads },
                        age,
                        reads,
                    });
                };
                if group.is_together() {
                    let count = group.sequences.len();
                    loop {
                        let Some(s) = group.behind() else {
                            add(Place::Beams(r, g), count, true, (serial, 0), false);
                            break;
                        };
                        let sequence = &mut group.sequences[s];
                        sequence.share(&mut memory.prefixes, &request.realm);
                        if !resumes(memory, &mut available, sequence) {
                            break;
                        }
                        if sequence.unseen() > 1 {
                            add(Place::Sequence(r, g, s), sequence.unseen() - 1, false, (serial, s), true);
                            break;
                        }
                    }
                    continue;
                }
                for (s, sequence) in group.sequences.iter_mut().enumerate() {
                    if sequence.unseen() > 1 && sequence.draft == 0 {
                        let shared = sequence.share(&mut memory.prefixes, &request.realm);
                        if fresh && !sequence.was_paused {
                            cached += shared;
                        }
                    }
                    if resumes(memory, &mut available, sequence) {
                        let reads = sequence.unseen() > 1 + sequence.draft;
                        add(Place::Sequence(r, g, s), sequence.unseen(), false, (serial, s), reads);
                    }
                }
            }
            request.cached(cached);
            self.cached_tokens += cached as u64;
        }
        for (c, run) in self.scoring.iter_mut().enumerate() {
            run.begin(budget, memory.block);
            for (p, part) in run.parts.iter_mut().enumerate() {
                if part.paused && fits(memory, &mut available, &part.table, part.tokens().len()) {
                    part.paused = false;
                }
                if !part.paused {
                    let want = Want {
                        client: run.job.client,
                        priority: run.job.priority,
                        tokens: part.unseen(),
                        whole: false,
                        urgent: false,
                    };
                    let (place, age) = (Place::Score(c, p), (u64::MAX, c << 32 | p));
                    entries.push(Entry { place, want, age, reads: true });
                }
            }
        }
        entries
    }

    /// Makes room for the `tokens` next positions of `entry`: from the free blocks, then from prefixes that nobody
    /// uses, then from whoever is younger, which is paused. Who finds none is paused itself.
    fn give_blocks(&mut self, memory: &mut Memory, entry: Entry, tokens: usize) {
        let Entry { place, age, .. } = entry;
        let sequences = match place {
            Place::Beams(r, g) => self.requests[r].groups[g].sequences.len(),
            _ => 1,
        };
        let each = tokens / sequences;
        for index in 0..sequences {
            loop {
                let copies = &mut self.copies;
                let given = match place {
                    Place::Sequence(r, g, s) => {
                        let sequence = &mut self.requests[r].groups[g].sequences[s];
                        if sequence.paused {
                            return; // for somebody older, in this very step
                        }
                        let tokens = each.min(sequence.unseen());
                        let end = sequence.table.len() + tokens;
                        let given = sequence.table.prepare(end, || memory.take(), copies);
                        if given {
                            sequence.schedule(tokens);
                        } else if sequence.draft > 0 {
                            // Nobody is paused for a guess.
                            sequence.drop_draft();
                            continue;
                        }
                        given
                    }
                    Place::Beams(r, g) => {
                        let sequence = &mut self.requests[r].groups[g].sequences[index];
                        if sequence.paused {
                            return;
                        }
                        let given = sequence.table.prepare(sequence.tokens.len(), || memory.take(), copies);
                        sequence.scheduled = usize::from(given);
                        given
                    }
                    Place::Score(c, p) => {
                        let part = &mut self.scoring[c].parts[p];
                        if part.paused {
                            return;
                        }
                        let given = part.table.prepare(part.table.len() + each, || memory.take(), copies);
                        part.scheduled = if given { each } else { 0 };
                        given
                    }
                };
                if given {
                    break;
                }
                if !self.pause_one(age) {
                    self.pause(place);
                    return;
                }
            }
        }
    }

    /// Pauses somebody that holds blocks: of those whose reader does not keep up, else of those younger than `age`, the
    /// youngest.
    fn pause_one(&mut self, age: Age) -> bool {
        let mut victim: Option<(bool, Age, Place)> = None;
        let mut consider = |stalled: bool, its: Age, place: Place, table: &Table| {
            if !table.ids().is_empty()
                && (stalled || its > age)
                && victim.is_none_or(|(other, oldest, _)| (other, oldest) < (stalled, its))
            {
                victim = Some((stalled, its, place));
            }
        };
        for (r, request) in self.requests.iter().enumerate() {
            for (g, group) in request.groups.iter().enumerate() {
                let together = group.is_together();
                for (s, sequence) in group.sequences.iter().enumerate() {
                    let place = if together { Place::Beams(r, g) } else { Place::Sequence(r, g, s) };
                    let its = (group.serial, if together { 0 } else { s });
                    consider(request.paused, its, place, &sequence.table);
                }
            }
        }
        for (c, run) in self.scoring.iter().enumerate() {
            for (p, part) in run.parts.iter().enumerate() {
                consider(false, (u64::MAX, c << 32 | p), Place::Score(c, p), &part.table);
            }
        }
        let Some((_, _, place)) = victim else { return false };
        self.pause(place);
        true
    }

    fn pause(&mut self, place: Place) {
        self.pauses += 1;
        match place {
            Place::Sequence(r, g, s) if !self.requests[r].groups[g].is_together() => {
                self.requests[r].groups[g].sequences[s].pause();
            }
            Place::Sequence(r, g, _) | Place::Beams(r, g) => {
                self.requests[r].groups[g].sequences.iter_mut().for_each(|sequence| sequence.pause());
            }
            Place::Score(c, p) => self.scoring[c].parts[p].pause(),
        }
    }

    /// Numbers the rows of logits that the step gives.
    fn number_rows(&mut self) -> Option<StepSize> {
        let mut size = StepSize::default();
        let mut rows = 0;
        for request in &mut self.requests {
            request.scheduled = StepSize::default();
            for group in &mut request.groups {
                let started = group.started;
                for sequence in group.sequences.iter_mut().filter(|sequence| sequence.scheduled > 0) {
                    let wanted = sequence.wanted();
                    sequence.row = (wanted > 0).then_some(rows);
                    rows += wanted;
                    request.scheduled.tokens += sequence.scheduled;
                    request.scheduled.sequences += 1;
                    if !started || sequence.scheduled > 1 + sequence.draft {
                        request.scheduled.prefill += sequence.scheduled;
                    }
                }
            }
            size.tokens += request.scheduled.tokens;
            size.sequences += request.scheduled.sequences;
            size.prefill += request.scheduled.prefill;
        }
        for part in self.scoring.iter_mut().flat_map(|run| &mut run.parts).filter(|part| part.scheduled > 0) {
            let wanted = part.wanted();
            part.row = (wanted > 0).then_some(rows);
            rows += wanted;
            size.tokens += part.scheduled;
            size.sequences += 1;
            size.prefill += part.scheduled;
        }
        (size.tokens > 0).then_some(size)
    }

    /// Whether a single client reads prompts and nobody decodes: nobody is held up by a long step.
    pub fn is_alone(&self) -> bool {
        let mut clients = self.requests.iter().map(|request| request.client);
        let first = clients.next().or(self.scoring.first().map(|run| run.job.client));
        let mut groups = self.requests.iter().flat_map(|request| &request.groups);
        clients.chain(self.scoring.iter().map(|run| run.job.client)).all(|client| Some(client) == first)
            && !groups.any(|group| group.started && group.sequences.iter().any(|s| s.unseen() == 1))
    }

    /// Ends what was cancelled, and calls for scores that have nothing left to read.
    pub fn end_stopped(&mut self) {
        let stopped = self.requests.extract_if(.., |request| request.producer.stop().is_some());
        stopped.for_each(|request| request.finish(Err(EngineError::Aborted)));
        let late = self.requests.extract_if(.., |request| request.is_late());
        late.for_each(|request| {
            let ms = request.deadline.map_or(0, |deadline| deadline.ms);
            request.finish(Err(EngineError::DeadlineExceeded(ms)));
        });
        let cancelled = self.scoring.extract_if(.., |run| run.job.cancel.is_cancelled());
        cancelled.for_each(|run| run.finish(Err(EngineError::Aborted)));
        self.end_scored();
    }

    fn end_scored(&mut self) {
        self.scoring.extract_if(.., |run| run.is_complete()).for_each(|run| run.finish(Ok(())));
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.requests.iter().filter_map(|request| request.deadline).map(|deadline| deadline.at).min()
    }

    /// Sequences that run, and prompts and sequences that wait; those that are scored among them.
    pub fn count(&self) -> (usize, usize) {
        let prompts: usize = self.requests.iter().map(|request| request.waiting.len()).sum();
        let waiting: usize = self.scoring.iter().map(ScoreRun::waiting).sum();
        let sequences = self.requests.iter().flat_map(|request| &request.groups).flat_map(|g| &g.sequences);
        let parts = self.scoring.iter().flat_map(|run| &run.parts).map(|part| part.paused);
        let all = sequences.map(|sequence| sequence.paused).chain(parts);
        let (paused, running): (Vec<_>, Vec<_>) = all.partition(|paused| *paused);
        (running.len(), prompts + waiting + paused.len())
    }

    /// Blocks that what runs will need for the tokens it has.
    pub fn promised(&self) -> usize {
        let sequences = self.requests.iter().flat_map(|request| &request.groups).flat_map(|g| &g.sequences);
        let sequences = sequences.map(|sequence| sequence.table.missing(sequence.tokens.len()));
        let parts = self.scoring.iter().flat_map(|run| &run.parts);
        sequences.chain(parts.map(|part| part.table.missing(part.tokens().len()))).sum()
    }

    /// Who takes part in the step, and with how many tokens.
    pub fn participants(&self) -> Vec<(Participant, usize)> {
        let requests = self.requests.iter().filter(|request| request.scheduled.tokens > 0).map(|request| {
            let shared = request.producer.shared().clone();
            (Participant::Stream(shared, request.deadline), request.scheduled.tokens)
        });
        let calls = self.scoring.iter().map(|run| {
            let tokens = run.parts.iter().map(|part| part.scheduled).sum();
            (Participant::Call(run.job.cancel.clone()), tokens)
        });
        requests.chain(calls).collect()
    }

    /// The step was computed: tables grow, and blocks that became whole are offered to others.
    pub fn computed(&mut self, memory: &mut Memory) {
        for request in self.requests.iter_mut().filter(|request| request.scheduled.tokens > 0) {
            for sequence in request.groups.iter_mut().flat_map(|group| &mut group.sequences) {
                let computed = sequence.table.len() + std::mem::take(&mut sequence.scheduled);
                sequence.table.set_len(computed.min(sequence.known()));
                sequence.publish(&mut memory.prefixes, &request.realm);
            }
        }
    }

    /// Takes the logits of the step: chooses the next tokens, sends them, and ends what is finished. `start`: of the
    /// step.
    pub fn advance(
        &mut self,
        logits: &mut dyn StepLogits,
        scratch: &mut Scratch,
        memory: &mut Memory,
        start: Instant,
    ) {
        let mut failed: Vec<(usize, EngineError)> = Vec::new();
        for (index, request) in self.requests.iter_mut().enumerate() {
            if request.scheduled.tokens > 0 {
                match request.advance(logits, scratch, &mut memory.prefixes) {
                    Ok((drafted, accepted)) => {
                        self.drafted_tokens += drafted as u64;
                        self.accepted_tokens += accepted as u64;
                        request.flush();
                    }
                    Err(error) => failed.push((index, error)),
                }
            }
        }
        let mut broken: Vec<(usize, EngineError)> = Vec::new();
        for (index, run) in self.scoring.iter_mut().enumerate() {
            if let Err(error) = run.advance(logits, &mut memory.prefixes) {
                broken.push((index, error));
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        self.requests.iter_mut().for_each(|request| request.spent(seconds));
        for (index, error) in failed.into_iter().rev() {
            self.requests.remove(index).finish(Err(error));
        }
        for (index, error) in broken.into_iter().rev() {
            self.scoring.remove(index).finish(Err(error));
        }
        self.end_complete();
        self.end_scored();
    }

    pub fn end_complete(&mut self) {
        let complete = self.requests.extract_if(.., |request| request.is_complete());
        complete.for_each(|request| request.finish(Ok(())));
    }

    /// The step was left before its end: it is as if it had not begun.
    pub fn undo(&mut self) {
        let groups = self.requests.iter_mut().flat_map(|request| &mut request.groups);
        for sequence in groups.flat_map(|group| &mut group.sequences) {
            sequence.drop_draft();
            (sequence.scheduled, sequence.row) = (0, None);
        }
        for part in self.scoring.iter_mut().flat_map(|run| &mut run.parts) {
            (part.scheduled, part.row) = (0, None);
        }
    }

    /// Ends everything.
    pub fn fail_all(&mut self, error: &EngineError) {
        self.requests.drain(..).for_each(|request| request.finish(Err(error.clone())));
        self.scoring.drain(..).for_each(|run| run.finish(Err(error.clone())));
    }

    /// Ends everything that took part in a step that failed.
    pub fn fail(&mut self, error: &EngineError) {
        let requests = self.requests.extract_if(.., |request| request.scheduled.tokens > 0);
        requests.for_each(|request| request.finish(Err(error.clone())));
        let calls = self.scoring.extract_if(.., |run| run.parts.iter().any(|part| part.scheduled > 0));
        calls.for_each(|run| run.finish(Err(error.clone())));
    }

    /// The step as the model sees it, in the order in which the rows were numbered.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let mut steps = Vec::new();
        for request in &self.requests {
            let sequences = request.groups.iter().flat_map(|group| &group.sequences);
            for sequence in sequences.filter(|sequence| sequence.scheduled > 0) {
                let wanted = sequence.wanted();
                let adapter = request.realm.adapter;
                steps.push(step(&sequence.tokens, &sequence.table, sequence.scheduled, adapter, wanted));
            }
        }
        for run in &self.scoring {
            let adapter = run.job.realm.adapter;
            for part in run.parts.iter().filter(|part| part.scheduled > 0) {
                steps.push(step(part.tokens(), &part.table, part.scheduled, adapter, part.wanted()));
            }
        }
        steps
    }
}

/// Whether a sequence may take part; one that was paused, when there are blocks for all its tokens.
fn resumes(memory: &Memory, available: &mut Option<usize>, sequence: &mut Sequence) -> bool {
    if sequence.paused {
        sequence.paused = false;
        if !fits(memory, available, &sequence.table, sequence.tokens.len()) {
            // What it shares with others by now goes back too.
            sequence.pause();
        }
    }
    !sequence.paused
}

/// Whether there are blocks for `tokens` positions, and not one more: the memory may hold no more than this sequence.
/// `available`: blocks that nobody was promised in this turn; `None`: not counted yet.
fn fits(memory: &Memory, available: &mut Option<usize>, table: &Table, tokens: usize) -> bool {
    let left = available.get_or_insert_with(|| memory.available());
    let needed = table.missing(tokens);
    let fits = needed <= *left;
    if fits {
        *left -= needed;
    }
    fits
}

/// Who waits for a part of a step, and can leave it.
pub(crate) enum Participant {
    /// A stream, and when it must have ended.
    Stream(Arc<Shared>, Option<Deadline>),
    Call(CancelToken),
}

impl Participant {
    pub fn has_left(&self) -> bool {
        match self {
            Self::Stream(shared, end) => shared.stopped() || end.as_ref().is_some_and(Deadline::has_passed),
            Self::Call(cancel) => cancel.is_cancelled(),
        }
    }
}

fn step<'a>(
    tokens: &'a [u32],
    table: &'a Table,
    scheduled: usize,
    adapter: Option<usize>,
    logits: usize,
) -> Step<'a> {
    let start = table.len();
    Step { tokens: &tokens[start..start + scheduled], start, blocks: table.ids(), adapter, logits }
}
