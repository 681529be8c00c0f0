//! The wall clock, for dates on the wire and in records.
//!
//! The poller's clock is monotonic; this keeps a pair of both, read together, and finds the wall time of any
//! moment from it. The pair is renewed when it is older than half a second, so a clock that is set follows soon,
//! and a busy poller reads the wall clock twice a second. The text of the Date field is made once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_poller::moment::Moment;

/// A poller thread's view of the wall clock.
#[derive(Debug)]
pub(super) struct Clock {
    moment: Moment,
    wall: SystemTime,
    second: u64,
    date: String,
}

const RENEW_AFTER: Duration = Duration::from_millis(500);

impl Clock {
    /// A clock that was read at `now`.
    pub(super) fn new(now: Moment, wall: SystemTime) -> Clock {
        let mut clock = Clock { moment: now, wall, second: u64::MAX, date: String::new() };
        clock.date(now);
        clock
    }

    /// Renews the pair when it is old. `read` is the wall clock.
    pub(super) fn refresh(&mut self, now: Moment, read: impl FnOnce() -> SystemTime) {
        if now - self.moment >= RENEW_AFTER {
            self.moment = now;
            self.wall = read();
        }
    }

    /// The wall time of a moment, before or after the pair was read.
    pub(super) fn wall(&self, moment: Moment) -> SystemTime {
        if moment >= self.moment {
            self.wall + (moment - self.moment)
        } else {
            self.wall.checked_sub(self.moment - moment).unwrap_or(UNIX_EPOCH)
        }
    }

    /// The Date field at `now`.
    pub(super) fn date(&mut self, now: Moment) -> &str {
        let wall = self.wall(now);
        // A clock before 1970 or after 9999 has no HTTP date; any that is valid is as wrong as another.
        let second = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(253_402_300_799);
        if second != self.second {
            self.second = second;
            self.date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        }
        &self.date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(5_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn wall_times_follow_the_pair() {
        let base = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut clock = Clock::new(at(0), base);
        assert_eq!(clock.date(at(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(clock.date(at(1_000)), "Sun, 06 Nov 1994 08:49:38 GMT");
        clock.refresh(at(499), || panic!("young enough"));
        clock.refresh(at(500), || base + Duration::from_secs(60));
        assert_eq!(clock.wall(at(500)), base + Duration::from_secs(60));
        assert_eq!(clock.wall(at(400)), base + Duration::from_millis(59_900));
        assert_eq!(clock.date(at(500)), "Sun, 06 Nov 1994 08:50:37 GMT");
    }

    #[test]
    fn odd_clocks_have_a_date() {
        assert_eq!(Clock::new(at(0), UNIX_EPOCH).date(at(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        let far = UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert!(Clock::new(at(0), far).date(at(0)).contains("9999"));
    }
}
