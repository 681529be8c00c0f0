//! Any task, with its kind forgotten.

use std::fmt;

use super::Task;
use super::continuation::Continuation;

/// A task of whatever kind; see [`TaskExt::boxed`](super::TaskExt::boxed).
#[must_use = "a task does nothing until it is started"]
pub struct BoxTask<O>(Box<dyn Dispatch<O>>);

/// A task that is started from its box.
trait Dispatch<O>: Send {
    fn dispatch(self: Box<Self>, done: Continuation<O>);
}

impl<T: Task> Dispatch<T::Output> for T {
    fn dispatch(self: Box<Self>, done: Continuation<T::Output>) {
        (*self).dispatch(done);
    }
}

impl<O: Send + 'static> BoxTask<O> {
    pub(super) fn new<T: Task<Output = O>>(task: T) -> BoxTask<O> {
        BoxTask(Box::new(task))
    }
}

impl<O: Send + 'static> Task for BoxTask<O> {
    type Output = O;

    fn dispatch(self, done: Continuation<O>) {
        self.0.dispatch(done);
    }
}

impl<O> fmt::Debug for BoxTask<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxTask").finish_non_exhaustive()
    }
}
