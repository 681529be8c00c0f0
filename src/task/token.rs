//! Cancelling what runs.

use std::cell::{Cell, RefCell};
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

/// How deep cancels may nest, a task within a task within a task.
const NESTED_MAX: u32 = 16;

thread_local! {
    static CANCELS: Cancels = const { Cancels { nested: Cell::new(0), later: RefCell::new(VecDeque::new()) } };
}

/// What is being cancelled on this thread.
struct Cancels {
    nested: Cell<u32>,
    /// What came when they were nested too deep.
    later: RefCell<VecDeque<Cancel>>,
}

/// Calls what cancels: at once, or, nested too deep, when the outermost one is done. So a tree of tasks is cancelled on a
/// stack that does not grow with it. A panic of what is dropped is not the canceller's, who may have others to cancel.
fn call(cancel: Cancel) {
    let mut cancel = Some(cancel);
    let taken = CANCELS.try_with(|cancels| {
        let nested = cancels.nested.get();
        if nested >= NESTED_MAX {
            return cancels.later.borrow_mut().extend(cancel.take());
        }
        let mut next = cancel.take();
        cancels.nested.set(nested + 1);
        while let Some(cancel) = next {
            work::contain(cancel);
            // The borrow ends before it is called.
            next = if nested == 0 { cancels.later.borrow_mut().pop_front() } else { None };
        }
        cancels.nested.set(nested);
    });
    // The thread is ending, and what it kept is gone already.
    if let (Err(_), Some(cancel)) = (taken, cancel) {
        work::contain(cancel);
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
