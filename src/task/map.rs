//! Making something else of what comes of a task.

use std::fmt;
use std::sync::Arc;

use super::Task;
use super::child::start_within;
use super::continuation::{Continuation, Receiver};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{Nested, Receive};

/// A task with something else made of its output; see [`TaskExt::map`](super::TaskExt::map).
#[derive(Clone, Copy)]
#[must_use = "a task does nothing until it is started"]
pub struct Map<T, F> {
    task: T,
    map: F,
}

/// A task and one made of its output; see [`TaskExt::followed_by`](super::TaskExt::followed_by).
#[derive(Clone, Copy)]
#[must_use = "a task does nothing until it is started"]
pub struct Followed<T, F> {
    task: T,
    make: F,
}

impl<T, F> Map<T, F> {
    pub(super) fn new(task: T, map: F) -> Map<T, F> {
        Map { task, map }
    }
}

impl<T, F> Followed<T, F> {
    pub(super) fn new(task: T, make: F) -> Followed<T, F> {
        Followed { task, make }
    }
}

impl<T, U, F> Task for Map<T, F>
where
    T: Task,
    U: Send + 'static,
    F: FnOnce(T::Output) -> U + Send + 'static,
{
    type Output = U;

    fn dispatch(self, done: Continuation<U>) {
        let go_on = |output, map: F, done: Continuation<U>| {
            let output = map(output);
            match Nested::enter() {
                Some(_nested) => done.receive(output),
                None => done.complete(output),
            }
        };
        start_within(self.task, Continuation::new(Box::new(Between { with: self.map, done, go_on })));
    }
}

impl<T, N, F> Task for Followed<T, F>
where
    T: Task,
    N: Task,
    F: FnOnce(T::Output) -> N + Send + 'static,
{
    type Output = N::Output;

    fn dispatch(self, done: Continuation<N::Output>) {
        let go_on = |output, make: F, done: Continuation<N::Output>| start_within(make(output), done);
        start_within(self.task, Continuation::new(Box::new(Between { with: self.make, done, go_on })));
    }
}

/// What the task continues with. A panic in `go_on` ends what comes next.
struct Between<F, U, G> {
    with: F,
    done: Continuation<U>,
    go_on: G,
}

impl<O, F, U, G> Receiver<O> for Between<F, U, G>
where
    O: Send + 'static,
    F: Send + 'static,
    U: Send + 'static,
    G: FnOnce(O, F, Continuation<U>) + Send + 'static,
{
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<O, F, U, G> Receive<O> for Between<F, U, G>
where
    O: Send + 'static,
    F: Send + 'static,
    U: Send + 'static,
    G: FnOnce(O, F, Continuation<U>) + Send + 'static,
{
    fn receive(self: Box<Self>, output: O) {
        let Between { with, done, go_on } = *self;
        // Nobody wants to know any more.
        if !done.is_cancelled() {
            go_on(output, with, done);
        }
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Map<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("task", &self.task).finish_non_exhaustive()
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Followed<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("task", &self.task).finish_non_exhaustive()
    }
}
