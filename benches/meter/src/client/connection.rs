//! One connection of the measuring client: connect, ask, time-stamp the reply, and what then.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{Discard, Plan, Then};
use crate::figures::Read;
use crate::reply;
use crate::sys::{self, Clock};

/// One request and its reply, as the client saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// When the request was sent; where a connection was made for it, when that began.
    pub asked: u64,
    /// When the last byte was read.
    pub done: u64,
}

/// One connection, or one after the other where it reconnects.
pub struct Connection {
    socket: OwnedFd,
    to: SocketAddr,
    request: Vec<u8>,
    then: Then,
    discard: Discard,
    state: State,
    /// The head of the reply as far as it has come.
    head: Vec<u8>,
    /// Bytes of the body still to come; absent when it goes to the end of the connection.
    left: Option<u64>,
    closes: bool,
    asked: u64,
    reads: Vec<Read>,
    body_bytes: u64,
    head_bytes: u64,
    status: u16,
    hash: u64,
    exchanges: Vec<Exchange>,
    failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Head,
    Body,
    /// A reply was complete and nothing more was asked.
    Quiet,
    Ended,
}

/// What the client has to do for the connection after it was ready.
pub(super) enum Step {
    More,
    Connected,
    Reconnect,
    Ended,
}

impl Connection {
    pub(super) fn open(plan: &Plan, now: u64) -> io::Result<Connection> {
        let connection = if plan.keep_alive { "" } else { "Connection: close\r\n" };
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n{connection}\r\n", plan.path, plan.to);
        Ok(Connection {
            socket: sys::start_connect(plan.to)?,
            to: plan.to,
            request: request.into_bytes(),
            then: plan.then,
            discard: plan.discard,
            state: State::Connecting,
            head: Vec::new(),
            left: None,
            closes: false,
            asked: now,
            reads: Vec::with_capacity(256),
            body_bytes: 0,
            head_bytes: 0,
            status: 0,
            hash: FNV_START,
            exchanges: Vec::new(),
            failure: None,
        })
    }

    /// The time-stamped reads of bodies so far.
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// Bytes of bodies so far.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Bytes of heads so far.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// Status of the latest reply; 0 before the first.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// FNV-1a of all body bytes, if asked for.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Complete replies.
    pub fn replies(&self) -> u64 {
        self.exchanges.len() as u64
    }

