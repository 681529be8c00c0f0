//! The measuring client against a server of a few lines: what it counts is what was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tidegate_meter::client::{Client, Discard, Plan, Then};
use tidegate_meter::figures::total;
use tidegate_meter::scratch::pattern;

const BODY: usize = 300_000;

/// Answers every request on every connection with `sent` of the `BODY` bytes it promises, then goes on or closes.
fn server(sent: usize, keeps: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, sent, keeps));
        }
    });
    address
}

fn answer(mut stream: TcpStream, sent: usize, keeps: bool) {
    let connection = if keeps { "keep-alive" } else { "close" };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\nConnection: {connection}\r\n\r\n");
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        request.extend_from_slice(&buffer[..n]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            // The client may have gone.
            let _ = stream.write_all(&[head.as_bytes(), &pattern(0, BODY)[..sent]].concat());
            if !keeps {
                return;
            }
        }
    }
}

fn plan(to: SocketAddr, connections: usize, then: Then, discard: Discard) -> Plan {
    Plan { to, connections, path: "/x".to_owned(), keep_alive: then != Then::Reconnect, then, discard }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn whole_replies_are_counted_however_they_are_read() {
    let to = server(BODY, true);
    for discard in [Discard::Copy, Discard::Truncate, Discard::Hash] {
        let mut client = Client::new().unwrap();
        client.open(&plan(to, 20, Then::Stay, discard), true, WITHIN).unwrap();
        for connection in client.connections() {
            assert_eq!(connection.body_bytes(), BODY as u64);
            assert_eq!(total(connection.reads()), BODY as u64);
            assert_eq!((connection.status(), connection.replies()), (200, 1));
            assert!(connection.reads().is_sorted_by_key(|read| read.at));
            if discard == Discard::Hash {
                assert_eq!(connection.hash(), fnv(&pattern(0, BODY)));
            }
        }
    }
}

#[test]
fn repeating_and_reconnecting_time_each_exchange() {
    for (then, keeps) in [(Then::Repeat, true), (Then::Reconnect, false)] {
        let mut client = Client::new().unwrap();
        client.open(&plan(server(BODY, keeps), 2, then, Discard::Truncate), true, WITHIN).unwrap();
        let deadline = client.now() + WITHIN.as_nanos() as u64;
        assert!(client.run_until_replies(5, deadline).unwrap());
        client.check().unwrap();
        for connection in client.connections() {
            assert!(connection.body_bytes() >= 5 * BODY as u64);
            let exchanges = connection.exchanges();
            assert!(exchanges.iter().all(|exchange| exchange.asked < exchange.done));
            assert!(exchanges.windows(2).all(|two| two[0].done <= two[1].asked));
        }
    }
}

#[test]
fn a_body_that_is_cut_is_a_failure() {
    let mut client = Client::new().unwrap();
    let plan = plan(server(BODY - 1, false), 1, Then::Stay, Discard::Copy);
    let error = client.open(&plan, true, WITHIN).unwrap_err().to_string();
    assert!(error.contains("1 bytes of the body missing"), "{error}");
}

#[test]
fn a_refused_connection_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    drop(listener);
    let mut client = Client::new().unwrap();
    let error = client.open(&plan(to, 1, Then::Stay, Discard::Copy), true, WITHIN).unwrap_err().to_string();
    assert!(error.starts_with("connect: "), "{error}");
}
