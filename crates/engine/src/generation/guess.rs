//! Guesses the next tokens of all who decode, before a step verifies them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crate::generation::plan::Plan;
use crate::generation::request::Request;
use crate::generation::sampling::processors::Scratch;
use crate::generation::sampling::sample::choose;
use crate::generation::sequence::Sequence;
use crate::generation::speculative::draft::{Choose, DraftCommand, DraftItem, DraftJob, DraftModel, Drafted};
use crate::generation::speculative::{Cost, Speculator};

/// Guesses, and what is known of the models that are asked for them.
#[derive(Default)]
pub(crate) struct Guesser {
    /// Models, by their flags, whose answer did not come in time. They are not asked before it is there.
    late: Vec<(Arc<AtomicBool>, mpsc::Receiver<Drafted>)>,
}

/// Answers are waited for so many times as long as a pass takes, and a little.
const PATIENCE: f64 = 4.0;
const A_LITTLE: f64 = 0.005;

/// What one draft model is asked: the sequences by request, group and place, and an item for each.
struct Ask {
    model: DraftModel,
    places: Vec<(usize, usize, usize)>,
    items: Vec<DraftItem>,
}

impl Guesser {
    /// Guesses tokens of those who decode, where that pays beside so many others. Waits for other models no longer than
    /// `patience`; `rest` is called before it waits.
    pub fn guess(
        &mut self,
        requests: &mut [Request],
        cost: &Cost,
        patience: Duration,
        mut rest: impl FnMut(),
    ) {
        let running = || requests.iter().filter(|request| !request.paused);
        let groups = running().flat_map(|request| &request.groups).filter(|group| group.started);
        let rows = groups.flat_map(|group| &group.sequences).filter(|sequence| decodes(sequence)).count();
        let patience = match cost.seconds(rows) {
            Some(seconds) => patience.min(Duration::from_secs_f64(PATIENCE * seconds + A_LITTLE)),
            None => patience,
        };
        let mut asks: Vec<Ask> = Vec::new();
        for (r, request) in requests.iter_mut().enumerate().filter(|(_, request)| !request.paused) {
            let plan = &request.plan;
            for (g, group) in request.groups.iter_mut().enumerate().filter(|(_, group)| group.started) {
                for s in 0..group.sequences.len() {
                    let most = group.guesses(&group.sequences[s]);
                    let (prompt, sequence) = (group.prompt, &mut group.sequences[s]);
                    if !decodes(sequence) {
                        continue;
                    }
                    let Sequence { tokens, speculator, lane, .. } = sequence;
                    match speculator {
                        None => {}
                        Some(Speculator::Lookup(lookup)) => {
                            let guess = lookup.draft(tokens, most, rows, cost).to_vec();
                            sequence.guessed(guess);
                        }
                        Some(Speculator::Draft(drafter)) => {
                            if self.is_late(drafter.model()) {
                                continue;
                            }
                            let choose = || chooser(plan.clone(), prompt, *lane);
                            if let Some(item) = drafter.ask(tokens, most, rows, cost, patience, choose) {
                                let model = drafter.model();
                                let index = asks.iter().position(|ask| ask.model.is(model));
                                let index = index.unwrap_or_else(|| {
                                    asks.push(Ask {
                                        model: model.clone(),
                                        places: Vec::new(),
                                        items: Vec::new(),
                                    });
                                    asks.len() - 1
                                });
                                asks[index].places.push((r, g, s));
                                asks[index].items.push(item);
                            }
                        }
                    }
                }
            }
        }
        if !asks.is_empty() {
            rest();
        }
        let start = Instant::now();
        // All of them guess at the same time.
        let asked: Vec<_> = asks.into_iter().map(Ask::send).collect();
        for asked in asked {
            self.wait(requests, asked, start, patience);
        }
    }

    /// Whether an answer of `model` is still on its way. Of one that has come too late nothing is taken.
    fn is_late(&mut self, model: &DraftModel) -> bool {
        self.late.retain(|(_, answer)| matches!(answer.try_recv(), Err(TryRecvError::Empty)));
        self.late.iter().any(|(late, _)| Arc::ptr_eq(late, &model.closing))
    }

    fn wait(&mut self, requests: &mut [Request], asked: Asked, start: Instant, patience: Duration) {
        let Asked { model, places, drafted, abandoned } = asked;
        let left = patience.saturating_sub(start.elapsed());
        let Drafted { items, passes, tokens } = match drafted.recv_timeout(left) {
            Ok(drafted) => drafted,
            Err(RecvTimeoutError::Timeout) => {
                abandoned.store(true, Ordering::Release);
                model.speed.took(1, patience.as_secs_f64());
                return self.late.push((model.closing.clone(), drafted));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Without what the model had to catch up with.
        if passes > 0 && tokens <= (passes + 2) * items.len() {
            model.speed.took(passes, start.elapsed().as_secs_f64());
        }
        for ((r, g, s), item) in places.into_iter().zip(items) {
            let sequence = &mut requests[r].groups[g].sequences[s];
            if let Some(Speculator::Draft(drafter)) = &mut sequence.speculator {
                drafter.answered(item.choose, item.tokens.len());
            }
            sequence.guessed(item.tokens);
        }
    }
}

/// A question that is on its way.
struct Asked {
    model: DraftModel,
    places: Vec<(usize, usize, usize)>,
    drafted: mpsc::Receiver<Drafted>,
    abandoned: Arc<AtomicBool>,
}

impl Ask {
    fn send(self) -> Asked {
        let Self { model, places, items } = self;
        let (answer, drafted) = mpsc::channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        // A model that was closed drops the job, and with it the sender.
        (model.send)(DraftCommand::Draft(DraftJob { items, answer, abandoned: abandoned.clone() }));
        Asked { model, places, drafted, abandoned }
    }
}

/// Whether it waits for one token, and can be in the next step.
fn decodes(sequence: &Sequence) -> bool {
    sequence.unseen() == 1 && !sequence.paused
}

/// Chooses the tokens of one sequence as they will be chosen from the model's own logits.
fn chooser(plan: Arc<Plan>, prompt: usize, lane: u32) -> Choose {
    let mut scratch = Scratch::default();
    Box::new(move |logits, tokens| {
        choose(&plan.processors, logits, tokens, prompt, (plan.seed, lane), &mut scratch)
    })
}
