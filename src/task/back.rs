//! Going on on a poller's thread.

use std::sync::Arc;

use super::Task;
use super::continuation::{Continuation, Receiver};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Work;

/// A task after which the series goes on on a poller's thread; see
/// [`TaskExt::back_on_poller`](super::TaskExt::back_on_poller).
#[derive(Clone, Copy, Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct BackOnPoller<T> {
    task: T,
}

impl<T> BackOnPoller<T> {
    pub(super) fn new(task: T) -> BackOnPoller<T> {
        BackOnPoller { task }
    }
}

impl<T: Task> Task for BackOnPoller<T> {
    type Output = T::Output;

    fn dispatch(self, done: Continuation<T::Output>) {
        let poller = done.runtime().poller_here_or_next();
        self.task.dispatch(Continuation::new(Box::new(Way { output: None, done, poller })));
    }
}

struct Way<O> {
    output: Option<O>,
    done: Continuation<O>,
    poller: usize,
}

impl<O: Send + 'static> Receiver<O> for Way<O> {
    fn put(&mut self, output: O) {
        self.output = Some(output);
    }

    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<O: Send + 'static> Work for Way<O> {
    fn run(self: Box<Self>) {
        let Way { output, done, poller } = *self;
        if let Some(output) = output {
            let runtime = done.runtime().clone();
            runtime.ready_on_poller(poller, done.preset(output));
        }
    }
}
