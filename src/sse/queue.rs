//! What waits to be sent to one client: bounded, with a policy for what is beyond. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sse::encoded::Encoded;

/// What becomes of an event for which a client's queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Whoever publishes waits until the slowest client has room.
    Block,
    /// The oldest event that waits is dropped, and the client is told how many were.
    #[default]
    DropOldest,
    /// The new one is dropped, and the client is told how many were.
    DropNewest,
    /// A new event takes the place of one with the same key that still waits, room or not: for values of which only the
    /// latest counts. Where none has its key and there is no room, the oldest is dropped.
    Conflate,
    /// The client's stream is cut. It comes back, says what it has, and is sent what it missed, if the ring reaches so far:
    /// for events that make sense only all together.
    Disconnect,
}

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Events.
    pub events: usize,
    /// Bytes of them. An event larger than that waits alone.
    pub bytes: usize,
}

impl Default for Bound {
    /// 256 events, 256 KiB.
    fn default() -> Bound {
        Bound { events: 256, bytes: 256 * 1024 }
    }
}

/// What a push came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// In the place of an older one.
    Conflated,
    /// So many others were dropped for it.
    DroppedOldest(u64),
    /// It was dropped.
    DroppedNewest,
    /// There was no room, and the policy has no other remedy.
    Overflow,
}

#[derive(Debug)]
enum Item {
    Event(Arc<Encoded>),
    /// Here so many were dropped.
    Lagged(u64),
}

/// What waits to be sent to one client.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// Thousands of queues lie about: counts of half the width.
    events: u32,
    /// So far the first item has gone. It stays: an event that was begun has to end.
    sent: u32,
    /// The most events that waited at once.
    peak: u32,
    /// A later event has taken the place of an earlier one.
    out_of_order: bool,
}

/// What is next.
pub(super) enum Next<'a> {
    Event(&'a [u8]),
    Lagged(u64),
    Nothing,
}

impl Queue {
    pub(super) fn push(&mut self, event: &Arc<Encoded>, policy: Policy, bound: Bound) -> Pushed {
        if policy == Policy::Conflate && self.conflate(event) {
            return Pushed::Conflated;
        }
        if self.has_room(event.len(), bound) {
            self.add(event.clone());
            return Pushed::Queued;
        }
        match policy {
            Policy::Block | Policy::Disconnect => Pushed::Overflow,
            Policy::DropNewest => {
                self.note_lag_at(self.items.len(), 1);
                Pushed::DroppedNewest
            }
            Policy::DropOldest | Policy::Conflate => self.push_over(event, bound),
        }
    }

    /// Adds an event whatever the bound.
    pub(super) fn add(&mut self, event: Arc<Encoded>) {
        self.events += 1;
        self.bytes += event.len();
        self.peak = self.peak.max(self.events);
        // One is what waits of a client that keeps up.
        if self.items.capacity() == 0 {
            self.items.reserve_exact(1);
        }
        self.items.push_back(Item::Event(event));
    }

    /// Drops the oldest until there is room; the new one, if there is nothing to drop.
    fn push_over(&mut self, event: &Arc<Encoded>, bound: Bound) -> Pushed {
        let mut dropped = 0;
        while !self.has_room(event.len(), bound) {
            let Some(at) = self.oldest_whole() else {
                self.note_lag_at(self.items.len(), dropped + 1);
                return if dropped == 0 { Pushed::DroppedNewest } else { Pushed::DroppedOldest(dropped + 1) };
            };
            if let Some(Item::Event(event)) = self.items.remove(at) {
                self.events -= 1;
                self.bytes -= event.len();
                dropped += 1;
                self.note_lag_at(at, 1);
            }
        }
        self.add(event.clone());
        Pushed::DroppedOldest(dropped)
    }

    /// Where the oldest event is of which nothing has gone.
    fn oldest_whole(&self) -> Option<usize> {
        let from = usize::from(self.sent > 0);
        (from..self.items.len()).find(|&at| matches!(self.items[at], Item::Event(_)))
    }

    /// Events are missing before the item at `at`; a note beside it is added to.
    fn note_lag_at(&mut self, at: usize, lost: u64) {
        if let Some(Item::Lagged(n)) = at.checked_sub(1).and_then(|before| self.items.get_mut(before)) {
            *n += lost;
        } else if let Some(Item::Lagged(n)) = self.items.get_mut(at) {
            *n += lost;
        } else {
            self.items.insert(at, Item::Lagged(lost));
        }
    }

    fn conflate(&mut self, event: &Arc<Encoded>) -> bool {
        let from = usize::from(self.sent > 0);
        for item in self.items.range_mut(from..).rev() {
            if let Item::Event(old) = item
                && old.same_key(event)
            {
                self.bytes = self.bytes - old.len() + event.len();
                *old = event.clone();
                self.out_of_order = true;
                return true;
            }
        }
        false
    }

