//! Clients that mean ill, or know no better: the next one is answered at once, and every connection leaves its record.
#![cfg(feature = "http")]

mod support;

use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{Host, PATIENCE, Wire};
use tidegate::http::{Exchange, HeadLimits, Reply, ServerSettings, body_stream};
use tidegate::poller::Reason;

/// As a browser or curl begins when it was told `https://`.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

fn settings() -> ServerSettings {
    ServerSettings {
        header_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(400),
        send_timeout: Duration::from_millis(400),
        ..ServerSettings::default()
    }
}

fn host() -> Host {
    host_with(settings())
}

fn host_with(settings: ServerSettings) -> Host {
    Host::with(settings, |exchange: &mut Exchange| {
        exchange.context.reply = match exchange.context.request().target() {
            b"/big" => Reply::text(vec![b'x'; 8_000_000]),
            b"/stream" => {
                let (writer, body) = body_stream(1_000_000);
                let _ = writer.try_send(vec![b'x'; 500_000]);
                writer.finish();
                Reply::text(body)
            }
            _ => Reply::text("well\n"),
        };
    })
}

/// Somebody decent asks, and is answered at once.
fn is_well(host: &Host) {
    let started = Instant::now();
    assert_eq!(host.connect().get("/").body_text(), "well\n");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_thousand_clients_that_leave_in_the_middle_of_a_reply_are_forgotten() {
    // None of them is to be cut for its slowness, however busy the machine is.
    let host = host_with(ServerSettings::default());
    for _ in 0..10 {
        let clients: Vec<Wire> = (0..100)
            .map(|nth| {
                let mut client = Wire::connect_with_window(host.address, 4_096);
                client.ask(if nth % 2 == 0 { "/big" } else { "/stream" }, "");
                client
            })
            .collect();
        for (nth, mut client) in clients.into_iter().enumerate() {
            client.take(1);
            if nth % 3 == 0 { client.reset() } else { drop(client) }
        }
        is_well(&host);
    }
    let (exchanges, connections) = host.records.connections(1_010);
    let aborted = exchanges.iter().filter(|record| record.end.reason == Reason::Abort).count();
    // A stream of half a megabyte may have gone into the kernel whole.
    assert!(aborted >= 500, "{aborted}");
    assert_eq!((exchanges.len(), connections.len()), (1_010, 1_010));
    host.end();
}

#[test]
fn slow_heads_slow_bodies_and_slow_readers_are_given_up_each_for_itself() {
    let host = host();
    std::thread::scope(|scope| {
        let (tell, given_up) = mpsc::channel();
        for nth in 0..30 {
            let (host, tell) = (&host, tell.clone());
            scope.spawn(move || {
                let mut client = Wire::connect_with_window(host.address, 4_096);
                match nth % 3 {
                    0 => {
                        client.send("GET / HTTP/1.1\r\n");
                        while client.send_if_open(b"X", Duration::from_millis(30)) {}
                    }
                    1 => {
                        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nsome");
                        client.reply();
                        client.await_close();
                    }
                    _ => {
                        client.ask("/big", "");
                        // It takes nothing at all.
                        client.await_left();
                        client.drain();
                    }
                }
                let _ = tell.send(());
            });
        }
        is_well(&host);
        for _ in 0..30 {
            given_up.recv_timeout(PATIENCE).expect("it is given up");
            is_well(&host);
        }
    });
    let (_, connections) = host.records.connections(61);
    let late = connections.iter().filter(|entry| entry.record.end.reason == Reason::Timeout).count();
    assert!(late >= 30, "{late}");
    host.end();
}

#[test]
fn endless_heads_and_bodies_end() {
    let host = host();
    for (start, more, status) in [
        ("", "a", 414),
        ("GET /", "a", 414),
        ("GET / HTTP/1.1\r\nHost: x\r\n", "A: b\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: ", "a", 431),
        ("", "\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", "x", 413),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", "a", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", "b", 400),
    ] {
        let mut client = host.connect();
        client.send(start);
        let piece = more.repeat(10_000);
        let mut sender = client.stream.try_clone().unwrap();
        let reply = std::thread::scope(|scope| {
            scope.spawn(move || {
                // Until the other end has enough.
                for _ in 0..1_000 {
                    if sender.write_all(piece.as_bytes()).is_err() {
                        break;
                    }
                }
            });
            client.reply()
        });
        assert_eq!((reply.head.status, reply.field("connection")), (status, "close"), "{start:?} {more:?}");
        is_well(&host);
    }
    host.end();
}

#[test]
fn the_limits_of_a_head_are_the_settings() {
    let head_limits = HeadLimits { bytes: 300, fields: 4, target: 20 };
    let settings = ServerSettings { head_limits, ..ServerSettings::default() };
    let host = Host::with(settings, |exchange: &mut Exchange| exchange.context.reply = Reply::text("well\n"));
    let get = |target: &str, fields: &str| {
        host.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")).head.status
    };
    assert_eq!(get("/", "A: b\r\nC: d\r\n"), 200);
    assert_eq!(get("/", "A: b\r\nC: d\r\nE: f\r\n"), 431);
    assert_eq!(get("/aaaaaaaaaaaaaaaaaaa", ""), 200);
    assert_eq!(get("/aaaaaaaaaaaaaaaaaaaa", ""), 414);
    assert_eq!(get("/", &format!("A: {}\r\n", "b".repeat(300))), 431);
    host.end();
}

#[test]
fn garbage_gets_a_word_and_the_end() {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let host = host();
    let reply = host.ask(TLS_HELLO);
    assert_eq!((reply.head.status, reply.field("connection")), (400, "close"));
    assert!(reply.body_text().contains("This is TLS"), "{}", reply.body_text());
    for _ in 0..200 {
        let mut client = host.connect();
        let mut bytes = match random.u8(..3) {
            0 => Vec::new(),
            1 => b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec(),
            _ => b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        };
        bytes.extend((0..random.usize(1..300)).map(|_| random.u8(..)));
        let _ = client.stream.write_all(&bytes);
        client.half_close();
        // An answer, or only the end: never silence, and nothing that hangs.
        client.drain();
    }
    is_well(&host);
    host.records.connections(202);
    host.end();
}
