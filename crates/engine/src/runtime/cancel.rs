//! A cancellation flag: any thread sets it, the model's thread reads it between layers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    next_id: AtomicU64,
    /// What wakes a sleeping thread. A flag alone would leave a paused stream waiting for its reader.
    hooks: Mutex<Vec<(u64, Hook)>>,
}

/// Cheap to clone; all clones are one flag. Once cancelled it stays so.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Inner>);

impl CancelToken {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cancel(&self) {
        let hooks = {
            // Under the lock, so that `on_cancel` either sees the flag or has its hook taken here.
            let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.cancelled.store(true, Ordering::Release);
            std::mem::take(&mut *hooks)
        };
        for (_, hook) in hooks {
            hook();
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Runs `hook` once at the cancellation (now, if that was earlier) unless the guard is dropped before.
    pub(crate) fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> HookGuard {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cancelled() {
            drop(hooks);
            hook();
        } else {
            hooks.push((id, Box::new(hook)));
        }
        HookGuard { token: self.clone(), id }
    }
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CancelToken").field(&self.is_cancelled()).finish()
    }
}

/// One token may outlive thousands of requests; each takes its hook away when it ends.
pub(crate) struct HookGuard {
    token: CancelToken,
    id: u64,
}

impl Drop for HookGuard {
    fn drop(&mut self) {
        let mut hooks = self.token.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = hooks.iter().position(|(id, _)| *id == self.id).map(|at| hooks.swap_remove(at));
        drop(hooks);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn hooks_run_once_and_guards_take_them_away() {
        let token = CancelToken::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = |calls: &Arc<AtomicUsize>| {
            let calls = calls.clone();
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let kept = token.on_cancel(count(&calls));
        drop(token.on_cancel(count(&calls)));
        token.cancel();
        token.cancel();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let late = token.on_cancel(count(&calls));
        assert_eq!(calls.load(Ordering::SeqCst), 2, "a hook set after the cancellation runs at once");
        drop((kept, late));
        assert!(token.0.hooks.lock().unwrap().is_empty());
    }
}
