//! Timers that are cancelled by name.

use std::fmt;

use tidegate_poller::Moment;

use super::names::{Group, Names};
use super::waiters::Place;
use crate::runtime::RuntimeHandle;
use crate::task::{Continuation, Sleep, Task};

impl Sleep {
    /// Has it end early when [`RuntimeHandle::cancel_timers`] says so. Several may have the same name.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{TimerCancelled, sleep};
    ///
    /// let runtime = Runtime::new()?;
    /// let retry = runtime.spawn(sleep(Duration::from_secs(3600)).named("retry"));
    /// assert_eq!(runtime.handle().cancel_timers("retry"), 1);
    /// assert_eq!(retry.wait()?, Err(TimerCancelled));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn named(self, name: impl Into<String>) -> NamedSleep {
        NamedSleep { sleep: self, name: name.into() }
    }
}

/// See [`Sleep::named`].
#[derive(Clone, Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct NamedSleep {
    sleep: Sleep,
    name: String,
}

/// Somebody said that the timer's time need not be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerCancelled;

type Sleeping = Group<Result<(), TimerCancelled>>;

impl Task for NamedSleep {
    type Output = Result<(), TimerCancelled>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let at: Moment = self.sleep.due();
        let runtime = done.runtime().clone();
        let group = runtime.extension::<Names<Sleeping>>().share(&self.name, Sleeping::new);
        let keep = group.keep();
        let joined = group.with_waiters(|waiters| waiters.join(done, (), keep));
        joined.watch_until::<_, _, ()>(&group, runtime, at, || Ok(()));
    }
}

impl RuntimeHandle {
    /// Ends all timers [of that name](Sleep::named) at once: what comes of them is [`TimerCancelled`]. Says how many
    /// these are.
    pub fn cancel_timers(&self, name: &str) -> usize {
        let Some(group) = self.extension::<Names<Sleeping>>().find(name) else { return 0 };
        let (count, cancelled) = group.with_waiters(|waiters| waiters.take_if(|()| true));
        for waiter in cancelled {
            waiter.complete(Err(TimerCancelled));
        }
        count
    }
}

impl fmt::Display for TimerCancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the timer was cancelled")
    }
}

impl std::error::Error for TimerCancelled {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::{WaitError, sleep};

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn by_name_all_end_at_once_and_nothing_is_left() {
        let runtime = Runtime::new().unwrap();
        let core = runtime.handle();
        let hour = || sleep(Duration::from_secs(3600)).named("a");
        let (one, two, given_up) = (runtime.spawn(hour()), runtime.spawn(hour()), runtime.spawn(hour()));
        given_up.cancel();
        assert_eq!(given_up.wait_for(LONG).unwrap(), Err(WaitError::Dropped));
        assert_eq!(core.cancel_timers("a"), 2);
        for handle in [one, two] {
            assert_eq!(handle.wait_for(LONG).unwrap(), Ok(Err(TimerCancelled)));
        }
        assert_eq!(core.cancel_timers("a"), 0);
        assert_eq!(runtime.run(sleep(Duration::from_millis(1)).named("a")), Ok(Ok(())));
        assert_eq!(core.extension::<Names<Sleeping>>().len(), 0);
        let cut = runtime.spawn(hour());
        drop(runtime);
        assert!(cut.is_done());
    }
}
