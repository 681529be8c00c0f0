//! One of several tasks that run within another.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Task;
use super::continuation::{Continuation, Receiver};
use super::run::start;
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{Nested, Receive, panic_message};

/// What tasks run within.
pub(super) trait Parent<O>: Send + Sync + 'static {
    /// A task is over, `None` without a result. Called once for each. Without a result it may be called while a stack
    /// unwinds: it then must not call user code.
    fn deliver(&self, index: usize, output: Option<O>);
    fn runtime(&self) -> &RuntimeHandle;
    /// The token that the task runs under.
    fn token(&self, index: usize) -> Option<&Arc<Token>>;
}

/// What one of the tasks continues with.
pub(super) struct Child<O: Send + 'static, P: Parent<O>> {
    index: u32,
    delivered: bool,
    parent: Arc<P>,
    output: PhantomData<fn(O)>,
}

impl<O: Send + 'static, P: Parent<O>> Child<O, P> {
    pub(super) fn continuation(parent: &Arc<P>, index: usize) -> Continuation<O> {
        let parent = parent.clone();
        Continuation::new(Box::new(Child {
            index: index as u32,
            delivered: false,
            parent,
            output: PhantomData,
        }))
    }
}

impl<O: Send + 'static, P: Parent<O>> Receiver<O> for Child<O, P> {
    fn runtime(&self) -> &RuntimeHandle {
        self.parent.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.parent.token(self.index as usize)
    }
}

impl<O: Send + 'static, P: Parent<O>> Receive<O> for Child<O, P> {
    fn receive(mut self: Box<Self>, output: O) {
        self.delivered = true;
        self.parent.deliver(self.index as usize, Some(output));
    }
}

impl<O: Send + 'static, P: Parent<O>> Drop for Child<O, P> {
    fn drop(&mut self) {
        if !self.delivered {
            self.parent.deliver(self.index as usize, None);
        }
    }
}

/// Starts one of several: a panic of it is not one of the others'.
pub(super) fn start_child<T: Task>(task: T, done: Continuation<T::Output>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| start_within(task, done))) {
        log::error!("a task panicked: {}", panic_message(&*payload));
    }
}

/// Starts a task within another: at once, or in its turn where tasks are already nested so deep that the stack might
/// not do.
pub(super) fn start_within<T: Task>(task: T, done: Continuation<T::Output>) {
    match Nested::enter() {
        Some(_nested) => task.dispatch(done),
        None => start(task, done),
    }
}
