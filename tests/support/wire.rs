//! A client that does exactly what it is told, counts every byte, and may behave badly.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use tidegate::http::codec::dechunk::{Dechunker, Piece};
use tidegate_meter::figures::Read;
use tidegate_meter::reply::{Head, parse_head};
use tidegate_meter::sys::{self, Clock};

use super::{PATIENCE, await_that, kernel};

/// One connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    local: SocketAddr,
    clock: Clock,
    /// Bytes that were read and belong to the next reply.
    ahead: Vec<u8>,
    /// All bytes sent.
    pub(crate) sent: u64,
    /// All bytes received.
    pub(crate) received: u64,
}

/// A reply with its body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) text: String,
    pub(crate) body: Vec<u8>,
    /// When the bytes of the body came, on the clock of the connection.
    pub(crate) reads: Vec<Read>,
}

impl Reply {
    /// The value of a field of the head; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        let fields = self.text.lines().filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value.trim())
    }

    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Wire {
    pub(crate) fn connect(to: SocketAddr) -> Wire {
        Wire::of(TcpStream::connect(to).expect("connects"))
    }

    /// With a receive buffer of so many bytes: when it stops reading, the server feels it soon.
    pub(crate) fn connect_with_window(to: SocketAddr, bytes: usize) -> Wire {
        Wire::of(sys::connect_with_small_window(to, bytes).expect("connects"))
    }

    fn of(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let local = stream.local_addr().expect("an address");
        Wire { stream, local, clock: Clock::start(), ahead: Vec::new(), sent: 0, received: 0 }
    }

    /// Our address: the `peer` in the server's log.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Nanoseconds since the connection was made.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sends");
        self.sent += bytes.as_ref().len() as u64;
    }

    /// Asks for a file, with further header lines (each with its end).
    pub(crate) fn ask(&mut self, path: &str, fields: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n").as_bytes());
    }

    /// Asks and takes the whole reply.
    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.ask(path, "");
        self.reply()
    }

    /// Takes the head of a reply and what came with it.
    pub(crate) fn head(&mut self) -> (Head, String) {
        loop {
            if let Some(head) = parse_head(&self.ahead).expect("the head of a reply") {
                let text = String::from_utf8_lossy(&self.ahead[..head.bytes]).into_owned();
                self.ahead.drain(..head.bytes);
                return (head, text);
            }
            assert_ne!(self.fill(), 0, "closed before the reply; it had sent {:?}", self.ahead);
        }
    }

    /// Takes a whole reply. One without a length goes to the end of the connection.
    pub(crate) fn reply(&mut self) -> Reply {
        let (head, text) = self.head();
        let mut reply = Reply { head, text, body: Vec::new(), reads: Vec::new() };
        self.body(&mut reply, u64::MAX, Duration::MAX);
        if let Some(length) = head.length {
            assert_eq!(reply.body.len() as u64, length, "the body is cut off");
        }
        reply
    }

    /// Takes a whole chunked reply, and the fields behind it.
    pub(crate) fn chunked_reply(&mut self) -> (Reply, Vec<u8>) {
        let (head, text) = self.head();
        let mut reply = Reply { head, text, body: Vec::new(), reads: Vec::new() };
        assert_eq!(reply.field("transfer-encoding"), "chunked");
        let mut dechunker = Dechunker::default();
        while !self.chunks(&mut reply.body, &mut dechunker) {
            assert_ne!(self.fill(), 0, "closed in the middle of chunks");
        }
        let trailers = dechunker.take_trailers().map_or(Vec::new(), |fields| fields.as_bytes().to_vec());
        (reply, trailers)
    }

    /// Takes of a chunked body what is here, at least `most` bytes of it unless it ends before. Says whether it has ended.
    pub(crate) fn chunks_until(
        &mut self,
        body: &mut Vec<u8>,
        dechunker: &mut Dechunker,
        most: usize,
    ) -> bool {
        loop {
            let done = self.chunks(body, dechunker);
            if done || body.len() >= most {
                return done;
            }
            assert_ne!(self.fill(), 0, "closed in the middle of chunks");
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>, dechunker: &mut Dechunker) -> bool {
        let mut rest = self.ahead.as_slice();
        while let Piece::Data(data) = dechunker.next(&mut rest).expect("chunks") {
            body.extend_from_slice(data);
        }
        let used = self.ahead.len() - rest.len();
        self.ahead.drain(..used);
        dechunker.is_done()
    }

    /// Takes a reply that has no body, whatever length its head tells of.
    pub(crate) fn bodiless(&mut self) -> Reply {
        let (head, text) = self.head();
        Reply { head, text, body: Vec::new(), reads: Vec::new() }
    }

    /// Takes so many bytes.
    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length {
            assert_ne!(self.fill(), 0, "closed before {length} bytes were there");
        }
        self.ahead.drain(..length).collect()
    }

    /// Takes so many bytes and keeps none.
    pub(crate) fn discard(&mut self, length: usize) {
        let mut left = length;
        while left > 0 {
            assert!(
                !self.ahead.is_empty() || self.fill() > 0,
                "closed, {left} of {length} bytes were to come"
            );
            let part = left.min(self.ahead.len());
            self.ahead.drain(..part);
            left -= part;
        }
    }

    /// Takes what still comes, whatever ends it.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        let mut buffer = [0; 65_536];
        while let Ok(n @ 1..) = self.stream.read(&mut buffer) {
            self.received += n as u64;
            self.ahead.extend_from_slice(&buffer[..n]);
        }
        std::mem::take(&mut self.ahead)
    }

    /// The other end closes, and has sent nothing more.
    pub(crate) fn expect_end(&mut self) {
        while self.fill() > 0 {}
        assert!(self.ahead.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.ahead));
    }

    /// Takes of the body up to `most` bytes in all, for at most `time`.
    pub(crate) fn body(&mut self, reply: &mut Reply, most: u64, time: Duration) {
        let length = reply.head.length.unwrap_or(u64::MAX).min(most);
        let end = self.now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let left = length - reply.body.len() as u64;
            let take = left.min(self.ahead.len() as u64) as usize;
            if take > 0 {
                reply.body.extend(self.ahead.drain(..take));
                reply.reads.push(Read { at: self.now(), bytes: take as u32 });
            }
            if left == take as u64 || self.now() >= end || self.fill() == 0 {
                return;
            }
        }
    }

    /// Starts a download and reads it for so long.
    pub(crate) fn download_for(&mut self, path: &str, time: Duration) -> Reply {
        self.ask(path, "");
        let (head, text) = self.head();
        let mut reply = Reply { head, text, body: Vec::new(), reads: Vec::new() };
        self.body(&mut reply, u64::MAX, time);
        reply
    }

    /// Waits for the other end's FIN; everything before it is counted and dropped. Tells whether it was FIN, not
    /// a reset.
    pub(crate) fn await_close(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(n) => self.received += n as u64,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("neither bytes nor an end: {error}"),
            }
        }
    }

    /// Waits until the other end's program has read all that was sent, FIN included.
    pub(crate) fn await_read(&self) {
        let there = self.stream.peer_addr().expect("an address");
        await_that("all is read", || kernel::all_is_read(self.local, there).then_some(()));
    }

    /// Waits until the other end has closed, and takes nothing of what it sent.
    pub(crate) fn await_left(&self) {
        let there = self.stream.peer_addr().expect("an address");
        await_that("the other end closes", || kernel::is_left(self.local, there).then_some(()));
    }

    /// Stays quiet for so long; fails if anything comes, even an end.
    pub(crate) fn expect_silence(&mut self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        let mut byte = [0];
        match self.stream.peek(&mut byte) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => panic!("expected silence, got {other:?}"),
        }
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }

    /// Stays open for so long and takes what comes meanwhile.
    pub(crate) fn linger(&mut self, time: Duration) {
        let end = self.now() + time.as_nanos() as u64;
        while let Some(left) = end.checked_sub(self.now()).filter(|&left| left > 0) {
            self.stream.set_read_timeout(Some(Duration::from_nanos(left))).expect("a timeout");
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("closed"),
                Ok(n) => self.received += n as u64,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }

    /// Waits so long for an end, then sends; false when the other end has closed.
    pub(crate) fn send_if_open(&mut self, bytes: &[u8], after: Duration) -> bool {
        self.stream.set_read_timeout(Some(after)).expect("a timeout");
        let mut buffer = [0; 4096];
        let closed = match self.stream.read(&mut buffer) {
            Ok(n) => {
                self.received += n as u64;
                n == 0
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        if closed || self.stream.write_all(bytes).is_err() {
            return false;
        }
        self.sent += bytes.len() as u64;
        true
    }

    /// Sends, if the other end takes it within its time.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        self.stream.write_all(bytes).is_ok()
    }

    /// Takes what comes for so long, up to so much, until an end of whatever kind.
    pub(crate) fn read_for(&mut self, time: Duration, most: usize) {
        let end = self.now() + time.as_nanos() as u64;
        let (mut left, mut buffer) = (most, [0; 65_536]);
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        while left > 0 && self.now() < end {
            match self.stream.read(&mut buffer) {
                Ok(n @ 1..) => left = left.saturating_sub(n),
                _ => break,
            }
        }
    }

    /// Asks and takes the whole reply; the status, or nothing when the other end closes or resets in its place.
    pub(crate) fn try_get(&mut self, path: &str) -> Option<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.stream.write_all(request.as_bytes()).ok()?;
        self.sent += request.len() as u64;
        match self.stream.peek(&mut [0]) {
            Ok(1..) => Some(self.reply().head.status),
            Ok(0) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("neither a reply nor an end: {error}"),
        }
    }

    /// Sends FIN; replies still come.
    pub(crate) fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("half-closes");
    }

    /// Sends RST.
    pub(crate) fn reset(self) {
        sys::reset_on_close(&self.stream).expect("sets linger");
    }

    fn fill(&mut self) -> usize {
        let mut buffer = [0; 65_536];
        let n = self.stream.read(&mut buffer).expect("bytes, or the end");
        self.received += n as u64;
        self.ahead.extend_from_slice(&buffer[..n]);
        n
    }
}
