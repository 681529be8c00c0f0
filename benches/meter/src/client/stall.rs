//! The client's own stall: without it a stall of the machine would be laid at the server's door. Pure.

use std::time::Duration;

/// Finds the longest time in which data could be there and the client did not look.
///
/// Two things keep it from looking: it returns late from waiting (the machine stood still, or another process had
/// the CPU), or it is busy with the sockets that were ready before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StallWatch {
    longest_ns: u64,
}

impl StallWatch {
    /// It waited from `before` on, at most `wait`, and came back at `back`.
    pub(super) fn waited(&mut self, before: u64, wait: u64, back: u64) {
        self.longest_ns = self.longest_ns.max((back - before).saturating_sub(wait + TIMER_SLACK));
    }

    /// It read from sockets from `back` until `done`.
    pub(super) fn worked(&mut self, back: u64, done: u64) {
        self.longest_ns = self.longest_ns.max(done - back);
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest_ns)
    }
}

/// What the kernel adds to any timeout, ns.
const TIMER_SLACK: u64 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_returns_and_long_work_count_and_waiting_does_not() {
        let mut watch = StallWatch::default();
        watch.waited(0, 5_000_000, 5_040_000);
        assert_eq!(watch.longest(), Duration::ZERO);
        watch.waited(0, 5_000_000, 8_050_000);
        assert_eq!(watch.longest(), Duration::from_millis(3));
        watch.worked(10_000_000, 14_000_000);
        assert_eq!(watch.longest(), Duration::from_millis(4));
    }
}
