//! Figures of a loop, for operators and tests: read from any thread, written by the loop.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a poller is doing. Each figure is exact; together they are of about one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollerFigures {
    /// Turns of the loop.
    pub turns: u64,
    /// Events the kernel told.
    pub events: u64,
    /// Of those, for a socket that was gone.
    pub stale_events: u64,
    /// How long a turn works, in nanoseconds: a moving average over sampled turns, weight 1/8.
    pub turn_ns: u64,
    /// How late timers fire, in nanoseconds: a moving average, weight 1/8. Turns at a shared budget are no timers.
    pub lateness_ns: u64,
    /// Timers fired.
    pub timers: u64,
    /// Connections accepted and given a session.
    pub accepted: u64,
    /// Connections turned away by an acceptor or by `max_sockets`.
    pub refused: u64,
    /// Connections shed because the process was out of descriptors.
    pub shed: u64,
    /// Sockets open now.
    pub open: u64,
    /// Sessions that panicked.
    pub panics: u64,
    /// Submissions turned away because the queue was full.
    pub submissions_refused: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) stale_events: AtomicU64,
    pub(crate) turn_ns: AtomicU64,
    pub(crate) lateness_ns: AtomicU64,
    pub(crate) timers: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) shed: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) submissions_refused: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> PollerFigures {
        PollerFigures {
            turns: self.turns.load(Relaxed),
            events: self.events.load(Relaxed),
            stale_events: self.stale_events.load(Relaxed),
            turn_ns: self.turn_ns.load(Relaxed),
            lateness_ns: self.lateness_ns.load(Relaxed),
            timers: self.timers.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            shed: self.shed.load(Relaxed),
            open: self.open.load(Relaxed),
            panics: self.panics.load(Relaxed),
            submissions_refused: self.submissions_refused.load(Relaxed),
        }
    }
}

/// Adds `n`. Only the loop's thread writes, so no read-modify-write is needed.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Moves an average an eighth of the way to `sample`.
pub(crate) fn average(counter: &AtomicU64, sample: u64) {
    let old = counter.load(Relaxed);
    counter.store(old - old / 8 + sample / 8, Relaxed);
}
