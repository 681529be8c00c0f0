//! Locks that tasks wait for.

use std::fmt;
use std::sync::Arc;

use super::names::Names;
use super::pool::{Bound, Get, Pooled, Shared};
use super::turn::in_turn;
use crate::runtime::RuntimeHandle;
use crate::task::{Continuation, Task};

/// Has tasks wait for each other: one at a time, first come, first served. It may have data inside. A clone is the same
/// lock.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Lock, Parallel, go};
///
/// let runtime = Runtime::new()?;
/// let printer = Lock::new(());
/// let pages: Parallel<_> = (0..3).map(|page| printer.guard(go(move || page))).collect();
/// assert_eq!(runtime.run(pages)?, [Ok(0), Ok(1), Ok(2)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With data, for more than one step of a series:
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Lock, Pooled, Series, go};
///
/// let runtime = Runtime::new()?;
/// let account = Lock::new(100);
/// let series = Series::new(None)
///     .then(account.lock(), |balance, series| {
///         series.context = Some(balance);
///         Ok(())
///     })
///     .then(go(|| 20), |price, series| {
///         if let Some(mut balance) = series.context.take() {
///             *balance -= price;
///         }
///         Ok(())
///     });
/// runtime.run(series)?.into_result()?;
/// assert_eq!(*runtime.run(account.lock())?, 80);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub struct Lock<T: Send + 'static = ()> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> Lock<T> {
    /// A lock with this inside.
    pub fn new(data: T) -> Lock<T> {
        Lock { shared: Arc::new(Shared::new(vec![data], Bound::NONE, None)) }
    }

    /// Runs `task` with the lock held. It is released when the task is done, dropped or cancelled, before what comes next.
    pub fn guard<K: Task>(&self, task: K) -> Guarded<K, T> {
        Guarded { task, shared: self.shared.clone() }
    }

    /// Waits for the lock, which is held until what comes of this is dropped.
    pub fn lock(&self) -> Get<T> {
        Get { shared: self.shared.clone() }
    }

    /// The lock, if nobody holds it.
    pub fn try_lock(&self) -> Option<Pooled<T>> {
        self.shared.try_get()
    }

    /// How many tasks wait for it.
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }
}

/// The locks that have names.
#[derive(Default)]
struct Locks(Arc<Names<Shared<()>>>);

impl Lock<()> {
    /// The one that has this name in a runtime. It lives while somebody has a clone, holds it, or waits.
    pub fn named(runtime: &RuntimeHandle, name: &str) -> Lock<()> {
        let locks = runtime.extension::<Locks>();
        Lock { shared: locks.0.share(name, |name| Shared::new(vec![()], Bound::NONE, Some(name))) }
    }
}

impl Default for Lock<()> {
    fn default() -> Lock<()> {
        Lock::new(())
    }
}

impl<T: Send + 'static> Clone for Lock<T> {
    fn clone(&self) -> Lock<T> {
        Lock { shared: self.shared.clone() }
    }
}

impl<T: Send + 'static> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

/// See [`Lock::guard`].
#[must_use = "a task does nothing until it is started"]
pub struct Guarded<K, T: Send + 'static = ()> {
    task: K,
    shared: Arc<Shared<T>>,
}

impl<K: Task, T: Send + 'static> Task for Guarded<K, T> {
    type Output = K::Output;

    fn dispatch(self, done: Continuation<K::Output>) {
        in_turn(&self.shared, self.task, done, Result::ok);
    }
}

impl<K, T: Send + 'static> fmt::Debug for Guarded<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::{Counter, Parallel, Series, WaitError, go};

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn one_at_a_time_in_order() {
        let runtime = Runtime::builder().compute_threads(4).build().unwrap();
        let lock = Lock::default();
        let held = lock.try_lock().unwrap();
        let (inside, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks: Parallel<_> = (0..200)
            .map(|index| {
                let (inside, next) = (inside.clone(), next.clone());
                lock.guard(go(move || {
                    assert!(!inside.swap(true, Ordering::SeqCst), "two at a time");
                    assert_eq!(next.fetch_add(1, Ordering::SeqCst), index, "not in order");
                    inside.store(false, Ordering::SeqCst);
                }))
            })
            .collect();
        let tasks = runtime.spawn(tasks);
        drop(held);
        let results = tasks.wait_for(LONG).unwrap().unwrap();
        assert!(results.iter().all(Result::is_ok));
        assert!(lock.try_lock().is_some());
    }

    struct GivesUp;

    impl Task for GivesUp {
        type Output = ();
        fn dispatch(self, done: Continuation<()>) {
            drop(done);
        }
    }

    #[test]
    fn a_long_line_uses_little_stack() {
        let runtime = Runtime::new().unwrap();
        let lock = Lock::default();
        let held = lock.try_lock().unwrap();
        let waiting: Vec<_> = (0..20_000).map(|_| runtime.spawn(lock.guard(GivesUp))).collect();
        let release = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || drop(held));
        release.unwrap().join().unwrap();
        for handle in waiting {
            assert_eq!(handle.wait_for(LONG).unwrap(), Err(WaitError::Dropped));
        }
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn it_is_released_whatever_becomes_of_the_task() {
        struct Panics;
        impl Task for Panics {
            type Output = ();
            fn dispatch(self, _: Continuation<()>) {
                panic!("as planned");
            }
        }
        let runtime = Runtime::new().unwrap();
        let lock = Lock::new(());
        assert_eq!(runtime.run(lock.guard(GivesUp)), Err(WaitError::Dropped));
        assert_eq!(runtime.run(lock.guard(Panics)), Err(WaitError::Dropped));
        assert_eq!(runtime.run(lock.guard(go(|| panic!("as planned")))), Err(WaitError::Dropped));

        let never = Counter::new(1);
        let holds = runtime.spawn(lock.guard(never.clone()));
        let (cancelled, waits) = (
            runtime.spawn(lock.guard(go(|| 1))),
            runtime.start(Series::new(0).then(lock.guard(go(|| 2)), |two, series| {
                series.context = two;
                Ok(())
            })),
        );
        assert_eq!(lock.waiting(), 2);
        cancelled.cancel();
        assert_eq!(lock.waiting(), 1);
        holds.cancel();
        assert_eq!(waits.wait_for(LONG).unwrap().unwrap().into_result().unwrap(), 2);
        assert!(lock.try_lock().is_some());

        let (holds, waits) = (runtime.spawn(lock.guard(never.clone())), runtime.spawn(lock.lock()));
        drop(runtime);
        assert!(holds.is_done() && waits.is_done());
        drop(waits);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn a_name_is_one_lock_while_it_is_held() {
        let runtime = Runtime::new().unwrap();
        let core = runtime.handle();
        let held = Lock::named(&core, "l").try_lock().unwrap();
        let waits = runtime.spawn(Lock::named(&core, "l").guard(go(|| 1)));
        assert!(!waits.is_done());
        drop(held);
        assert_eq!(waits.wait_for(LONG).unwrap(), Ok(1));
        assert_eq!(core.extension::<Locks>().0.len(), 0);
    }
}
