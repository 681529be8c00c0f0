//! The latest events of a topic, for clients that come back. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sse::encoded::Encoded;

/// The latest events of a topic.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Arc<Encoded>>,
    events_max: usize,
    bytes: usize,
    bytes_max: usize,
    /// The number of the latest event that is here no more.
    evicted: u64,
    /// How many have an id that is not their number.
    given: usize,
}

impl Ring {
    /// Of at most so many events and bytes. Of what came up to `evicted`, nothing is known.
    pub(super) fn new(events_max: usize, bytes_max: usize, evicted: u64) -> Ring {
        Ring { events: VecDeque::new(), events_max, bytes: 0, bytes_max, evicted, given: 0 }
    }

    pub(super) fn push(&mut self, event: Arc<Encoded>) {
        self.bytes += event.len();
        self.given += usize::from(event.given_id().is_some());
        self.events.push_back(event);
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            self.pop_oldest();
        }
    }

    fn pop_oldest(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.bytes -= oldest.len();
            self.given -= usize::from(oldest.given_id().is_some());
            self.evicted = oldest.seq;
        }
    }

    /// How many events are here, and how many bytes of them.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.events.len(), self.bytes)
    }

    /// Whether the event of this number, which was added once, is here.
    pub(super) fn has(&self, seq: u64) -> bool {
        self.events.front().is_some_and(|oldest| oldest.seq <= seq)
    }

    /// Gives up all events up to a number.
    pub(super) fn evict(&mut self, seq: u64) {
        while self.has(seq) {
            self.pop_oldest();
        }
    }

    /// The number of the event with this id, where it was given one and is here.
    pub(super) fn find(&self, id: &str) -> Option<u64> {
        if self.given == 0 {
            return None;
        }
        self.events.iter().rev().find(|event| event.given_id() == Some(id)).map(|event| event.seq)
    }

    /// Whether everything after a number is still here.
    pub(super) fn reaches_back_to(&self, seq: u64) -> bool {
        self.evicted <= seq
    }

    /// The number of the latest event that is here no more.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What came after a number, as far as it is here.
    pub(super) fn after(&self, seq: u64) -> impl Iterator<Item = &Arc<Encoded>> {
        let from = self.events.partition_point(|event| event.seq <= seq);
        self.events.range(from..)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Event;
    use crate::sse::encoded::numbered;

    fn ring(events: usize, bytes: usize, seqs: impl IntoIterator<Item = u64>) -> Ring {
        let mut ring = Ring::new(events, bytes, 0);
        for seq in seqs {
            ring.push(numbered(&Event::data("x"), seq));
        }
        ring
    }

    fn after(ring: &Ring, seq: u64) -> Vec<u64> {
        ring.after(seq).map(|event| event.seq).collect()
    }

    #[test]
    fn it_says_whether_something_is_missing() {
        // Other topics have the numbers between.
        let ring = ring(3, 1_000, [2, 4, 6, 8]);
        assert_eq!(after(&ring, 5), [6, 8]);
        assert!(ring.reaches_back_to(2) && ring.reaches_back_to(3) && !ring.reaches_back_to(1));
        assert_eq!(after(&ring, 0), [4, 6, 8]);
        assert_eq!(ring.after(8).count(), 0);
    }

    #[test]
    fn it_is_bounded_by_bytes_too() {
        let one = numbered(&Event::data("x"), 1).len();
        let kept = ring(100, 3 * one, 1..=9);
        assert_eq!(after(&kept, 0), [7, 8, 9]);
        assert!(!kept.reaches_back_to(5) && kept.reaches_back_to(6));
        let none = ring(0, 1_000, 1..=2);
        assert!(none.is_empty() && none.reaches_back_to(2) && !none.reaches_back_to(1));
    }

    #[test]
    fn given_ids_are_found_while_they_are_here() {
        let mut ring = ring(2, 1_000, [1]);
        assert_eq!(ring.find("1"), None);
        for (seq, id) in [(2, "b"), (3, "c"), (4, "d")] {
            ring.push(numbered(&Event::data("x").with_id(id), seq));
        }
        assert_eq!((ring.find("b"), ring.find("c"), ring.find("x")), (None, Some(3), None));
    }
}
