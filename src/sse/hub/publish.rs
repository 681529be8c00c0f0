//! Publishing: at once, or as a task that waits where subscribers have publishers wait.

use std::fmt;
use std::sync::Arc;

use super::registry::Registry;
use super::state::{ToTell, Waits};
use super::{Hub, Shared, figures};
use crate::sse::Event;
use crate::sse::encoded::Encoded;
use crate::task::{Continuation, Task};

/// Why an event was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// A subscriber with policy [`Block`](crate::sse::Policy::Block) has no room, or a poller has not come round yet to 65,536
    /// events, or 64 MiB of them, that its subscribers are to get; [`Hub::publish_waiting`] waits for it.
    Congested,
    /// There are as many topics as there may be, and this would be one more.
    TooManyTopics,
    /// The hub was closed.
    Closed,
}

/// What comes of publishing: the event's number, which is its id unless it has its own.
pub(super) type Sent = Result<u64, PublishError>;

impl Hub {
    /// Publishes an event now. It is encoded once, however many get it, and gets the next number of this hub as its id,
    /// unless it has one. All who are subscribed to the topic get the topic's events in the same order.
    pub fn publish(&self, topic: &str, event: Event) -> Result<u64, PublishError> {
        let sent = self.publish_now(topic, &event);
        figures::add(&self.0.counters.congested, u64::from(sent == Err(PublishError::Congested)));
        sent
    }

    fn publish_now(&self, topic: &str, event: &Event) -> Sent {
        // Not under the lock.
        let encoded = Encoded::new(event);
        let mut state = self.0.lock();
        if state.closed.is_some() {
            return Err(PublishError::Closed);
        }
        let key = state.topic(topic).ok_or(PublishError::TooManyTopics)?;
        if state.is_congested(key) || state.has_waiting(key) {
            return Err(PublishError::Congested);
        }
        let mut to_tell = ToTell::new();
        let seq = state.publish(key, encoded, &mut to_tell);
        drop(state);
        figures::add(&self.0.counters.published, 1);
        to_tell.into_iter().for_each(Registry::tell);
        Ok(seq)
    }

    /// Publishes an event once every subscriber with policy [`Block`](crate::sse::Policy::Block) has room, and the pollers have
    /// come round to enough of those before. Those who wait for
    /// a topic do so in their order. Cancelled, it publishes nothing.
    pub fn publish_waiting(&self, topic: &str, event: Event) -> PublishWaiting {
        PublishWaiting { hub: self.0.clone(), topic: topic.into(), event: Box::new(event) }
    }
}

/// See [`Hub::publish_waiting`].
#[must_use = "a task does nothing until it is started"]
pub struct PublishWaiting {
    hub: Arc<Shared>,
    topic: Box<str>,
    event: Box<Event>,
}

impl Task for PublishWaiting {
    type Output = Sent;

    fn dispatch(self, done: Continuation<Sent>) {
        let hub = Hub(self.hub);
        if !hub.0.has_blocking() {
            match hub.publish_now(&self.topic, &self.event) {
                Err(PublishError::Congested) => {}
                sent => return done.complete(sent),
            }
        }
        // Before the lock: one that is cancelled already is dropped here.
        let done = done.park();
        let mut state = hub.0.lock();
        let topic = match state.closed {
            Some(_) => Err(PublishError::Closed),
            None => state.topic(&self.topic).ok_or(PublishError::TooManyTopics),
        };
        match topic {
            Err(error) => {
                drop(state);
                let _ = done.complete(Err(error));
            }
            Ok(topic) => {
                state.wait(topic, (done, self.event));
                drop(state);
                hub.0.pump(&[topic]);
            }
        }
    }
}

impl fmt::Debug for PublishWaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishWaiting").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The hub was closed while they waited.
pub(super) fn refuse(waiting: Vec<Waits>) {
    for (done, _) in waiting {
        let _ = done.complete(Err(PublishError::Closed));
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PublishError::Congested => {
                "a subscriber for whom publishers wait has no room, or a poller is far behind"
            }
            PublishError::TooManyTopics => "there are as many topics as there may be",
            PublishError::Closed => "the hub was closed",
        })
    }
}

impl std::error::Error for PublishError {}
