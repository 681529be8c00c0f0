//! Computations, so many at a time.

use std::fmt;
use std::sync::Arc;

use super::names::Names;
use super::pool::{Bound, Shared};
use super::turn::in_turn;
use crate::runtime::RuntimeHandle;
use crate::task::{Continuation, Go, Task, go};

/// How many may wait, unless told otherwise: at some 300 bytes each, 20 MB.
const WAITING_MAX: usize = 65_536;

/// Lets at most so many computations run at once on the runtime's computing threads; the others wait, first come, first
/// served. For what would otherwise take all of these threads, or does not bear company. A clone is the same queue.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{GoQueue, Parallel};
///
/// let runtime = Runtime::new()?;
/// let thumbnails = GoQueue::new(2);
/// let sizes: Parallel<_> = (0..10).map(|n| thumbnails.go(move || n * 100)).collect();
/// let sizes = runtime.run(sizes)?;
/// assert_eq!(sizes[9], Ok(Ok(900)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct GoQueue {
    shared: Arc<Shared<()>>,
}

/// What comes of a computation that finds the queue full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// It waits, and the one that has waited longest is refused in its place: what is new matters more.
    RefuseOldest,
}

/// A computation was refused: too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The queues that have names.
#[derive(Default)]
struct GoQueues(Arc<Names<Shared<()>>>);

impl GoQueue {
    /// At most `limit` at once, at least one. 65,536 may wait; more are refused.
    pub fn new(limit: usize) -> GoQueue {
        GoQueue::bounded(limit, WAITING_MAX, WhenFull::Refuse)
    }

    /// At most `limit` at once, at least one, while at most `waiting` wait.
    pub fn bounded(limit: usize, waiting: usize, when_full: WhenFull) -> GoQueue {
        GoQueue { shared: Arc::new(Shared::new(permits(limit), bound(waiting, when_full), None)) }
    }

    /// The one that has this name in a runtime; made as by [`new`](GoQueue::new) if there is none. It lives while somebody has
    /// a clone, or computes or waits in it.
    pub fn named(runtime: &RuntimeHandle, name: &str, limit: usize) -> GoQueue {
        let queues = runtime.extension::<GoQueues>();
        let shared = queues.0.share(name, |name| {
            Shared::new(permits(limit), bound(WAITING_MAX, WhenFull::Refuse), Some(name))
        });
        GoQueue { shared }
    }

    /// Has `compute` called when it is its turn. As with [`go`], cancelled before that it is not called, and a panic in it
    /// ends the series.
    pub fn go<R, F>(&self, compute: F) -> QueuedGo<F>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        QueuedGo { go: go(compute), shared: self.shared.clone() }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }

    /// How many have been refused.
    pub fn refused(&self) -> u64 {
        self.shared.refused()
    }
}

fn permits(limit: usize) -> Vec<()> {
    vec![(); limit.max(1)]
}

fn bound(waiting: usize, when_full: WhenFull) -> Bound {
    Bound { waiting, drop_oldest: when_full == WhenFull::RefuseOldest }
}

impl fmt::Debug for GoQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoQueue").field("waiting", &self.waiting()).field("refused", &self.refused()).finish()
    }
}

/// See [`GoQueue::go`].
#[must_use = "a task does nothing until it is started"]
pub struct QueuedGo<F> {
    go: Go<F>,
    shared: Arc<Shared<()>>,
}

impl<R, F> Task for QueuedGo<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = Result<R, QueueFull>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        // Nothing limits the time of the wait: what is not computed was refused.
        in_turn(&self.shared, self.go, done, |computed| Some(computed.map_err(|_| QueueFull)));
    }
}

impl<F> fmt::Debug for QueuedGo<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedGo").finish_non_exhaustive()
    }
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue of computations is full")
    }
}

impl std::error::Error for QueueFull {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::{Parallel, WaitError};

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn no_more_than_the_limit_at_once() {
        let runtime = Runtime::builder().compute_threads(4).build().unwrap();
        let queue = GoQueue::new(2);
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Parallel<_> = (0..500)
            .map(|_| {
                let (inside, most) = (inside.clone(), most.clone());
                queue.go(move || {
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        let results = runtime.spawn(tasks).wait_for(LONG).unwrap().unwrap();
        assert!(results.iter().all(|result| *result == Ok(Ok(()))));
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn a_full_queue_refuses_the_new_or_the_old() {
        let runtime = Runtime::builder().compute_threads(2).build().unwrap();
        for when_full in [WhenFull::Refuse, WhenFull::RefuseOldest] {
            let queue = GoQueue::bounded(1, 1, when_full);
            let (release, held) = mpsc::channel::<()>();
            let first = runtime.spawn(queue.go(move || held.recv().is_ok()));
            let (old, new) = (runtime.spawn(queue.go(|| true)), runtime.spawn(queue.go(|| true)));
            assert_eq!((queue.waiting(), queue.refused()), (1, 1));
            release.send(()).unwrap();
            let ended = [first, old, new].map(|handle| handle.wait_for(LONG).unwrap().unwrap());
            match when_full {
                WhenFull::Refuse => assert_eq!(ended, [Ok(true), Ok(true), Err(QueueFull)]),
                WhenFull::RefuseOldest => assert_eq!(ended, [Ok(true), Err(QueueFull), Ok(true)]),
            }
        }
    }

    #[test]
    fn the_cancelled_and_the_panicked_make_room() {
        let runtime = Runtime::builder().compute_threads(2).build().unwrap();
        let core = runtime.handle();
        let queue = GoQueue::named(&core, "q", 1);
        let (release, held) = mpsc::channel::<()>();
        let first = runtime.spawn(queue.go(move || held.recv().is_ok()));
        let never = runtime.spawn(GoQueue::named(&core, "q", 1).go(|| panic!("it was cancelled")));
        let panics = runtime.spawn(queue.go(|| panic!("as planned")));
        let last = runtime.spawn(queue.go(|| 3));
        never.cancel();
        assert_eq!(queue.waiting(), 2);
        drop(queue);
        release.send(()).unwrap();
        assert_eq!(first.wait_for(LONG).unwrap(), Ok(Ok(true)));
        assert_eq!(panics.wait_for(LONG).unwrap(), Err(WaitError::Dropped));
        assert_eq!(last.wait_for(LONG).unwrap(), Ok(Ok(3)));
        assert_eq!(core.extension::<GoQueues>().0.len(), 0);
    }

    #[test]
    fn a_runtime_that_is_dropped_empties_a_long_queue() {
        let runtime = Runtime::builder().compute_threads(1).build().unwrap();
        let queue = GoQueue::new(1);
        let (release, held) = mpsc::channel::<()>();
        let first = runtime.spawn(queue.go(move || held.recv().is_ok()));
        let waiting: Vec<_> = (0..20_000).map(|n| runtime.spawn(queue.go(move || n))).collect();
        let dropped = std::thread::spawn(move || drop(runtime));
        let last = waiting.into_iter().next_back().unwrap().wait_for(LONG).unwrap();
        assert_eq!(last, Err(WaitError::Dropped));
        // It may have been dropped before it was begun.
        drop(release);
        dropped.join().unwrap();
        let _ = first.wait_for(LONG).unwrap();
    }
}
