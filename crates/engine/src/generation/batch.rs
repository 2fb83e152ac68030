//! Divides the tokens of a step among those who want some. Pure: no model, no clock.
//!
//! Who decodes comes first, because somebody reads along: a token of each sequence, then its guesses; three quarters of
//! the step at the most while prompts of the same priority want tokens. The rest is divided by deficit round robin
//! between clients (Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995): in turn
//! each gets a quantum of tokens, which it spends on what it wants in its own order. So a client with a thousand
//! prompts and a client with one get as many tokens each while both want them, and one that wants little leaves the
//! rest to the others.

use std::collections::{HashMap, VecDeque};

/// Interactive work comes first; the rest of a step's tokens goes to batch work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    #[default]
    Interactive,
    Batch,
}

/// Something that takes part in a step with up to `tokens` tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub client: u64,
    pub priority: Priority,
    pub tokens: usize,
    /// All of them or none: the beams of a search move together.
    pub whole: bool,
    /// It decodes.
    pub urgent: bool,
}

/// Tokens that a client may spend when its turn comes.
const QUANTUM: isize = 16;
/// The most that it owes for having decoded.
const DEBT: isize = 4 * QUANTUM;

#[derive(Default)]
pub(crate) struct Planner {
    /// What clients that still want tokens have left, or owe for what could not be divided.
    deficits: HashMap<u64, isize>,
    /// Whose turn it was when the last step was full, by priority.
    next: [Option<u64>; 2],
    /// Who was the first that decodes and had no place in the last step.
    next_urgent: [Option<u64>; 2],
    /// What the last step had of urgent tokens beyond its part.
    excess: [usize; 2],
}

impl Planner {
    /// How many tokens of each want the step takes; together at most `budget`, unless a single whole want has more.
    pub fn plan(&mut self, wants: &[Want], budget: usize) -> Vec<usize> {
        if wants.iter().map(|want| want.tokens).sum::<usize>() <= budget {
            // There is nothing to divide, and nobody owes anything for what nobody else wanted.
            self.deficits.clear();
            return wants.iter().map(|want| want.tokens).collect();
        }
        let mut taken = vec![0; wants.len()];
        let mut left = budget;
        self.deficits.retain(|client, _| wants.iter().any(|want| want.client == *client));
        for priority in [Priority::Interactive, Priority::Batch] {
            self.serve_urgent(wants, priority, &mut taken, &mut left);
            self.divide(wants, priority, &mut taken, &mut left);
        }
        taken
    }

    /// One token of everything that is urgent, and all of what is whole, client by client; then its guesses. If others
    /// want tokens too, three quarters of the step at the most: what is whole and more than that is made up for by
    /// steps without. A client that has prompts too gets less for these.
    fn serve_urgent(&mut self, wants: &[Want], priority: Priority, taken: &mut [usize], left: &mut usize) {
        let mine = || wants.iter().enumerate().filter(|(_, want)| want.priority == priority);
        let others: usize = mine().filter(|(_, want)| !want.urgent).map(|(_, want)| want.tokens).sum();
        let allowed = *left - others.min(*left / 4);
        let excess = if others > 0 { self.excess[priority as usize] } else { 0 };
        let mut room = allowed.saturating_sub(excess);
        let mut over = excess.saturating_sub(allowed);
        let mut ring = ring(mine().filter(|(_, want)| want.urgent));
        rotate(&mut ring, self.next_urgent[priority as usize].take());
        let mut guesses = Vec::new();
        let mut nothing_yet = excess == 0 && taken.iter().all(|count| *count == 0);
        while let Some((client, mut queue)) = ring.pop_front() {
            let Some(index) = queue.pop_front() else { continue };
            let Want { tokens, whole, .. } = wants[index];
            let amount = if whole { tokens } else { 1 };
            if amount <= room || whole && nothing_yet {
                nothing_yet = false;
                over += amount.saturating_sub(room);
                self.give(wants, index, amount, taken, left);
                room = room.saturating_sub(amount);
                if tokens > amount {
                    guesses.push(index);
                }
            } else {
                // First in the next step.
                self.next_urgent[priority as usize].get_or_insert(client);
            }
            ring.push_back((client, queue));
        }
        for index in guesses {
            let amount = (wants[index].tokens - taken[index]).min(room);
            self.give(wants, index, amount, taken, left);
            room -= amount;
        }
        self.excess[priority as usize] = over;
    }

    fn give(&mut self, wants: &[Want], index: usize, amount: usize, taken: &mut [usize], left: &mut usize) {
        taken[index] += amount;
        *left = left.saturating_sub(amount);
        let client = wants[index].client;
        if wants.iter().any(|want| want.client == client && !want.urgent) {
            let deficit = self.deficits.entry(client).or_default();
            *deficit = (*deficit - amount as isize).max(-DEBT);
        }
    }

