//! Event-driven networking with byte-rate budgets.
//!
//! The sockets, the gate and the budgets are those of [`tidegate_poller`]; this crate puts protocols, records and
//! the program on top. Imports run one way: `cli → sse → http → net → task → runtime → poller`; [`record`] is read by
//! sinks and knows none of them.
//!
//! | feature | brings |
//! |---|---|
//! | `http` | HTTP/1.1: codec, sessions, the file server |
//! | `tls` | TLS for servers and clients |
//! | `router` | routes, what runs before and after them, extraction, budgets of routes |
//! | `json`, `multipart`, `compression` | for the router: JSON, forms with files, replies by gzip, brotli and zstd |
//! | `decompression` | for the client: replies by gzip, brotli and zstd |
//! | `sse` | server-sent events: hubs, streams, a client |
//! | `access-log` | access log lines and the thread that writes them |
//! | `cli` (default) | the program `tidegate`, with `http`, `tls`, `sse`, `decompression` and `access-log` |

pub mod net;
pub mod record;
pub mod runtime;
mod sync;
pub mod task;

#[cfg(feature = "http")]
pub mod http;

#[cfg(feature = "sse")]
pub mod sse;

#[cfg(feature = "cli")]
pub mod cli;

pub use tidegate_poller as poller;
