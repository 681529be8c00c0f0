//! What is under way on a runtime: counted, so that a stop can wait for it, and cut what takes too long.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use slab::Slab;

/// Cuts what was started short.
pub(crate) type Cut = Box<dyn Fn() + Send>;

/// Series and tasks that were started and have not ended, and pollers that have callers to serve.
#[derive(Default)]
pub(super) struct UnderWay {
    state: Mutex<State>,
    none: Condvar,
}

#[derive(Default)]
struct State {
    started: Slab<Option<Cut>>,
    /// Pollers that were told to let nobody in, and still serve those who are in.
    serving: usize,
    /// Somebody waits for the last to end.
    awaited: bool,
    /// All was cut: nothing more begins.
    cut: bool,
}

impl UnderWay {
    /// How many series and tasks.
    pub(super) fn started(&self) -> usize {
        self.lock().started.len()
    }

    /// Counts something until what is returned is dropped, unless all was cut, or `refused` says so.
    pub(super) fn begin(self: &Arc<UnderWay>, cut: Cut, refused: impl FnOnce() -> bool) -> Option<Running> {
        let mut state = self.lock();
        // Under the lock: who has said that nothing more begins, and then waits, finds what began before.
        if state.cut || refused() {
            return None;
        }
        let index = state.started.insert(Some(cut));
        drop(state);
        Some(Running { under_way: self.clone(), index })
    }

    /// Counts a poller until what is returned is dropped.
    pub(super) fn serve(self: &Arc<UnderWay>) -> Serving {
        self.lock().serving += 1;
        Serving(self.clone())
    }

    /// Waits until nothing is under way, or for the deadline. `None` is too far away to come.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        state.awaited = true;
        while !state.is_over() {
            let Some(deadline) = deadline else {
                state = self.none.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.none.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends what was started.
    pub(super) fn cut(&self) {
        let cuts: Vec<Cut> = {
            let mut state = self.lock();
            state.cut = true;
            state.started.iter_mut().filter_map(|(_, cut)| cut.take()).collect()
        };
        for cut in cuts {
            cut();
        }
    }

    /// Something is over: whoever waits for the last is told.
    fn tell(&self, state: MutexGuard<'_, State>) {
        let over = state.awaited && state.is_over();
        drop(state);
        if over {
            self.none.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.started.is_empty() && self.serving == 0
    }
}

/// Something that runs; counted until it is dropped.
pub(crate) struct Running {
    under_way: Arc<UnderWay>,
    index: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.under_way.lock();
        let cut = state.started.try_remove(self.index);
        self.under_way.tell(state);
        drop(cut);
    }
}

/// A poller that has callers; counted until it is dropped.
pub(super) struct Serving(Arc<UnderWay>);

impl Drop for Serving {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.serving -= 1;
        self.0.tell(state);
    }
}
