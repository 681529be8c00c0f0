//! The arithmetic of one byte budget: a level that time raises and bytes lower.
//!
//! A [`Bucket`] is a debt bucket. Its level rises with the rate up to a *ceiling* of credit, falls with every byte
//! that went, and may fall below zero: whoever spends was let through while the level was not negative, and pays
//! afterwards. What may pass in any window w is therefore at most rate·w + ceiling + the largest debt; the owner of
//! the bucket keeps the last two within the depth that the budget promises.
//!
//! Pure: no clock, no rate of its own. Fractions of a byte are kept exactly (in billionths), so that a loop that
//! asks often does not round its own progress down to nothing.

use crate::moment::{Moment, NANOS_PER_SEC};

/// A level of bytes, positive for credit and negative for debt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    level: i64,
    /// Billionths of a byte gained beyond `level`; below [`NANOS_PER_SEC`].
    fraction: u64,
    /// Up to when the level counts.
    at: Moment,
    /// Bytes that lateness lost and that are still to be made up for.
    arrears: u64,
}

/// While there are arrears, one byte in so many is not charged: the rate is a fifteenth higher until they are made up
/// for. Given out at once they would be a burst; a fifteenth stays within what 100 ms may show.
const ARREARS_PART: u64 = 16;

/// The largest level, either way. Far above any depth, far below where sums of two could overflow.
const LEVEL_MAX: i64 = i64::MAX / 4;

impl Bucket {
    /// A bucket with neither credit nor debt.
    pub(crate) fn new(now: Moment) -> Bucket {
        Bucket { level: 0, fraction: 0, at: now, arrears: 0 }
    }

    /// Bytes of credit (positive) or debt (negative).
    pub(crate) fn level(&self) -> i64 {
        self.level
    }

    /// Up to when the level counts.
    pub(crate) fn at(&self) -> Moment {
        self.at
    }

    /// Lets time pass until `now` at `rate` bytes per second, credit at most `ceiling` bytes. Returns the bytes of
    /// credit that did not fit and are lost. A `now` before the last one counts as no time at all.
    pub(crate) fn refill(&mut self, rate: u64, ceiling: u64, now: Moment) -> u64 {
        let nanos = now.nanos_since(self.at);
        if nanos == 0 {
            return 0;
        }
        self.at = now;
        let gained = u128::from(rate) * u128::from(nanos) + u128::from(self.fraction);
        let bytes = gained / u128::from(NANOS_PER_SEC);
        self.fraction = (gained % u128::from(NANOS_PER_SEC)) as u64;
        let ceiling = i64::try_from(ceiling).unwrap_or(LEVEL_MAX).min(LEVEL_MAX);
        let room = u128::from(ceiling.saturating_sub(self.level).max(0).unsigned_abs());
        if bytes >= room {
            // The remainder is lost with the whole bytes: credit stops exactly at the ceiling.
            self.level = self.level.max(ceiling);
            self.fraction = 0;
            return u64::try_from(bytes - room).unwrap_or(u64::MAX);
        }
        self.level += bytes as i64;
        0
    }

    /// Has `bytes` that did not fit, because somebody who waited was woken late, made up for little by little; no more
    /// than `most` in all.
    pub(crate) fn make_up_for(&mut self, bytes: u64, most: u64) {
        self.arrears = self.arrears.saturating_add(bytes).min(most);
    }

    /// Drops what was to be made up for: nobody waits any more.
    pub(crate) fn forget_arrears(&mut self) {
        self.arrears = 0;
    }

    /// Takes `bytes` out, into debt if need be.
    pub(crate) fn spend(&mut self, bytes: u64) {
        let uncharged = self.arrears.min(bytes / ARREARS_PART);
        self.arrears -= uncharged;
        let bytes = bytes - uncharged;
        let bytes = i64::try_from(bytes).unwrap_or(LEVEL_MAX);
        self.level = self.level.saturating_sub(bytes).max(-LEVEL_MAX);
    }

    /// Puts back `bytes` that were taken and not used.
    pub(crate) fn give_back(&mut self, bytes: u64, ceiling: u64) {
        let ceiling = i64::try_from(ceiling).unwrap_or(LEVEL_MAX).min(LEVEL_MAX);
        let bytes = i64::try_from(bytes).unwrap_or(LEVEL_MAX);
        self.level = self.level.saturating_add(bytes).min(ceiling.max(self.level));
    }

