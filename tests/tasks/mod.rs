//! What the tests of tasks share. Waiting is always for something, up to a deadline.

// Each test binary uses its part of this, and may have another that shares a file with it.
#![allow(dead_code, unused_imports, clippy::duplicate_mod)]

#[path = "../support/waiting.rs"]
mod waiting;

pub(crate) use waiting::{PATIENCE, Waits};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, mpsc};
use std::time::{Duration, Instant};

use tidegate::task::{Continuation, Task, TaskHandle, WaitError};

/// Longer than any test waits.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Waits for what comes of a task; fails at the deadline.
pub(crate) fn wait<O: Send + 'static>(handle: TaskHandle<O>) -> Result<O, WaitError> {
    handle.wait_for(PATIENCE).unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for a task"))
}

/// Receives, and fails at the deadline.
pub(crate) fn receive<T>(from: &mpsc::Receiver<T>) -> T {
    from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("waited {PATIENCE:?} in vain: {error}"))
}

/// Looks until it is so; fails at the deadline.
pub(crate) fn await_that(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::yield_now();
    }
}

/// Done at once.
pub(crate) struct Ready<O>(pub(crate) O);

impl<O: Send + 'static> Task for Ready<O> {
    type Output = O;

    fn dispatch(self, done: Continuation<O>) {
        done.complete(self.0);
    }
}

/// Never done.
pub(crate) struct Drops;

impl Task for Drops {
    type Output = u32;

    fn dispatch(self, done: Continuation<u32>) {
        drop(done);
    }
}

/// Panics when it is started.
pub(crate) struct Panics;

impl Task for Panics {
    type Output = u32;

    fn dispatch(self, _done: Continuation<u32>) {
        panic!("{AS_PLANNED}");
    }
}

pub(crate) const AS_PLANNED: &str = "as planned";

/// Keeps panics that are part of a test out of its output.
pub(crate) fn silence_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let said = payload.downcast_ref::<String>().map(String::as_str);
            if said.or_else(|| payload.downcast_ref::<&str>().copied()) != Some(AS_PLANNED) {
                usual(info);
            }
        }));
    });
}

/// Counts what lives.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<AtomicUsize>);

/// Something that lives until it is dropped.
pub(crate) struct Life(Arc<AtomicUsize>);

impl Census {
    pub(crate) fn life(&self) -> Life {
        self.0.fetch_add(1, Ordering::SeqCst);
        Life(self.0.clone())
    }

    pub(crate) fn alive(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