    fn divide(&mut self, wants: &[Want], priority: Priority, taken: &mut [usize], left: &mut usize) {
        let open = |(_, want): &(usize, &Want)| want.priority == priority && !want.urgent;
        let mut ring = ring(wants.iter().enumerate().filter(open));
        rotate(&mut ring, self.next[priority as usize]);
        while let Some((client, mut queue)) = ring.pop_front() {
            if *left == 0 {
                self.next[priority as usize] = Some(client);
                return;
            }
            let deficit = self.deficits.entry(client).or_default();
            // A client that has some left was cut in its turn, because the step before was full.
            if *deficit <= 0 {
                *deficit += QUANTUM;
            }
            let mut waits = false;
            while let Some(&index) = queue.front() {
                let want = &wants[index];
                let open = want.tokens - taken[index];
                let nothing_yet = taken.iter().all(|count| *count == 0);
                let amount = match want.whole {
                    // Debts are paid later, so that what is larger than a quantum gets its turn.
                    true if *deficit > 0 && (open <= *left || nothing_yet) => open,
                    true => {
                        waits = *deficit > 0;
                        0
                    }
                    false => open.min(*left).min(usize::try_from(*deficit).unwrap_or(0)),
                };
                if amount == 0 {
                    break;
                }
                taken[index] += amount;
                *deficit -= amount as isize;
                *left = left.saturating_sub(amount);
                if amount == open {
                    queue.pop_front();
                }
            }
            if queue.is_empty() {
                // What is left of a quantum is lost; a debt is not.
                *deficit = (*deficit).min(0);
            } else if waits || *left == 0 && *deficit > 0 {
                // Its turn goes on in the next step.
                self.next[priority as usize] = Some(client);
                return;
            } else {
                ring.push_back((client, queue));
            }
        }
    }
}

/// Clients, each with what it wants.
type Ring = VecDeque<(u64, VecDeque<usize>)>;

fn ring<'a>(wants: impl Iterator<Item = (usize, &'a Want)>) -> Ring {
    let mut ring = Ring::new();
    for (index, want) in wants {
        match ring.iter_mut().find(|(client, _)| *client == want.client) {
            Some((_, queue)) => queue.push_back(index),
            None => ring.push_back((want.client, [index].into())),
        }
    }
    ring
}

