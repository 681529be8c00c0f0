//! Going on on a poller's thread.

use std::sync::Arc;

use super::Task;
use super::continuation::{Continuation, Receiver};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Receive;

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
        self.task.dispatch(Continuation::new(Box::new(Way { done, poller })));
    }
}

struct Way<O> {
    done: Continuation<O>,
    poller: usize,
}

impl<O: Send + 'static> Receiver<O> for Way<O> {
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<O: Send + 'static> Receive<O> for Way<O> {
    fn receive(self: Box<Self>, output: O) {
        let Way { done, poller } = *self;
        let runtime = done.runtime().clone();
        runtime.ready_on_poller(poller, Box::new(Arrival { done, output }));
    }
}

struct Arrival<O> {
    done: Continuation<O>,
    output: O,
}

impl<O: Send + 'static> Receive<()> for Arrival<O> {
    fn receive(self: Box<Self>, (): ()) {
        let Arrival { done, output } = *self;
        done.receive(output);
    }
}
