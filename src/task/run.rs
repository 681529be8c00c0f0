//! Starting tasks from outside, and waiting for them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Task;
use super::continuation::{Continuation, Receiver};
use super::outcome::{Dropped, Ended};
use super::series::Series;
use super::token::Token;
use crate::runtime::work::{self, Receive};
use crate::runtime::{OwnThread, Running, Runtime, RuntimeHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};

impl Runtime {
    /// Starts a series. See [`RuntimeHandle::start`].
    pub fn start<C: Send + 'static>(&self, series: Series<C>) -> SeriesHandle<C> {
        self.handle().spawn(series)
    }

    /// Starts a task. See [`RuntimeHandle::spawn`].
    pub fn spawn<T: Task>(&self, task: T) -> TaskHandle<T::Output> {
        self.handle().spawn(task)
    }

    /// Runs a task and waits for it on the calling thread, which is none of the runtime's. Within a callback of a series,
    /// whichever thread that runs on, this is an error.
    pub fn run<T: Task>(&self, task: T) -> Result<T::Output, WaitError> {
        let core = self.handle();
        core.check_wait()?;
        let shared = Arc::new(Shared::new());
        let root = Root { shared: Some(shared.clone()), runtime: core, token: None, running: None };
        start(task, Continuation::new(Box::new(root)));
        match shared.wait(None) {
            Some(output) => output.map_err(WaitError::from),
            None => Err(WaitError::Dropped),
        }
    }
}

impl RuntimeHandle {
    /// Starts a series. What can run at once does, on the calling thread, before this returns.
    pub fn start<C: Send + 'static>(&self, series: Series<C>) -> SeriesHandle<C> {
        self.spawn(series)
    }

    /// Starts a task. What can run at once does, on the calling thread, before this returns. On a runtime that is
    /// stopping the task is dropped, and so is its result.
    pub fn spawn<T: Task>(&self, task: T) -> TaskHandle<T::Output> {
        let shared = Arc::new(Shared::new());
        let token = Arc::<Token>::default();
        let cut = {
            let token = token.clone();
            Box::new(move || token.cancel())
        };
        let running = self.begin(cut);
        let refused = running.is_none();
        let root =
            Root { shared: Some(shared.clone()), runtime: self.clone(), token: Some(token.clone()), running };
        let done = Continuation::new(Box::new(root));
        match refused {
            true => drop(done),
            false => start(task, done),
        }
        TaskHandle { shared, token, runtime: self.clone() }
    }
}

/// A task that was started: to await, to [wait](TaskHandle::wait) for, to [cancel](TaskHandle::cancel). Dropping it
/// changes nothing: the task runs on.
///
/// ```
/// use std::time::Duration;
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{WaitError, go, sleep};
///
/// let runtime = Runtime::new()?;
/// let answer = runtime.spawn(go(|| 42));
/// let nap = runtime.spawn(sleep(Duration::from_secs(3600)));
/// assert_eq!(answer.wait(), Ok(42));
/// nap.cancel();
/// assert_eq!(nap.wait(), Err(WaitError::Dropped));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "without it nobody knows what came of the task; `.detach()` says that this is meant"]
pub struct TaskHandle<O> {
    shared: Arc<Shared<O>>,
    token: Arc<Token>,
    runtime: RuntimeHandle,
}

/// A series that was started.
pub type SeriesHandle<C> = TaskHandle<Ended<C>>;

/// Why there is nothing to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The calling thread is one of the runtime's own, or within a callback of a series: it would wait for itself.
    OwnThread,
    /// The task was cancelled, or dropped before it was done.
    Dropped,
}

impl<O: Send + 'static> TaskHandle<O> {
    /// Waits for what comes of the task. On one of the runtime's own threads, and within a callback of a series, this is an
    /// error; there, put what is to follow into the series.
    pub fn wait(self) -> Result<O, WaitError> {
        self.runtime.check_wait()?;
        self.shared.wait(None).unwrap_or(Err(Dropped)).map_err(WaitError::from)
    }

    /// Waits for at most so long; then gives itself back.
    ///
    /// # Errors
    /// Not done by then: the handle comes back. Within, [`WaitError`] as from [`wait`](TaskHandle::wait), at once.
    pub fn wait_for(self, time: Duration) -> Result<Result<O, WaitError>, TaskHandle<O>> {
        if self.runtime.check_wait().is_err() {
            return Ok(Err(WaitError::OwnThread));
        }
        let deadline = Instant::now().checked_add(time);
        match self.shared.wait(deadline) {
            Some(output) => Ok(output.map_err(WaitError::from)),
            None => Err(self),
        }
    }

    /// Cancels the task: what it waits for is given up, and of a series the tasks that are left are dropped. A task that
    /// is done, or cannot be stopped, is not touched; what comes of it is dropped.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        self.shared.lock().over
    }

    /// Lets it run, whatever comes of it.
    pub fn detach(self) {}

    /// Cancels from elsewhere.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.token.clone())
    }
}

