//! How far apart a paced socket's writes are, and how much goes each time.
//!
//! Short is smooth and costs wake-ups. On the machine this was measured on, a resume costs 10 to 15 µs of CPU, nearly
//! all of it the kernel's; [`RESUMES_PER_SEC`] resumes therefore take about a tenth of a core, however many sockets
//! are paced.

use std::time::Duration;

use crate::moment::{Moment, NANOS_PER_MS, NANOS_PER_SEC};

/// Resumes per second that one poller aims at when the interval adapts.
pub(crate) const RESUMES_PER_SEC: u64 = 6_500;
/// Shortest adaptive interval: one write in 16 ms keeps any window of 100 ms within 1.24 times its rate.
pub(crate) const INTERVAL_MIN_NS: u64 = 16 * NANOS_PER_MS;
/// Longest adaptive interval: five times a second something moves.
pub(crate) const INTERVAL_MAX_NS: u64 = 200 * NANOS_PER_MS;
/// Least bytes a write is worth. A resume of a single slow socket costs about 170 µs of CPU when both ends sleep in
/// between: 110 CPU seconds a gigabyte at one Ethernet segment (1,448), 80 at this.
const LEAST_BYTES: u64 = 2_048;

/// The pacing interval: fixed by the program, or adapting to the number of paced sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    fixed_ns: Option<u64>,
}

impl Interval {
    /// `None` adapts. A fixed interval is kept within 1 ms and 10 s.
    pub(crate) fn new(fixed: Option<Duration>) -> Interval {
        let clamp = |d: Duration| (d.as_nanos() as u64).clamp(NANOS_PER_MS, 10 * NANOS_PER_SEC);
        Interval { fixed_ns: fixed.map(clamp) }
    }

    /// The interval in nanoseconds while `paced` sockets are paced.
    pub(crate) fn nanos(self, paced: usize) -> u64 {
        self.fixed_ns.unwrap_or_else(|| {
            (paced as u64 * (NANOS_PER_SEC / RESUMES_PER_SEC)).clamp(INTERVAL_MIN_NS, INTERVAL_MAX_NS)
        })
    }
}

/// Bytes that `rate` bytes per second make in `nanos` nanoseconds.
pub(crate) fn bytes_in(rate: u64, nanos: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(nanos) / u128::from(NANOS_PER_SEC)).unwrap_or(u64::MAX)
}

/// The quantum: what goes at a time. An interval's worth, but not less than [`LEAST_BYTES`], unless that would take
/// more than 200 ms; never zero.
pub(crate) fn quantum(rate: u64, interval_ns: u64) -> u64 {
    bytes_in(rate, interval_ns).max(LEAST_BYTES.min(bytes_in(rate, INTERVAL_MAX_NS))).max(1)
}

/// Credit that a bucket may save while the loop is late: half a quantum. With the quantum it makes the default depth,
/// one and a half quanta; a depth of just one quantum would lose whatever the loop is late, and the rate with it.
/// `burst`, where larger than that depth, is the depth instead.
pub(crate) fn credit_ceiling(quantum: u64, burst: u64) -> u64 {
    (quantum / 2).max(burst.saturating_sub(quantum))
}

/// Credit that a socket's own bucket may save while the loop is late: 4 ms of the rate, or a thirty-second of a long
/// interval, but at most half a quantum. It goes out with the next write, so it must not show in 100 ms; what the loop
/// is late beyond it is made up for little by little. `burst` as in [`credit_ceiling`].
pub(crate) fn own_credit_ceiling(rate: u64, quantum: u64, interval_ns: u64, burst: u64) -> u64 {
    let late_ns = (interval_ns / 32).max(4 * NANOS_PER_MS);
    bytes_in(rate, late_ns).min(quantum / 2).max(burst.saturating_sub(quantum))
}

/// Wakers sit on a grid that many times finer than the interval.
const GRID: u64 = 16;

/// Moves the end of a pause to the nearest point of a grid a sixteenth of the interval wide, so that sockets that would
/// wake one by one wake together. Half of the pauses end a little early; [`early_bytes`] lets those through. (Moved later
/// each time, every interval would be a thirty-second too long.)
pub(crate) fn on_grid(when: Moment, interval_ns: u64, now: Moment) -> Moment {
    let step = (interval_ns / GRID).max(1);
    let nearest = when.as_nanos().saturating_add(step / 2) / step * step;
    Moment::from_nanos(nearest).max(now.plus_nanos(1))
}

/// Debt with which a flow is let through at the end of a pause that the grid shortened: what half a step brings, and
/// the byte that rounding may lack. With less, the pause would end before the flow is let through, again and again.
pub(crate) fn early_bytes(rate: u64, interval_ns: u64) -> u64 {
    bytes_in(rate, interval_ns / GRID / 2) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_adapts_between_its_bounds() {
        let adapting = Interval::new(None);
        assert_eq!(adapting.nanos(1), INTERVAL_MIN_NS);
        assert_eq!(adapting.nanos(1_000) / NANOS_PER_MS, 153);
        assert_eq!(adapting.nanos(100_000), INTERVAL_MAX_NS);
        assert_eq!(Interval::new(Some(Duration::from_millis(40))).nanos(100_000), 40 * NANOS_PER_MS);
    }

    #[test]
    fn slow_rates_get_two_kilobytes_or_a_fifth_of_a_second() {
        assert_eq!(quantum(1_000, INTERVAL_MIN_NS), 200);
        assert_eq!(quantum(65_536, INTERVAL_MIN_NS), 2_048);
        assert_eq!(quantum(1_000_000, INTERVAL_MIN_NS), 16_000);
        assert_eq!(quantum(0, INTERVAL_MIN_NS), 1);
        assert_eq!(quantum(u64::MAX, 10 * NANOS_PER_SEC), u64::MAX);
    }
}
