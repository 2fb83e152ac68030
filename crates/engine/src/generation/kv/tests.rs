//! Random lives of sequences against a model that copies everything: no block leaks, none is used after it is free, and
//! every table holds what its sequence computed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use candlewick_models::{BlockId, KvSpec};

use super::memory::Memory;
use super::prefix::Realm;
use super::table::Copies;
use crate::generation::detokenize::Detokenizer;
use crate::generation::sampling::rng::uniform;
use crate::generation::sequence::{Growth, Sequence};

const BLOCK: usize = 4;
const BLOCKS: usize = 24;

fn growth() -> Growth {
    Growth::new(Detokenizer::new(None, Arc::from([]), &[]))
}

/// A sequence, and the scope that it shares its beginning in.
struct Life {
    sequence: Sequence,
    realm: Realm,
}

/// What a backend would have in its blocks: for each position the tokens up to it, and the scope. A position's keys and
/// values depend on these and nothing else.
type Contents = HashMap<(BlockId, usize), (Vec<u32>, Realm)>;

struct World {
    memory: Memory,
    lives: Vec<Life>,
    contents: Contents,
    hits: usize,
}

impl World {
    fn new() -> Self {
        let memory = Memory::new(KvSpec { positions: BLOCK, blocks: BLOCKS, bytes: 1 });
        Self { memory, lives: Vec::new(), contents: HashMap::new(), hits: 0 }
    }

    /// Computes up to `count` tokens of a sequence, as a step does. A sequence that finds no blocks is paused.
    fn step(&mut self, index: usize, count: usize) {
        let Life { sequence, realm } = &mut self.lives[index];
        self.hits += sequence.share(&mut self.memory.prefixes, realm);
        let start = sequence.table.len();
        let end = (start + count).min(sequence.tokens.len());
        let mut copies = Copies::new();
        if !sequence.table.prepare(end, || self.memory.take(), &mut copies) {
            sequence.pause();
            return;
        }
        for (from, to) in copies {
            for at in 0..BLOCK {
                match self.contents.get(&(from, at)).cloned() {
                    Some(content) => self.contents.insert((to, at), content),
                    None => self.contents.remove(&(to, at)),
                };
            }
        }
        for at in start..end {
            let id = sequence.table.ids()[at / BLOCK];
            self.contents.insert((id, at % BLOCK), (sequence.tokens[..=at].to_vec(), realm.clone()));
        }
        sequence.table.set_len(end);
        sequence.publish(&mut self.memory.prefixes, realm);
        self.check();
    }

    /// Every position that a sequence counts as computed holds what this sequence would have computed.
    fn check(&self) {
        let mut held: BTreeSet<BlockId> = BTreeSet::new();
        for Life { sequence, realm } in &self.lives {
            held.extend(sequence.table.ids());
            for at in 0..sequence.table.len() {
                let id = sequence.table.ids()[at / BLOCK];
                let (tokens, its) = &self.contents[&(id, at % BLOCK)];
                assert_eq!((tokens, its), (&sequence.tokens[..=at].to_vec(), realm));
            }
        }
        let idle = self.memory.prefixes.idle();
        assert_eq!(
            held.len() + idle + self.memory.free(),
            BLOCKS,
            "a block is held, kept or free, and one of these"
        );
    }
}

#[test]
fn blocks_are_neither_lost_nor_mixed_up() {
    for case in 0..2_000u64 {
        let mut draws = 0;
        let mut random = |n: usize| {
            draws += 1;
            (uniform(case, draws, 3) * n as f64) as usize
        };
        let mut world = World::new();
        for _ in 0..40 {
            let many = world.lives.len();
            match random(if many == 0 { 1 } else { 8 }) {
                // Few different tokens, so that beginnings are often the same.
                0 => {
                    let tokens = (0..1 + random(20)).map(|_| random(2) as u32).collect();
                    let scope = [None, Some("a".into()), Some("b".into())][random(3)].clone();
                    let adapter = [None, Some(0)][random(2)];
                    let sequence = Sequence::new(tokens, BLOCK, growth());
                    world.lives.push(Life { sequence, realm: Realm { adapter, scope } });
                }
                1 | 2 => {
                    let (index, count) = (random(many), 1 + random(7));
                    world.step(index, count);
                }
                3 => world.step(random(many), 1),
                4 => {
                    let Life { sequence, realm } = &world.lives[random(many)];
                    let (sequence, realm) = (sequence.fork(1), realm.clone());
                    world.lives.push(Life { sequence, realm });
                }
                // A token is drawn; a draft may have been computed and is taken back.
                5 => {
                    let sequence = &mut world.lives[random(many)].sequence;
                    sequence.tokens.push(random(2) as u32);
                }
                6 => {
                    let index = random(many);
                    let draft = 1 + random(5);
                    let life = &mut world.lives[index];
                    life.sequence.tokens.extend((0..draft).map(|at| at as u32 % 2));
                    life.sequence.draft = draft;
                    let known = life.sequence.known();
                    world.step(index, usize::MAX / 2);
                    let sequence = &mut world.lives[index].sequence;
                    sequence.drop_draft();
                    sequence.table.set_len(sequence.table.len().min(known));
                }
                _ => match random(2) {
                    0 => world.lives[random(many)].sequence.pause(),
                    _ => {
                        let Life { mut sequence, realm } = world.lives.swap_remove(random(many));
                        if random(2) == 0 {
                            sequence.publish_end(&mut world.memory.prefixes, &realm);
                        }
                    }
                },
            }
            world.check();
        }
        world.lives.clear();
        world.check();
        while world.memory.prefixes.evict() {}
        assert_eq!((world.memory.free(), world.memory.prefixes.blocks()), (BLOCKS, 0), "case {case}");
        assert!(case != 7 || world.hits > 0, "beginnings are shared in these cases");
    }
}
