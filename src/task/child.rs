//! Starting one of several tasks that run within another.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Task;
use super::continuation::Continuation;
use super::run::start;
use crate::runtime::work::{self, Nested, panic_message};

/// Starts one of several: a panic of it is not one of the others'.
pub(super) fn start_child<T: Task>(task: T, done: Continuation<T::Output>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| start_within(task, done))) {
        log::error!("a task panicked: {}", panic_message(&*payload));
        // What it was about to be given is gone; another may come to lie at its address.
        work::give_none_directly();
    }
}

/// Drops one of several that is not to be started: a panic of it is not one of the others'.
pub(super) fn drop_child<T: Task>(task: T) {
    work::contain(|| drop(task));
}

/// Starts a task within another: at once, or in its turn where tasks are already nested so deep that the stack might
/// not do.
pub(super) fn start_within<T: Task>(task: T, done: Continuation<T::Output>) {
    match Nested::enter() {
        Some(_nested) => task.dispatch(done),
        None => start(task, done),
    }
}
