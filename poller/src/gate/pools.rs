//! Memory that sockets borrow while they write, kept between uses so that writing allocates nothing.
//!
//! Owns the spare [outboxes](Outgoing) and buffers of one poller. Bounded by count and by size: what does not fit is
//! freed. An idle socket holds none of it. The gate takes and gives back; the loop takes buffers for its sessions.

use super::outgoing::Outgoing;

/// Outboxes kept: more than a turn's events use at once, small enough (some 400 bytes each) not to matter.
const OUTGOING_KEPT: usize = 256;
/// Segments a pooled outbox keeps room for.
const SEGMENTS_KEPT: usize = 16;
/// Buffers kept, and the largest: together 1 MiB at most.
const BUFFERS_KEPT: usize = 16;
const BUFFER_KEPT_BYTES: usize = 64 * 1024;
/// What a new buffer has room for: a reply's head with some of a small body.
const BUFFER_BYTES: usize = 4 * 1024;

pub(crate) struct Pools {
    #[expect(clippy::vec_box, reason = "the box itself moves between the pool and the sockets")]
    outgoing: Vec<Box<Outgoing>>,
    buffers: Vec<Vec<u8>>,
}

impl Default for Pools {
    fn default() -> Pools {
        Pools { outgoing: Vec::with_capacity(OUTGOING_KEPT), buffers: Vec::with_capacity(BUFFERS_KEPT) }
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

    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    pub(crate) fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS_KEPT && (1..=BUFFER_KEPT_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}
