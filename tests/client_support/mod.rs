//! Servers made of plain sockets, that say what a test has them say, and a client to ask them.

// Each test binary uses its part of this, and may have another that shares a file with it.
#![allow(dead_code, clippy::duplicate_mod)]

#[path = "../support/keeps.rs"]
mod keeps;
#[path = "../support/waiting.rs"]
mod waiting;

pub(crate) use keeps::Keeps;
pub(crate) use waiting::PATIENCE;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate::http::client::Proxies;
use tidegate::http::{Client, ClientError, ClientSettings, RequestTask, Response};
use tidegate::runtime::Runtime;

/// A server whose connections are each handled by a thread with this function, which is told their number, from 0. It ends
/// with the test's process.
pub(crate) fn server(handle: impl Fn(usize, &mut Caller) + Send + Sync + 'static) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let callers = Arc::new(AtomicUsize::new(0));
    let (handle, counted) = (Arc::new(handle), callers.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (handle, number) = (handle.clone(), counted.fetch_add(1, Ordering::SeqCst));
            std::thread::spawn(move || {
                // A test that hangs here fails by its own deadline.
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let mut caller = Caller { stream, read: Vec::new() };
                handle(number, &mut caller);
                let _ = caller.stream.shutdown(Shutdown::Write);
            });
        }
    });
    Scripted { address, callers }
}

/// A server that answers every request of every connection with these bytes.
pub(crate) fn says(reply: impl Into<Vec<u8>>) -> Scripted {
    let reply = reply.into();
    server(move |_, caller| while caller.request().is_some() && caller.say(&reply) {})
}

/// A server of [`server`].
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    callers: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections there were.
    pub(crate) fn callers(&self) -> usize {
        self.callers.load(Ordering::SeqCst)
    }
}

/// A connection, seen by the server.
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Caller {
    /// The next request's head; `None` when there is no other.
    pub(crate) fn request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            self.more()?;
        }
    }

    /// So many bytes of a body.
    pub(crate) fn body(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length && self.more().is_some() {}
        self.read.drain(..length.min(self.read.len())).collect()
    }

    /// All that comes up to and with this.
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|part| part == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            if self.more().is_none() {
                return std::mem::take(&mut self.read);
            }
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        let n = self.stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
        self.read.extend_from_slice(&buffer[..n]);
        Some(())
    }

    /// Says bytes; false where nobody listens.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Waits until the other end closes or resets, and says whether it did before long.
    pub(crate) fn is_left(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    );
                }
            }
        }
    }
}

/// A reply with this body and its length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A runtime, a client on it that asks no proxy, and the records it leaves.
pub(crate) struct Asks {
    pub(crate) client: Client,
    pub(crate) keeps: Arc<Keeps>,
    pub(crate) runtime: Runtime,
}

impl Asks {
    pub(crate) fn new() -> Asks {
        Asks::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut ClientSettings)) -> Asks {
        let runtime = Runtime::builder().pollers(2).build().expect("a runtime");
        let (keeps, sinks) = Keeps::new();
        let mut settings =
            ClientSettings { sinks, proxies: Proxies::none(), max_retries: 0, ..ClientSettings::default() };
        change(&mut settings);
        let client = Client::new(&runtime.handle(), settings);
        Asks { client, keeps, runtime }
    }

    pub(crate) fn run(&self, task: RequestTask) -> Result<Response, ClientError> {
        self.runtime.spawn(task).wait_for(PATIENCE).expect("in time").expect("a result")
    }

    pub(crate) fn get(&self, url: &str) -> Result<Response, ClientError> {
        self.run(self.client.get(url))
    }

    /// Reads a stream to its end.
    pub(crate) fn read(&self, response: &mut Response) -> Result<Vec<u8>, tidegate::http::BodyError> {
        let tidegate::http::ResponseBody::Stream(reader) = &response.body else { panic!("a stream") };
        let mut all = Vec::new();
        loop {
            let next =
                self.runtime.spawn(reader.next()).wait_for(PATIENCE).expect("in time").expect("a result")?;
            match next {
                Some(chunk) => all.extend_from_slice(chunk.as_slice()),
                None => return Ok(all),
            }
        }
    }
}
