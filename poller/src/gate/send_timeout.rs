//! The send timeout as a value, small enough that every socket can have one.
//!
//! It must not know a timer: what runs it is the module `send_timer`.

use std::time::Duration;

use crate::moment::NANOS_PER_MS;

/// A send timeout in two bytes, which every socket has: steps of 10 ms, or of a second with the top bit set. Rounded
/// up; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SendTimeout(u16);

impl SendTimeout {
    const SECONDS: u16 = 1 << 15;
    const STEP_MS: u128 = 10;

    pub(super) fn new(timeout: Duration) -> SendTimeout {
        let steps = timeout.as_millis().div_ceil(Self::STEP_MS);
        SendTimeout(match u16::try_from(steps) {
            Ok(steps) if steps < Self::SECONDS => steps,
            _ => {
                let seconds = timeout.as_millis().div_ceil(1_000);
                Self::SECONDS | u16::try_from(seconds).unwrap_or(u16::MAX).min(Self::SECONDS - 1)
            }
        })
    }

    pub(super) fn nanos(self) -> Option<u64> {
        match self.0 {
            0 => None,
            steps if steps < Self::SECONDS => Some(u64::from(steps) * Self::STEP_MS as u64 * NANOS_PER_MS),
            seconds => Some(u64::from(seconds & !Self::SECONDS) * 1_000 * NANOS_PER_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_timeouts_fit_into_two_bytes() {
        for (asked, kept) in [
            (0, None),
            (1, Some(10)),
            (10, Some(10)),
            (2_001, Some(2_010)),
            (60_000, Some(60_000)),
            (327_670, Some(327_670)),
            (327_671, Some(328_000)),
            (600_001, Some(601_000)),
            (7_200_000, Some(7_200_000)),
            (32_400_000, Some(32_400_000)),
            (u64::MAX, Some(32_767_000)),
        ] {
            let timeout = SendTimeout::new(Duration::from_millis(asked));
            assert_eq!(timeout.nanos(), kept.map(|millis: u64| millis * NANOS_PER_MS), "{asked} ms");
        }
    }
}
