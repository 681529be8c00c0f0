//! HTTP/1.1 for servers.
//!
//! The codec is pure: [`request`], [`target`], [`range`], [`conditional`] and [`reply`] turn bytes into values and
//! back, and know no socket. On top of it, a session lives on each socket (see the module `session`), a [`Handler`]
//! answers, and the [`Door`] lets callers in. [`Files`] is the handler that serves a folder.
//!
//! A server of this folder, each connection at 1 MB/s:
//!
//! ```no_run
//! use tidegate::http::{Settings, serve_files};
//! use tidegate::net::{Listeners, PacingBuilder};
//! use tidegate::poller::{Config, file::Root};
//! use tidegate::record::Sinks;
//!
//! let pacing = PacingBuilder { connection: Some(1_000_000), ..PacingBuilder::default() }.build();
//! let settings = Settings { pacing, ..Settings::default() };
//! let root = Root::open(".".as_ref())?;
//! let listeners = Listeners::bind(([127, 0, 0, 1], 8080).into(), 1)?;
//! let server = serve_files(root, listeners, settings, Sinks::default(), 1_000, &Config::default())?;
//! server.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
mod door;
mod exchange;
mod files;
mod handler;
mod in_use;
mod serve;
mod service;
mod session;
mod work;

pub use door::Door;
pub use files::Files;
pub use handler::{ConnectionData, ExchangeContext, Extensions, Handler};
pub use in_use::FileId;
pub use serve::{Server, serve, serve_files};
pub use service::{Census, Service, Settings};
