//! Threads that search vectors, and read them from files.

use candlewick_kernels::Pool;

pub struct VectorPool(pub(super) Pool);

impl VectorPool {
    pub fn new(threads: usize) -> Self {
        Self(Pool::new(threads))
    }

    pub(super) fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.0.run(tasks, task);
    }
}
