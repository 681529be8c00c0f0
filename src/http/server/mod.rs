//! The server: sessions that read requests and send replies, and the threads they live on.
//!
//! The [`Door`] lets callers in while there is room; each gets a session (see the module `session`), which has a
//! [`Handler`] answer. What they share is the [`Service`] of their poller.

mod builder;
mod busy;
mod census;
mod clock;
mod door;
mod exchange;
mod handler;
mod in_use;
mod incoming;
#[cfg(feature = "tls")]
mod plain;
pub mod reply;
mod service;
mod session;
mod work;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_poller::Config;
use tidegate_poller::file::Root;

use crate::http::Files;
use crate::net::Listeners;
use crate::record::Sinks;
use crate::runtime::{Handles, Runtime, RuntimeHandle};

pub use builder::{ServerBuilder, Serving};
pub use census::{Census, ServerFigures};
pub use door::Door;
pub use handler::{ConnectionData, ExchangeContext, Extensions, Handler};
pub use reply::Reply;
pub use service::{Service, Settings};

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    census: Arc<Census>,
    runtime: Runtime,
}

/// Serves the files below `root`; else as [`serve`].
///
/// # Errors
/// When a thread cannot be started or a poller not be made.
pub fn serve_files(
    root: Root,
    listeners: Listeners,
    settings: Settings,
    sinks: Sinks,
    max_connections: usize,
    config: &Config,
) -> io::Result<Server> {
    // Files compute nothing; each thread would cost its stack.
    let server =
        Server::builder(Files::new(Arc::new(root))).compute_threads(1).settings(settings).sinks(sinks);
    server.max_connections(max_connections).config(config.clone()).start(listeners)
}

/// Has `handler` answer requests, on as many pollers as there are listeners, to at most `max_connections` callers at a
/// time: [`Server::builder`] in one call.
///
/// # Errors
/// When a thread cannot be started or a poller not be made.
pub fn serve(
    handler: impl Handler + Clone + Send + 'static,
    listeners: Listeners,
    settings: Settings,
    sinks: Sinks,
    max_connections: usize,
    config: &Config,
) -> io::Result<Server> {
    let server = Server::builder(handler).settings(settings).sinks(sinks).max_connections(max_connections);
    server.config(config.clone()).start(listeners)
}

impl Server {
    /// A server that has `handler` answer.
    ///
    /// ```no_run
    /// use tidegate::http::{ExchangeContext, Reply, Server};
    /// use tidegate::net::Listeners;
    /// use tidegate::task::Series;
    ///
    /// let hello = |exchange: &mut Series<ExchangeContext>| exchange.context.reply = Reply::text("Hello, World!");
    /// let listeners = Listeners::bind(([127, 0, 0, 1], 8080).into(), 1)?;
    /// Server::builder(hello).max_connections(1_000).start(listeners)?.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder<H: Handler + Clone + Send + 'static>(handler: H) -> ServerBuilder<H> {
        ServerBuilder::new(handler)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reaches its pollers, to stop them.
    pub fn handles(&self) -> Handles {
        self.runtime.pollers()
    }

    /// The runtime that its series run on.
    pub fn runtime(&self) -> RuntimeHandle {
        self.runtime.handle()
    }

    /// What it has counted.
    pub fn figures(&self) -> ServerFigures {
        self.census.figures()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When a poller has failed, or this is called on one of its own threads
    /// ([`OwnThread`](crate::runtime::OwnThread)).
    pub fn join(self) -> io::Result<()> {
        self.runtime.join()
    }
}
