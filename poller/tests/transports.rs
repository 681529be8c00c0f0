//! A transport with a handshake, record overhead and a goodbye fits behind the gate, as TLS will.

mod support;

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use support::{Script, TempFile, Told, pattern, read_exact, read_to_end};
use tidegate_poller::transport::{Received, Wrote};
use tidegate_poller::{
    Buffers, Edge, End, Mark, Plain, Poller, PollerSettings, Reason, Role, Transport, Wire,
};

const HELLO: &[u8] = b"HELLO";
const BYE: &[u8] = b"BYE";
const HEADER: usize = 5;
const RECORD: usize = 1_000;

/// Puts a length before each record of at most 1,000 bytes, greets first and says goodbye last.
struct Records {
    plain: Plain,
    /// Framed bytes the kernel has not taken, and how much of them it has.
    waiting: Vec<u8>,
    taken: usize,
    bye_said: bool,
}

impl Records {
    fn new(plain: Plain) -> Records {
        Records { plain, waiting: HELLO.to_vec(), taken: 0, bye_said: false }
    }

    /// Writes what waits; says how much went and whether the kernel is full.
    fn flush(&mut self, allowance: u64, buffers: &mut Buffers) -> io::Result<Wrote> {
        let rest = &self.waiting[self.taken..];
        let cut = rest.len().min(allowance as usize);
        let wrote = match self.plain.write(&[IoSlice::new(&rest[..cut])], allowance, false, buffers) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Wrote { full: true, ..Wrote::default() }
            }
            other => other?,
        };
        self.taken += wrote.wire as usize;
        if self.taken == self.waiting.len() {
            self.waiting.clear();
            self.taken = 0;
        }
        Ok(Wrote { plain: 0, ..wrote })
    }
}

impl Transport for Records {
    fn read(&mut self, buf: &mut [u8], allowance: u64, buffers: &mut Buffers) -> io::Result<Received> {
        self.plain.read(buf, allowance, buffers)
    }

    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        allowance: u64,
        _more: bool,
        buffers: &mut Buffers,
    ) -> io::Result<Wrote> {
        let mut total = self.flush(allowance, buffers)?;
        for slice in bufs {
            for record in slice.chunks(RECORD) {
                if total.full || !self.waiting.is_empty() || total.wire >= allowance {
                    return Ok(total);
                }
                self.waiting.extend_from_slice(format!("{:05}", record.len()).as_bytes());
                self.waiting.extend_from_slice(record);
                let wrote = self.flush(allowance - total.wire, buffers)?;
                // Taken in: what the kernel did not take waits here.
                total.plain += record.len() as u64;
                total.wire += wrote.wire;
                total.full = wrote.full;
            }
        }
        Ok(total)
    }

    fn wants_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn wire_bytes(&self, plain: u64) -> u64 {
        let headers = plain.div_ceil(RECORD as u64) * HEADER as u64;
        (self.waiting.len() - self.taken) as u64 + headers + plain
    }

    fn finish(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        if !std::mem::replace(&mut self.bye_said, true) {
            self.waiting.extend_from_slice(BYE);
        }
        if self.wants_write() { Ok(false) } else { self.plain.finish(buffers) }
    }

    fn plain(&self) -> &Plain {
        &self.plain
    }

    fn plain_mut(&mut self) -> &mut Plain {
        &mut self.plain
    }
}

fn unframe(mut wire: &[u8]) -> Vec<u8> {
    assert_eq!(wire.split_off(..HELLO.len()).unwrap(), HELLO);
    let mut plain = Vec::new();
    while wire != BYE {
        let len = std::str::from_utf8(wire.split_off(..HEADER).unwrap()).unwrap().parse().unwrap();
        plain.extend_from_slice(wire.split_off(..len).unwrap());
    }
    plain
}

#[test]
fn overhead_handshake_and_goodbye_pass_the_gate() {
    let (tell, told) = channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let content = pattern(3_000_000, 11);
    let file = TempFile::new(&content);
    let runner = std::thread::spawn({
        let file = file.file.clone();
        move || run(stream, &file, &tell)
    });
    let wire = {
        let mut client = client;
        let hello = read_exact(&mut client, HELLO.len());
        client.write_all(b"go").unwrap();
        let rest = read_to_end(&mut client);
        client.shutdown(Shutdown::Write).unwrap();
        [hello, rest].concat()
    };
    let expected = [&b"head"[..], &content, b"tail"].concat();
    assert!(unframe(&wire) == expected);
    runner.join().unwrap();
    let mut record = None;
    let mut offsets = Vec::new();
    for told in told.try_iter() {
        match told {
            Told::Passed(passed) => offsets.push(passed.offset),
            Told::Closed(closed) => record = Some(closed),
            _ => {}
        }
    }
    let record = record.unwrap();
    assert_eq!(record.plain_out, expected.len() as u64);
    assert_eq!(record.wire_out, wire.len() as u64);
    assert_eq!((record.dropped_out, record.end), (0, End::local(Reason::Ok)));
    assert_eq!(offsets, [0, expected.len() as u64]);
}

fn run(stream: TcpStream, file: &Arc<File>, tell: &Sender<Told>) {
    stream.set_nonblocking(true).unwrap();
    let plain = Plain::Tcp(mio::net::TcpStream::from_std(stream));
    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    let file = file.clone();
    let session = Script::new()
        .received(move |io, _| {
            io.mark(Mark { id: 1, edge: Edge::Begin { free: 0 } });
            io.send("head");
            io.send_file(file.clone(), 0, 3_000_000);
            io.send("tail");
            io.mark(Mark { id: 1, edge: Edge::End });
            io.finish(End::local(Reason::Ok));
        })
        .session(tell);
    poller.adopt(Wire::Boxed(Box::new(Records::new(plain))), Role::Server, session).unwrap();
    while poller.sockets() > 0 {
        poller.turn(None).unwrap();
    }
}