/// Cancels a task; cheap to clone.
#[derive(Clone)]
pub struct Canceller(Arc<Token>);

impl Canceller {
    /// See [`TaskHandle::cancel`].
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").field("cancelled", &self.0.is_cancelled()).finish()
    }
}

/// Under any executor. Polled again after it was ready, it says [`Dropped`].
impl<O: Send + 'static> Future for TaskHandle<O> {
    type Output = Result<O, Dropped>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<O, Dropped>> {
        let mut state = self.shared.lock();
        match state.take() {
            Some(result) => Poll::Ready(result),
            None => {
                // The old one is dropped after the lock.
                let old = state.waker.replace(context.waker().clone());
                drop(state);
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl<O> fmt::Debug for TaskHandle<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").finish_non_exhaustive()
    }
}

/// Where the result is handed over.
struct Shared<O> {
    state: Mutex<State<O>>,
    done: Condvar,
}

struct State<O> {
    over: bool,
    /// Absent before that, and once it was given out.
    result: Option<Result<O, Dropped>>,
    waker: Option<Waker>,
}

impl<O> State<O> {
    /// The result, if the task is over. There is one; who comes later finds none.
    fn take(&mut self) -> Option<Result<O, Dropped>> {
        self.over.then(|| self.result.take().unwrap_or(Err(Dropped)))
    }
}

impl<O> Shared<O> {
    fn new() -> Shared<O> {
        Shared { state: Mutex::new(State { over: false, result: None, waker: None }), done: Condvar::new() }
    }

    fn deliver(&self, result: Result<O, Dropped>) {
        let waker = {
            let mut state = self.lock();
            state.over = true;
            state.result = Some(result);
            state.waker.take()
        };
        self.done.notify_all();
        if let Some(waker) = waker {
            // Others' code, and this may be an unwinding stack.
            work::contain(|| waker.wake());
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Option<Result<O, Dropped>> {
        let mut state = self.lock();
        loop {
            if let Some(result) = state.take() {
                return Some(result);
            }
            state = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
                None => self.done.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Some(left)) => {
                    self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(None) => return None,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last continuation: hands the result to whoever waits.
struct Root<O> {
    /// Absent once the result was handed over.
    shared: Option<Arc<Shared<O>>>,
    runtime: RuntimeHandle,
    token: Option<Arc<Token>>,
    running: Option<Running>,
}

impl<O: Send + 'static> Receiver<O> for Root<O> {
    fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }
}

impl<O: Send + 'static> Receive<O> for Root<O> {
    fn receive(mut self: Box<Self>, output: O) {
        self.end(Ok(output));
    }
}

impl<O> Root<O> {
    fn end(&mut self, result: Result<O, Dropped>) {
        if let Some(shared) = self.shared.take() {
            // No longer counted as running before anybody is told that it is over.
            drop(self.running.take());
            shared.deliver(result);
        }
    }
}

impl<O> Drop for Root<O> {
    fn drop(&mut self) {
        self.end(Err(Dropped));
    }
}

/// Starts a task: at once where that nests in nothing, else in its turn.
pub(crate) fn start<T: Task>(task: T, done: Continuation<T::Output>) {
    work::ready(Box::new(Start { task, done }));
}

struct Start<T: Task> {
    task: T,
    done: Continuation<T::Output>,
}

impl<T: Task> Receive<()> for Start<T> {
    fn receive(self: Box<Self>, (): ()) {
        let Start { task, done } = *self;
        task.dispatch(done);
    }
}

impl From<OwnThread> for WaitError {
    fn from(_: OwnThread) -> WaitError {
        WaitError::OwnThread
    }
}

impl From<Dropped> for WaitError {
    fn from(_: Dropped) -> WaitError {
        WaitError::Dropped
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::OwnThread => OwnThread.fmt(f),
            WaitError::Dropped => Dropped.fmt(f),
        }
    }
}

impl std::error::Error for WaitError {}
