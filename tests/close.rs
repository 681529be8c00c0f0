//! A close waits for the bytes before it: FIN never overtakes what a budget holds back.
#![cfg(feature = "cli")]

mod support;

use std::time::Duration;

use support::{Serve, Wire, end, number};
use tidegate_meter::scratch::pattern;

/// 320,000 bytes at 800 kB/s: the close is asked for at once, the bytes take 400 ms.
const RATE: [&str; 2] = ["--rate", "800kB"];
const BYTES: usize = 320_000;

#[test]
fn connection_close_does_not_cut_a_throttled_reply() {
    let serve = Serve::start(&RATE);
    serve.file("file", BYTES as u64);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "Connection: close\r\n");
    let reply = wire.reply();
    assert!(reply.body == pattern(0, BYTES), "{} bytes", reply.body.len());
    assert!(wire.await_close());
}

#[test]
fn half_close_does_not_cut_a_throttled_reply() {
    let serve = Serve::start(&RATE);
    serve.file("file", BYTES as u64);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "Connection: close\r\n");
    wire.half_close();
    let reply = wire.reply();
    assert!(reply.body == pattern(0, BYTES), "{} bytes", reply.body.len());
    assert!(wire.await_close());
}

#[test]
fn http_1_0_gets_the_whole_throttled_reply() {
    let serve = Serve::start(&RATE);
    serve.file("file", BYTES as u64);
    let mut wire = Wire::connect(serve.address());
    wire.send(b"GET /file HTTP/1.0\r\n\r\n");
    let reply = wire.reply();
    assert!(reply.body == pattern(0, BYTES), "{} bytes", reply.body.len());
    assert!(wire.await_close());
}

#[test]
fn pipelined_replies_before_a_close_are_all_there() {
    let serve = Serve::start(&RATE);
    serve.file("file", BYTES as u64);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "");
    wire.ask("/file", "Connection: close\r\n");
    wire.half_close();
    for _ in 0..2 {
        assert!(wire.reply().body == pattern(0, BYTES));
    }
    assert!(wire.await_close());
    let log = serve.stop().log();
    assert_eq!(number(log.connection(wire.local()), "wire_out"), wire.received);
}

#[test]
fn a_slow_reader_gets_every_byte_before_the_close() {
    let serve = Serve::start(&[]);
    // More than the kernel's buffers hold, or the server would never be blocked.
    serve.file("file", 20_000_000);
    let mut wire = Wire::connect_with_window(serve.address(), 65_536);
    wire.ask("/file", "Connection: close\r\n");
    let (head, text) = wire.head();
    let mut reply = support::Reply { head, text, body: Vec::new(), reads: Vec::new() };
    // Some, then nothing for a while, then the rest: the server is blocked, its close waits.
    wire.body(&mut reply, 50_000, Duration::from_secs(10));
    std::thread::sleep(Duration::from_millis(300)); // the slowness itself
    wire.body(&mut reply, u64::MAX, support::PATIENCE);
    assert!(reply.body == pattern(0, 20_000_000), "{} bytes", reply.body.len());
    assert!(wire.await_close());
    let log = serve.stop().log();
    let connection = log.connection(wire.local());
    assert_eq!(end(connection), "server/ok");
    assert!(number(connection, "blocked_us") >= 200_000, "{connection:#}");
    assert_eq!(number(connection, "throttled_us"), 0);
}

#[test]
fn an_unread_rest_of_the_request_does_not_turn_the_close_into_a_reset() {
    let serve = Serve::start(&[]);
    let mut wire = Wire::connect(serve.address());
    // A request that is refused, with more behind it than anybody will parse.
    wire.send(b"BREW /pot HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    wire.send(pattern(0, 100_000));
    let reply = wire.reply();
    assert!((400..=501).contains(&reply.head.status), "{}", reply.text);
    wire.half_close();
    assert!(wire.await_close(), "FIN, not a reset: the answer could be lost");
}

#[test]
fn half_a_request_behind_a_throttled_reply_has_its_whole_time() {
    let serve = Serve::start(&["--rate", "800kB", "--header-timeout", "1s"]);
    serve.file("file", 1_600_000);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "");
    wire.send(b"GET /file HT");
    // Two seconds, in which nobody reads what the client sends.
    assert!(wire.reply().body == pattern(0, 1_600_000));
    wire.send(b"TP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(wire.reply().body == pattern(0, 1_600_000), "no 408");
    assert!(wire.await_close());
}
