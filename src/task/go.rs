//! Computations.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Task;
use super::continuation::Continuation;
use crate::runtime::{Job, in_job};

/// Has `compute` called on one of the runtime's computing threads. What it returns comes of the task. A panic in it ends
/// the series.
///
/// Cancelled while it waits for a thread, it is not called; once it runs, what it returns is dropped.
pub fn go<R, F>(compute: F) -> Go<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    Go { compute }
}

/// See [`go`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct Go<F> {
    compute: F,
}

impl<R, F> Task for Go<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = R;

    fn dispatch(self, done: Continuation<R>) {
        let runtime = done.runtime().clone();
        runtime.compute(Computation { compute: self.compute, done });
    }
}

struct Computation<F, R> {
    compute: F,
    done: Continuation<R>,
}

impl<R, F> Job for Computation<F, R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    fn run(self) {
        let Computation { compute, done } = self;
        if done.is_cancelled() {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| in_job(compute))) {
            Ok(result) => done.complete(result),
            Err(payload) => done.panicked(payload),
        }
    }
}
