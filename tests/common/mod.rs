//! A folder, a server on it, and a client that speaks bytes.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "shared by test files, each of which uses a part"
)]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tidegate::http::{Server, Settings, serve_files};
use tidegate::net::Listeners;
use tidegate::poller::Config;
use tidegate::poller::file::Root;
use tidegate::record::{ConnectionEntry, ExchangeRecord, Sink, Sinks};

/// How long a test waits for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that goes away with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-test-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("root")).unwrap();
        Folder(path)
    }

    /// The folder that is served. What is beside it must not be.
    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub fn outside(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Keeps records, and lets a test wait for them.
#[derive(Clone, Default)]
pub struct Records(Arc<(Mutex<Kept>, Condvar)>);

#[derive(Default)]
struct Kept {
    exchanges: Vec<Arc<ExchangeRecord>>,
    connections: Vec<Arc<ConnectionEntry>>,
}

impl Records {
    /// The exchanges, once there are so many.
    pub fn exchanges(&self, count: usize) -> Vec<Arc<ExchangeRecord>> {
        self.wait(|kept| kept.exchanges.len() >= count).0
    }

    /// The connections, once there are so many, and their exchanges.
    pub fn connections(&self, count: usize) -> (Vec<Arc<ExchangeRecord>>, Vec<Arc<ConnectionEntry>>) {
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
pub struct Site {
    pub folder: Folder,
    pub records: Records,
    pub address: SocketAddr,
    server: Option<Server>,
}

impl Site {
    pub fn new() -> Site {
        Site::with(Settings::default(), 1, 1_000)
    }

    pub fn with(settings: Settings, pollers: usize, max_connections: usize) -> Site {
        let folder = Folder::new();
        let records = Records::default();
        let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), pollers).unwrap();
        let sinks = Sinks::new([Arc::new(records.clone()) as Arc<dyn Sink>]);
        let config = Config { name: "test".into(), ..Config::default() };
        let root = Root::open(&folder.root()).unwrap();
        let server = serve_files(root, listeners, settings, sinks, max_connections, &config).unwrap();
        Site { folder, records, address: server.address(), server: Some(server) }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    pub fn ask(&self, request: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect();
        client.send(request);
        let response = client.response();
        client.expect_end();
        response
    }

    /// Starts a shutdown.
    pub fn stop(&self, grace: Duration) {
        self.server.as_ref().unwrap().handles().shutdown(grace);
    }

    /// Waits for the end of the server.
    pub fn join(&mut self) {
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

/// A client that counts its bytes.
pub struct Client {
    pub stream: TcpStream,
    pub sent: u64,
    pub received: u64,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub fields: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, sent: 0, received: 0, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.sent += bytes.as_ref().len() as u64;
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        self.response()
    }

    /// A response with the body its head announces.
    pub fn response(&mut self) -> Response {
        let mut response = self.head();
        let length = response.field("content-length").parse().unwrap_or(0);
        response.body = self.take(length);
        response
    }

    /// A response to HEAD: no body follows, whatever its length is.
    pub fn head(&mut self) -> Response {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.fill(),
                "the connection ended in a head: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let fields = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Response { status, head: head.clone(), fields, body: Vec::new() }
    }

    pub fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill(), "the connection ended in a body");
        }
        self.buffer.drain(..length).collect()
    }

    /// Takes a body and keeps nothing of it.
    pub fn discard(&mut self, length: usize) {
        let mut left = length;
        while left > 0 {
            assert!(!self.buffer.is_empty() || self.fill(), "the connection ended in a body");
            let part = left.min(self.buffer.len());
            self.buffer.drain(..part);
            left -= part;
        }
    }

    /// The server closes, and has sent nothing more.
    pub fn expect_end(&mut self) {
        while self.fill() {}
        assert!(self.buffer.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.buffer));
    }

    /// Reads until nothing comes any more, whatever ends it.
    pub fn drain(&mut self) -> Vec<u8> {
        let mut chunk = [0; 65_536];
        while let Ok(count) = self.stream.read(&mut chunk) {
            if count == 0 {
                break;
            }
            self.received += count as u64;
            self.buffer.extend_from_slice(&chunk[..count]);
        }
        std::mem::take(&mut self.buffer)
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 65_536];
        let count = self.stream.read(&mut chunk).unwrap();
        self.received += count as u64;
        self.buffer.extend_from_slice(&chunk[..count]);
        count > 0
    }
}

/// Bytes that differ everywhere.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub fn reset_on_close(stream: &TcpStream) {
    tidegate::poller::sys::set_linger_reset(stream).unwrap();
}
