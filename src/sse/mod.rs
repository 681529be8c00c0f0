//! Server-sent events (WHATWG HTML, section 9.2): a server's side, and a client's.
//!
//! A [`Hub`] brings what is published to everybody who is subscribed; [`stream`] is one client's own stream, which a task
//! writes. Both send their events through an outlet, which has a bounded queue with a policy, heartbeats and rates, and
//! whose body is pulled by the client's session as the gate lets bytes out. [`connect`] is the client's side: it reads by the
//! [`Parser`], and connects again when it has to.
//!
//! This layer lies on [`http`](crate::http) and knows no sockets but by their wakers. Pure are `event`, `encoded`,
//! `parser`, `ring`, `queue`, `rate` and `outlet`.

mod client;
mod delivery;
mod encoded;
mod event;
mod heartbeat;
mod hub;
mod outlet;
mod parser;
mod queue;
mod rate;
mod reply;
mod ring;
mod source;
mod stream;
mod waiting;

pub use client::{EventSource, EventSourceError, EventSourceSettings, NextEvent, connect};
pub use delivery::Delivery;
pub use event::Event;
pub use hub::{
    Departure, Hub, HubBuilder, HubFigures, PublishError, PublishWaiting, SubscriberRecord, Subscription,
};
pub use parser::{Message, Parser, ParserLimits, TooLong};
pub use queue::{Bound, Policy};
pub use rate::EventRate;
pub use reply::last_event_id;
pub use stream::{EventWriter, SendEvent, stream, stream_with};
