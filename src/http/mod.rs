//! HTTP/1.1.
//!
//! The [`codec`] is pure: bytes to values and back. Bodies are whole or streams ([`body`]). On top of both, the [`server`]
//! has a session on each socket and has a [`Handler`] answer; [`Files`] is the handler that serves a folder, and the
//! `router` (a feature) the one that has others by path and method.
//!
//! Names that other crates know, too, are those of the crate `http`: [`Method`], [`StatusCode`], [`Version`], [`header`].
//!
//! A server of this folder, each connection at 1 MB/s:
//!
//! ```no_run
//! use tidegate::http::{Files, Server, ServerSettings};
//! use tidegate::net::{Listeners, Pacing};
//! use tidegate::poller::file::Root;
//!
//! let pacing = Pacing::builder().connection(1_000_000).build();
//! let settings = ServerSettings { pacing, ..ServerSettings::default() };
//! let root = Root::open(".".as_ref())?;
//! let listeners = Listeners::bind(([127, 0, 0, 1], 8080).into(), 1)?;
//! Server::builder(Files::new(root)).settings(settings).start(listeners)?.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod body;
pub mod client;
pub mod codec;
pub mod files;
#[cfg(feature = "router")]
pub mod router;
pub mod server;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

pub use body::{
    Body, BodyError, BodyReader, BodyWriter, Intake, RequestBody, StreamBody, WholeBody, body_stream,
};
pub use client::{
    Client, ClientError, ClientSettings, RequestTask, Response, ResponseBody, get, post, request,
};
pub use codec::fields::{FieldValue, Fields};
pub use codec::request::{HeadLimits, Request};
pub use files::Files;
pub use server::{
    Census, ConnectionData, Door, Exchange, ExchangeContext, Extensions, Handler, Reply, Server,
    ServerBuilder, ServerFigures, ServerSettings, Service, Serving,
};
