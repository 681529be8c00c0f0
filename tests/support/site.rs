//! A server on a folder, in this process: its records come as values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tidegate::http::{Server, Settings, serve_files};
use tidegate::net::Listeners;
use tidegate::poller::Config;
use tidegate::poller::file::Root;
use tidegate::record::{ConnectionEntry, ExchangeRecord, Sink, Sinks};
use tidegate_meter::scratch::Scratch;

use super::{PATIENCE, Reply, Wire};

/// A folder that goes away with the test.
pub(crate) struct Folder(Scratch);

impl Folder {
    fn new() -> Folder {
        let scratch = Scratch::new("site").expect("a scratch folder");
        std::fs::create_dir(scratch.path().join("root")).expect("the folder to serve");
        Folder(scratch)
    }

    /// The folder that is served. What is beside it must not be.
    pub(crate) fn root(&self) -> PathBuf {
        self.outside("root")
    }

    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, content).expect("a file to serve");
        path
    }
}

/// Keeps records, and lets a test wait for them.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<(Mutex<Kept>, Condvar)>);

#[derive(Default)]
struct Kept {
    exchanges: Vec<Arc<ExchangeRecord>>,
    connections: Vec<Arc<ConnectionEntry>>,
}

impl Records {
    /// The exchanges, once there are so many.
    pub(crate) fn exchanges(&self, count: usize) -> Vec<Arc<ExchangeRecord>> {
        self.wait(|kept| kept.exchanges.len() >= count).0
    }

    /// The connections, once there are so many, and their exchanges.
    pub(crate) fn connections(&self, count: usize) -> (Vec<Arc<ExchangeRecord>>, Vec<Arc<ConnectionEntry>>) {
        self.wait(|kept| kept.connections.len() >= count)
    }

    fn wait(&self, enough: impl Fn(&Kept) -> bool) -> (Vec<Arc<ExchangeRecord>>, Vec<Arc<ConnectionEntry>>) {
        let kept = self.0.0.lock().unwrap();
        let (kept, timeout) = self.0.1.wait_timeout_while(kept, PATIENCE, |kept| !enough(kept)).unwrap();
        assert!(!timeout.timed_out(), "{:?} {:?}", kept.exchanges, kept.connections);
        (kept.exchanges.clone(), kept.connections.clone())
    }
}

impl Sink for Records {
    fn exchange(&self, record: &Arc<ExchangeRecord>) {
        self.0.0.lock().unwrap().exchanges.push(record.clone());
        self.0.1.notify_all();
    }

    fn connection(&self, entry: &Arc<ConnectionEntry>) {
        self.0.0.lock().unwrap().connections.push(entry.clone());
        self.0.1.notify_all();
    }
}

/// A server on a folder.
pub(crate) struct Site {
    pub(crate) folder: Folder,
    pub(crate) records: Records,
    pub(crate) address: SocketAddr,
    server: Option<Server>,
}

impl Site {
    pub(crate) fn new() -> Site {
        Site::with(Settings::default(), 1, 1_000)
    }

    pub(crate) fn with(settings: Settings, pollers: usize, max_connections: usize) -> Site {
        let folder = Folder::new();
        let records = Records::default();
        let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), pollers).unwrap();
        let sinks = Sinks::new([Arc::new(records.clone()) as Arc<dyn Sink>]);
        let config = Config { name: "test".into(), ..Config::default() };
        let root = Root::open(&folder.root()).unwrap();
        let server = serve_files(root, listeners, settings, sinks, max_connections, &config).unwrap();
        Site { folder, records, address: server.address(), server: Some(server) }
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect();
        client.send(request);
        let response = client.reply();
        client.expect_end();
        response
    }

    /// Starts a shutdown.
    pub(crate) fn stop(&self, grace: Duration) {
        self.server.as_ref().unwrap().handles().shutdown(grace);
    }

    /// Waits for the end of the server.
    pub(crate) fn join(&mut self) {
        self.server.take().unwrap().join().unwrap();
    }
}

impl Drop for Site {
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
