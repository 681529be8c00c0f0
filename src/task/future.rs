//! Futures as tasks.
//!
//! A future is polled on the computing threads and nowhere else: a waker only has one of them do it. So whoever wakes
//! is never kept, and a future may compute. Wake-ups that come while one is on its way are one.
//!
//! Ownership: between two polls the future and what comes after it lie in [`Shared`], which only the wakers (and a poll
//! that is on its way) hold. If all wakers are dropped unused, nothing could ever poll again, and both are dropped.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::Task;
use super::continuation::Continuation;
use crate::runtime::work;
use crate::runtime::{Job, RuntimeHandle, in_job};

/// Makes a task of a future. What comes of the future comes of the task.
///
/// It is polled on the runtime's computing threads: never within a waker, never on a poller. A panic in it ends the
/// series. Cancelled, the future is dropped: at once, or when the poll that runs returns.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{future, go};
///
/// let runtime = Runtime::new()?;
/// let handle = runtime.handle();
/// let sum = runtime.run(future(async move {
///     let (a, b) = (handle.spawn(go(|| 40)), handle.spawn(go(|| 2)));
///     Ok::<i32, tidegate::task::Dropped>(a.await? + b.await?)
/// }))??;
/// assert_eq!(sum, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn future<F>(future: F) -> FutureTask<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    FutureTask { future }
}

/// See [`future`].
#[must_use = "a task does nothing until it is started"]
pub struct FutureTask<F> {
    future: F,
}

impl<F> fmt::Debug for FutureTask<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FutureTask").finish_non_exhaustive()
    }
}

impl<F> Task for FutureTask<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn dispatch(self, mut done: Continuation<F::Output>) {
        let runtime = done.runtime().clone();
        let cancellation = done.cancellation();
        let running = Running { future: Box::pin(self.future), done };
        let state = State { running: Some(running), turn: Turn::OnItsWay, cancelled: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), runtime });
        let reached = Arc::downgrade(&shared);
        cancellation.on_cancel(move || {
            if let Some(shared) = reached.upgrade() {
                shared.cancel();
            }
        });
        shared.send();
    }
}

/// A future that runs. It is dropped before what comes after it.
struct Running<F: Future> {
    future: Pin<Box<F>>,
    done: Continuation<F::Output>,
}

/// What the wakers reach.
struct Shared<F: Future> {
    state: Mutex<State<F>>,
    runtime: RuntimeHandle,
}

struct State<F: Future> {
    /// Absent while it is polled, and when it is over.
    running: Option<Running<F>>,
    turn: Turn,
    cancelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Waits to be woken.
    Waits,
    /// A computing thread will poll it, or is about to.
    OnItsWay,
    Polled,
    /// Woken while it is polled: once more.
    PolledAndWoken,
    Over,
}

impl<F> Shared<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    /// Has a computing thread poll it.
    fn send(self: &Arc<Shared<F>>) {
        self.runtime.compute(Visit(Some(self.clone())));
    }

    fn poll(self: Arc<Shared<F>>) {
        let Some(mut running) = self.begin() else { return };
        let waker = Waker::from(self.clone());
        let polled = catch_unwind(AssertUnwindSafe(|| {
            in_job(|| running.future.as_mut().poll(&mut Context::from_waker(&waker)))
        }));
        match polled {
            Ok(Poll::Pending) => self.put_back(running),
            Ok(Poll::Ready(output)) => {
                self.lock().turn = Turn::Over;
                let Running { future, done } = running;
                drop_future(future);
                done.complete(output);
            }
            Err(payload) => {
                self.lock().turn = Turn::Over;
                let Running { future, done } = running;
                drop_future(future);
                done.panicked(payload);
            }
        }
    }

    fn begin(&self) -> Option<Running<F>> {
        let mut state = self.lock();
        let running = state.running.take()?;
        state.turn = Turn::Polled;
        Some(running)
    }

    fn put_back(self: &Arc<Shared<F>>, running: Running<F>) {
        let mut state = self.lock();
        if state.cancelled {
            state.turn = Turn::Over;
            drop(state);
            return end(running);
        }
        let again = state.turn == Turn::PolledAndWoken;
        state.turn = if again { Turn::OnItsWay } else { Turn::Waits };
        state.running = Some(running);
        drop(state);
        if again {
            self.send();
        }
    }

    fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        // While it is polled, it is not here: the thread that polls it sees that it was cancelled.
        let Some(running) = state.running.take() else { return };
        state.turn = Turn::Over;
        drop(state);
        end(running);
    }

    /// Futures run, and are dropped, outside the lock.
    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Wake for Shared<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn wake(self: Arc<Shared<F>>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Shared<F>>) {
        let mut state = self.lock();
        match state.turn {
            Turn::Waits => {
                state.turn = Turn::OnItsWay;
                drop(state);
                self.send();
            }
            Turn::Polled => state.turn = Turn::PolledAndWoken,
            Turn::OnItsWay | Turn::PolledAndWoken | Turn::Over => {}
        }
    }
}

/// A poll that is on its way. Dropped instead, since the pool is closed or full, it drops the future.
struct Visit<F: Future + Send + 'static>(Option<Arc<Shared<F>>>)
where
    F::Output: Send + 'static;

impl<F> Job for Visit<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn run(mut self) {
        if let Some(shared) = self.0.take() {
            shared.poll();
        }
    }
}

impl<F> Drop for Visit<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.cancel();
        }
    }
}

/// The future first: what it lent or holds is given back before the series goes on.
fn end<F: Future>(running: Running<F>) {
    let Running { future, done } = running;
    drop_future(future);
    drop(done);
}

/// Drops a future. A panic in that is logged: there is nobody else to tell.
fn drop_future<F>(future: Pin<Box<F>>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(future))) {
        log::error!("a future panicked while it was dropped: {}", work::panic_message(&*payload));
    }
}
