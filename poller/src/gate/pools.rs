//! Memory that sockets borrow while they write, kept between uses so that writing allocates nothing.
//!
//! Owns the spare [outboxes](Outgoing) of one poller, and its [buffers](Buffers). Bounded: what does not fit is freed. An
//! idle socket holds none of it. The gate takes and gives back; the loop takes buffers for its sessions.

use super::outgoing::Outgoing;
use crate::buffers::Buffers;

/// Outboxes kept: more than a turn's events use at once, small enough (some 400 bytes each) not to matter.
const OUTGOING_KEPT: usize = 256;
/// Segments a pooled outbox keeps room for.
const SEGMENTS_KEPT: usize = 16;

pub(crate) struct Pools {
    #[expect(clippy::vec_box, reason = "the box itself moves between the pool and the sockets")]
    outgoing: Vec<Box<Outgoing>>,
    pub(crate) buffers: Buffers,
}

impl Default for Pools {
    fn default() -> Pools {
        Pools { outgoing: Vec::with_capacity(OUTGOING_KEPT), buffers: Buffers::default() }
    }
}

impl Pools {
    pub(super) fn take_outgoing(&mut self) -> Box<Outgoing> {
        self.outgoing.pop().unwrap_or_default()
    }

    /// Takes back an outbox that was emptied and disarmed.
    pub(super) fn give_outgoing(&mut self, mut outgoing: Box<Outgoing>) {
        if self.outgoing.len() < OUTGOING_KEPT {
            outgoing.outbox.trim(SEGMENTS_KEPT);
            self.outgoing.push(outgoing);
        }
    }
}
