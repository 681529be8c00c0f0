//! What the rings of all topics keep together, and in which order they are to give it up: the oldest first, whosever it is.
//! Pure.

use std::collections::VecDeque;

use super::state::TopicKey;

/// What all rings keep. The rings own the events; this knows only where they are.
pub(super) struct Kept {
    events: usize,
    bytes: usize,
    bytes_max: usize,
    /// Topic and number of each, and of some that are there no more.
    order: VecDeque<(TopicKey, u64)>,
}

/// Events and bytes of one ring.
pub(super) type Size = (usize, usize);

/// So many that are there no more are not worth looking for.
const GONE_KEPT: usize = 64;

impl Kept {
    pub(super) fn new(bytes_max: usize) -> Kept {
        Kept { events: 0, bytes: 0, bytes_max, order: VecDeque::new() }
    }

    /// A ring has changed from one size to another.
    pub(super) fn changed(&mut self, before: Size, after: Size) {
        self.events = self.events + after.0 - before.0;
        self.bytes = self.bytes + after.1 - before.1;
    }

    /// An event was added to a topic's ring. `is_there` says whether one still is.
    pub(super) fn added(&mut self, topic: TopicKey, seq: u64, is_there: impl Fn(TopicKey, u64) -> bool) {
        if self.order.len() > 2 * self.events + GONE_KEPT {
            self.order.retain(|(topic, seq)| is_there(*topic, *seq));
        }
        self.order.push_back((topic, seq));
    }

    /// What is to go next, as long as there is too much. It may be gone already.
    pub(super) fn next_beyond(&mut self) -> Option<(TopicKey, u64)> {
        if self.bytes > self.bytes_max { self.order.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let mut kept = Kept::new(250);
        for seq in 1..=4 {
            kept.changed((0, 0), (1, 100));
            kept.added(seq as usize % 2, seq, |_, _| true);
        }
        assert_eq!(kept.next_beyond(), Some((1, 1)));
        // That one was gone already, and nothing has changed.
        assert_eq!(kept.next_beyond(), Some((0, 2)));
        kept.changed((1, 100), (0, 0));
        assert_eq!(kept.next_beyond(), Some((1, 3)));
        kept.changed((1, 100), (0, 0));
        assert_eq!(kept.next_beyond(), None);
    }

    #[test]
    fn what_rings_have_given_up_by_themselves_does_not_fill_it() {
        let mut kept = Kept::new(1_000);
        for seq in 1..=100_000 {
            kept.changed((usize::from(seq > 1), 10), (1, 10));
            kept.added(0, seq, |_, there| there + 1 >= seq);
            assert!(kept.order.len() <= 2 + GONE_KEPT + 1, "{}", kept.order.len());
        }
    }
}