    /// The complete exchanges, in order.
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// When the latest request was sent, answered or not.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// An error if the connection failed.
    pub fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some(failure) => Err(io::Error::other(failure.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) fn describe(&self) -> String {
        format!("{:?}, {} bytes of body", self.state, self.body_bytes)
    }

    pub(super) fn reconnect(&mut self, now: u64) -> io::Result<()> {
        self.socket = sys::start_connect(self.to)?;
        self.state = State::Connecting;
        self.asked = now;
        Ok(())
    }

    /// The socket is ready for what the state waits for. Errors of the connection are kept, not returned.
    pub(super) fn on_ready(&mut self, buffer: &mut [u8], clock: &Clock) -> io::Result<Step> {
        let step = match self.state {
            State::Connecting => self.on_connected(),
            State::Head => self.read_head(buffer, clock),
            State::Body => self.read_body(buffer, clock),
            State::Quiet | State::Ended => self.read_unasked(buffer),
        };
        Ok(step.unwrap_or_else(|failure| {
            self.state = State::Ended;
            self.failure = Some(failure);
            Step::Ended
        }))
    }

    fn on_connected(&mut self) -> Result<Step, String> {
        sys::connect_result(&self.socket).map_err(|error| format!("connect: {error}"))?;
        self.ask()?;
        Ok(Step::Connected)
    }

    fn ask(&mut self) -> Result<(), String> {
        // A request is far smaller than a fresh socket's buffer: a short write would be a bug worth seeing.
        match rustix::net::send(&self.socket, &self.request, SendFlags::NOSIGNAL) {
            Ok(n) if n == self.request.len() => {}
            Ok(n) => return Err(format!("only {n} bytes of the request went")),
            Err(error) => return Err(format!("send: {error}")),
        }
        self.state = State::Head;
        self.head.clear();
        Ok(())
    }

    fn read_head(&mut self, buffer: &mut [u8], clock: &Clock) -> Result<Step, String> {
        // Little at a time: what is behind the head should be read as body, the way bodies are read.
        let Some(n) = self.receive(&mut buffer[..HEAD_READ], RecvFlags::empty())? else {
            return Ok(Step::More);
        };
        let now = clock.now();
        if n == 0 {
            return Err(format!("closed before the reply, after {} replies", self.replies()));
        }
        self.head.extend_from_slice(&buffer[..n]);
        let Some(head) = reply::parse_head(&self.head)? else { return Ok(Step::More) };
        if head.chunked {
            return Err("a chunked reply is not understood here".into());
        }
        if !matches!(head.status, 200 | 206) {
            return Err(format!("status {}", head.status));
        }
        self.status = head.status;
        self.closes = head.closes;
        self.head_bytes += head.bytes as u64;
        self.left = head.length;
        self.state = State::Body;
        let body = self.head.split_off(head.bytes);
        if self.left.is_some_and(|left| (body.len() as u64) > left) {
            return Err("more bytes than the reply has".to_owned());
        }
        self.note(&body, body.len(), now)
    }

    fn read_body(&mut self, buffer: &mut [u8], clock: &Clock) -> Result<Step, String> {
        let most = self.left.map_or(buffer.len(), |left| left.min(buffer.len() as u64) as usize);
        let flags = match self.discard {
            Discard::Truncate => RecvFlags::TRUNC,
            Discard::Copy | Discard::Hash => RecvFlags::empty(),
        };
        let Some(n) = self.receive(&mut buffer[..most], flags)? else { return Ok(Step::More) };
        let now = clock.now();
        if n == 0 {
            return match self.left {
                None => self.complete(now),
                Some(left) => Err(format!("closed with {left} bytes of the body missing")),
            };
        }
        self.note(&buffer[..n], n, now)
    }

    /// Notes `n` bytes of body; `bytes` holds them unless they were dropped in the kernel.
    fn note(&mut self, bytes: &[u8], n: usize, now: u64) -> Result<Step, String> {
        if n > 0 {
            self.reads.push(Read { at: now, bytes: n as u32 });
            self.body_bytes += n as u64;
            if self.discard == Discard::Hash {
                self.hash = fnv(self.hash, bytes);
            }
        }
        match &mut self.left {
            None => Ok(Step::More),
            Some(left) => {
                *left -= n as u64;
                if *left == 0 { self.complete(now) } else { Ok(Step::More) }
            }
        }
    }

    fn complete(&mut self, now: u64) -> Result<Step, String> {
        self.exchanges.push(Exchange { asked: self.asked, done: now });
        match self.then {
            Then::Reconnect => Ok(Step::Reconnect),
            Then::Repeat if self.closes => {
                Err("the server closes a connection that should be kept".to_owned())
            }
            Then::Repeat => {
                self.asked = now;
                self.ask()?;
                Ok(Step::More)
            }
            Then::Stay => {
                self.state = State::Quiet;
                Ok(Step::More)
            }
        }
    }

    /// Something came although nothing was asked: the end of the connection, or a fault.
    fn read_unasked(&mut self, buffer: &mut [u8]) -> Result<Step, String> {
        match self.receive(buffer, RecvFlags::empty())? {
            None => Ok(Step::More),
            Some(0) if self.closes => {
                self.state = State::Ended;
                Ok(Step::Ended)
            }
            Some(0) => Err("the server closed a quiet connection".to_owned()),
            Some(n) => Err(format!("{n} bytes that were not asked for")),
        }
    }

    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<Option<usize>, String> {
        match rustix::net::recv(&self.socket, buffer, flags) {
            Ok((_, n)) => Ok(Some(n)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(format!("recv after {} bytes of body: {error}", self.body_bytes)),
        }
    }
}

/// FNV-1a, 64 bits.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
/// What is read at once while the head is awaited.
const HEAD_READ: usize = 2048;
