//! A transport with a handshake: what is queued waits, the session is told, and every way to fail has its record.

mod support;

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::{PATIENCE, Script, Told, read_exact, read_to_end};
use tidegate_poller::transport::{Received, Wrote};
use tidegate_poller::{
    Buffers, ConnectionRecord, End, Fault, Handshake, Limit, Plain, Poller, PollerSettings, Reason, Role,
    Transport, Who, Wire,
};

const HELLO: &[u8] = b"hello";
const YES: &[u8] = b"y";
const SORRY: &[u8] = b"sorry";

/// Greets, is ready when the peer says yes, and is sorry when it says anything else.
struct Shy {
    plain: Plain,
    waiting: Vec<u8>,
    ready: bool,
    failed: bool,
}

impl Shy {
    fn wire(plain: Plain) -> Wire {
        Wire::Boxed(Box::new(Shy { plain, waiting: HELLO.to_vec(), ready: false, failed: false }))
    }
}

impl Transport for Shy {
    fn read(&mut self, buf: &mut [u8], allowance: u64, buffers: &mut Buffers) -> io::Result<Received> {
        if self.ready || self.failed {
            return self.plain.read(buf, allowance, buffers);
        }
        let came = self.plain.read(&mut buf[..1], allowance, buffers)?;
        if came.eof {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.ready = buf[..1] == *YES;
        self.failed = !self.ready;
        if self.failed {
            self.waiting.extend_from_slice(SORRY);
            return Err(Fault { who: Who::Peer, words: String::from("not yes") }.into());
        }
        Ok(Received { plain: 0, ..came })
    }

    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        allowance: u64,
        more: bool,
        _buffers: &mut Buffers,
    ) -> io::Result<Wrote> {
        assert!(bufs.is_empty() || self.ready, "offered before it was ready");
        if self.waiting.is_empty() {
            let n = self.plain.send(bufs, more)? as u64;
            return Ok(Wrote { plain: n, wire: n, full: false });
        }
        let cut = self.waiting.len().min(allowance as usize);
        let n = self.plain.send(&[IoSlice::new(&self.waiting[..cut])], more)?;
        self.waiting.drain(..n);
        Ok(Wrote { plain: 0, wire: n as u64, full: n < cut })
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn wire_bytes(&self, plain: u64) -> u64 {
        plain + self.waiting.len() as u64
    }

    fn wants_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn finish(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        self.plain.finish(buffers)
    }

    fn handshake(&self) -> Option<Handshake> {
        Some(Handshake { version: Some("shy"), ..Handshake::default() })
    }

    fn plain(&self) -> &Plain {
        &self.plain
    }

    fn plain_mut(&mut self) -> &mut Plain {
        &mut self.plain
    }
}

/// A session that queues "words" when opened and closes behind them, on a poller run to its end by another thread.
fn start(limit: Option<Limit>) -> (TcpStream, Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let note = tell.clone();
        let session = Script::new()
            .opened(move |io| {
                io.set_limit(tidegate_poller::Direction::Egress, limit.as_ref());
                io.send("words");
                io.finish(End::local(Reason::Ok));
            })
            .ready(move |io| {
                let version = io.handshake().unwrap().version.unwrap();
                note.send(Told::Note(format!("ready: {version}, {}", io.gate_state()))).unwrap();
            })
            .session(&tell);
        let settings = PollerSettings {
            handshake_timeout: Some(Duration::from_millis(300)),
            ..PollerSettings::default()
        };
        let mut poller = Poller::new(settings).unwrap();
        stream.set_nonblocking(true).unwrap();
        let plain = Plain::Tcp(mio::net::TcpStream::from_std(stream));
        poller.adopt(Shy::wire(plain), Role::Server, session).unwrap();
        let mut turns = 0;
        while poller.sockets() > 0 {
            turns += 1;
            poller.turn(None).unwrap();
        }
        assert!(turns < 60, "it spins: {turns} turns");
        tell.send(Told::Note(String::from("done"))).unwrap();
    });
    (peer, told)
}

/// What was told until the end: the notes, and the record.
fn end(told: &Receiver<Told>) -> (Vec<String>, ConnectionRecord) {
    let (mut notes, mut record) = (Vec::new(), None);
    loop {
        match told.recv_timeout(PATIENCE).unwrap() {
            Told::Note(note) if note == "done" => return (notes, record.unwrap()),
            Told::Note(note) => notes.push(note),
            Told::Closed(closed) => record = Some(closed),
            _ => {}
        }
    }
}

#[test]
fn what_is_queued_waits_until_the_handshake_is_done() {
    let (mut peer, told) = start(None);
    assert_eq!(read_exact(&mut peer, HELLO.len()), HELLO);
    // Nothing else comes for as long as the peer says nothing.
    peer.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let silence = peer.read(&mut [0; 8]).unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.write_all(YES).unwrap();
    assert_eq!(read_to_end(&mut peer), b"words");
    drop(peer);
    let (notes, record) = end(&told);
    assert!(notes[0].starts_with("ready: shy,") && notes[0].contains("5 queued: Closing Ready"), "{notes:?}");
    assert_eq!((record.end, record.phase), (End::local(Reason::Ok), "scripted"));
    assert_eq!((record.plain_out, record.wire_out, record.wire_in), (5, 10, 1));
    assert!(record.handshake.unwrap().took.unwrap() >= Duration::from_millis(90));
    assert_eq!(record.pauses.blocked_ns, 0, "the peer was not slow");
}

#[test]
fn a_transport_that_fails_says_its_last_words_through_the_gate() {
    // At thirty bytes a second even these wait for the budget.
    for limit in [None, Some(Limit::new("slow", Some(30)))] {
        let paced = limit.is_some();
        let (mut peer, told) = start(limit);
        assert_eq!(read_exact(&mut peer, HELLO.len()), HELLO);
        peer.write_all(b"n").unwrap();
        assert_eq!(read_to_end(&mut peer), SORRY);
        drop(peer);
        let (notes, record) = end(&told);
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "handshake"));
        assert_eq!((record.plain_out, record.wire_out, record.dropped_out), (0, 10, 5));
        assert_eq!(record.pauses.throttle_count > 0, paced, "{:?}", record.pauses);
        assert_eq!(record.handshake.unwrap().took, None);
    }
}

#[test]
fn a_handshake_that_stalls_or_is_left_has_its_record() {
    let (peer, told) = start(None);
    let (_, record) = end(&told);
    assert_eq!((record.end, record.phase), (End::local(Reason::Timeout), "handshake"));
    assert!(record.duration >= Duration::from_millis(290));
    drop(peer);

    let (peer, told) = start(None);
    peer.shutdown(Shutdown::Write).unwrap();
    let (_, record) = end(&told);
    assert_eq!((record.end, record.phase), (End::peer(Reason::Abort), "handshake"));
}
