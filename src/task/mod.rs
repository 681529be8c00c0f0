//! Tasks, and the ways to compose them.
//!
//! A [`Task`] is a unit of work that is started once and completes once, on whatever thread. A [`Series`] runs tasks one
//! after another and owns the data they share, its context; [`Parallel`] runs tasks side by side, [`Graph`] along its
//! edges. All of these are tasks themselves.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::runtime::Runtime;
//! use tidegate::task::{Series, go, sleep};
//!
//! let runtime = Runtime::new()?;
//! let series = Series::new(Vec::new())
//!     .then(go(|| 6 * 7), |answer, series| {
//!         series.context.push(answer);
//!         Ok(())
//!     })
//!     .then(sleep(Duration::from_millis(1)), |_, series| {
//!         series.context.push(0);
//!         Ok(())
//!     });
//! let numbers = runtime.run(series)?.into_result()?;
//! assert_eq!(numbers, [42, 0]);
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! This module owns no thread: tasks lend those of the [runtime](crate::runtime), and a series goes on on the thread
//! that completed its task. What is dropped ends: a task that loses its [`Continuation`] ends its series, whose
//! `finally` runs all the same.

mod back;
mod blocking;
mod boxed;
mod child;
mod continuation;
mod file;
mod future;
mod go;
mod graph;
mod lent;
mod map;
#[cfg(all(test, tidegate_shuttle))]
mod models;
mod outcome;
mod pace;
mod parallel;
mod repeat;
mod run;
mod select;
mod series;
mod step;
mod sync;
mod timeout;
mod timer;
mod token;

pub use back::BackOnPoller;
pub use blocking::{Blocking, blocking};
pub use boxed::BoxTask;
pub use continuation::{Continuation, Parked};
pub use file::{
    FileError, FileTask, Place, read, read_at, read_up_to, read_vectored_at, sync, sync_data, write,
    write_at, write_vectored_at,
};
pub use future::{FutureTask, future};
pub use go::{Go, go};
pub use graph::{Cycle, Graph, GraphError, GraphTask, NodeId};
pub use lent::Lent;
pub use map::{Followed, Map};
pub use outcome::{Dropped, Ended, Error, Outcome, SeriesError};
pub use pace::{Acquire, BudgetExt, NextChunk, NextItem, NextTick, Paced, PacedReader, Spender, Tick, Ticks};
pub use parallel::{Fallible, Parallel};
pub use repeat::{Repeat, repeat};
pub use run::{Canceller, SeriesHandle, TaskHandle, WaitError};
pub use select::{AllFailed, Select};
pub use series::Series;
pub use sync::{
    Closed, Condition, Counter, Elapsed, Get, GetWithin, GoQueue, GoWithin, Guarded, Lock, Mailbox, Message,
    MessageQueue, NamedCounter, NamedSleep, Pool, Pooled, Put, PutError, QueueFull, QueuedGo, Receive,
    Signal, Take, TimerCancelled, WaitSignal, WhenFull, go_within,
};
pub use timeout::Timeout;
pub use timer::{Sleep, sleep, sleep_until};
pub use token::Cancellation;

pub(crate) use continuation::Receiver;
pub(crate) use run::start;
pub(crate) use token::Token;

use std::time::Duration;

/// A unit of work.
///
/// The contract: [`dispatch`](Task::dispatch) starts it and returns at once; when it is done, and on whatever thread, it calls
/// [`Continuation::complete`] once, or drops the continuation, which means that it will never be done. A task that waits
/// for something should let itself be cancelled meanwhile: the simplest way is [`Continuation::park`].
///
/// ```
/// use tidegate::task::{Continuation, Task};
///
/// /// Asks the operating system for a random number, on a thread of its own.
/// struct Random;
///
/// impl Task for Random {
///     type Output = std::io::Result<[u8; 8]>;
///
///     fn dispatch(self, done: Continuation<Self::Output>) {
///         std::thread::spawn(move || {
///             let mut bytes = [0; 8];
///             let read = std::fs::File::open("/dev/urandom")
///                 .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
///             done.complete(read.map(|()| bytes));
///         });
///     }
/// }
///
/// let runtime = tidegate::runtime::Runtime::new()?;
/// let bytes = runtime.run(Random)??;
/// # let _ = bytes;
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub trait Task: Send + 'static {
    /// What comes of it.
    type Output: Send + 'static;

    /// Starts it. Must not block.
    fn dispatch(self, done: Continuation<Self::Output>);
}

