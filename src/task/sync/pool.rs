//! Pools of values.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidegate_poller::{Moment, sys};

use super::Elapsed;
use super::map::map;
use super::names::Name;
use super::waiters::{Keep, Place, Waiters, lock};
use crate::task::{Continuation, Task};

/// Values that tasks borrow. Who finds none waits; first come, first served.
///
/// What is borrowed goes back when it is dropped, to whoever waits, on the thread that drops it. A series keeps it in its
/// context, or passes it on. A clone is the same pool.
///
/// A pool of `()` is a semaphore: [`Pool::permits`].
///
/// ```
/// use std::time::Duration;
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Elapsed, Pool};
///
/// let runtime = Runtime::new()?;
/// let pool = Pool::new(["left", "right"]);
/// let one = runtime.run(pool.get())?;
/// let other = runtime.run(pool.get())?;
/// let none = runtime.run(pool.get_within(Duration::from_millis(1)))?;
/// assert_eq!(none.unwrap_err(), Elapsed);
/// drop(one);
/// assert_eq!(*runtime.run(pool.get())?, "right");
/// # drop(other);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool<T: Send + 'static> {
    shared: Arc<Shared<T>>,
}

/// Also what a lock and a queue of computations are made of.
pub(super) struct Shared<T: Send + 'static> {
    state: Mutex<State<T>>,
    name: Option<Name<Shared<T>>>,
    bound: Bound,
}

struct State<T: Send + 'static> {
    free: Vec<T>,
    waiters: Waiters<Turn<T>>,
    refused: u64,
}

/// What comes of waiting for a turn.
pub(super) type Turn<T> = Result<Pooled<T>, NoTurn>;

/// Why there is nothing to be had.
pub(super) enum NoTurn {
    Elapsed,
    Full,
}

/// How many may wait, and what comes of those beyond.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) waiting: usize,
    pub(super) drop_oldest: bool,
}

impl Bound {
    /// Those who wait are as many series, which whoever started them has bounded.
    pub(super) const NONE: Bound = Bound { waiting: usize::MAX, drop_oldest: false };
}

/// A value of a [`Pool`], or what is in a [`Lock`](super::Lock). It goes back when it is dropped.
pub struct Pooled<T: Send + 'static> {
    value: Option<T>,
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> Pool<T> {
    /// A pool of these values.
    pub fn new(values: impl IntoIterator<Item = T>) -> Pool<T> {
        let free = values.into_iter().collect();
        Pool { shared: Arc::new(Shared::new(free, Bound::NONE, None)) }
    }

    /// Borrows a value, once there is one.
    pub fn get(&self) -> Get<T> {
        Get { shared: self.shared.clone() }
    }

    /// Borrows a value, if there is one within this time.
    pub fn get_within(&self, time: Duration) -> GetWithin<T> {
        GetWithin { shared: self.shared.clone(), time }
    }

    /// Borrows a value if there is one.
    pub fn try_get(&self) -> Option<Pooled<T>> {
        self.shared.try_get()
    }

    /// Adds a value.
    pub fn add(&self, value: T) {
        self.shared.give(value);
    }

    /// How many values are there to be borrowed.
    pub fn available(&self) -> usize {
        self.shared.lock().free.len()
    }

    /// How many tasks wait for one.
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }
}

impl Pool<()> {
    /// A semaphore of so many permits.
    pub fn permits(count: usize) -> Pool<()> {
        Pool::new(std::iter::repeat_n((), count))
    }
}

impl<T: Send + 'static> Pooled<T> {
    /// Takes the value out of the pool for good: a connection that broke, say. [`Pool::add`] replaces it.
    pub fn into_inner(mut pooled: Pooled<T>) -> T {
        match pooled.value.take() {
            Some(value) => value,
            None => unreachable!("it is there until this, or the drop"),
        }
    }

    fn new(value: T, shared: &Arc<Shared<T>>) -> Pooled<T> {
        Pooled { value: Some(value), shared: shared.clone() }
    }
}

impl<T: Send + 'static> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.value {
            Some(value) => value,
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl<T: Send + 'static> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.value {
            Some(value) => value,
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl<T: Send + 'static> Drop for Pooled<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.shared.give(value);
        }
    }
}

/// See [`Pool::get`] and [`Lock::lock`](super::Lock::lock).
#[must_use = "a task does nothing until it is started"]
pub struct Get<T: Send + 'static> {
    pub(super) shared: Arc<Shared<T>>,
}

/// See [`Pool::get_within`].
#[must_use = "a task does nothing until it is started"]
pub struct GetWithin<T: Send + 'static> {
    shared: Arc<Shared<T>>,
    time: Duration,
}

impl<T: Send + 'static> Task for Get<T> {
    type Output = Pooled<T>;

    fn dispatch(self, done: Continuation<Pooled<T>>) {
        match self.shared.try_get() {
            Some(pooled) => done.complete(pooled),
            None => self.shared.turn(map(done, Result::ok), None),
        }
    }
}

impl<T: Send + 'static> Task for GetWithin<T> {
    type Output = Result<Pooled<T>, Elapsed>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let until = sys::now() + self.time;
        let elapsed = |turn: Turn<T>| match turn {
            Ok(pooled) => Some(Ok(pooled)),
            Err(NoTurn::Elapsed) => Some(Err(Elapsed)),
            // Of those that wait without a bound, none is refused.
            Err(NoTurn::Full) => None,
        };
        match self.shared.try_get() {
            Some(pooled) => done.complete(Ok(pooled)),
            None => self.shared.turn(map(done, elapsed), Some(until)),
        }
    }
}

