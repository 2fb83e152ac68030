//! Blocks on top of each other, and what they keep for the backward pass.

use candlewick_kernels::train::Floats;

use super::block::{Block, Saved, Space};
use super::cpu::Cpu;
use super::params::Params;
use super::relative::Distances;
use crate::{Result, TrainError};

#[derive(Default)]
pub struct Stack {
    pub blocks: Vec<Block>,
    /// Keep each block's input only, and run it again in the backward pass: a third more time, a tenth of the memory.
    pub checkpointing: bool,
    /// Blocks below have nothing to train, nor does what comes before them.
    pub lowest: usize,
    saved: Vec<Saved>,
    work: Saved,
    space: Space,
    /// (rows, D): the last block's output.
    pub output: Floats,
}

impl Stack {
    pub fn new(blocks: Vec<Block>) -> Self {
        Self { saved: blocks.iter().map(|_| Saved::default()).collect(), blocks, ..Self::default() }
    }

    /// Where the embeddings go: (rows, D).
    pub fn input(&mut self, len: usize) -> &mut [f32] {
        self.saved[0].x.at_least(len)
    }

    /// What all blocks' attention adds by distance.
    pub fn distances(&mut self) -> &mut Distances {
        &mut self.space.distances
    }

    /// From `input` to `output`. `trains`: a backward pass will follow.
    pub fn forward(
        &mut self,
        cpu: &mut Cpu,
        params: &Params,
        starts: &[usize],
        len: usize,
        trains: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.output.at_least(len);
        for i in 0..self.blocks.len() {
            if stop() {
                return Err(TrainError::Aborted);
            }
            let keeps = trains && !self.checkpointing && i >= self.lowest;
            let (before, after) = self.saved.split_at_mut(i + 1);
            let saved = &mut before[i];
            let y = match after.first_mut() {
                Some(next) => next.x.at_least(len),
                None => &mut self.output[..len],
            };
            if keeps {
                self.blocks[i].forward(cpu, params, starts, saved, &mut self.space, y);
            } else {
                std::mem::swap(&mut self.work.x, &mut saved.x);
                self.blocks[i].forward(cpu, params, starts, &mut self.work, &mut self.space, y);
                std::mem::swap(&mut self.work.x, &mut saved.x);
            }
        }
        Ok(())
    }

    /// dy, of `output` → the gradient of what the lowest block that trains was given.
    pub fn backward(
        &mut self,
        cpu: &mut Cpu,
        params: &mut Params,
        starts: &[usize],
        dy: &mut [f32],
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        for i in (self.lowest..self.blocks.len()).rev() {
            if stop() {
                return Err(TrainError::Aborted);
            }
            let (block, saved) = (&self.blocks[i], &mut self.saved[i]);
            if self.checkpointing {
                std::mem::swap(&mut self.work.x, &mut saved.x);
                let y = &mut self.output[..dy.len()];
                block.forward(cpu, params, starts, &mut self.work, &mut self.space, y);
                block.backward(cpu, params, starts, &mut self.work, &mut self.space, dy);
                std::mem::swap(&mut self.work.x, &mut saved.x);
            } else {
                block.backward(cpu, params, starts, saved, &mut self.space, dy);
            }
        }
        Ok(())
    }
}
