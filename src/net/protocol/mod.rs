//! Protocols of one's own: requests and replies over TCP.
//!
//! Give a [`Codec`], and get a [`Client`] whose requests are tasks and a [`Server`] whose exchanges are series, with
//! pools, timeouts, budgets and records like those of the protocols that come with the crate.
//!
//! The codec is pure. Sessions drive it on a poller's thread and hand what comes of it to tasks, which may be on any; the
//! way back is a job for the session's poller. This module knows no particular protocol, and no thread but by the
//! runtime.

mod builder;
mod client;
mod client_session;
mod codec;
mod error;
mod inbound;
mod server;
mod server_session;

pub use builder::ServerBuilder;
pub use client::{Client, ClientSettings, RequestTask, Target};
pub use codec::{Codec, Decoded, Malformed, Outgoing};
pub use error::ClientError;
pub use server::{Exchange, ExchangeContext, Server, ServerSettings, Shutdown};
