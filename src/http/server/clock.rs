//! The wall clock, for dates on the wire and in records.
//!
//! The poller's clock is monotonic; this keeps a pair of both, read together, and finds the wall time of any
//! moment from it. The pair is renewed when it is older than half a second, so a clock that is set follows soon,
//! and a busy poller reads the wall clock twice a second. The text of the Date field is made once a second.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_poller::moment::Moment;

/// A poller thread's view of the wall clock.
#[derive(Debug)]
pub(super) struct Clock {
    pair: WallClock,
    /// What the heads of replies say of server and date, as of `second`; before it, how most heads begin.
    second: u64,
    /// Until when it is right, for all that is known.
    right_until: Moment,
    lines: Vec<u8>,
}

/// Both clocks, read together: enough to find the wall time of any moment near it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    moment: Moment,
    wall: SystemTime,
}

/// Before the date, for they are said together with it.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
const SERVER: &[u8] = b"Server: tidegate\r\n";

const RENEW_AFTER: Duration = Duration::from_millis(500);

impl Clock {
    /// A clock that was read at `now`.
    pub(super) fn new(now: Moment, wall: SystemTime) -> Clock {
        Clock {
            pair: WallClock { moment: now, wall },
            second: u64::MAX,
            right_until: Moment::FIRST,
            lines: Vec::with_capacity(128),
        }
    }

    /// Renews the pair when it is old. `read` is the wall clock.
    pub(super) fn refresh(&mut self, now: Moment, read: impl FnOnce() -> SystemTime) {
        if now - self.pair.moment >= RENEW_AFTER {
            self.pair = WallClock { moment: now, wall: read() };
            self.right_until = Moment::FIRST;
        }
    }

    /// The pair, for who may want the wall time later.
    pub(super) fn pair(&self) -> WallClock {
        self.pair
    }

    /// The wall time of a moment, before or after the pair was read.
    pub(super) fn wall(&self, moment: Moment) -> SystemTime {
        self.pair.wall(moment)
    }

    /// How the head of a reply begins whose status is 200: the lines for status, server and date at `now`, which is of this
    /// turn.
    pub(super) fn ok_server_and_date(&mut self, now: Moment) -> &[u8] {
        if now >= self.right_until {
            self.write_lines(now);
        }
        &self.lines
    }

    /// The lines for server and date.
    pub(super) fn server_and_date(&mut self, now: Moment) -> &[u8] {
        &self.ok_server_and_date(now)[OK.len()..]
    }

    /// The line for the date.
    pub(super) fn date(&mut self, now: Moment) -> &[u8] {
        &self.server_and_date(now)[SERVER.len()..]
    }

    fn write_lines(&mut self, now: Moment) {
        // A clock before 1970 or after 9999 has no HTTP date; any that is valid is as wrong as another.
        let since = self.wall(now).duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since.min(Duration::from_secs(253_402_300_799));
        self.right_until = now + (Duration::from_secs(1) - Duration::from_nanos(since.subsec_nanos().into()));
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            self.lines.clear();
            self.lines.extend_from_slice(OK);
            self.lines.extend_from_slice(SERVER);
            let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(self.second));
            // Writing to memory does not fail.
            let _ = write!(self.lines, "Date: {date}\r\n");
        }
    }
}

impl WallClock {
    /// The wall time of a moment, before or after the pair was read.
    pub(super) fn wall(&self, moment: Moment) -> SystemTime {
        if moment >= self.moment {
            self.wall + (moment - self.moment)
        } else {
            self.wall.checked_sub(self.moment - moment).unwrap_or(UNIX_EPOCH)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(5_000_000_000 + millis * 1_000_000)
    }

    fn text(clock: &mut Clock, millis: u64) -> String {
        String::from_utf8(clock.date(at(millis)).to_vec()).unwrap()
    }

    #[test]
    fn wall_times_follow_the_pair() {
        let base = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut clock = Clock::new(at(0), base);
        assert_eq!(text(&mut clock, 999), "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert_eq!(text(&mut clock, 1_000), "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
        assert!(clock.server_and_date(at(1_000)).starts_with(b"Server: tidegate\r\nDate: "));
        clock.refresh(at(499), || panic!("young enough"));
        clock.refresh(at(500), || base + Duration::from_secs(60));
        assert_eq!(clock.wall(at(500)), base + Duration::from_secs(60));
        assert_eq!(clock.wall(at(400)), base + Duration::from_millis(59_900));
        assert_eq!(text(&mut clock, 500), "Date: Sun, 06 Nov 1994 08:50:37 GMT\r\n");
    }

    #[test]
    fn odd_clocks_have_a_date() {
        let mut clock = Clock::new(at(0), UNIX_EPOCH);
        assert_eq!(text(&mut clock, 0), "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        let far = UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert!(text(&mut Clock::new(at(0), far), 0).contains("9999"));
    }
}
