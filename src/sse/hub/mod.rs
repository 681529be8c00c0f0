//! Hubs: what is published once goes to everybody who is subscribed, wherever their connections live.
//!
//! ```text
//! publish ─▶ State: number, ring, a line for each poller ─job─▶ Registry: the walk ─▶ Outlet ◀─pulled by a session
//! ```
//!
//! A publisher takes the hub's lock for a moment and hands the event on; it touches no subscriber. Each poller brings what
//! is in line to its own subscribers, whose sessions then pull at the speed of their clients.

mod figures;
mod kept;
mod member;
mod publish;
mod registry;
mod state;
mod subscription;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use figures::HubFigures;
pub use member::{Departure, SubscriberRecord};
pub use publish::{PublishError, PublishWaiting};
pub use subscription::Subscription;

use crate::sse::Event;
use crate::sse::delivery::Delivery;
use crate::sse::encoded::Encoded;
use figures::Counters;
use state::{State, ToTell, TopicKey};

/// Named topics, and who is subscribed to them. Cheap to clone; may be used from any thread, and by any number of servers.
///
/// ```no_run
/// use tidegate::http::{Exchange, Server};
/// use tidegate::net::Listeners;
/// use tidegate::sse::{Event, Hub};
///
/// let hub = Hub::new();
/// let handler = {
///     let hub = hub.clone();
///     move |exchange: &mut Exchange| {
///         let subscription = hub.subscribe(["news"]).resume(exchange.context.request());
///         exchange.context.reply = subscription.reply();
///     }
/// };
/// let listeners = Listeners::bind(([127, 0, 0, 1], 8080).into(), 2)?;
/// let server = Server::builder(handler).start(listeners)?;
/// hub.publish("news", Event::data("hello, all"))?;
/// server.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

/// A hub to be described.
pub struct HubBuilder {
    ring_events: usize,
    ring_bytes: usize,
    max_kept_bytes: usize,
    max_topics: usize,
    max_topics_each: usize,
    first_id: u64,
    delivery: Delivery,
    gap_event: String,
    on_left: Option<OnLeft>,
}

type OnLeft = Box<dyn Fn(&SubscriberRecord) + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    counters: Counters,
    delivery: Arc<Delivery>,
    gap_event: String,
    max_topics_each: usize,
    on_left: Option<OnLeft>,
    /// Subscribers for whom publishers wait.
    blocking: AtomicUsize,
}

impl Hub {
    /// A hub that keeps the last 1,000 events of each topic, up to 4 MiB, and 256 MiB in all.
    pub fn new() -> Hub {
        Hub::builder().build()
    }

    /// A hub to be described.
    pub fn builder() -> HubBuilder {
        HubBuilder {
            ring_events: 1_000,
            ring_bytes: 4 << 20,
            max_kept_bytes: 256 << 20,
            max_topics: 100_000,
            max_topics_each: 64,
            first_id: 1,
            delivery: Delivery::default(),
            gap_event: String::from("gap"),
            on_left: None,
        }
    }

    /// A client's way in.
    pub fn subscribe<N: AsRef<str>>(&self, topics: impl IntoIterator<Item = N>) -> Subscription {
        Subscription::new(self.0.clone(), topics.into_iter().map(|topic| topic.as_ref().into()).collect())
    }

    /// Drops the events that are kept of a topic: who comes back to it later is told of a gap. Where nobody is subscribed to
    /// it, it is no longer one of the topics that there may be.
    pub fn forget(&self, topic: &str) {
        self.0.lock().forget(topic);
    }

    /// No more: streams end once what waits has gone, with this as their last event, and who subscribes from now on is
    /// told not to come again (204).
    pub fn close(&self, last: Option<Event>) {
        let last = last.map(|last| Arc::new(Encoded::new(&last)));
        let mut to_tell = ToTell::new();
        let mut state = self.0.lock();
        state.close(last, &mut to_tell);
        let waiting = state.take_waiting();
        drop(state);
        to_tell.into_iter().for_each(registry::Registry::tell);
        publish::refuse(waiting);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed.is_some()
    }

