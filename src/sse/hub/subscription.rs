//! A client's way into a hub: what it wants, and the reply that brings it.

use std::sync::Arc;

use super::Shared;
use super::member::{Membership, Wish};
use crate::http::{Reply, Request, StatusCode, StreamBody};
use crate::sse::delivery::Delivery;
use crate::sse::outlet::Outlet;
use crate::sse::reply::{last_event_id, stream_reply};
use crate::sse::source::OutletSource;

/// What a client wants of a hub; see [`Hub::subscribe`](super::Hub::subscribe).
#[must_use = "it becomes a subscriber when its reply is sent"]
pub struct Subscription {
    hub: Arc<Shared>,
    topics: Vec<Arc<str>>,
    after: Option<Box<str>>,
    delivery: Arc<Delivery>,
}

impl Subscription {
    pub(super) fn new(hub: Arc<Shared>, topics: Vec<Arc<str>>) -> Subscription {
        let delivery = hub.delivery.clone();
        Subscription { hub, topics, after: None, delivery }
    }

    /// Has it go on after the last event that the client has, as its `Last-Event-ID` says, or else the parameter
    /// `lastEventId` of the query: a page that connects anew by itself can give only that.
    pub fn resume(self, request: &Request) -> Subscription {
        match last_event_id(request) {
            Some(id) => self.resume_after(&id),
            None => self,
        }
    }

    /// Has it go on after this event; with the empty id, with what comes from now on.
    pub fn resume_after(mut self, id: &str) -> Subscription {
        self.after = (!id.is_empty()).then(|| id.into());
        self
    }

    /// How it is to be sent its events, in place of the hub's way. Many may share one.
    pub fn delivery(mut self, delivery: impl Into<Arc<Delivery>>) -> Subscription {
        self.delivery = delivery.into();
        self
    }

    /// The reply that makes the client a subscriber, from the moment at which it is sent. Limits and budgets of bytes are the
    /// reply's: [`Reply::limit`], [`Reply::budget`]. Of a hub that was closed: 204, which tells the client not to come again.
    /// Of more topics than [one client](super::HubBuilder::max_topics_each) may want: 400; where there are as many
    /// [as there may be](super::HubBuilder::max_topics): 503.
    pub fn reply(self) -> Reply {
        if self.topics.len() > self.hub.max_topics_each {
            return Reply::explained(
                StatusCode::BAD_REQUEST,
                "More topics than one client may subscribe to.",
            );
        }
        let state = self.hub.lock();
        let (is_closed, has_room) = (state.closed.is_some(), state.has_room_for(&self.topics));
        drop(state);
        if is_closed {
            return Reply::new(StatusCode::NO_CONTENT);
        }
        if !has_room {
            return Reply::error(StatusCode::SERVICE_UNAVAILABLE);
        }
        let outlet = Outlet::new(self.delivery);
        let member = Membership::new(self.hub, Wish { topics: self.topics, after: self.after });
        stream_reply(StreamBody::new(OutletSource::new(outlet, member)))
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("topics", &self.topics).finish_non_exhaustive()
    }
}
