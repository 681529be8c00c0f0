//! Computations.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::Task;
use super::continuation::Continuation;
use crate::runtime::{Job, in_job};
use crate::sync::Mutex;

/// Has `compute` called on one of the runtime's computing threads. What it returns comes of the task. A panic in it ends
/// the series.
///
/// Cancelled while it waits for a thread, it is not called, and ends at once; once it runs, what it returns is dropped.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Parallel, go};
///
/// let runtime = Runtime::new()?;
/// let sum = |from: u64| go(move || (from..from + 1_000).sum::<u64>());
/// let sums: Parallel<_> = (0..10).map(|n| sum(n * 1_000)).collect();
/// let sums = runtime.run(sums)?.into_iter().flatten();
/// assert_eq!(sums.sum::<u64>(), 9_999 * 10_000 / 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn go<R, F>(compute: F) -> Go<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    Go { compute }
}

/// See [`go`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct Go<F> {
    compute: F,
}

impl<R, F> Task for Go<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = R;

    fn dispatch(self, mut done: Continuation<R>) {
        let runtime = done.runtime().clone();
        if !done.can_be_cancelled() {
            return runtime.compute(Computation { compute: self.compute, done });
        }
        let cancellation = done.cancellation();
        let waiting = Arc::new(Mutex::new(Some(Computation { compute: self.compute, done })));
        // Only the line owns it: where that drops it, the task ends.
        let reached = Arc::downgrade(&waiting);
        runtime.compute(Waiting(waiting));
        cancellation.on_cancel(move || drop(reached.upgrade().and_then(|waiting| take(&waiting))));
    }
}

struct Computation<F, R> {
    compute: F,
    done: Continuation<R>,
}

impl<R, F> Job for Computation<F, R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    fn run(self) {
        let Computation { compute, done } = self;
        if done.is_cancelled() {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| in_job(compute))) {
            Ok(result) => done.complete(result),
            Err(payload) => done.panicked(payload),
        }
    }
}

/// A computation that can be cancelled. Cancelled, it leaves an empty place in line: what it holds, the series and its
/// context included, does not wait for a thread to come by.
struct Waiting<F, R>(Arc<Mutex<Option<Computation<F, R>>>>);

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl<R, F> Job for Waiting<F, R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    fn run(self) {
        if let Some(computation) = take(&self.0) {
            computation.run();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::{Series, SeriesError, WaitError};

    const LONG: Duration = Duration::from_secs(10);

    /// Keeps the only computing thread until what is returned is dropped.
    fn hold(runtime: &Runtime) -> mpsc::Sender<()> {
        let (release, held) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let holds = go(move || {
            begin.send(()).unwrap();
            let _ = held.recv();
        });
        runtime.spawn(holds).detach();
        begun.recv_timeout(LONG).unwrap();
        release
    }

    #[test]
    fn cancelled_in_line_it_frees_the_context_at_once_and_is_not_called() {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let release = hold(&runtime);
        let (context, captured) = (Arc::new(()), Arc::new(()));
        let (tell, told) = mpsc::channel();
        let holds = captured.clone();
        let series = Series::new(context.clone())
            .then(go(move || panic!("it was cancelled, and holds {holds:?}")), |(), _| Ok(()))
            .finally(move |outcome, _| tell.send(matches!(outcome, Err(SeriesError::Cancelled))).unwrap());
        let handle = runtime.start(series);
        handle.cancel();
        // The thread is still held.
        assert!(told.try_recv().unwrap());
        drop(handle);
        assert_eq!((Arc::strong_count(&context), Arc::strong_count(&captured)), (1, 1));
        drop(release);
        assert_eq!(runtime.run(go(|| 1)), Ok(1), "the thread passes by the place that was left");
    }

    #[test]
    fn cancelled_while_it_runs_or_after_it_changes_nothing_but_what_follows() {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let runs = runtime.spawn(go(move || {
            begin.send(()).unwrap();
            held.recv().unwrap_or_default();
            end.send(()).unwrap();
            1
        }));
        begun.recv_timeout(LONG).unwrap();
        runs.cancel();
        drop(release);
        ended.recv_timeout(LONG).unwrap();
        // It was not stopped, and a task by itself has nothing after it.
        assert_eq!(runs.wait_for(LONG).unwrap(), Ok(1));
        let done = runtime.spawn(go(|| 2));
        while !done.is_done() {
            std::thread::yield_now();
        }
        done.cancel();
        assert_eq!(done.wait_for(LONG).unwrap(), Ok(2));
    }

    #[test]
    fn what_finds_no_room_ends_its_series() {
        let runtime = Runtime::builder().compute_threads(1).compute_queue(1).build().unwrap();
        let release = hold(&runtime);
        let waits = runtime.spawn(go(|| 1));
        let refused = runtime.start(Series::new(()).then(go(|| 2), |_, _| Ok(())));
        let ended = refused.wait_for(LONG).unwrap().unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Aborted)), "{ended:?}");
        assert_eq!(runtime.handle().figures().compute_refused, 1);
        drop(release);
        assert_eq!(waits.wait_for(LONG).unwrap(), Ok(1));
    }

    #[test]
    fn a_runtime_that_is_dropped_ends_what_waits() {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let release = hold(&runtime);
        let waits = runtime.spawn(go(|| panic!("it is dropped")));
        let dropped = std::thread::spawn(move || drop(runtime));
        assert_eq!(waits.wait_for(LONG).unwrap(), Err::<(), _>(WaitError::Dropped));
        drop(release);
        dropped.join().unwrap();
    }
}
