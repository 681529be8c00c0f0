//! Counters.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::names::{Group, Names};
use super::waiters::{Place, Waiters, lock};
use crate::runtime::RuntimeHandle;
use crate::task::{Continuation, Task};

/// Done when it has been counted down.
///
/// It is the task and the handle at once: a clone counts, from any thread. Counts are kept while nobody waits. If several
/// clones are started, all are done with the last count. When nobody is left who could count, a series that waits ends
/// with [`Aborted`](crate::task::SeriesError::Aborted).
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::Counter;
///
/// let runtime = Runtime::new()?;
/// let counter = Counter::new(2);
/// let both = runtime.spawn(counter.clone());
/// counter.count();
/// assert!(!both.is_done());
/// counter.count();
/// both.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a task does nothing until it is started"]
pub struct Counter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    left: usize,
    waiters: Waiters<()>,
}

impl Counter {
    /// To be counted down `count` times. With zero it is done at once.
    pub fn new(count: usize) -> Counter {
        let state = State { left: count, waiters: Waiters::default() };
        Counter { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// To be counted down `count` times by [`RuntimeHandle::count_by_name`], from when it is started. Several of one
    /// name each have a count of their own.
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::Counter;
    ///
    /// let runtime = Runtime::new()?;
    /// let loaded = runtime.spawn(Counter::named("loaded", 1));
    /// assert_eq!(runtime.handle().count_by_name("loaded"), 1);
    /// loaded.wait()?;
    /// assert_eq!(runtime.handle().count_by_name("loaded"), 0, "nobody waits any more");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn named(name: impl Into<String>, count: usize) -> NamedCounter {
        NamedCounter { name: name.into(), count }
    }

    /// Counts. The last count goes on with those who wait; further ones do nothing.
    pub fn count(&self) {
        self.count_many(1);
    }

    /// Counts several times at once.
    pub fn count_many(&self, times: usize) {
        let done = {
            let mut state = lock(&self.shared.state);
            state.left = state.left.saturating_sub(times);
            match state.left {
                0 => state.waiters.take_all(),
                _ => return,
            }
        };
        for waiter in done {
            waiter.complete(());
        }
    }

    /// How many counts are missing.
    pub fn left(&self) -> usize {
        lock(&self.shared.state).left
    }
}

impl Task for Counter {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        let mut state = lock(&self.shared.state);
        if state.left == 0 {
            drop(state);
            return done.complete(());
        }
        let joined = state.waiters.join(done, (), None);
        drop(state);
        joined.watch(&self.shared);
    }
}

impl Place<(), ()> for Shared {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<()>) -> R) -> R {
        call(&mut lock(&self.state).waiters)
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("left", &self.left()).finish()
    }
}

/// See [`Counter::named`].
#[derive(Clone, Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct NamedCounter {
    name: String,
    count: usize,
}

/// Each waits with the counts that it misses.
type Counted = Group<(), usize>;

impl Task for NamedCounter {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        if self.count == 0 {
            return done.complete(());
        }
        let group = done.runtime().extension::<Names<Counted>>().share(&self.name, Counted::new);
        let keep = group.keep();
        group.with_waiters(|waiters| waiters.join(done, self.count, keep)).watch(&group);
    }
}

impl RuntimeHandle {
    /// Counts all [counters of that name](Counter::named) that wait down by one, and says how many these are. When nobody
    /// waits, the count is lost: the result is zero.
    pub fn count_by_name(&self, name: &str) -> usize {
        self.count_many_by_name(name, 1)
    }

    /// The same, several times at once.
    pub fn count_many_by_name(&self, name: &str, times: usize) -> usize {
        let Some(group) = self.extension::<Names<Counted>>().find(name) else { return 0 };
        let (reached, done) = group.with_waiters(|waiters| {
            waiters.take_if(|left| {
                *left = left.saturating_sub(times);
                *left == 0
            })
        });
        for waiter in done {
            waiter.complete(());
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::WaitError;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn counts_are_kept_and_all_who_wait_are_told() {
        let runtime = Runtime::new().unwrap();
        let counter = Counter::new(1_000);
        let handles: Vec<_> = (0..3).map(|_| runtime.spawn(counter.clone())).collect();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counter = counter.clone();
                std::thread::spawn(move || (0..250).for_each(|_| counter.count()))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for handle in handles {
            handle.wait_for(LONG).unwrap().unwrap();
        }
        counter.count();
        runtime.run(counter).unwrap();
        runtime.run(Counter::new(0)).unwrap();
    }

    #[test]
    fn nobody_is_left_to_count() {
        let runtime = Runtime::new().unwrap();
        let ended = runtime.spawn(Counter::new(1)).wait_for(LONG).unwrap();
        assert_eq!(ended, Err(WaitError::Dropped));
    }

    #[test]
    fn cancelled_while_it_waits_it_leaves() {
        let runtime = Runtime::new().unwrap();
        let counter = Counter::new(1);
        let handle = runtime.spawn(counter.clone());
        handle.cancel();
        assert_eq!(lock(&counter.shared.state).waiters.len(), 0);
        assert_eq!(handle.wait_for(LONG).unwrap(), Err(WaitError::Dropped));
        counter.count();
    }

    #[test]
    fn a_runtime_that_is_dropped_ends_the_wait() {
        let runtime = Runtime::new().unwrap();
        let counter = Counter::new(1);
        let (one, other) = (runtime.spawn(counter.clone()), runtime.spawn(Counter::named("c", 1)));
        drop(runtime);
        assert!(one.is_done() && other.is_done());
    }

    #[test]
    fn names_reach_all_and_do_not_pile_up() {
        let runtime = Runtime::new().unwrap();
        let core = runtime.handle();
        assert_eq!(core.count_by_name("a"), 0, "lost");
        let (one, two) = (runtime.spawn(Counter::named("a", 1)), runtime.spawn(Counter::named("a", 3)));
        let given_up = runtime.spawn(Counter::named("b", 1));
        assert_eq!(core.count_by_name("a"), 2);
        one.wait_for(LONG).unwrap().unwrap();
        assert_eq!(core.count_many_by_name("a", 5), 1);
        two.wait_for(LONG).unwrap().unwrap();
        given_up.cancel();
        assert_eq!(core.count_by_name("b"), 0);
        assert_eq!(core.extension::<Names<Counted>>().len(), 0);
    }
}
