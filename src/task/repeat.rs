//! A task again and again.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::Task;
use super::child::start_within;
use super::continuation::{Continuation, Receiver};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Receive;

/// Makes a task and runs it, again and again: each from a state, into which `callback` puts what came of the one
/// before, until it says [`ControlFlow::Break`] with what comes of the whole.
///
/// Rounds are flat: a million of them need no more stack and no more memory than one. A panic in `make` or `callback`
/// ends the series.
///
/// ```
/// use std::ops::ControlFlow::{Break, Continue};
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{go, repeat};
///
/// let runtime = Runtime::new()?;
/// // The state: a number, and how often it was halved.
/// let halvings = repeat(
///     (1000_u32, 0),
///     |&mut (n, _)| go(move || n / 2),
///     |half, (n, rounds)| {
///         *n = half;
///         *rounds += 1;
///         if half == 0 { Break(*rounds) } else { Continue(()) }
///     },
/// );
/// assert_eq!(runtime.run(halvings)?, 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn repeat<S, T, B, M, F>(state: S, make: M, callback: F) -> Repeat<S, M, F>
where
    S: Send + 'static,
    T: Task,
    B: Send + 'static,
    M: FnMut(&mut S) -> T + Send + 'static,
    F: FnMut(T::Output, &mut S) -> ControlFlow<B> + Send + 'static,
{
    Repeat { state, make, callback }
}

/// See [`repeat`].
#[derive(Clone, Copy)]
#[must_use = "a task does nothing until it is started"]
pub struct Repeat<S, M, F> {
    state: S,
    make: M,
    callback: F,
}

impl<S: fmt::Debug, M, F> fmt::Debug for Repeat<S, M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeat").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<S, T, B, M, F> Task for Repeat<S, M, F>
where
    S: Send + 'static,
    T: Task,
    B: Send + 'static,
    M: FnMut(&mut S) -> T + Send + 'static,
    F: FnMut(T::Output, &mut S) -> ControlFlow<B> + Send + 'static,
{
    type Output = B;

    fn dispatch(mut self, done: Continuation<B>) {
        let task = (self.make)(&mut self.state);
        start_within(task, Continuation::new(Box::new(Round { repeat: self, done })));
    }
}

/// What each round continues with: the same box for all of them.
struct Round<S, B, M, F> {
    repeat: Repeat<S, M, F>,
    done: Continuation<B>,
}

impl<S, T, B, M, F> Receiver<T::Output> for Round<S, B, M, F>
where
    S: Send + 'static,
    T: Task,
    B: Send + 'static,
    M: FnMut(&mut S) -> T + Send + 'static,
    F: FnMut(T::Output, &mut S) -> ControlFlow<B> + Send + 'static,
{
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<S, T, B, M, F> Receive<T::Output> for Round<S, B, M, F>
where
    S: Send + 'static,
    T: Task,
    B: Send + 'static,
    M: FnMut(&mut S) -> T + Send + 'static,
    F: FnMut(T::Output, &mut S) -> ControlFlow<B> + Send + 'static,
{
    fn receive(mut self: Box<Self>, output: T::Output) {
        // A task that is done at once never gets to say how to cancel it.
        if self.done.is_cancelled() {
            return;
        }
        let Repeat { state, make, callback } = &mut self.repeat;
        match callback(output, state) {
            ControlFlow::Continue(()) => {
                let task = make(state);
                task.dispatch(Continuation::new(self));
            }
            ControlFlow::Break(value) => {
                let Round { repeat, done } = *self;
                drop(repeat);
                done.complete(value);
            }
        }
    }
}
