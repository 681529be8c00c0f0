//! What a hub has counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a hub is doing: sums since it was made, but for `subscribers`, `queue_peak` and `topics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubFigures {
    /// Topics that there are.
    pub topics: u64,
    /// Clients that are subscribed now.
    pub subscribers: u64,
    /// Clients that ever were.
    pub subscribed: u64,
    /// Events that were published.
    pub published: u64,
    /// Events that were not, because a client with policy [`Block`](crate::sse::Policy::Block) had no room.
    pub congested: u64,
    /// Events that went to clients, replayed ones included.
    pub delivered: u64,
    /// Events that were put in line for clients that came back.
    pub replayed: u64,
    /// Clients that came back too late, or with an id that is not known.
    pub gaps: u64,
    /// Events that were dropped because a client's queue was full, the oldest or the newest.
    pub dropped: u64,
    /// Events whose place a later one of their key has taken.
    pub conflated: u64,
    /// Clients that were cut because their queue was full: because they were slow.
    pub cut_slow: u64,
    /// The same, because a rate or budget of ours held them back.
    pub cut_throttled: u64,
    /// Heartbeats that went.
    pub heartbeats: u64,
    /// The most events that ever waited for one client, of those that have left.
    pub queue_peak: u64,
}

/// What counts them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) subscribed: AtomicU64,
    pub(super) left: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) congested: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) conflated: AtomicU64,
    pub(super) cut_slow: AtomicU64,
    pub(super) cut_throttled: AtomicU64,
    pub(super) heartbeats: AtomicU64,
    pub(super) queue_peak: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self, topics: usize) -> HubFigures {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        // Who left had subscribed before: read in this order the difference is never negative.
        let left = get(&self.left);
        let subscribed = get(&self.subscribed);
        HubFigures {
            topics: topics as u64,
            subscribers: subscribed - left,
            subscribed,
            published: get(&self.published),
            congested: get(&self.congested),
            delivered: get(&self.delivered),
            replayed: get(&self.replayed),
            gaps: get(&self.gaps),
            dropped: get(&self.dropped),
            conflated: get(&self.conflated),
            cut_slow: get(&self.cut_slow),
            cut_throttled: get(&self.cut_throttled),
            heartbeats: get(&self.heartbeats),
            queue_peak: get(&self.queue_peak),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Relaxed);
    }
}
