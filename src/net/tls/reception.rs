//! What a server keeps of its callers' handshakes: how many came to what, and what is said to those who speak no TLS.
//!
//! All connections of a server share it, whatever its settings become. It knows no protocol above: what such a caller is
//! told, the protocol says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Makes the answer to a caller that speaks without TLS, of the first bytes that came; `None`: they are nothing that it
/// knows. It goes as it is, through the gate, then the connection ends.
pub type PlainAnswer = fn(&[u8]) -> Option<Vec<u8>>;

/// What a server's handshakes came to, since it was made. Callers that left in the middle, or took too long, are in none of
/// these: their records tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFigures {
    /// Handshakes that were done.
    pub ready: u64,
    /// Of these, how many took an earlier session up again.
    pub resumed: u64,
    /// Handshakes that failed: by an alert of either side, or because what came was not TLS.
    pub failed: u64,
    /// Of these, how many were told in the protocol's own words that it is spoken over TLS here.
    pub answered_plainly: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Reception {
    counters: Arc<Counters>,
    plain_answer: Option<PlainAnswer>,
}

#[derive(Debug, Default)]
struct Counters {
    ready: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    answered_plainly: AtomicU64,
}

impl Reception {
    pub(super) fn answering_plainly(&self, answer: PlainAnswer) -> Reception {
        Reception { counters: self.counters.clone(), plain_answer: Some(answer) }
    }

    /// What a caller is told that began with `first`.
    pub(super) fn answer_plainly(&self, first: &[u8]) -> Option<Vec<u8>> {
        let answer = self.plain_answer?(first)?;
        self.counters.answered_plainly.fetch_add(1, Relaxed);
        Some(answer)
    }

    /// A handshake was done.
    pub(super) fn is_ready(&self, resumed: bool) {
        self.counters.ready.fetch_add(1, Relaxed);
        self.counters.resumed.fetch_add(u64::from(resumed), Relaxed);
    }

    /// One failed.
    pub(super) fn has_failed(&self) {
        self.counters.failed.fetch_add(1, Relaxed);
    }

    pub(super) fn figures(&self) -> TlsFigures {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        TlsFigures {
            // Read before the sums that they are part of.
            resumed: get(&self.counters.resumed),
            answered_plainly: get(&self.counters.answered_plainly),
            ready: get(&self.counters.ready),
            failed: get(&self.counters.failed),
        }
    }
}
