//! How JavaScript watches long work: progress through the mailbox, the end through its `Cancel`.

use candlewick_engine::{CancelToken, LoadProgress};
use candlewick_train::Observer;

use crate::mailbox::{Cancel, Mailbox};

pub(crate) struct Watch {
    cancel: CancelToken,
    progress: Option<Box<dyn Fn(LoadProgress) + Send>>,
    note: Box<dyn Fn(f64) + Send>,
}

impl Watch {
    pub fn new(mailbox: &Mailbox, id: u32, cancel: &Cancel, progress: bool) -> Self {
        let progress = progress.then(|| mailbox.progress(id));
        Self { cancel: cancel.token(), progress, note: mailbox.note(id) }
    }
}

impl Observer for Watch {
    fn progress(&self, done: u64, total: u64) {
        if let Some(report) = &self.progress {
            report(LoadProgress { done, total });
        }
    }

    fn unknown(&self, share: f64) {
        (self.note)(share);
    }

    fn stop(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
