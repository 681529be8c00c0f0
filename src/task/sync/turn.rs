//! Running a task in its turn: when it has got a value of a pool, until it is done.

use std::sync::Arc;

use super::pool::{NoTurn, Pooled, Shared, Turn};
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Receive;
use crate::task::continuation::Receiver;
use crate::task::token::Token;
use crate::task::{Continuation, Task};

/// What comes of the task, or of its not being run. With `None` the series ends.
pub(super) type Finish<I, O> = fn(Result<I, NoTurn>) -> Option<O>;

/// Runs `task` when it is its turn at `pool`. The value goes back when the task is done, dropped or cancelled, and before
/// `done` goes on.
pub(super) fn in_turn<V, T, O>(
    pool: &Arc<Shared<V>>,
    task: T,
    done: Continuation<O>,
    finish: Finish<T::Output, O>,
) where
    V: Send + 'static,
    T: Task,
    O: Send + 'static,
{
    let waits = Waits { task, done, finish };
    pool.turn(Continuation::new(Box::new(waits)), None);
}

/// Waits for the value.
struct Waits<T: Task, O> {
    task: T,
    done: Continuation<O>,
    finish: Finish<T::Output, O>,
}

impl<V: Send + 'static, T: Task, O: Send + 'static> Receiver<Turn<V>> for Waits<T, O> {
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<V: Send + 'static, T: Task, O: Send + 'static> Receive<Turn<V>> for Waits<T, O> {
    fn receive(self: Box<Self>, turn: Turn<V>) {
        let Waits { task, done, finish } = *self;
        match turn {
            Ok(_) if done.is_cancelled() => {}
            Ok(value) => task.dispatch(Continuation::new(Box::new(Runs { value, done, finish }))),
            Err(no_turn) => {
                if let Some(output) = finish(Err(no_turn)) {
                    done.complete(output);
                }
            }
        }
    }
}

/// Has the value, and runs the task. Dropped, it gives the value back and ends the series.
struct Runs<V: Send + 'static, I, O> {
    value: Pooled<V>,
    done: Continuation<O>,
    finish: Finish<I, O>,
}

impl<V: Send + 'static, I: Send + 'static, O: Send + 'static> Receiver<I> for Runs<V, I, O> {
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<V: Send + 'static, I: Send + 'static, O: Send + 'static> Receive<I> for Runs<V, I, O> {
    fn receive(self: Box<Self>, output: I) {
        let Runs { value, done, finish } = *self;
        drop(value);
        if let Some(output) = finish(Ok(output)) {
            done.complete(output);
        }
    }
}
