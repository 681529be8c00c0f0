//! What the tests of custom protocols share: a codec, a place for records, peers made of plain sockets.

// Each test binary uses its part of this, and may have another that shares a file with it.
#![allow(dead_code, unused_imports, clippy::duplicate_mod)]

#[path = "../support/keeps.rs"]
mod keeps;
#[path = "../support/waiting.rs"]
mod waiting;

pub(crate) use keeps::Keeps;
pub(crate) use waiting::PATIENCE;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use tidegate::net::Listeners;
use tidegate::net::protocol::{Codec, Decoded, Malformed, Outgoing};
use tidegate::record::Words;
use tidegate::task::SeriesError;

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
