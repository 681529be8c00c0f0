//! The client: requests as tasks.
//!
//! A [`Client`] keeps connections for the next requests, a bounded number to each endpoint; a request is described, started,
//! and done when its [`Response`] is here, or the head of it where the body is read [as a stream](RequestTask::stream).
//! [`get`], [`post`] and [`request()`] use the client that the runtime keeps for all.
//!
//! ```text
//! client ─▶ endpoint (net::pool) ─▶ dial ─▶ session ─▶ attempt ─▶ intake
//!    ▲                                          │
//!    └── redirect, retry, stale connection ◀────┘
//! ```
//!
//! The codec of responses is pure ([`codec::response`](crate::http::codec::response)), and so are URLs, proxies, the rules of
//! asking again and the content codings. Sessions live on pollers; what they hand on goes to tasks on any thread. Every
//! attempt leaves its exchange record, every socket its connection record.

mod again;
mod attempt;
#[allow(clippy::module_inception)]
mod client;
#[cfg(feature = "decompression")]
mod content;
mod dial;
mod error;
mod intake;
mod past;
mod progress;
mod proxy;
mod request;
mod response;
mod session;
mod settings;
mod url;

pub use client::Client;
pub use error::ClientError;
pub use progress::UploadProgress;
pub use proxy::{BadProxy, Proxies, Proxy};
pub use request::{RequestTask, get, post, request};
pub use response::{Response, ResponseBody};
pub use settings::ClientSettings;
pub use url::{BadUrl, Scheme, Url};
