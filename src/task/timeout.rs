//! Tasks that may take only so long.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tidegate_poller::sys;

use super::Task;
use super::child::start_within;
use super::continuation::{Continuation, Parent};
use super::sync::Elapsed;
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Deliver;
use crate::runtime::work::Receive;
use crate::sync::Mutex;

/// A task that may take only so long; see [`TaskExt::timeout`](super::TaskExt::timeout).
#[derive(Clone, Copy, Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct Timeout<T> {
    task: T,
    time: Duration,
}

impl<T> Timeout<T> {
    pub(super) fn new(task: T, time: Duration) -> Timeout<T> {
        Timeout { task, time }
    }
}

impl<T: Task> Task for Timeout<T> {
    type Output = Result<T::Output, Elapsed>;

    fn dispatch(self, mut done: Continuation<Self::Output>) {
        let runtime = done.runtime().clone();
        let cancellation = done.cancellation();
        let race = Arc::new(Race {
            done: Mutex::new(Some(done)),
            token: Arc::default(),
            timer: OnceLock::new(),
            runtime: runtime.clone(),
        });
        if cancellation.is_possible() {
            let reached = Arc::downgrade(&race);
            cancellation.on_cancel(move || {
                if let Some(race) = reached.upgrade() {
                    race.give_up();
                }
            });
        }
        let timer =
            runtime.start_keyed_timer(sys::now() + self.time, Box::new(TimeUp { race: Some(race.clone()) }));
        let _ = race.timer.set(timer);
        if race.is_on() {
            start_within(self.task, Continuation::of_child(race.clone(), 0));
        } else {
            // Whoever ended the race may not have known the timer yet.
            runtime.cancel_timer(timer);
        }
    }
}

/// Between the task and the timer. Who takes the continuation has won.
struct Race<O> {
    done: Mutex<Option<Continuation<Result<O, Elapsed>>>>,
    /// The task's own: it can be cancelled while the series goes on.
    token: Arc<Token>,
    timer: OnceLock<(usize, u64)>,
    runtime: RuntimeHandle,
}

impl<O: Send + 'static> Race<O> {
    fn is_on(&self) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<Continuation<Result<O, Elapsed>>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn cancel_timer(&self) {
        if let Some(timer) = self.timer.get() {
            self.runtime.cancel_timer(*timer);
        }
    }

    /// The task is given up, and what comes after it.
    fn give_up(&self) {
        if let Some(done) = self.take() {
            self.token.cancel();
            self.cancel_timer();
            drop(done);
        }
    }
}

impl<O: Send + 'static> Deliver<O> for Race<O> {
    fn deliver(&self, _: u32, output: Option<O>) {
        if let Some(done) = self.take() {
            self.cancel_timer();
            // Without a result, nothing comes of this either.
            if let Some(output) = output {
                done.complete(Ok(output));
            }
        }
    }
}

impl<O: Send + 'static> Parent<O> for Race<O> {
    fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    fn token(&self, _: u32) -> Option<&Arc<Token>> {
        Some(&self.token)
    }
}

/// What the timer does. Dropped, because the task is done, or because the runtime ends and the time never comes.
struct TimeUp<O: Send + 'static> {
    race: Option<Arc<Race<O>>>,
}

impl<O: Send + 'static> Receive<()> for TimeUp<O> {
    fn receive(mut self: Box<Self>, (): ()) {
        if let Some(race) = self.race.take()
            && let Some(done) = race.take()
        {
            race.token.cancel();
            done.complete(Err(Elapsed));
        }
    }
}

impl<O: Send + 'static> Drop for TimeUp<O> {
    fn drop(&mut self) {
        if let Some(race) = self.race.take() {
            race.give_up();
        }
    }
}
