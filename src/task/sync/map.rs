//! Makes one result of another.

use std::sync::Arc;

use crate::runtime::RuntimeHandle;
use crate::runtime::work::Receive;
use crate::task::Continuation;
use crate::task::continuation::Receiver;
use crate::task::token::Token;

/// A continuation that gives `done` what `map` makes of the result; with `None`, `done` is dropped.
pub(super) fn map<I, O>(done: Continuation<O>, map: fn(I) -> Option<O>) -> Continuation<I>
where
    I: Send + 'static,
    O: Send + 'static,
{
    Continuation::new(Box::new(Map { done, map }))
}

struct Map<I, O> {
    done: Continuation<O>,
    map: fn(I) -> Option<O>,
}

impl<I: Send + 'static, O: Send + 'static> Receiver<I> for Map<I, O> {
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<I: Send + 'static, O: Send + 'static> Receive<I> for Map<I, O> {
    fn receive(self: Box<Self>, input: I) {
        let Map { done, map } = *self;
        if let Some(output) = map(input) {
            done.complete(output);
        }
    }
}