    /// How it is doing.
    pub fn figures(&self) -> HubFigures {
        let topics = self.0.lock().topic_count();
        self.0.counters.read(topics)
    }
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

impl HubBuilder {
    /// How many of the latest events of a topic, and how many bytes of them, are kept for clients that come back.
    /// 1,000 and 4 MiB.
    #[must_use]
    pub fn ring(mut self, events: usize, bytes: usize) -> HubBuilder {
        (self.ring_events, self.ring_bytes) = (events, bytes);
        self
    }

    /// How many bytes of events all topics keep together; beyond, the oldest go first. 256 MiB.
    #[must_use]
    pub fn max_kept_bytes(mut self, bytes: usize) -> HubBuilder {
        self.max_kept_bytes = bytes;
        self
    }

    /// How many topics one client may subscribe to; one that wants more is answered 400. 64: where clients name them, none
    /// can take all that there may be.
    #[must_use]
    pub fn max_topics_each(mut self, topics: usize) -> HubBuilder {
        self.max_topics_each = topics;
        self
    }

    /// How many topics there may be at once; beyond, subscribing and publishing to a new one is refused. 100,000. A topic
    /// without subscribers and without events kept is forgotten; see also [`Hub::forget`].
    #[must_use]
    pub fn max_topics(mut self, topics: usize) -> HubBuilder {
        self.max_topics = topics;
        self
    }

    /// The id of the first event that has none of its own; 1. A server that numbers on where it stopped, or well above that,
    /// can tell a client from before that it missed something.
    #[must_use]
    pub fn first_id(mut self, id: u64) -> HubBuilder {
        self.first_id = id.max(1);
        self
    }

    /// How subscribers are sent their events, unless they are told otherwise.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> HubBuilder {
        self.delivery = delivery;
        self
    }

    /// The name of the event that tells a client that what it missed is kept no more; `gap`.
    #[must_use]
    pub fn gap_event(mut self, name: impl Into<String>) -> HubBuilder {
        self.gap_event = name.into();
        self
    }

    /// Called with what became of each subscriber, when it has left; on its poller's thread, so it must not block.
    #[must_use]
    pub fn on_left(mut self, call: impl Fn(&SubscriberRecord) + Send + Sync + 'static) -> HubBuilder {
        self.on_left = Some(Box::new(call));
        self
    }

    /// The hub.
    pub fn build(self) -> Hub {
        let ring = (self.ring_events, self.ring_bytes);
        let state = State::new(ring, self.max_kept_bytes, self.max_topics, self.first_id);
        Hub(Arc::new(Shared {
            state: Mutex::new(state),
            counters: Counters::default(),
            delivery: Arc::new(self.delivery),
            gap_event: self.gap_event,
            max_topics_each: self.max_topics_each,
            on_left: self.on_left,
            blocking: AtomicUsize::new(0),
        }))
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder").field("ring_events", &self.ring_events).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_blocking(&self) -> bool {
        self.blocking.load(Ordering::Relaxed) > 0
    }

    /// Lets publishers go on for whom there is room.
    fn pump(&self, topics: &[TopicKey]) {
        for topic in topics {
            loop {
                let mut state = self.lock();
                let Some((done, event)) = state.next_waiting(*topic) else { break };
                // One that was cancelled publishes nothing.
                let Some(done) = done.take() else { continue };
                let mut to_tell = ToTell::new();
                let seq = state.publish(*topic, Encoded::new(&event), &mut to_tell);
                drop(state);
                figures::add(&self.counters.published, 1);
                to_tell.into_iter().for_each(registry::Registry::tell);
                done.complete(Ok(seq));
            }
        }
    }

    fn pump_all(&self) {
        let topics = self.lock().topics_with_waiting();
        self.pump(&topics);
    }
}
