//! Whatever comes at a TLS port: one record each, with who and why, and the server goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::poller::{ConnectionRecord, End, Peer, PollerSettings, Reason};

use crate::pki::{Pki, pair};
use crate::poller::{PATIENCE, Part, Running, Told, pattern};
use crate::raw::RawClient;

fn config() -> PollerSettings {
    PollerSettings { handshake_timeout: Some(Duration::from_millis(300)), ..PollerSettings::default() }
}

/// Says `words` to a fresh server, reads until it closes, and returns what it said and its record.
fn say(words: &[u8]) -> (Vec<u8>, ConnectionRecord) {
    let pki = Pki::new("hostile");
    let serving = Running::serve_with(&pair(&pki).0, Part::Echo, None, config());
    let mut caller = TcpStream::connect(serving.address).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    caller.write_all(words).unwrap();
    let mut said = Vec::new();
    let _ = caller.read_to_end(&mut said);
    let peer = Peer::Inet(caller.local_addr().unwrap());
    drop(caller);
    // Somebody else on this machine may have knocked at the port.
    let record = serving.wait(|told| match told {
        Told::Closed(record) if record.peer == peer => Some(*record),
        _ => None,
    });
    (said, record)
}

fn is_fatal_alert(said: &[u8]) -> bool {
    said.len() == 7 && said[0] == 21 && said[5] == 2
}

#[test]
fn plain_http_and_garbage_get_an_alert_and_a_record() {
    let (said, record) = say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "handshake"));
    let fault = record.handshake.unwrap().fault.unwrap();
    assert!(fault.contains("not TLS") && fault.contains("GET "), "{fault}");
    assert!(is_fatal_alert(&said), "{said:?}");
    assert_eq!((record.wire_in, record.wire_out, record.plain_in), (35, 7, 0));

    for seed in 0..40 {
        let (_, record) = say(&pattern(300 + seed as usize * 50, seed));
        let end = record.end;
        assert!(
            end == End::peer(Reason::TransportError) || end == End::local(Reason::Timeout),
            "seed {seed}: {end:?}, {:?}",
            record.handshake
        );
        assert_eq!(record.phase, "handshake");
    }
}

#[test]
fn records_with_hostile_lengths_and_endless_messages_are_refused() {
    // A handshake record of 65,535 bytes.
    let (_, record) = say(&[22, 3, 1, 255, 255, 1, 0, 0]);
    assert_eq!(record.end, End::peer(Reason::TransportError));
    // A message said to be 16 MB long, in many records.
    let mut words = Vec::new();
    for n in 0..20 {
        words.extend_from_slice(&[22, 3, 1, 0x3f, 0]);
        let mut body = vec![0; 0x3f00];
        if n == 0 {
            body[..4].copy_from_slice(&[1, 255, 255, 255]);
        }
        words.extend_from_slice(&body);
    }
    let (_, record) = say(&words);
    assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "handshake"));
    // The same in records of one byte.
    let words: Vec<u8> = [1u8, 0, 255, 255]
        .into_iter()
        .chain(std::iter::repeat_n(0, 60_000))
        .flat_map(|byte| [22, 3, 1, 0, 1, byte])
        .collect();
    let (_, record) = say(&words);
    assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "handshake"));
}

#[test]
fn a_peer_that_stalls_in_the_handshake_times_out() {
    let begun = Instant::now();
    let (said, record) = say(b"\x16\x03\x01");
    assert_eq!((record.end, record.phase), (End::local(Reason::Timeout), "handshake"));
    assert!(said.is_empty() && record.handshake.unwrap().took.is_none());
    let took = begun.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert!(PollerSettings::default().handshake_timeout == Some(Duration::from_secs(10)));

    // And a server that stalls.
    let pki = Pki::new("stall");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, client) = pair(&pki);
    let asking = Running::connect_with(
        listener.local_addr().unwrap(),
        &client,
        "localhost",
        Part::Says(Arc::new(vec![0; 10])),
        config(),
    );
    let record = asking.record();
    assert_eq!((record.end, record.phase), (End::local(Reason::Timeout), "handshake"));
    assert_eq!((record.plain_out, record.dropped_out), (0, 10));
}

#[test]
fn a_peer_that_leaves_in_the_handshake_is_an_abort() {
    let pki = Pki::new("leave");
    let serving = Running::serve(&pair(&pki).0, Part::Echo);
    // FIN in the middle of a hello.
    let mut caller = TcpStream::connect(serving.address).unwrap();
    caller.write_all(&[22, 3, 1, 0, 200, 1, 0]).unwrap();
    drop(caller);
    let record = serving.record();
    assert_eq!((record.end, record.phase), (End::peer(Reason::Abort), "handshake"));
    // FIN at once.
    drop(TcpStream::connect(serving.address).unwrap());
    let record = serving.record();
    assert_eq!((record.end, record.phase), (End::peer(Reason::Abort), "handshake"));
    // A reset in the middle.
    let caller = TcpStream::connect(serving.address).unwrap();
    (&caller).write_all(&[22, 3, 1, 0, 200, 1, 0]).unwrap();
    tidegate::poller::sys::set_linger_reset(&caller).unwrap();
    drop(caller);
    let record = serving.record();
    assert_eq!((record.end, record.phase), (End::peer(Reason::Abort), "handshake"));
}

