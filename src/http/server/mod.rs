//! The server: sessions that read requests and send replies, and the threads they live on.
//!
//! The [`Door`] lets callers in while there is room; each gets a session (see the module `session`), which has a
//! [`Handler`] answer. What they share is the [`Service`] of their poller.

mod busy;
mod clock;
mod door;
mod exchange;
mod handler;
mod in_use;
mod incoming;
pub mod reply;
mod service;
mod session;
mod work;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_poller::file::Root;
use tidegate_poller::{Config, Poller};

use crate::http::Files;
use crate::net::Listeners;
use crate::record::Sinks;
use crate::runtime::{Builder, Handles, Runtime, RuntimeHandle};

pub use door::Door;
pub use handler::{ConnectionData, ExchangeContext, Extensions, Handler};
pub use reply::Reply;
pub use service::{Census, Service, Settings};

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    runtime: Runtime,
}

/// Serves the files below `root`; else as [`serve`].
pub fn serve_files(
    root: Root,
    listeners: Listeners,
    settings: Settings,
    sinks: Sinks,
    max_connections: usize,
    config: &Config,
) -> io::Result<Server> {
    // Files compute nothing; each thread would cost its stack.
    let runtime = Runtime::builder().compute_threads(1);
    serve_on(runtime, Files::new(Arc::new(root)), listeners, settings, sinks, max_connections, config)
}

/// Has `handler` answer requests, on as many pollers as there are listeners, to at most `max_connections` callers at a
/// time. Each poller has a handler of its own, a clone.
pub fn serve(
    handler: impl Handler + Clone + Send + 'static,
    listeners: Listeners,
    settings: Settings,
    sinks: Sinks,
    max_connections: usize,
    config: &Config,
) -> io::Result<Server> {
    serve_on(Runtime::builder(), handler, listeners, settings, sinks, max_connections, config)
}

fn serve_on(
    runtime: Builder,
    handler: impl Handler + Clone + Send + 'static,
    listeners: Listeners,
    settings: Settings,
    sinks: Sinks,
    max_connections: usize,
    config: &Config,
) -> io::Result<Server> {
    let address = listeners.address();
    let census = Census::new(max_connections);
    let mut runtime = runtime.name(config.name.clone()).config(config.clone()).pollers(0);
    for socket in listeners.into_sockets() {
        let (handler, settings, sinks, census) =
            (handler.clone(), settings.clone(), sinks.clone(), census.clone());
        runtime = runtime.poller(move |poller: &mut Poller| {
            let here = RuntimeHandle::of_poller();
            let here = here.ok_or_else(|| io::Error::other("this is no poller of a runtime"))?;
            let service = Service::new(Box::new(handler), here, settings, sinks, census, poller.now());
            poller.listen(socket, Box::new(Door::new(Rc::new(service)))).map(drop)
        });
    }
    Ok(Server { address, runtime: runtime.build()? })
}

impl Server {
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

    /// Waits until it has ended.
    pub fn join(self) -> io::Result<()> {
        self.runtime.join()
    }
}
