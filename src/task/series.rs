//! Tasks one after another, with a context.
//!
//! A running series is owned by the continuation of the task that runs; nobody else can reach it, so its context
//! needs no lock.

use std::fmt;
use std::sync::Arc;

use super::Task;
use super::continuation::Continuation;
use super::outcome::{Ended, Error, Outcome, SeriesError};
use super::step::{Dynamic, Steps};
use super::token::Token;
use crate::runtime::work::{self, Nested, Receive};

/// Tasks that run one after another, and the data they share.
///
/// It is built by adding tasks with callbacks, and is itself a task: start it with
/// [`Runtime::start`](crate::runtime::Runtime::start), or add it to another series. A callback is given what came of its
/// task and the series: it reads and changes [`context`](Series::context), adds tasks at either end, or stops the
/// series. An error it returns ends the series: the tasks that are left are dropped, and
/// [`finally`](Series::finally) runs.
pub struct Series<C> {
    /// The data of the series. It is handed to whoever waits for the end.
    pub context: C,
    pub(super) steps: Steps<C>,
    pub(super) finally: Option<Finally<C>>,
    pub(super) cancelled: bool,
}

pub(super) type Finally<C> = Box<dyn FnOnce(&Outcome, &mut C) + Send>;

impl<C: Send + 'static> Series<C> {
    /// A series without tasks.
    pub fn new(context: C) -> Series<C> {
        Series { context, steps: Steps::new(), finally: None, cancelled: false }
    }

    /// Adds a task at the end, and what to do with what comes of it.
    #[must_use]
    pub fn then<T: Task>(
        mut self,
        task: T,
        callback: impl FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    ) -> Series<C> {
        self.push(task, callback);
        self
    }

    /// Adds a task that is made when its turn comes, from what the context is then.
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Series, go};
    ///
    /// let runtime = Runtime::new()?;
    /// let series = Series::new(20)
    ///     .then(go(|| 1), |n, series| Ok(series.context += n))
    ///     .then_with(|n: &mut i32| { let n = *n; go(move || n * 2) }, |n, series| Ok(series.context = n));
    /// assert_eq!(runtime.run(series)?.into_result()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    #[must_use]
    pub fn then_with<T: Task>(
        mut self,
        make: impl FnOnce(&mut C) -> T + Send + 'static,
        callback: impl FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    ) -> Series<C> {
        self.steps.push_step(Box::new(Dynamic::new(make, callback)));
        self
    }

    /// Adds a task that may fail. What goes wrong ends the series with that error; else `callback` is given the value.
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Series, go};
    ///
    /// let read = |text: &'static str| go(move || text.parse::<u32>());
    /// let sum = |n, series: &mut Series<u32>| {
    ///     series.context += n;
    ///     Ok(())
    /// };
    /// let runtime = Runtime::new()?;
    /// let series = Series::new(0).and_then(read("40"), sum).and_then(read("2"), sum);
    /// assert_eq!(runtime.run(series)?.into_result()?, 42);
    ///
    /// let series = Series::new(0).and_then(read("forty"), sum).and_then(read("2"), sum);
    /// assert!(runtime.run(series)?.into_result().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn and_then<T, V, E>(
        self,
        task: T,
        callback: impl FnOnce(V, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    ) -> Series<C>
    where
        T: Task<Output = Result<V, E>>,
        E: Into<Error>,
    {
        self.then(task, |output, series| callback(output.map_err(Into::into)?, series))
    }

    /// Has `finally` called when the series has ended, in whatever way: exactly once if the series was started, and not at
    /// all if it is dropped before that. Replaces what was said before.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Series, SeriesError, go};
    ///
    /// let runtime = Runtime::new()?;
    /// let (tell, told) = mpsc::channel();
    /// let series = Series::new("account 7")
    ///     .then(go(|| ()), |(), _| Err("the disk is full".into()))
    ///     .then(go(|| ()), |(), _| unreachable!("the series has ended"))
    ///     .finally(move |outcome, account| {
    ///         let failed = matches!(outcome, Err(SeriesError::Failed(_)));
    ///         tell.send((*account, failed)).unwrap();
    ///     });
    /// runtime.start(series).detach();
    /// assert_eq!(told.recv()?, ("account 7", true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn finally(mut self, finally: impl FnOnce(&Outcome, &mut C) + Send + 'static) -> Series<C> {
        self.set_finally(finally);
        self
    }

    /// The same, for a series that is only borrowed.
    pub fn set_finally(&mut self, finally: impl FnOnce(&Outcome, &mut C) + Send + 'static) {
        self.finally = Some(Box::new(finally));
    }

    /// Adds a task at the end.
    pub fn push<T: Task>(
        &mut self,
        task: T,
        callback: impl FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    ) {
        self.steps.push_back(task, callback);
    }

    /// Adds a task that comes next.
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Series, go};
    ///
    /// let runtime = Runtime::new()?;
    /// let series = Series::new(String::new())
    ///     .then(go(|| "a"), |text, series| {
    ///         series.context += text;
    ///         series.push(go(|| "d"), |text, series| Ok(series.context += text));
    ///         series.push_front(go(|| "b"), |text, series| Ok(series.context += text));
    ///         Ok(())
    ///     })
    ///     .then(go(|| "c"), |text, series| Ok(series.context += text));
    /// assert_eq!(runtime.run(series)?.into_result()?, "abcd");
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    pub fn push_front<T: Task>(
        &mut self,
        task: T,
        callback: impl FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    ) {
        self.steps.push_front(task, callback);
    }

    /// Ends the series when the callback that calls this returns: the tasks that are left are dropped.
    pub fn cancel(&mut self) {
        self.cancelled = true;
    }

    /// How many tasks are left.
    pub fn remaining(&self) -> usize {
        self.steps.len()
    }
}

