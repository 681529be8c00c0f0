//! Monotonic time as a value.
//!
//! Everything below the loop takes the time as an argument; the loop reads the clock. A
//! [`Moment`] counts nanoseconds of the monotonic clock and is never zero, so that `Option<Moment>` costs eight
//! bytes: a moment that never came is absent, not zero.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
pub const NANOS_PER_MS: u64 = 1_000_000;

/// A point on the monotonic clock, in nanoseconds. Only differences mean something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// The earliest moment there is.
    pub const FIRST: Moment = Moment(NonZeroU64::MIN);

    /// The moment `nanos` nanoseconds on the clock; zero becomes [`Moment::FIRST`].
    pub fn from_nanos(nanos: u64) -> Moment {
        Moment(NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN))
    }

    /// Nanoseconds on the clock.
    pub fn as_nanos(self) -> u64 {
        self.0.get()
    }

    /// Nanoseconds from `earlier` to `self`; zero when `earlier` is later.
    pub fn nanos_since(self, earlier: Moment) -> u64 {
        self.as_nanos().saturating_sub(earlier.as_nanos())
    }

    /// The moment `nanos` nanoseconds later, or the end of time when it does not fit.
    pub fn plus_nanos(self, nanos: u64) -> Moment {
        Moment(self.0.saturating_add(nanos))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        self.plus_nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// The time between two moments; zero when `earlier` is in fact later.
    fn sub(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.as_nanos();
        write!(f, "{}.{:09}s", nanos / NANOS_PER_SEC, nanos % NANOS_PER_SEC)
    }
}
