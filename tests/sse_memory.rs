//! What a subscriber takes of memory, before, while and after it is sent events. Alone in its binary: it counts what is
//! allocated.
#![cfg(feature = "sse")]

#[path = "../poller/tests/counting/mod.rs"]
mod counting;
mod sse_support;
mod support;

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sse_support::*;
use support::{PATIENCE, await_that};
use tidegate::http::{Server, ServerSettings};
use tidegate::net::Listeners;
use tidegate::sse::{Event, Hub};
use tidegate_meter::sys::raise_open_files;

/// With the one before them a power of two: what grows by doubling is full.
const SUBSCRIBERS: usize = 1_023;

/// Reads from each until that has come.
fn await_text(clients: &mut [TcpStream], text: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 64 * 1024];
    for client in clients {
        let mut seen = 0;
        while !buffer[..seen].windows(text.len()).any(|window| window == text) {
            let n = client.read(&mut buffer[seen..]).unwrap();
            assert!(n > 0 && Instant::now() < deadline, "cut, or nothing but heartbeats");
            seen += n;
        }
    }
}

#[test]
fn a_subscriber_takes_two_kilobytes_at_most_and_no_more_once_it_was_sent_events() {
    raise_open_files();
    let hub = Hub::new();
    let listeners = Listeners::bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
    let server = Server::builder(topics(&hub)).settings(ServerSettings::default()).start(listeners).unwrap();
    // What is made once is there; and the client's side holds nothing but descriptors.
    let mut clients = Vec::with_capacity(SUBSCRIBERS + 1);
    let connect = || {
        let client = TcpStream::connect(server.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::Write::write_all(&mut &client, b"GET /all HTTP/1.1\r\nHost: bench\r\n\r\n").unwrap();
        client
    };
    clients.push(connect());
    await_subscribers(&hub, 1);
    hub.publish("all", Event::data("warm")).unwrap();
    await_text(&mut clients, b"warm");
    let before = counting::taken_bytes();
    clients.extend((0..SUBSCRIBERS).map(|_| connect()));
    await_text(&mut clients[1..], b": \n\n");
    await_subscribers(&hub, SUBSCRIBERS as u64 + 1);
    let idle = counting::taken_bytes() - before;
    for round in 0..20 {
        let data = format!("{:<100}", format!("event {round}."));
        hub.publish("all", Event::data(data)).unwrap();
        await_text(&mut clients, format!("event {round}.").as_bytes());
    }
    // All pulled and all gone, the last among them.
    await_that("nothing is under way", || {
        (hub.figures().delivered == 21 + 20 * SUBSCRIBERS as u64).then_some(())
    });
    let after = counting::taken_bytes() - before;
    let (idle, after) = (idle as f64 / SUBSCRIBERS as f64, after as f64 / SUBSCRIBERS as f64);
    println!("{idle:.0} bytes for each subscriber idle, {after:.0} after it was sent events");
    assert!(idle < 2_000.0 && after < 2_000.0, "{idle:.0} {after:.0}");
    // The ring's share apart.
    assert!(after < idle + 20.0, "{idle:.0} {after:.0}");
    drop(clients);
    await_subscribers(&hub, 0);
    server.shutdown(Duration::ZERO);
    server.join().unwrap();
}
