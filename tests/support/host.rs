//! A server with a handler of the test's own, in this process: its records come as values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate::http::{Handler, Server, Settings};
use tidegate::net::Listeners;
use tidegate::record::{Sink, Sinks};

use super::site::Records;
use super::{PATIENCE, Reply, Wire};

/// A server with a handler.
pub(crate) struct Host {
    pub(crate) records: Records,
    pub(crate) address: SocketAddr,
    server: Option<Server>,
}

impl Host {
    pub(crate) fn new(handler: impl Handler + Clone + Send + 'static) -> Host {
        Host::with(Settings::default(), handler)
    }

    pub(crate) fn with(settings: Settings, handler: impl Handler + Clone + Send + 'static) -> Host {
        let records = Records::default();
        let sinks = Sinks::new([Arc::new(records.clone()) as Arc<dyn Sink>]);
        Host::start(settings, sinks, records, handler)
    }

    /// The same, but nobody keeps records: most exchanges go a shorter way then.
    pub(crate) fn unrecorded(settings: Settings, handler: impl Handler + Clone + Send + 'static) -> Host {
        Host::start(settings, Sinks::default(), Records::default(), handler)
    }

    fn start(
        settings: Settings,
        sinks: Sinks,
        records: Records,
        handler: impl Handler + Clone + Send + 'static,
    ) -> Host {
        let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2).unwrap();
        let server = Server::builder(handler).settings(settings).sinks(sinks).max_connections(2_000);
        let server = server.start(listeners).unwrap();
        Host { records, address: server.address(), server: Some(server) }
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// One request on a connection of its own, after which the server closes.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect();
        client.send(request);
        let reply = client.reply();
        client.expect_end();
        reply
    }

    /// Starts a shutdown.
    pub(crate) fn stop(&self, grace: Duration) {
        self.server.as_ref().unwrap().handles().shutdown(grace);
    }

    /// Stops, once all is done.
    pub(crate) fn end(mut self) {
        self.stop(PATIENCE);
        self.server.take().unwrap().join().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.handles().shutdown(Duration::ZERO);
            let ended = server.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}
