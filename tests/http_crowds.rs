//! Crowds that keep the server waiting: each costs it little, the next client is served at once, and what they took is used
//! again.
#![cfg(feature = "cli")]

mod support;

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::{Host, Serve, Wire};
use tidegate::http::{Exchange, Handler, Intake, Reply, Request};
use tidegate::task::sleep;
use tidegate_meter::account::Memory;

/// Bytes of its own that a process has.
fn memory(pid: u32) -> u64 {
    Memory::read(&[pid]).unwrap().anonymous
}

/// One at a time: this process's memory is looked at.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody who wants little is served at once.
fn is_well(serve: &Serve) {
    let asked = Instant::now();
    assert_eq!(Wire::connect(serve.address()).get("/none").head.status, 404);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}

#[test]
fn a_crowd_costs_its_bytes_and_the_next_one_none() {
    const CROWD: usize = 300;
    let _turn = turn();
    let serve = Serve::start(&["--pollers", "1", "--header-timeout", "600s", "--max-connections", "2000"]);
    serve.file("large", 20_000_000);
    is_well(&serve);
    let half_a_head = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(4_000));
    let mut gone = 1;
    for (what, request, bytes_each) in [
        // What it holds, and what is under way beside it.
        ("half a head", half_a_head.as_str(), 8_000),
        ("a reply that is not read", "GET /large HTTP/1.1\r\nHost: x\r\n\r\n", 4_000),
    ] {
        let mut taken = Vec::new();
        for _ in 0..3 {
            let before = memory(serve.pid());
            let mut crowd: Vec<Wire> = (0..CROWD)
                .map(|_| {
                    let mut client = Wire::connect_with_window(serve.address(), 4_096);
                    client.send(request);
                    client
                })
                .collect();
            if what != "half a head" {
                crowd.iter_mut().for_each(|client| drop(client.take(1)));
            }
            is_well(&serve);
            taken.push(memory(serve.pid()).saturating_sub(before) / CROWD as u64);
            drop(crowd);
            gone += CROWD + 1;
            serve.await_log("they are gone", |log| log.connections.len() == gone);
        }
        // What is freed stays with the allocator, for those who come next.
        assert!(taken[0] < bytes_each && taken[1..].iter().all(|again| *again < 400), "{what}: {taken:?}");
    }
}

/// Takes bodies as streams and reads nothing of them.
#[derive(Clone)]
struct Idle;

impl Handler for Idle {
    fn intake(&self, _: &Request) -> Intake {
        Intake::Stream { max_bytes: u64::MAX }
    }

    fn handle(&self, exchange: &mut Exchange) {
        match exchange.context.request().target() {
            b"/idle" => exchange.push(sleep(Duration::from_secs(600)), |(), _| Ok(())),
            _ => exchange.context.reply = Reply::text("well\n"),
        }
    }
}

#[test]
fn uploads_that_nobody_reads_wait_with_their_senders() {
    const CROWD: usize = 60;
    let _turn = turn();
    let host = Host::new(Idle);
    host.connect().get("/");
    let before = memory(std::process::id());
    let piece = vec![b'x'; 100_000];
    let crowd: Vec<Wire> = (0..CROWD)
        .map(|_| {
            let mut client = host.connect();
            client.send("POST /idle HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
            client.stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
            // Until the window is closed.
            while client.stream.write_all(&piece).is_ok() {}
            client
        })
        .collect();
    assert_eq!(host.connect().get("/").body_text(), "well\n");
    let grown = memory(std::process::id()).saturating_sub(before) / CROWD as u64;
    assert!(grown < 250_000, "{grown} bytes each");
    // Nothing is read of them, and yet they are seen to leave.
    crowd.into_iter().for_each(Wire::reset);
    host.records.connections(CROWD + 2);
    host.end();
}