impl<T: Send + 'static> Shared<T> {
    pub(super) fn new(free: Vec<T>, bound: Bound, name: Option<Name<Shared<T>>>) -> Shared<T> {
        let state = State { free, waiters: Waiters::default(), refused: 0 };
        Shared { state: Mutex::new(state), name, bound }
    }

    pub(super) fn try_get(self: &Arc<Self>) -> Option<Pooled<T>> {
        let value = self.lock().free.pop()?;
        Some(Pooled::new(value, self))
    }

    /// Has a value given to `done` when it is its turn.
    pub(super) fn turn(self: &Arc<Self>, done: Continuation<Turn<T>>, until: Option<Moment>) {
        let runtime = until.map(|until| (done.runtime().clone(), until));
        let mut state = self.lock();
        if let Some(value) = state.free.pop() {
            drop(state);
            return done.complete(Ok(Pooled::new(value, self)));
        }
        let mut refused = None;
        if state.waiters.len() >= self.bound.waiting {
            state.refused += 1;
            refused = if self.bound.drop_oldest { state.waiters.next() } else { None };
            if refused.is_none() {
                drop(state);
                return done.complete(Err(NoTurn::Full));
            }
        }
        let joined = state.waiters.join(done, (), self.keep());
        drop(state);
        match runtime {
            Some((runtime, until)) => {
                joined.watch_until::<_, _, ()>(self, runtime, until, || Err(NoTurn::Elapsed));
            }
            None => joined.watch::<_, _, ()>(self),
        }
        if let Some(refused) = refused {
            refused.complete(Err(NoTurn::Full));
        }
    }

    /// A value came, or came back.
    fn give(self: &Arc<Self>, value: T) {
        let mut state = self.lock();
        match state.waiters.next() {
            Some(waiter) => {
                drop(state);
                waiter.complete(Ok(Pooled::new(value, self)));
            }
            None => state.free.push(value),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiters.len()
    }

    pub(super) fn refused(&self) -> u64 {
        self.lock().refused
    }

    fn keep(self: &Arc<Self>) -> Option<Keep> {
        self.name.is_some().then(|| self.clone() as Keep)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

impl<T: Send + 'static> Place<Turn<T>, ()> for Shared<T> {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<Turn<T>>) -> R) -> R {
        call(&mut self.lock().waiters)
    }
}

impl<T: Send + 'static> Clone for Pool<T> {
    fn clone(&self) -> Pool<T> {
        Pool { shared: self.shared.clone() }
    }
}

impl<T: Send + 'static> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available = lock(&self.shared.state).free.len();
        f.debug_struct("Pool").field("available", &available).finish_non_exhaustive()
    }
}

impl<T: Send + fmt::Debug + 'static> fmt::Debug for Pooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&self.value).finish()
    }
}

impl<T: Send + 'static> fmt::Debug for Get<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> fmt::Debug for GetWithin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetWithin").field("time", &self.time).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;
    use crate::task::WaitError;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn who_waited_longest_is_next() {
        let runtime = Runtime::new().unwrap();
        let pool = Pool::new([7]);
        let mut held = pool.try_get().unwrap();
        let waiting: Vec<_> = (0..4).map(|_| runtime.spawn(pool.get())).collect();
        waiting[1].cancel();
        assert_eq!(pool.waiting(), 3);
        *held += 1;
        drop(held);
        for (index, handle) in waiting.into_iter().enumerate() {
            match index {
                1 => assert_eq!(handle.wait_for(LONG).unwrap().unwrap_err(), WaitError::Dropped),
                _ => assert_eq!(*handle.wait_for(LONG).unwrap().unwrap(), 8),
            }
        }
        assert_eq!((pool.available(), pool.waiting()), (1, 0));
    }

    #[test]
    fn a_wait_may_end_without_a_value() {
        let runtime = Runtime::new().unwrap();
        let pool = Pool::permits(1);
        let held = runtime.run(pool.get_within(LONG)).unwrap().unwrap();
        let short = runtime.run(pool.get_within(Duration::from_millis(1))).unwrap();
        assert_eq!(short.unwrap_err(), Elapsed);
        let long = runtime.spawn(pool.get_within(LONG));
        let cancelled = runtime.spawn(pool.get_within(LONG));
        cancelled.cancel();
        assert_eq!(pool.waiting(), 1);
        drop(held);
        drop(long.wait_for(LONG).unwrap().unwrap().unwrap());
        assert_eq!(pool.available(), 1);
    }

    #[test]
    fn what_reached_nobody_goes_back() {
        let runtime = Runtime::new().unwrap();
        let pool = Pool::new([1]);
        let handle = runtime.spawn(pool.get());
        assert_eq!(pool.available(), 0);
        drop(handle);
        assert_eq!(pool.available(), 1);
        let taken = Pooled::into_inner(pool.try_get().unwrap());
        assert_eq!((taken, pool.available()), (1, 0));
        let waiting = runtime.spawn(pool.get());
        pool.add(2);
        assert_eq!(*waiting.wait_for(LONG).unwrap().unwrap(), 2);
    }

    #[test]
    fn a_runtime_that_is_dropped_ends_the_wait() {
        let runtime = Runtime::new().unwrap();
        let pool = Pool::permits(0);
        let (one, other) = (runtime.spawn(pool.get()), runtime.spawn(pool.get_within(LONG)));
        drop(runtime);
        assert!(one.is_done() && other.is_done());
        assert_eq!(pool.waiting(), 0);
    }
}
