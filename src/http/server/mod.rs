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
use std::time::Duration;

use crate::runtime::{PollerHandles, Runtime, RuntimeHandle};

pub use builder::{ServerBuilder, Serving};
pub use census::{Census, ServerFigures};
pub use door::Door;
pub use handler::{ConnectionData, Exchange, ExchangeContext, Extensions, Handler};
pub use reply::Reply;
pub use service::{ServerSettings, Service};

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    census: Arc<Census>,
    runtime: Runtime,
}

impl Server {
    /// A server that has `handler` answer.
    ///
    /// ```no_run
    /// use tidegate::http::{Exchange, Reply, Server};
    /// use tidegate::net::Listeners;
    ///
    /// let hello = |exchange: &mut Exchange| exchange.context.reply = Reply::text("Hello, World!");
    /// let listeners = Listeners::bind(([127, 0, 0, 1], 8080).into(), 1)?;
    /// Server::builder(hello).start(listeners)?.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder<H: Handler + Clone + Send + 'static>(handler: H) -> ServerBuilder<H> {
        ServerBuilder::new(handler)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shuts down: nobody is let in any more, exchanges under way have until `grace` is over, and are cut then. This begins
    /// it; [`join`](Server::join) waits until it is done.
    pub fn shutdown(&self, grace: Duration) {
        self.pollers().shutdown(grace);
    }

    /// Reaches its pollers, from anywhere: their [`shutdown`](PollerHandles::shutdown) is that of the server.
    pub fn pollers(&self) -> PollerHandles {
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