#[test]
fn flipped_bytes_anywhere_end_with_one_record_and_never_a_panic() {
    let pki = Pki::new("flip");
    let (server, client) = pair(&pki);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let serving = Running::serve_with(&server, Part::Echo, None, config());
    for round in 0..40 {
        let at = random.usize(0..1_900);
        let relay = flipping_relay(serving.address, at, random.u8(1..));
        let part = Part::SaysAndCloses(Arc::new(pattern(1_500, round)));
        let asking = Running::connect_with(relay, &client, "localhost", part, config());
        let served = serving.record();
        assert_ne!(served.end.reason, Reason::Internal, "byte {at}: {served:?}");
        drop(asking);
    }
    assert_eq!(serving.handle.figures().panics, 0);
}

/// Relays one connection and changes one byte of the caller's; ends it when either end does.
fn flipping_relay(to: std::net::SocketAddr, at: usize, by: u8) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(to).unwrap();
        let (mut back_in, mut back_out) = (server.try_clone().unwrap(), caller.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = back_in.read(&mut buf) {
                if back_out.write_all(&buf[..n]).is_err() {
                    break;
                }
            }
            let _ = back_out.shutdown(std::net::Shutdown::Both);
        });
        let mut buf = [0; 700];
        let mut seen = 0;
        while let Ok(n @ 1..) = caller.read(&mut buf) {
            if (seen..seen + n).contains(&at) {
                buf[at - seen] ^= by;
            }
            seen += n;
            if server.write_all(&buf[..n]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(std::net::Shutdown::Both);
    });
    address
}

/// A client hello of SSL 3.0: its version, some bytes of chance, no session, one cipher suite, no compression.
fn ssl3_hello() -> Vec<u8> {
    let mut hello = vec![3, 0];
    hello.extend_from_slice(&pattern(32, 3));
    hello.extend_from_slice(&[0, 0, 2, 0, 0x2f, 1, 0]);
    let len = hello.len() as u8;
    let mut words = vec![22, 3, 0, 0, len + 4, 1, 0, 0, len];
    words.extend_from_slice(&hello);
    words
}

#[test]
fn older_protocols_are_refused_with_an_alert() {
    let (said, record) = say(&ssl3_hello());
    assert_eq!((record.end.reason, record.phase), (Reason::TransportError, "handshake"));
    assert!(is_fatal_alert(&said), "{said:?}, {record:?}");
    assert_eq!((record.wire_in, record.wire_out), (50, 7));
    // SSL 2.0 has another head.
    let (said, record) = say(&[0x80, 46, 1, 0, 2, 0, 21, 0, 0, 0, 16, 1, 0, 0x80, 2, 0, 0x80, 3, 0, 0x80]);
    assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "handshake"));
    assert!(is_fatal_alert(&said), "{said:?}");
}

#[test]
fn garbage_behind_good_records_is_an_alert_and_what_came_before_is_not_lost() {
    let pki = Pki::new("behind");
    let serving = Running::serve(&pair(&pki).0, Part::Echo);
    let mut forged = vec![23, 3, 3, 0, 40];
    forged.extend_from_slice(&pattern(40, 1));
    for garbage in [forged, b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![22, 3, 3, 0x7f, 0xff]] {
        let mut client = RawClient::ready(serving.address, &pki);
        let mut words = client.records(b"hello", 100);
        words.extend_from_slice(&garbage);
        client.stream.write_all(&words).unwrap();
        let heard = client.rest();
        assert!(matches!(heard, Err(rustls::Error::AlertReceived(_))), "{garbage:?}: {heard:?}");
        let record = serving.record();
        assert_eq!((record.end, record.phase), (End::peer(Reason::TransportError), "open"), "{record:?}");
        assert_eq!(record.plain_in, 5, "{garbage:?}");
        let handshake = record.handshake.unwrap();
        assert!(handshake.fault.is_some() && !handshake.truncated, "{handshake:?}");
    }
    let figures = serving.handle.figures();
    assert_eq!(figures.panics, 0);
}

#[test]
fn a_flood_of_records_of_one_byte_holds_nobody_up() {
    const BYTES: usize = 100_000;
    let pki = Pki::new("flood");
    let (server, client) = pair(&pki);
    let serving = Running::serve(&server, Part::Echo);
    let content = pattern(BYTES, 5);
    let mut flood = RawClient::ready(serving.address, &pki);
    let records = flood.records(&content, 1);
    assert!(records.len() > 20 * BYTES);
    let mut out = flood.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || out.write_all(&records).unwrap());
    // Somebody else asks meanwhile, one thing after another.
    let (asked, done) = (client, std::sync::atomic::AtomicBool::new(false));
    let longest = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let begun = Instant::now();
                let words = Part::SaysAndCloses(Arc::new(b"x".to_vec()));
                let other = Running::connect(serving.address, &asked, "localhost", words);
                assert_eq!(other.record().end.reason, Reason::Ok);
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        assert!(flood.bytes(BYTES) == content);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap()
    });
    sender.join().unwrap();
    println!("a handshake and an exchange of others took {longest:?} at most");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}