/// What can be had of any task.
pub trait TaskExt: Task + Sized {
    /// Has the series go on on a poller's thread: the one it came from, or any.
    ///
    /// ```
    /// use std::thread;
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Series, TaskExt, go};
    ///
    /// let runtime = Runtime::builder().name("app").build()?;
    /// let here = |()| thread::current().name().map(str::to_owned);
    /// let series = Series::new(Vec::new())
    ///     .then(go(|| ()), move |_, series| Ok(series.context.extend(here(()))))
    ///     .then(go(|| ()).back_on_poller(), move |_, series| Ok(series.context.extend(here(()))));
    /// let names = runtime.run(series)?.into_result()?;
    /// assert!(names[0].starts_with("app-compute-"));
    /// assert_eq!(names[1], "app-0");
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    fn back_on_poller(self) -> BackOnPoller<Self> {
        BackOnPoller::new(self)
    }

    /// Gives it only so long. When the time is up it is cancelled, and not waited for: [`Elapsed`] comes of it. A task
    /// that is dropped before it is done is not waited for either: nothing comes of it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Elapsed, TaskExt, go, sleep};
    ///
    /// let runtime = Runtime::new()?;
    /// let long = sleep(Duration::from_secs(3600)).timeout(Duration::from_millis(1));
    /// assert_eq!(runtime.run(long)?, Err(Elapsed));
    /// let short = go(|| 6 * 7).timeout(Duration::from_secs(3600));
    /// assert_eq!(runtime.run(short)?, Ok(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn timeout(self, time: Duration) -> Timeout<Self> {
        Timeout::new(self, time)
    }

    /// Has `map` make something else of what comes of it, on the thread that completed it: it is to be short. Not called when
    /// the task is cancelled or nothing comes of it; a panic in it ends the series.
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Select, TaskExt, go};
    ///
    /// let runtime = Runtime::new()?;
    /// assert_eq!(runtime.run(go(|| 6 * 7).map(|n| n.to_string()))?, "42");
    /// // What never fails may stand beside what does.
    /// let mut either = Select::new();
    /// either.push(go(|| "forty".parse()).boxed());
    /// either.push(go(|| 2_u32).map(Ok).boxed());
    /// assert_eq!(runtime.run(either)?, Ok(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn map<U, F>(self, map: F) -> Map<Self, F>
    where
        U: Send + 'static,
        F: FnOnce(Self::Output) -> U + Send + 'static,
    {
        Map::new(self, map)
    }

    /// The same, of a success; an error stays what it is.
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{TaskExt, go};
    ///
    /// let runtime = Runtime::new()?;
    /// let half = |text: &'static str| go(move || text.parse::<u32>()).map_ok(|n| n / 2);
    /// assert_eq!(runtime.run(half("84"))?, Ok(42));
    /// assert!(runtime.run(half("many"))?.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn map_ok<V, E, U, F>(
        self,
        map: F,
    ) -> Map<Self, impl FnOnce(Result<V, E>) -> Result<U, E> + Send + 'static>
    where
        Self: Task<Output = Result<V, E>>,
        F: FnOnce(V) -> U + Send + 'static,
    {
        Map::new(self, |output: Result<V, E>| output.map(map))
    }

    /// The same, of an error; a success stays what it is.
    fn map_err<V, E, U, F>(
        self,
        map: F,
    ) -> Map<Self, impl FnOnce(Result<V, E>) -> Result<V, U> + Send + 'static>
    where
        Self: Task<Output = Result<V, E>>,
        F: FnOnce(E) -> U + Send + 'static,
    {
        Map::new(self, |output: Result<V, E>| output.map_err(map))
    }

    /// Goes on with a task that is made of what comes of this one: both are one task, whose output is the second's. For
    /// more than two, or with data in common, there is the [`Series`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Parallel, TaskExt, go, sleep};
    ///
    /// let runtime = Runtime::new()?;
    /// let wait = |n| sleep(Duration::from_millis(n));
    /// let all: Parallel<_> = (0..3).map(|n| wait(n).followed_by(move |()| go(move || n * 2))).collect();
    /// assert_eq!(runtime.run(all)?, [Ok(0), Ok(2), Ok(4)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn followed_by<N, F>(self, make: F) -> Followed<Self, F>
    where
        N: Task,
        F: FnOnce(Self::Output) -> N + Send + 'static,
    {
        Followed::new(self, make)
    }

    /// Forgets which task it is, so that different ones with the same output fit into one
    /// [`Parallel`], [`Select`] or [`repeat`](repeat()).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Parallel, TaskExt, go, sleep};
    ///
    /// let runtime = Runtime::new()?;
    /// let both: Parallel<_> = [go(|| ()).boxed(), sleep(Duration::from_millis(1)).boxed()].into_iter().collect();
    /// assert_eq!(runtime.run(both)?, [Ok(()), Ok(())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn boxed(self) -> BoxTask<Self::Output> {
        BoxTask::new(self)
    }
}

impl<T: Task> TaskExt for T {}