    /// Room for so many bytes more, or none at all waits.
    pub(super) fn has_room(&self, bytes: usize, bound: Bound) -> bool {
        self.events == 0 || (self.len() < bound.events && self.bytes.saturating_add(bytes) <= bound.bytes)
    }

    /// Whether at most half of what may wait does.
    pub(super) fn is_half_empty(&self, bound: Bound) -> bool {
        self.len() <= bound.events / 2 && self.bytes <= bound.bytes / 2
    }

    /// What of the first item has not gone yet.
    pub(super) fn next(&self) -> Next<'_> {
        match self.items.front() {
            None => Next::Nothing,
            Some(Item::Lagged(n)) => Next::Lagged(*n),
            Some(Item::Event(event)) => Next::Event(&event.bytes()[self.start(event)..]),
        }
    }

    /// Whether the first item has begun to go.
    pub(super) fn is_begun(&self) -> bool {
        self.sent > 0
    }

    /// Where the rest of the first event starts. One that overtook others goes without its id: a client that left after
    /// it, and came back with that id, would miss those it overtook.
    fn start(&self, event: &Encoded) -> usize {
        if self.sent > 0 || !self.out_of_order {
            return self.sent as usize;
        }
        let is_earlier = |item: &Item| matches!(item, Item::Event(other) if other.seq < event.seq);
        if self.items.iter().skip(1).any(is_earlier) { event.id_len() } else { 0 }
    }

    /// So many bytes of the first event have gone. Says whether that was all of it.
    pub(super) fn advance(&mut self, bytes: usize) -> bool {
        let Some(Item::Event(event)) = self.items.front() else { return false };
        let (sent, len) = (self.start(event) + bytes, event.len());
        if sent < len {
            self.sent = sent as u32;
            return false;
        }
        self.sent = 0;
        self.items.pop_front();
        self.events -= 1;
        self.bytes -= len;
        self.tidy();
        true
    }

    /// The client has been told of what it missed.
    pub(super) fn told_lag(&mut self) {
        if matches!(self.items.front(), Some(Item::Lagged(_))) {
            self.items.pop_front();
            self.tidy();
        }
    }

    /// Drops all that waits, an event that has begun apart. Says how many events that were.
    pub(super) fn clear(&mut self) -> u64 {
        let kept = u32::from(self.sent > 0);
        let before = self.events;
        self.items.truncate(kept as usize);
        self.events = kept;
        self.bytes = match self.items.front() {
            Some(Item::Event(event)) => event.len(),
            _ => 0,
        };
        self.tidy();
        u64::from(before - self.events)
    }

    /// An empty queue keeps no memory: thousands are empty most of the time, and to make room again costs little beside
    /// the write that follows.
    fn tidy(&mut self) {
        if self.items.is_empty() {
            self.out_of_order = false;
            self.items = VecDeque::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.events as usize
    }

    pub(super) fn peak(&self) -> usize {
        self.peak as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sse::Event;
    use crate::sse::encoded::numbered;

    const BOUND: Bound = Bound { events: 3, bytes: 1_000 };

    fn event(seq: u64, key: &str) -> Arc<Encoded> {
        numbered(&Event::data("x").with_key(key), seq)
    }

    /// What a client would be sent: ids, `-` where there is none, `lost N`.
    fn drain(queue: &mut Queue) -> Vec<String> {
        let mut sent = Vec::new();
        loop {
            match queue.next() {
                Next::Nothing => return sent,
                Next::Lagged(n) => {
                    sent.push(format!("lost {n}"));
                    queue.told_lag();
                }
                Next::Event(bytes) => {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap_or("-");
                    sent.push(id.to_owned());
                    let len = bytes.len();
                    assert!(!queue.advance(1) && queue.advance(len - 1));
                }
            }
        }
    }

    fn filled(policy: Policy, seqs: std::ops::RangeInclusive<u64>) -> (Queue, Vec<Pushed>) {
        let mut queue = Queue::default();
        let pushed = seqs.map(|seq| queue.push(&event(seq, &seq.to_string()), policy, BOUND)).collect();
        (queue, pushed)
    }

    #[test]
    fn the_oldest_go_first_and_are_counted_in_one_notice() {
        let (mut queue, pushed) = filled(Policy::DropOldest, 1..=5);
        assert_eq!(pushed[2..], [Pushed::Queued, Pushed::DroppedOldest(1), Pushed::DroppedOldest(1)]);
        assert_eq!((queue.len(), queue.peak()), (3, 3));
        assert_eq!(drain(&mut queue), ["lost 2", "3", "4", "5"]);
    }

    #[test]
    fn an_empty_queue_keeps_no_memory() {
        for policy in [Policy::DropOldest, Policy::DropNewest, Policy::Conflate] {
            let (mut queue, _) = filled(policy, 1..=1);
            assert_eq!(queue.items.capacity(), 1, "{policy:?}");
            for seq in 2..=9 {
                queue.push(&event(seq, "x"), policy, BOUND);
            }
            drain(&mut queue);
            assert_eq!(queue.items.capacity(), 0, "{policy:?}");
        }
        let (mut queue, _) = filled(Policy::Disconnect, 1..=3);
        queue.clear();
        assert_eq!(queue.items.capacity(), 0);
    }

    #[test]
    fn the_newest_are_missing_where_they_would_have_come() {
        let (mut queue, pushed) = filled(Policy::DropNewest, 1..=5);
        assert_eq!(pushed[3..], [Pushed::DroppedNewest; 2]);
        assert_eq!(drain(&mut queue), ["1", "2", "3", "lost 2"]);
    }

    #[test]
    fn an_event_that_has_begun_is_never_dropped() {
        for policy in [Policy::DropOldest, Policy::Conflate] {
            let (mut queue, _) = filled(policy, 1..=3);
            assert!(!queue.advance(1));
            queue.push(&event(4, "1"), policy, BOUND);
            assert!(!queue.advance(1), "{policy:?}");
            let rest = event(1, "1").len() - 2;
            assert!(queue.advance(rest), "{policy:?}");
            assert_eq!(drain(&mut queue), ["lost 1", "3", "4"], "{policy:?}");
        }
    }

    #[test]
    fn the_latest_of_a_key_takes_the_place_of_the_earlier_without_overtaking_by_id() {
        let mut queue = Queue::default();
        for (seq, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "a")] {
            queue.push(&event(seq, key), Policy::Conflate, BOUND);
        }
        assert_eq!(queue.len(), 2);
        // 4 goes in the place of 1, and its id would say that 2 is there.
        assert_eq!(drain(&mut queue), ["-", "2"]);
        queue.push(&event(5, "a"), Policy::Conflate, BOUND);
        assert_eq!(drain(&mut queue), ["5"]);
    }

    #[test]
    fn who_must_not_lose_is_told_that_there_is_no_room() {
        for policy in [Policy::Block, Policy::Disconnect] {
            let (mut queue, pushed) = filled(policy, 1..=4);
            assert_eq!(pushed[3], Pushed::Overflow);
            assert_eq!(queue.clear(), 3);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn bytes_bound_it_too_and_a_large_event_waits_alone() {
        let bound = Bound { events: 100, bytes: 50 };
        let large = numbered(&Event::data("x".repeat(80)), 9);
        let mut queue = Queue::default();
        assert_eq!(queue.push(&large, Policy::DropOldest, bound), Pushed::Queued);
        assert_eq!(queue.push(&event(10, ""), Policy::DropOldest, bound), Pushed::DroppedOldest(1));
        assert_eq!(queue.push(&large, Policy::DropNewest, bound), Pushed::DroppedNewest);
        assert_eq!(drain(&mut queue), ["lost 1", "10", "lost 1"]);
    }

    proptest! {
        /// Every event is sent, counted in a notice, or replaced by a later one of its key.
        #[test]
        fn nothing_is_lost_without_a_word(
            steps in prop::collection::vec((0_u8..3, 0_u8..4), 0..80),
            policy in prop::sample::select(vec![Policy::DropOldest, Policy::DropNewest, Policy::Conflate]),
        ) {
            let mut queue = Queue::default();
            let (mut pushed, mut conflated, mut sent, mut lost) = (0, 0, 0, 0);
            for (step, key) in steps {
                if step > 0 {
                    pushed += 1;
                    let what = queue.push(&event(pushed, &key.to_string()), policy, BOUND);
                    conflated += u64::from(what == Pushed::Conflated);
                } else {
                    match queue.next() {
                        Next::Nothing => {}
                        Next::Lagged(n) => { lost += n; queue.told_lag(); }
                        Next::Event(bytes) => { let len = bytes.len().min(7); sent += u64::from(queue.advance(len)); }
                    }
                }
                prop_assert!(queue.len() <= BOUND.events);
            }
            loop {
                match queue.next() {
                    Next::Nothing => break,
                    Next::Lagged(n) => { lost += n; queue.told_lag(); }
                    Next::Event(bytes) => { let len = bytes.len(); sent += u64::from(queue.advance(len)); }
                }
            }
            prop_assert_eq!(pushed, sent + lost + conflated);
        }
    }
}