/// Begins with `next`, if it is there.
fn rotate(ring: &mut Ring, next: Option<u64>) {
    if let Some(at) = ring.iter().position(|(client, _)| Some(*client) == next) {
        ring.rotate_left(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::sampling::rng::uniform;

    fn want(client: u64, tokens: usize) -> Want {
        Want { client, priority: Priority::Interactive, tokens, whole: false, urgent: false }
    }

    /// Runs steps until nothing is wanted; returns for each step what each client got.
    fn run(mut wants: Vec<Want>, budget: usize) -> Vec<HashMap<u64, usize>> {
        let mut planner = Planner::default();
        let mut steps = Vec::new();
        while wants.iter().any(|want| want.tokens > 0) {
            let open: Vec<Want> = wants.iter().copied().filter(|want| want.tokens > 0).collect();
            let taken = planner.plan(&open, budget);
            assert!(taken.iter().sum::<usize>() > 0, "a step in which nothing moves");
            let mut got = HashMap::new();
            let left = wants.iter_mut().filter(|want| want.tokens > 0);
            for (want, taken) in left.zip(taken) {
                want.tokens -= taken;
                *got.entry(want.client).or_default() += taken;
            }
            steps.push(got);
            assert!(steps.len() < 100_000);
        }
        steps
    }

    #[test]
    fn a_step_is_full_while_there_is_something_to_do_and_never_overfull() {
        for case in 0..500 {
            let random = |at: u64, n: f64| (uniform(case, at, 5) * n) as usize;
            let budget = 1 + random(0, 100.0);
            let count = 1 + random(1, 30.0) as u64;
            let wants: Vec<Want> = (0..count)
                .map(|i| Want {
                    client: random(10 + i, 5.0) as u64,
                    priority: [Priority::Interactive, Priority::Batch][random(100 + i, 2.0)],
                    tokens: 1 + random(200 + i, 300.0),
                    whole: false,
                    urgent: random(300 + i, 2.0) == 1,
                })
                .collect();
            let total: usize = wants.iter().map(|want| want.tokens).sum();
            let steps = run(wants, budget);
            assert_eq!(steps.len(), total.div_ceil(budget), "case {case}");
        }
    }

    #[test]
    fn a_thousand_prompts_and_one_get_equal_turns() {
        let mut wants = vec![want(1, 500); 1000];
        wants.push(want(2, 500));
        let steps = run(wants, 64);
        let until = steps.iter().position(|got| !got.contains_key(&2)).unwrap();
        let sum =
            |client| steps[..until].iter().map(|got| got.get(&client).copied().unwrap_or(0)).sum::<usize>();
        assert_eq!(sum(2), 500);
        assert!((436..=564).contains(&sum(1)), "{}", sum(1));
    }

    #[test]
    fn who_decodes_moves_in_every_step_beside_a_long_prompt() {
        let decodes = |client| Want { urgent: true, ..want(client, 1) };
        let mut planner = Planner::default();
        let mut wants: Vec<Want> = (0..8).map(decodes).collect();
        wants.extend((8..20).map(|client| want(client, 1000)));
        let mut got = [0; 12];
        for _ in 0..30 {
            let taken = planner.plan(&wants, 32);
            assert_eq!(taken[..8], [1; 8]);
            assert_eq!(taken[8..].iter().sum::<usize>(), 24);
            got.iter_mut().zip(&taken[8..]).for_each(|(got, taken)| *got += taken);
        }
        assert!(got.iter().all(|tokens| (44..=76).contains(tokens)), "{got:?}");
        // One step after the other is full of guesses: everybody has a token in each.
        let guessing = |client, tokens| Want { tokens, ..decodes(client) };
        let wants: Vec<Want> = [guessing(0, 17), guessing(1, 1), guessing(2, 1)].into();
        (0..10).for_each(|_| assert_eq!(planner.plan(&wants, 8), [6, 1, 1]));
        // More than have a place in a step move in turn.
        let wants: Vec<Want> = (0..12).map(decodes).collect();
        let mut got = [0; 12];
        for _ in 0..30 {
            got.iter_mut().zip(planner.plan(&wants, 8)).for_each(|(got, taken)| *got += taken);
        }
        assert!(got.iter().all(|tokens| (16..=24).contains(tokens)), "{got:?}");
        // More of them than a step has tokens: a prompt gets its part, and each of them its turn.
        let mut wants: Vec<Want> = (0..100).map(|i| decodes(i % 10)).collect();
        wants.push(want(10, 1000));
        let taken = planner.plan(&wants, 40);
        assert_eq!(taken[100], 10);
        let of = |client| (0..100).filter(|i| i % 10 == client).map(|i| taken[i]).sum::<usize>();
        assert!((0..10).all(|client| of(client) == 3), "{taken:?}");
    }

    #[test]
    fn batch_work_gets_what_is_left() {
        let mut planner = Planner::default();
        let batch = Want { priority: Priority::Batch, ..want(1, 500) };
        assert_eq!(planner.plan(&[batch, want(2, 30)], 64), [34, 30]);
        assert_eq!(planner.plan(&[batch, want(2, 300)], 64), [0, 64]);
        assert_eq!(planner.plan(&[batch], 64), [64]);
    }

    /// Beams move together or not at all, even if they are more than a step has, and keep nobody from moving for ever.
    #[test]
    fn what_is_whole_is_not_divided() {
        let mut planner = Planner::default();
        let whole = |client, tokens| Want { whole: true, ..want(client, tokens) };
        let wants = [whole(1, 40), want(2, 64), whole(3, 100)];
        let mut got = [0; 3];
        for _ in 0..60 {
            let taken = planner.plan(&wants, 64);
            assert!([0, 40].contains(&taken[0]) && [0, 100].contains(&taken[2]), "{taken:?}");
            assert!(taken[2] == 0 || taken[..2] == [0, 0], "more than a step alone: {taken:?}");
            assert!(taken.iter().sum::<usize>() > 0);
            (0..3).for_each(|i| got[i] += taken[i]);
        }
        let most = *got.iter().max().unwrap();
        assert!(got.iter().all(|tokens| 2 * tokens >= most), "{got:?}");
        // Beams that decode beside a stream and a prompt.
        for (beams, budget) in [(8, 8), (16, 8), (64, 64), (4, 64)] {
            let wants = [
                Want { urgent: true, ..want(1, 1) },
                Want { urgent: true, ..whole(2, beams) },
                want(3, 100_000),
            ];
            let mut moved = [0; 3];
            for _ in 0..120 {
                let taken = planner.plan(&wants, budget);
                assert!([0, beams].contains(&taken[1]));
                (0..3).for_each(|i| moved[i] += usize::from(taken[i] > 0));
            }
            assert!(moved.iter().all(|steps| *steps >= 20), "{beams} beams, {budget}: {moved:?}");
        }
    }
}
