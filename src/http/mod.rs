//! HTTP/1.1 for servers.
//!
//! The codec is pure: [`request`], [`target`], [`range`], [`conditional`] and [`reply`] turn bytes into values and
//! back, and know no socket. On top of it, a session lives on each socket (see the module `session`), a [`Handler`]
//! answers, and the [`Door`] lets callers in. [`Files`] is the handler that serves a folder.

pub mod conditional;
pub mod listing;
pub mod mime;
pub mod range;
pub mod reply;
pub mod request;
pub mod status;
pub mod target;

mod busy;
mod clock;
mod exchange;
mod files;
mod handler;
mod open_files;
mod serve;
mod service;
mod session;

pub use files::Files;
pub use handler::{Answer, Handler};
pub use open_files::FileId;
pub use serve::{Server, serve_files};
pub use service::{Census, Door, Service, Settings};
