//! What the tests of custom protocols share: a codec, a place for records, peers made of plain sockets.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tidegate::net::Listeners;
use tidegate::net::protocol::{Codec, Decoded, Malformed, Outgoing};
use tidegate::record::{ConnectionEntry, ExchangeRecord, Sink, Sinks, Words};
use tidegate::task::SeriesError;

/// Longer than anything should take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Four bytes of length, then so many bytes. A length from 2^24 on is not the protocol.
#[derive(Clone, Default)]
pub(crate) struct Frames {
    /// Requests are answered by this when their series fail.
    pub(crate) on_failure: Option<Vec<u8>>,
}

impl Frames {
    fn put(bytes: &[u8], out: &mut Outgoing) -> Result<(), Malformed> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length < 1 << 24);
        out.put(&length.ok_or(Malformed::new("too long to say"))?.to_be_bytes());
        out.put(bytes);
        Ok(())
    }

    fn take(bytes: &[u8]) -> Result<Decoded<Vec<u8>>, Malformed> {
        let Some(head) = bytes.first_chunk() else { return Ok(Decoded::wants(4)) };
        let length = u32::from_be_bytes(*head) as usize;
        if length >= 1 << 24 {
            return Err(Malformed::new("an absurd length"));
        }
        match bytes.get(4..4 + length) {
            Some(body) => Ok(Decoded::message(body.to_vec(), 4 + length)),
            None => Ok(Decoded::wants(4 + length)),
        }
    }
}

impl Codec for Frames {
    type Request = Vec<u8>;
    type Reply = Vec<u8>;

    fn encode_request(&mut self, request: &Vec<u8>, out: &mut Outgoing) -> Result<(), Malformed> {
        Frames::put(request, out)
    }
    fn decode_request(&mut self, bytes: &[u8]) -> Result<Decoded<Vec<u8>>, Malformed> {
        Frames::take(bytes)
    }
    fn encode_reply(&mut self, reply: Vec<u8>, out: &mut Outgoing) -> Result<(), Malformed> {
        Frames::put(&reply, out)
    }
    fn decode_reply(&mut self, bytes: &[u8]) -> Result<Decoded<Vec<u8>>, Malformed> {
        Frames::take(bytes)
    }
    fn failed(&mut self, _: &SeriesError) -> Option<Vec<u8>> {
        self.on_failure.clone()
    }
    fn words(&self, request: &Vec<u8>) -> Words {
        Words::new(b"FRAME", request.len().to_string().as_bytes(), b"", None, None)
    }
    fn status(&self, _: &Vec<u8>) -> Option<u16> {
        Some(200)
    }
}

/// Keeps records.
#[derive(Default)]
pub(crate) struct Keeps {
    kept: Mutex<Kept>,
    more: Condvar,
}

#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) exchanges: Vec<Arc<ExchangeRecord>>,
    pub(crate) connections: Vec<Arc<ConnectionEntry>>,
}

impl Sink for Keeps {
    fn exchange(&self, record: &Arc<ExchangeRecord>) {
        self.kept.lock().unwrap().exchanges.push(record.clone());
        self.more.notify_all();
    }
    fn connection(&self, entry: &Arc<ConnectionEntry>) {
        self.kept.lock().unwrap().connections.push(entry.clone());
        self.more.notify_all();
    }
}

impl Keeps {
    pub(crate) fn new() -> (Arc<Keeps>, Sinks) {
        let keeps = Arc::new(Keeps::default());
        (keeps.clone(), Sinks::new([keeps as Arc<dyn Sink>]))
    }

    pub(crate) fn kept(&self) -> Kept {
        self.kept.lock().unwrap().clone()
    }

    /// Waits until it is so.
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Kept) -> bool) -> Kept {
        let deadline = Instant::now() + PATIENCE;
        let mut kept = self.kept.lock().unwrap();
        while !so(&kept) {
            let left = deadline.saturating_duration_since(Instant::now());
            let counts = (kept.exchanges.len(), kept.connections.len());
            assert!(!left.is_zero(), "waited in vain: {what}; exchanges and connections: {counts:?}");
            kept = self.more.wait_timeout(kept, left).unwrap().0;
        }
        kept.clone()
    }

    /// Waits for so many records, and sees that each connection says how many exchanges it had.
    pub(crate) fn counts(&self, exchanges: usize, connections: usize) -> Kept {
        let kept = self.until("all records", |kept| {
            kept.exchanges.len() >= exchanges && kept.connections.len() >= connections
        });
        assert_eq!((kept.exchanges.len(), kept.connections.len()), (exchanges, connections));
        for entry in &kept.connections {
            let ours: Vec<_> =
                kept.exchanges.iter().filter(|exchange| exchange.conn_id == entry.record.conn_id).collect();
            assert_eq!(ours.len() as u64, entry.exchanges, "{entry:?}");
            let mut ids: Vec<u64> = ours.iter().map(|exchange| exchange.exchange_id).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(1..=entry.exchanges));
            let (sent, received): (u64, u64) =
                (ours.iter().map(|e| e.wire_out).sum(), ours.iter().map(|e| e.wire_in).sum());
            assert!(
                sent <= entry.record.plain_out && received <= entry.record.plain_in,
                "{ours:?} {entry:?}"
            );
        }
        kept
    }
}

pub(crate) fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn listeners(count: usize) -> Listeners {
    Listeners::bind(here(), count).unwrap()
}

pub(crate) fn random_bytes(length: usize) -> Vec<u8> {
    (0..length).map(|_| fastrand::u8(..)).collect()
}

pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// Writes in random pieces, sometimes with the kernel given time to send each on its own.
pub(crate) fn write_split(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_nodelay(true).unwrap();
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if fastrand::bool() { 7 } else { 40_000 };
        let (now, later) = rest.split_at(fastrand::usize(1..=most.min(rest.len())));
        stream.write_all(now).unwrap();
        if fastrand::u8(..8) == 0 {
            std::thread::yield_now();
        }
        rest = later;
    }
}

/// Reads a frame; `None` at the end.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A server made of plain sockets: `serve` gets each connection, on a thread of its own, with its number from 0.
pub(crate) fn plain_server(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind(here()).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (serve, stream) = (serve.clone(), stream.unwrap());
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || serve(number, stream));
        }
    });
    address
}

/// One that answers each frame by itself.
pub(crate) fn echo_server() -> SocketAddr {
    plain_server(|_, mut stream| {
        while let Some(body) = read_frame(&mut stream) {
            write_split(&mut stream, &frame(&body));
        }
    })
}
