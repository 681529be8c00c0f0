//! A server of event streams, and a client that reads them byte by byte.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::cell::Cell;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tidegate::http::{Handler, Reply, Server, ServerSettings};
use tidegate::poller::{PollerSettings, SocketOptions};
use tidegate::record::ExchangeRecord;
use tidegate::sse::{Hub, Message, Parser};

use crate::support::{Host, PATIENCE, await_that};

pub(crate) use tidegate::http::Exchange;

/// A [`Host`] that soon feels it when a client does not read.
pub(crate) struct Running {
    host: Host,
    /// How many records it has been asked for.
    told: Cell<usize>,
}

impl Running {
    pub(crate) fn start(handler: impl Handler + Clone + Send + 'static) -> Running {
        Running::with(handler, ServerSettings::default())
    }

    /// Each path is a topic.
    pub(crate) fn of(hub: &Hub) -> Running {
        Running::start(topics(hub))
    }

    pub(crate) fn with(handler: impl Handler + Clone + Send + 'static, settings: ServerSettings) -> Running {
        // So that little lies in the kernel when a client does not read.
        let socket = SocketOptions { send_buffer: Some(32 * 1024), ..SocketOptions::default() };
        let config = PollerSettings { socket, ..PollerSettings::default() };
        let host = Host::of(settings, 2, |settings| {
            Server::builder(handler).settings(settings).poller_settings(config)
        });
        Running { host, told: Cell::default() }
    }

    /// The next exchange's.
    pub(crate) fn record(&self) -> Arc<ExchangeRecord> {
        let told = self.told.replace(self.told.get() + 1);
        self.records.exchanges(told + 1).swap_remove(told)
    }

    /// Stops, and waits for the end.
    pub(crate) fn stop(mut self, grace: Duration) {
        self.host.stop(grace);
        self.host.join();
    }
}

impl Deref for Running {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

/// Has each path be a topic, or several with `+` between.
pub(crate) fn topics(hub: &Hub) -> impl Fn(&mut Exchange) + Clone + Send + 'static {
    let hub = hub.clone();
    move |exchange: &mut Exchange| {
        let request = exchange.context.request().clone();
        let path = String::from_utf8_lossy(request.target()).into_owned();
        let names = path.trim_start_matches('/').split('?').next().unwrap_or_default().split('+');
        exchange.context.reply = hub.subscribe(names).resume(&request).reply();
    }
}

/// Answers with what is made for each request.
pub(crate) fn reply_with(
    make: impl Fn() -> Reply + Clone + Send + 'static,
) -> impl Fn(&mut Exchange) + Clone + Send + 'static {
    move |exchange: &mut Exchange| exchange.context.reply = make()
}

/// A client that listens.
pub(crate) struct Listener {
    pub(crate) stream: TcpStream,
    pub(crate) head: String,
    raw: Vec<u8>,
    /// The text of the stream so far.
    pub(crate) text: String,
    parser: Parser,
    messages: std::collections::VecDeque<Message>,
    ended: bool,
}

impl Listener {
    pub(crate) fn connect(address: SocketAddr, path: &str, fields: &str) -> Listener {
        let mut listener = Listener::silent(TcpStream::connect(address).unwrap(), path, fields);
        listener.read_head();
        listener
    }

    /// Asks, and reads nothing yet.
    pub(crate) fn silent(mut stream: TcpStream, path: &str, fields: &str) -> Listener {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n").as_bytes()).unwrap();
        Listener::of(stream)
    }

    pub(crate) fn unasked(address: SocketAddr) -> Listener {
        Listener::of(TcpStream::connect(address).unwrap())
    }

    fn of(stream: TcpStream) -> Listener {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Listener {
            stream,
            head: String::new(),
            raw: Vec::new(),
            text: String::new(),
            parser: Parser::default(),
            messages: Default::default(),
            ended: false,
        }
    }

    pub(crate) fn read_head(&mut self) {
        while self.head.is_empty() {
            self.fill().expect("the head of a reply");
            if let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") {
                self.head = String::from_utf8(self.raw.drain(..end + 4).collect()).unwrap();
            }
        }
        self.take_chunks();
    }

    /// The next event; `None`: the stream has ended, well or not.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Some(message);
            }
            if self.ended || self.fill().is_err() {
                return None;
            }
            self.take_chunks();
        }
    }

    /// The data of the next events, so many of them.
    pub(crate) fn data(&mut self, count: usize) -> Vec<String> {
        (0..count)
            .map(|at| self.next().unwrap_or_else(|| panic!("the stream ended before {at}")).data)
            .collect()
    }

    /// Reads until the text has come.
    pub(crate) fn await_text(&mut self, text: &str) {
        while !self.text.contains(text) {
            self.fill().unwrap_or_else(|_| panic!("{text:?} is not in {:?}", self.text));
            self.take_chunks();
        }
    }

    /// Reads until more of the stream has come.
    pub(crate) fn await_more(&mut self) {
        let seen = self.text.len();
        while self.text.len() == seen {
            self.fill().expect("more of the stream");
            self.take_chunks();
        }
    }

    /// Whether the stream ended as it should, with the last chunk.
    pub(crate) fn ended_well(&mut self) -> bool {
        while self.next().is_some() {}
        self.ended
    }

    fn fill(&mut self) -> Result<(), ()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(()),
            Ok(n) => {
                self.raw.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came in {PATIENCE:?}, after {:?}", self.text)
            }
            Err(_) => Err(()),
        }
    }

    fn take_chunks(&mut self) {
        while let Some(line) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let digits = std::str::from_utf8(&self.raw[..line]).unwrap();
            let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no size: {digits:?}"));
            if self.raw.len() < line + 2 + size + 2 {
                return;
            }
            let chunk: Vec<u8> = self.raw.drain(..line + 2 + size + 2).skip(line + 2).take(size).collect();
            self.ended |= size == 0;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            let messages = &mut self.messages;
            self.parser.feed(&chunk, |message| messages.push_back(message)).unwrap();
        }
    }
}

pub(crate) fn await_subscribers(hub: &Hub, count: u64) {
    await_that("subscribers", || (hub.figures().subscribers == count).then_some(()));
}
