//! A server with a handler of the test's own, in this process: its records come as values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate::http::{Handler, Server, ServerBuilder, ServerFigures, ServerSettings};
use tidegate::net::Listeners;
use tidegate::runtime::RuntimeHandle;

use super::{Keeps, PATIENCE, Reply, Wire};

/// A server. It stops with the test.
pub(crate) struct Host {
    pub(crate) records: Arc<Keeps>,
    pub(crate) address: SocketAddr,
    server: Option<Server>,
}

impl Host {
    pub(crate) fn new(handler: impl Handler + Clone + Send + 'static) -> Host {
        Host::with(ServerSettings::default(), handler)
    }

    pub(crate) fn with(settings: ServerSettings, handler: impl Handler + Clone + Send + 'static) -> Host {
        Host::of(settings, 2, |settings| Server::builder(handler).settings(settings))
    }

    /// The same, but nobody keeps records: most exchanges go a shorter way then.
    pub(crate) fn unrecorded(
        settings: ServerSettings,
        handler: impl Handler + Clone + Send + 'static,
    ) -> Host {
        let builder = Server::builder(handler).settings(settings);
        Host::started(builder.start(Host::listeners(2)).unwrap(), Arc::default())
    }

    /// What `build` puts together with the settings it is given, on so many pollers.
    pub(crate) fn of<H: Handler + Clone + Send + 'static>(
        settings: ServerSettings,
        pollers: usize,
        build: impl FnOnce(ServerSettings) -> ServerBuilder<H>,
    ) -> Host {
        let (records, sinks) = Keeps::new();
        let builder = build(ServerSettings { sinks, ..settings });
        Host::started(builder.start(Host::listeners(pollers)).unwrap(), records)
    }

    /// A server that has been started, and where its records go.
    pub(crate) fn started(server: Server, records: Arc<Keeps>) -> Host {
        Host { records, address: server.address(), server: Some(server) }
    }

    /// On a port that the system chooses, so many.
    pub(crate) fn listeners(count: usize) -> Listeners {
        Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), count).unwrap()
    }

    pub(crate) fn runtime(&self) -> RuntimeHandle {
        self.server.as_ref().unwrap().runtime()
    }

    pub(crate) fn figures(&self) -> ServerFigures {
        self.server.as_ref().unwrap().figures()
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
        self.server.as_ref().unwrap().shutdown(grace);
    }

    /// Waits for the end of the server.
    pub(crate) fn join(&mut self) {
        self.server.take().unwrap().join().unwrap();
    }

    /// Stops, once all is done.
    pub(crate) fn end(mut self) {
        self.stop(PATIENCE);
        self.join();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown(Duration::ZERO);
            let ended = server.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}
