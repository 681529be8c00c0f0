//! Computations with a deadline.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_poller::sys;

use super::Elapsed;
use super::waiters::{Place, Waiters, lock};
use crate::runtime::{Job, in_job};
use crate::task::{Continuation, Task};

/// Has `compute` called like [`go`](crate::task::go), but waits for it no longer than `time`. A function that runs cannot be
/// stopped: it goes on, on its thread, and what it returns is dropped. One that still waits for a thread is not called.
///
/// ```
/// use std::time::Duration;
/// use tidegate::runtime::Runtime;
/// use tidegate::task::go_within;
///
/// let runtime = Runtime::new()?;
/// let answer = runtime.run(go_within(Duration::from_secs(60), || 6 * 7))?;
/// assert_eq!(answer, Ok(42));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn go_within<R, F>(time: Duration, compute: F) -> GoWithin<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    GoWithin { time, compute }
}

/// See [`go_within`].
#[must_use = "a task does nothing until it is started"]
pub struct GoWithin<F> {
    time: Duration,
    compute: F,
}

impl<R, F> Task for GoWithin<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = Result<R, Elapsed>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let GoWithin { time, compute } = self;
        let runtime = done.runtime().clone();
        let place = Arc::new(Mutex::new(Waiters::default()));
        let joined = lock(&place).join(done, (), None);
        let key = joined.key();
        // The only one to own the place: if it is dropped, so is the continuation.
        let computation = Computation { compute, place: place.clone(), key };
        joined.watch_until(&place, runtime.clone(), sys::now() + time, || Err(Elapsed));
        drop(place);
        runtime.compute(computation);
    }
}

struct Computation<F, R> {
    compute: F,
    place: Arc<Mutex<Waiters<Result<R, Elapsed>>>>,
    key: u64,
}

impl<R, F> Job for Computation<F, R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    fn run(self) {
        let Computation { compute, place, key } = self;
        if !lock(&place).has(key) {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| in_job(compute)));
        let waiter = place.with_waiters(|waiters| waiters.remove(key));
        match (waiter, result) {
            (Some(waiter), Ok(result)) => waiter.complete(Ok(result)),
            (Some(waiter), Err(payload)) => waiter.panicked(payload),
            (None, Ok(_)) => {}
            // Nobody waits any more, but it is to be logged.
            (None, Err(payload)) => resume_unwind(payload),
        }
    }
}

impl<F> fmt::Debug for GoWithin<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoWithin").field("time", &self.time).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::{Series, SeriesError, WaitError, go};

    const LONG: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_waited_for_no_longer_and_goes_on() {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let (release, went_on) = loop {
            let (release, held) = mpsc::channel::<()>();
            let (told, went_on) = mpsc::channel();
            let (begin, begun) = mpsc::channel();
            let long = go_within(SHORT, move || {
                begin.send(()).unwrap();
                held.recv().unwrap();
                told.send(()).unwrap();
            });
            assert_eq!(runtime.run(long), Ok(Err(Elapsed)));
            // On a busy machine the time may be up before it was begun.
            if begun.try_recv().is_ok() {
                break (release, went_on);
            }
        };
        // It has the only thread, so this one is never called.
        assert_eq!(runtime.run(go_within(SHORT, || panic!("too late"))), Ok(Err::<(), _>(Elapsed)));
        release.send(()).unwrap();
        went_on.recv_timeout(LONG).unwrap();
        assert_eq!(runtime.run(go_within(LONG, || 1)), Ok(Ok(1)));
    }

    #[test]
    fn cancel_panic_and_drop() {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let runs = runtime.spawn(go_within(LONG, move || {
            begin.send(()).unwrap();
            held.recv().is_ok()
        }));
        begun.recv_timeout(LONG).unwrap();
        runs.cancel();
        assert_eq!(runs.wait_for(LONG).unwrap(), Err(WaitError::Dropped), "though it goes on");
        release.send(()).unwrap();
        let series =
            Series::new(()).then(go_within(LONG, || panic!("as planned")), |_: Result<(), _>, _| Ok(()));
        let ended = runtime.start(series).wait_for(LONG).unwrap().unwrap();
        assert!(matches!(ended.outcome, Err(SeriesError::Panicked)), "{ended:?}");

        let (release, held) = mpsc::channel::<()>();
        let blocks = runtime.spawn(go(move || held.recv().is_ok()));
        let waits = runtime.spawn(go_within(LONG, || 1));
        let dropped = std::thread::spawn(move || drop(runtime));
        assert_eq!(waits.wait_for(LONG).unwrap(), Err(WaitError::Dropped));
        // It may have been dropped before it was begun.
        drop(release);
        dropped.join().unwrap();
        let _ = blocks.wait_for(LONG).unwrap();
    }
}