    /// When the level reaches `target` bytes at `rate`; now or earlier when it has. `None` at rate 0.
    pub(crate) fn reaches(&self, target: i64, rate: u64) -> Option<Moment> {
        if self.level >= target {
            return Some(self.at);
        }
        if rate == 0 {
            return None;
        }
        let missing = u128::from(target.abs_diff(self.level)) * u128::from(NANOS_PER_SEC);
        let nanos = missing.saturating_sub(u128::from(self.fraction)).div_ceil(u128::from(rate));
        Some(self.at.plus_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Carries the level over to another rate, as time: a debt of 10 ms stays a debt of 10 ms. Kept as bytes, a
    /// debt made at a high rate would freeze a transfer whose rate is lowered, and credit saved at a high rate
    /// would burst. To or from rate 0 there is no such time: the level becomes 0, and nothing is paid back.
    pub(crate) fn rescale(&mut self, old_rate: u64, new_rate: u64) {
        if old_rate == new_rate {
            return;
        }
        self.fraction = 0;
        self.arrears = 0;
        if old_rate == 0 || new_rate == 0 {
            self.level = 0;
            return;
        }
        let scaled = i128::from(self.level) * i128::from(new_rate) / i128::from(old_rate);
        self.level = scaled.clamp(i128::from(-LEVEL_MAX), i128::from(LEVEL_MAX)) as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(1_000 + nanos)
    }

    #[test]
    fn frequent_refills_lose_nothing() {
        for rate in [1u64, 3, 999, 1_000, 65_537, 10_000_000_019] {
            let mut often = Bucket::new(at(0));
            let mut nanos = 0;
            while nanos < 50_000_000 {
                nanos += 977;
                often.refill(rate, u64::MAX, at(nanos));
            }
            let mut once = Bucket::new(at(0));
            once.refill(rate, u64::MAX, at(nanos));
            assert_eq!(often.level(), once.level(), "rate {rate}");
        }
    }

    #[test]
    fn reaches_names_the_first_nanosecond_that_is_enough() {
        for rate in [1u64, 7, 1_000, 123_456_789, 10_000_000_000] {
            let mut bucket = Bucket::new(at(0));
            bucket.spend(1_448);
            let when = bucket.reaches(0, rate).expect("a rate above 0 gets there");
            let mut early = bucket;
            early.refill(rate, 0, Moment::from_nanos(when.as_nanos() - 1));
            assert!(early.level() < 0, "rate {rate}: one nanosecond early");
            bucket.refill(rate, 0, when);
            assert_eq!(bucket.level(), 0, "rate {rate}");
        }
    }

    #[test]
    fn credit_stops_at_the_ceiling_and_the_rest_is_reported() {
        let mut bucket = Bucket::new(at(0));
        assert_eq!(bucket.refill(1_000, 100, at(NANOS_PER_SEC)), 900);
        assert_eq!(bucket.level(), 100);
        bucket.give_back(50, 100);
        assert_eq!(bucket.level(), 100);
    }

    #[test]
    fn what_lateness_lost_is_made_up_for_gently_and_in_bounds() {
        let mut bucket = Bucket::new(at(0));
        bucket.make_up_for(5_000, 1_600);
        bucket.spend(16_000);
        assert_eq!(bucket.level(), -15_000);
        bucket.spend(16_000);
        assert_eq!(bucket.level(), -30_400, "no more than the bound");
        bucket.make_up_for(1, 1);
        bucket.forget_arrears();
        bucket.spend(16);
        assert_eq!(bucket.level(), -30_416);
    }

    #[test]
    fn a_new_rate_keeps_debt_as_time() {
        let mut bucket = Bucket::new(at(0));
        bucket.spend(100_000);
        bucket.rescale(10_000_000, 100_000);
        assert_eq!(bucket.reaches(0, 100_000), Some(at(10_000_000)));
        bucket.rescale(100_000, 0);
        assert_eq!(bucket.level(), 0);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut bucket = Bucket::new(Moment::FIRST);
        bucket.spend(u64::MAX);
        bucket.spend(u64::MAX);
        assert!(bucket.reaches(0, 1).is_some());
        bucket.refill(u64::MAX, u64::MAX, Moment::from_nanos(u64::MAX));
        bucket.give_back(u64::MAX, u64::MAX);
        bucket.rescale(1, u64::MAX);
        bucket.refill(u64::MAX, 5, Moment::from_nanos(3));
    }

    #[test]
    fn a_clock_that_steps_back_is_no_time() {
        let mut bucket = Bucket::new(at(1_000_000));
        bucket.refill(1_000_000, 1_000_000, at(0));
        assert_eq!(bucket.level(), 0);
    }
}