impl<C: Send + 'static> Series<C> {
    /// Whether it has nothing to do and nobody to tell: whoever has it may take what its context holds.
    #[cfg(feature = "http")]
    pub(crate) fn is_over(&self) -> bool {
        self.steps.len() == 0 && !self.cancelled && self.finally.is_none()
    }

    /// Ends a series that has no task, or is cancelled, where it stands; gives back one that has something to do.
    pub(crate) fn end_now(self) -> Result<Ended<C>, Series<C>> {
        if self.steps.len() > 0 && !self.cancelled {
            return Err(self);
        }
        let outcome = if self.cancelled { Err(SeriesError::Cancelled) } else { Ok(()) };
        Ok(self.end(outcome))
    }

    /// Ends it where it stands: the tasks that are left are dropped, and `finally` is called.
    pub(crate) fn end(self, outcome: Outcome) -> Ended<C> {
        let Series { mut context, steps, finally, .. } = self;
        steps.discard();
        if let Some(finally) = finally {
            finally(&outcome, &mut context);
        }
        Ended { outcome, context }
    }
}

impl<C: fmt::Debug> fmt::Debug for Series<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series")
            .field("context", &self.context)
            .field("remaining", &self.steps.len())
            .finish_non_exhaustive()
    }
}

impl<C: Send + 'static> Task for Series<C> {
    type Output = Ended<C>;

    fn dispatch(self, done: Continuation<Ended<C>>) {
        let token = done.token().cloned();
        let live = Box::new(Live(Some(Parts { series: self, done, token })));
        match Nested::enter() {
            Some(_nested) => live.advance(),
            None => work::ready(live),
        }
    }
}

/// A series that runs. Dropped before it has ended, it ends.
pub(super) struct Live<C: Send + 'static>(pub(super) Option<Parts<C>>);

pub(super) struct Parts<C> {
    pub(super) series: Series<C>,
    pub(super) done: Continuation<Ended<C>>,
    /// That of `done`, at hand.
    pub(super) token: Option<Arc<Token>>,
}

impl<C: Send + 'static> Live<C> {
    pub(super) fn parts(&self) -> &Parts<C> {
        self.0.as_ref().expect("it has not ended")
    }

    pub(super) fn parts_mut(&mut self) -> &mut Parts<C> {
        self.0.as_mut().expect("it has not ended")
    }

    /// Calls back, and goes on in its turn.
    pub(super) fn call(mut self: Box<Self>, callback: impl FnOnce(&mut Series<C>) -> Result<(), Error>) {
        let Some(parts) = self.0.as_mut() else { return };
        if parts.is_cancelled() {
            return self.finish(Err(SeriesError::Cancelled));
        }
        match callback(&mut parts.series) {
            Ok(()) => match work::go_on() {
                Some(_nested) => self.advance(),
                None => work::ready(self),
            },
            Err(error) => self.finish(Err(SeriesError::Failed(error))),
        }
    }

    /// Starts the next task.
    fn advance(mut self: Box<Self>) {
        let Some(parts) = self.0.as_mut() else { return };
        if parts.series.cancelled || parts.is_cancelled() {
            return self.finish(Err(SeriesError::Cancelled));
        }
        match parts.series.steps.pop_front() {
            Some(step) => step.dispatch(self),
            None => self.finish(Ok(())),
        }
    }

    pub(super) fn finish(mut self, outcome: Outcome) {
        if let Some(parts) = self.0.take() {
            parts.finish(outcome);
        }
    }
}

/// A series between two tasks.
impl<C: Send + 'static> Receive<()> for Live<C> {
    fn receive(self: Box<Self>, (): ()) {
        self.advance();
    }
}

impl<C: Send + 'static> Drop for Live<C> {
    /// The series will not go on. `finally` is not called from here: this may be an unwinding stack, or somebody's lock
    /// may be held.
    fn drop(&mut self) {
        if let Some(parts) = self.0.take() {
            let error = if parts.is_cancelled() {
                SeriesError::Cancelled
            } else if std::thread::panicking() {
                SeriesError::Panicked
            } else {
                SeriesError::Aborted
            };
            work::ready(Box::new(Cut { parts, error }));
        }
    }
}

impl<C: Send + 'static> Parts<C> {
    pub(super) fn is_cancelled(&self) -> bool {
        self.token.as_ref().is_some_and(|token| token.is_cancelled())
    }

    fn finish(self, outcome: Outcome) {
        let Parts { series, done, .. } = self;
        done.complete(series.end(outcome));
    }
}

/// Ends a series that lost its task.
struct Cut<C: Send + 'static> {
    parts: Parts<C>,
    error: SeriesError,
}

impl<C: Send + 'static> Receive<()> for Cut<C> {
    fn receive(self: Box<Self>, (): ()) {
        let Cut { parts, error } = *self;
        parts.finish(Err(error));
    }
}
