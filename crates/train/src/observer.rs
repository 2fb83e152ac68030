//! How a caller follows and stops long work.

pub trait Observer {
    /// `done` of `total`, in whatever the work counts.
    fn progress(&self, _done: u64, _total: u64) {}
    /// Once, at the start of an evaluation: the share of the first tokens that the tokenizer does not know. Not called
    /// for a vocabulary that knows every text.
    fn unknown(&self, _share: f64) {}
    /// Asked often; `true` ends the work with `ABORTED`.
    fn stop(&self) -> bool {
        false
    }
}

/// An observer that ignores progress and never stops.
impl Observer for () {}
