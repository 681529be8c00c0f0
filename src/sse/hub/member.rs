//! A subscriber's end of a hub: it joins when a session takes its stream, and leaves when that is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tidegate_poller::Pull;

use super::figures::add;
use super::registry::{Places, Registry};
use super::state::{Gap, Joined, ToTell, TopicKey};
use super::{Shared, state};
use crate::runtime::RuntimeHandle;
use crate::sse::Event;
use crate::sse::encoded::Encoded;
use crate::sse::outlet::Outlet;
use crate::sse::queue::Policy;
use crate::sse::source::Owner;

/// What became of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriberRecord {
    /// The topics that it was subscribed to.
    pub topics: Vec<Arc<str>>,
    /// Events that went to it.
    pub events_sent: u64,
    /// Events that were dropped because its queue was full.
    pub events_dropped: u64,
    /// Events whose place a later one has taken.
    pub events_conflated: u64,
    /// The most events that ever waited for it.
    pub queue_peak: usize,
    /// It came back too late for some events.
    pub had_gap: bool,
    /// Why it left.
    pub departure: Departure,
}

/// Why a subscriber left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// Its connection ended: it went away, or was cut by something else. The exchange's record tells.
    Connection,
    /// It was sent all there was, and its stream ended: the hub was closed, or the server stopped.
    Finished,
    /// It was cut because its queue was full.
    Overflow,
}

/// A subscriber's end of a hub.
pub(super) struct Membership {
    hub: Arc<Shared>,
    /// Until it joins: thousands may stay for long, and the hub knows the names.
    wish: Option<Box<Wish>>,
    joined: Option<Place>,
    had_gap: bool,
}

/// What it wants.
pub(super) struct Wish {
    pub(super) topics: Vec<Arc<str>>,
    /// The last event that it has.
    pub(super) after: Option<Box<str>>,
}

struct Place {
    registry: Arc<Registry>,
    topics: Arc<[TopicKey]>,
    /// Where it is among those of each.
    places: Places,
}

impl Membership {
    pub(super) fn new(hub: Arc<Shared>, wish: Wish) -> Membership {
        Membership { hub, wish: Some(Box::new(wish)), joined: None, had_gap: false }
    }
}

impl Owner for Membership {
    fn attached(&mut self, outlet: &Arc<Outlet>, runtime: &RuntimeHandle) -> bool {
        let hub = &self.hub;
        let make = |key| Registry::new(Arc::downgrade(hub), runtime, key);
        let blocking = outlet.delivery.policy == Policy::Block;
        let Some(wish) = self.wish.take() else { return false };
        let joined = hub.lock().join(&wish.topics, wish.after.as_deref(), blocking, runtime, make);
        let joined = match joined {
            Ok(joined) => joined,
            Err(state::Refused::Closed) => {
                outlet.finish(None);
                return true;
            }
            Err(state::Refused::TooManyTopics) => {
                log::warn!("a subscriber is cut: there are as many topics as there may be");
                return false;
            }
        };
        hub.counters.subscribed.fetch_add(1, Relaxed);
        if blocking {
            hub.blocking.fetch_add(1, Relaxed);
        }
        let Joined { registry, topics, seq, replay, gap } = joined;
        add(&hub.counters.replayed, replay.len() as u64);
        add(&hub.counters.gaps, u64::from(gap.is_some()));
        self.had_gap = gap.is_some();
        let gap = gap.map(|gap| tell_of(gap, &hub.gap_event));
        outlet.lock().replay(gap.into_iter().chain(replay));
        let places = registry.add(outlet, &topics, seq);
        self.joined = Some(Place { registry, topics, places });
        true
    }

    fn went(&self, events: u64, heartbeats: u64) {
        add(&self.hub.counters.delivered, events);
        add(&self.hub.counters.heartbeats, heartbeats);
    }

    fn has_room(&self) {
        if let Some(place) = &self.joined {
            self.hub.lock().set_full(&place.topics, false);
            self.hub.pump(&place.topics);
        }
    }

    fn shut_down(&self, outlet: &Arc<Outlet>) {
        let Some(place) = &self.joined else { return outlet.finish(None) };
        // What was published before still goes.
        let mut to_tell = ToTell::new();
        self.hub.lock().finish(place.registry.key(), outlet, &mut to_tell);
        to_tell.into_iter().for_each(Registry::tell);
    }

    fn left(&mut self, outlet: &Outlet) {
        let Some(place) = self.joined.take() else { return };
        place.registry.remove(&place.topics, &place.places);
        let hub = &self.hub;
        let (counts, queue_peak, finish, empty, was_full) = {
            let mut state = outlet.lock();
            let was_full = std::mem::take(&mut state.is_full);
            (state.counts, state.queue_peak(), state.finish, state.is_empty(), was_full)
        };
        let blocking = outlet.delivery.policy == Policy::Block;
        let mut state = hub.lock();
        let topics = hub.on_left.as_ref().map(|_| state.names(&place.topics));
        state.leave(place.registry.key(), &place.topics, blocking, was_full);
        drop(state);
        if blocking {
            hub.blocking.fetch_sub(1, Relaxed);
            hub.pump(&place.topics);
        }
        hub.counters.left.fetch_add(1, Relaxed);
        hub.counters.queue_peak.fetch_max(queue_peak as u64, Relaxed);
        let departure = match finish {
            Some(Pull::Failed) => Departure::Overflow,
            Some(_) if empty => Departure::Finished,
            _ => Departure::Connection,
        };
        if let (Some(on_left), Some(topics)) = (&hub.on_left, topics) {
            let record = SubscriberRecord {
                topics,
                events_sent: counts.sent,
                events_dropped: counts.dropped,
                events_conflated: counts.conflated,
                queue_peak,
                had_gap: self.had_gap,
                departure,
            };
            if catch_unwind(AssertUnwindSafe(|| on_left(&record))).is_err() {
                log::error!("what is called when a subscriber has left panicked");
            }
        }
    }
}

/// The event that says that some are missing. Its id lies before those that follow, so that whoever leaves here comes back
/// for them.
fn tell_of(gap: Gap, name: &str) -> Arc<Encoded> {
    let after = gap.resumes_after;
    Arc::new(Encoded::new(&Event::data(after.to_string()).with_name(name).with_id(after.to_string())))
}
