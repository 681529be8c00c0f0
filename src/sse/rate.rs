//! Events a second of one client. Pure, but for the handle's atomics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_poller::Moment;

/// How many events a second each client that has it gets, and how many at once after a silence. Cheap to clone; to be
/// changed while events flow.
#[derive(Clone, Debug)]
pub struct EventRate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Between two events; [`u64::MAX`]: for ever.
    interval_ns: AtomicU64,
    burst: u64,
}

impl EventRate {
    /// So many events a second, one at a time. 0 holds them all.
    pub fn new(per_second: f64) -> EventRate {
        EventRate::with_burst(per_second, 1)
    }

    /// The same, with up to `burst` at once after a silence; however long that was, it earns no more.
    pub fn with_burst(per_second: f64, burst: u32) -> EventRate {
        let burst = u64::from(burst.max(1));
        EventRate(Arc::new(Shared { interval_ns: AtomicU64::new(interval_ns(per_second)), burst }))
    }

    /// Changes the rate. Holds within 0.2 s.
    pub fn set_rate(&self, per_second: f64) {
        self.0.interval_ns.store(interval_ns(per_second), Ordering::Relaxed);
    }
}

fn interval_ns(per_second: f64) -> u64 {
    // What is too long for the number, or no number, saturates.
    if per_second > 0.0 { (1e9 / per_second).max(1.0) as u64 } else { u64::MAX }
}

/// How often a wait is looked at again, for the rate may have been changed.
const LOOK_AGAIN_NS: u64 = 200_000_000;

/// Where one client stands with its rate.
#[derive(Debug)]
pub(super) struct Pace {
    rate: EventRate,
    last: Option<Moment>,
    /// Events that it may have now, in billionths.
    credit: u64,
}

const ONE: u64 = 1_000_000_000;

impl Pace {
    pub(super) fn new(rate: EventRate) -> Pace {
        Pace { rate, last: None, credit: ONE }
    }

    /// Whether one may go now; else when to ask again. Whoever lets one go calls [`Pace::spend`].
    pub(super) fn allow(&mut self, now: Moment) -> Result<(), Moment> {
        let interval = self.rate.0.interval_ns.load(Ordering::Relaxed);
        let last = *self.last.get_or_insert(now);
        let passed = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
        if interval != u64::MAX && passed > 0 {
            let earned = u128::from(passed) * u128::from(ONE) / u128::from(interval);
            let max = self.rate.0.burst * ONE;
            self.credit = u64::try_from(earned).unwrap_or(u64::MAX).saturating_add(self.credit).min(max);
            self.last = Some(now);
        }
        if self.credit >= ONE {
            return Ok(());
        }
        let missing = u128::from(ONE - self.credit) * u128::from(interval) / u128::from(ONE);
        let wait = u64::try_from(missing).unwrap_or(u64::MAX).clamp(1, LOOK_AGAIN_NS);
        Err(now.plus_nanos(wait))
    }

    pub(super) fn spend(&mut self) {
        self.credit = self.credit.saturating_sub(ONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(1_000_000 * MS + ms * MS)
    }

    /// How many go in each of these milliseconds, with demand all the time.
    fn go(pace: &mut Pace, times: std::ops::Range<u64>) -> u64 {
        let mut gone = 0;
        for ms in times {
            while pace.allow(at(ms)).is_ok() {
                pace.spend();
                gone += 1;
            }
        }
        gone
    }

    #[test]
    fn the_rate_holds_and_silence_earns_the_burst_and_no_more() {
        let mut pace = Pace::new(EventRate::with_burst(100.0, 5));
        let first = go(&mut pace, 0..1_000);
        assert!((99..=101).contains(&first), "{first}");
        assert_eq!(go(&mut pace, 60_000..60_001), 5);
        let after = go(&mut pace, 60_001..61_001);
        assert!((99..=101).contains(&after), "{after}");
    }

    #[test]
    fn who_waits_is_told_until_when() {
        let mut pace = Pace::new(EventRate::new(10.0));
        assert!(pace.allow(at(0)).is_ok());
        pace.spend();
        assert_eq!(pace.allow(at(30)), Err(at(100)));
        assert!(pace.allow(at(100)).is_ok());
    }

    #[test]
    fn a_rate_of_nothing_waits_until_it_is_changed() {
        let rate = EventRate::new(0.0);
        let mut pace = Pace::new(rate.clone());
        pace.allow(at(0)).unwrap();
        pace.spend();
        assert_eq!(pace.allow(at(10_000)), Err(at(10_200)));
        rate.set_rate(1_000.0);
        assert!(pace.allow(at(10_200)).is_ok());
    }
}
