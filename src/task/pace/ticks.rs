//! Ticks at fixed moments.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tidegate_poller::{Moment, sys};

use crate::runtime::RuntimeHandle;
use crate::runtime::work::Receive;
use crate::task::continuation::{Continuation, Receiver};
use crate::task::token::Token;
use crate::task::{Series, Task, sleep_until};

/// A tick in each interval, for pushes that are to go out regularly.
///
/// The moments are fixed at the start: start + 1, 2, 3 … intervals. However late a tick comes, and however long what it
/// has done takes, the next one is for its own moment: nothing drifts. When moments have passed before a tick is asked
/// for, the last of them comes at once and those before it are *missed*: skipped and counted, never made up for in a
/// burst.
///
/// ```
/// use std::ops::ControlFlow;
/// use std::time::Duration;
/// use tidegate::runtime::Runtime;
/// use tidegate::task::Ticks;
///
/// let runtime = Runtime::new()?;
/// let pushes = Ticks::every(Duration::from_millis(5)).for_each(|tick| {
///     println!("push {}, {:?} late", tick.number, tick.late);
///     if tick.number < 4 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// });
/// let ticks = runtime.run(pushes)?.into_result()?;
/// assert!(ticks.asked() + ticks.missed() >= 4);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ticks {
    start: Moment,
    interval_ns: u64,
    /// The number of the last tick that was asked for.
    number: u64,
    asked: u64,
    missed: u64,
}

/// A tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its moment: so many intervals after the start, from 1.
    pub number: u64,
    /// Moments missed since the tick before.
    pub missed: u64,
    /// How long after its moment it comes.
    pub late: Duration,
}

impl Ticks {
    /// The first one an interval from now. An interval of zero counts as a nanosecond.
    pub fn every(interval: Duration) -> Ticks {
        Ticks::starting_at(sys::now(), interval)
    }

    /// The first one an interval after `start`.
    pub fn starting_at(start: Moment, interval: Duration) -> Ticks {
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        Ticks { start, interval_ns, number: 0, asked: 0, missed: 0 }
    }

    /// A task for the next tick.
    pub fn next_tick(&mut self) -> NextTick {
        self.next_at(sys::now())
    }

    fn next_at(&mut self, now: Moment) -> NextTick {
        let next = self.number.saturating_add(1);
        let passed = now.nanos_since(self.start) / self.interval_ns;
        self.number = next.max(passed);
        let missed = self.number - next;
        self.missed += missed;
        self.asked += 1;
        let at = self.start.plus_nanos(self.interval_ns.saturating_mul(self.number));
        NextTick { number: self.number, missed, at }
    }

    /// A series that hands each tick to `each` until that says [`ControlFlow::Break`]. While `each` runs, no other
    /// tick comes.
    pub fn for_each(self, each: impl FnMut(Tick) -> ControlFlow<()> + Send + 'static) -> Series<Ticks> {
        let mut series = Series::new(self);
        go_on(&mut series, each);
        series
    }

    /// Ticks that were asked for.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// Moments that passed without one.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

fn go_on(series: &mut Series<Ticks>, mut each: impl FnMut(Tick) -> ControlFlow<()> + Send + 'static) {
    let next = series.context.next_tick();
    series.push_front(next, move |tick, series| {
        if each(tick).is_continue() {
            go_on(series, each);
        }
        Ok(())
    });
}

/// Waits for a tick; see [`Ticks::next_tick`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct NextTick {
    number: u64,
    missed: u64,
    at: Moment,
}

impl Task for NextTick {
    type Output = Tick;

    fn dispatch(self, done: Continuation<Tick>) {
        sleep_until(self.at).dispatch(Continuation::new(Box::new(Way { tick: self, done })));
    }
}

/// Measures, when the moment has come, how late it is.
struct Way {
    tick: NextTick,
    done: Continuation<Tick>,
}

impl Receiver<()> for Way {
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl Receive<()> for Way {
    fn receive(self: Box<Self>, (): ()) {
        let NextTick { number, missed, at } = self.tick;
        self.done.complete(Tick { number, missed, late: sys::now() - at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_stay_and_those_that_passed_are_counted() {
        let start = Moment::from_nanos(1_000);
        let mut ticks = Ticks::starting_at(start, Duration::from_nanos(10));
        let mut next = |now| {
            let NextTick { number, missed, at } = ticks.next_at(Moment::from_nanos(now));
            (number, missed, at.as_nanos())
        };
        assert_eq!(next(1_000), (1, 0, 1_010));
        assert_eq!(next(1_014), (2, 0, 1_020), "a late tick does not move the next");
        assert_eq!(next(1_037), (3, 0, 1_030), "one that has passed comes at once");
        assert_eq!(next(1_075), (7, 3, 1_070), "of several, the last comes");
        assert_eq!(next(1_076), (8, 0, 1_080));
        assert_eq!((ticks.asked(), ticks.missed()), (5, 3));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut ticks = Ticks::starting_at(Moment::FIRST, Duration::ZERO);
        let tick = ticks.next_at(Moment::from_nanos(u64::MAX));
        assert_eq!(tick.number, u64::MAX - 1);
        let _ = ticks.next_at(Moment::from_nanos(u64::MAX));
        let _ = ticks.next_at(Moment::from_nanos(u64::MAX));
        assert_eq!(
            Ticks::starting_at(Moment::FIRST, Duration::MAX).next_at(Moment::FIRST).at.as_nanos(),
            u64::MAX
        );
    }
}
