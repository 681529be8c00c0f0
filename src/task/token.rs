//! Cancelling what runs.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};

use crate::runtime::work;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, thread_local};

/// Whether something was cancelled, and how to cancel the task that it runs.
///
/// A series has one task at a time, so there is one way at a time. It belongs to a generation, which ends when the task
/// is over: a task that is over already cannot put its own way in the place of the next one's.
#[derive(Default)]
pub(crate) struct Token {
    /// As in `state`, to be read without the lock.
    cancelled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    generation: u64,
    cancel: Option<Cancel>,
}

type Cancel = Box<dyn FnOnce() + Send>;

impl Token {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Cancels; more than once is as good as once.
    pub(crate) fn cancel(&self) {
        let cancel = {
            let mut state = self.lock();
            state.cancelled = true;
            self.cancelled.store(true, Ordering::Release);
            state.cancel.take()
        };
        if let Some(cancel) = cancel {
            call(cancel);
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.lock().generation
    }

    /// The task of now is over: what it said of how to cancel it is void.
    fn next_generation(&self) {
        let void = {
            let mut state = self.lock();
            state.generation += 1;
            state.cancel.take()
        };
        drop(void);
    }

    /// Says how to cancel the task of a generation. Void if that is over; done at once if the token was cancelled.
    fn on_cancel(&self, generation: u64, cancel: Cancel) {
        let (now, void) = {
            let mut state = self.lock();
            if state.generation != generation {
                (None, Some(cancel))
            } else if state.cancelled {
                (Some(cancel), None)
            } else {
                (None, state.cancel.replace(cancel))
            }
        };
        drop(void);
        if let Some(cancel) = now {
            call(cancel);
        }
    }

    /// Nothing is called or dropped under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The generation of a task that may have said how to cancel it. Dropped when the task is over, it ends.
pub(super) struct Generation(pub(super) Arc<Token>);

impl Drop for Generation {
    fn drop(&mut self) {
        self.0.next_generation();
    }
}

thread_local! {
    /// What is to be called next on this thread; absent while nothing is.
    static CANCELS: RefCell<Option<VecDeque<Cancel>>> = const { RefCell::new(None) };
}

/// Calls what cancels: from within another such call right after that one, so that a tree of tasks is cancelled on a
/// stack that does not grow with it. A panic of what is dropped is not the canceller's, who may have others to cancel.
fn call(cancel: Cancel) {
    let mut first = Some(cancel);
    let _ = CANCELS.try_with(|cancels| match &mut *cancels.borrow_mut() {
        Some(next) => next.extend(first.take()),
        idle => *idle = Some(VecDeque::new()),
    });
    let mut next = first;
    while let Some(cancel) = next {
        work::contain(cancel);
        let following = CANCELS.try_with(|cancels| {
            let mut cancels = cancels.borrow_mut();
            let following = cancels.as_mut().and_then(VecDeque::pop_front);
            if following.is_none() {
                *cancels = None;
            }
            following
        });
        next = following.ok().flatten();
    }
}

/// Where a running task says how it can be cancelled; see
/// [`Continuation::cancellation`](super::Continuation::cancellation).
#[derive(Clone)]
pub struct Cancellation {
    /// Absent where nobody can cancel.
    token: Option<(Arc<Token>, u64)>,
}

impl Cancellation {
    pub(super) fn new(token: Option<&Arc<Token>>) -> Cancellation {
        Cancellation { token: token.map(|token| (token.clone(), token.generation())) }
    }

    /// Has `cancel` called when the task is cancelled before it is done; at once if that has happened. It runs on
    /// whatever thread cancels, and may run just after the task is done: it must then find nothing to do. A later call
    /// replaces an earlier one.
    pub fn on_cancel(&self, cancel: impl FnOnce() + Send + 'static) {
        if let Some((token, generation)) = &self.token {
            token.on_cancel(*generation, Box::new(cancel));
        }
    }

    /// Whether anybody can cancel.
    pub fn is_possible(&self) -> bool {
        self.token.is_some()
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.token.as_ref().is_some_and(|(token, _)| token.is_cancelled())
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}
