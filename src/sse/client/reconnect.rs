//! When to connect again. Pure.

use std::time::Duration;

/// The least that a server can have us wait. One that asks for nothing at all, and closes after each event, would have us come
/// again and again without a pause.
const BASE_MIN: Duration = Duration::from_millis(100);

/// The waits between connections.
#[derive(Clone, Debug)]
pub(super) struct Reconnect {
    base: Duration,
    max: Duration,
    /// Attempts without an event since the last one.
    failures: u32,
}

impl Reconnect {
    pub(super) fn new(base: Duration, max: Duration) -> Reconnect {
        Reconnect { base, max, failures: 0 }
    }

    /// The server has said how long it wants clients to wait.
    pub(super) fn set_base(&mut self, base: Duration) {
        self.base = base.max(BASE_MIN);
    }

    /// Something came: the next failure is the first.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now; twice as long each time. `part`, between 0 and 1, is drawn at random for each wait: clients that
    /// lost a server together do not all come back together.
    pub(super) fn next_wait(&mut self, part: f64) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        // What the server asks for is kept even where it is more than our own limit.
        doubled.min(self.max.max(self.base)).mul_f64(1.0 + part / 2.0)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_grow_to_a_limit_and_start_anew_after_success() {
        let mut reconnect = Reconnect::new(ms(100), ms(1_000));
        let waits: Vec<Duration> = (0..6).map(|_| reconnect.next_wait(0.0)).collect();
        assert_eq!(waits, [ms(100), ms(200), ms(400), ms(800), ms(1_000), ms(1_000)]);
        assert_eq!(reconnect.failures(), 6);
        reconnect.succeeded();
        assert_eq!(reconnect.next_wait(1.0), ms(150));
        for _ in 0..100 {
            assert!(reconnect.next_wait(1.0) <= ms(1_500));
        }
    }

    #[test]
    fn what_the_server_asks_for_is_kept() {
        let mut reconnect = Reconnect::new(ms(100), ms(1_000));
        reconnect.set_base(ms(5_000));
        assert_eq!(reconnect.next_wait(0.0), ms(5_000));
        assert_eq!(reconnect.next_wait(0.0), ms(5_000));
        // Whatever it is.
        reconnect.set_base(Duration::from_millis(u64::MAX));
        assert!(reconnect.next_wait(1.0) >= Duration::from_millis(u64::MAX));
        reconnect.set_base(Duration::ZERO);
        reconnect.succeeded();
        assert_eq!(reconnect.next_wait(0.0), BASE_MIN);
    }
}
