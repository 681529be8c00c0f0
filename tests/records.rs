//! Whatever ends a connection, it leaves exactly one record, and its bytes are those the client counted.
#![cfg(feature = "cli")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::{Log, PATIENCE, Serve, Wire, check_log, end, number};
use tidegate_meter::account;
use tidegate_meter::scratch::pattern;
use tidegate_meter::sys::{self, Tell};

/// Stops the server and checks what holds for every line.
fn log_of(serve: Serve) -> Log {
    let log = serve.stop().log();
    check_log(&log);
    log
}

/// Waits until the log has the record of the connection from there: it ended before the server did.
fn await_record(serve: &Serve, wire_from: SocketAddr) {
    let from = wire_from.to_string();
    serve.await_log("the connection's record", |log| {
        log.connections.iter().any(|line| line["peer"] == from.as_str())
    });
}

#[test]
fn the_client_closes_after_the_reply() {
    let serve = Serve::start(&[]);
    serve.file("file", 300_000);
    let mut wire = Wire::connect(serve.address());
    let reply = wire.get("/file");
    assert!(reply.body == pattern(0, 300_000));
    let (from, sent, received, head) = (wire.local(), wire.sent, wire.received, reply.head.bytes as u64);
    drop(wire);
    await_record(&serve, from);
    let log = log_of(serve);

    let connection = log.connection(from);
    assert_eq!(end(connection), "client/ok");
    assert_eq!(number(connection, "wire_in"), sent);
    assert_eq!(number(connection, "wire_out"), received);
    assert_eq!(number(connection, "exchanges"), 1);
    let exchange = log.exchange(from);
    assert_eq!(end(exchange), "server/ok");
    assert_eq!(exchange["method"], "GET");
    assert_eq!(exchange["target"], "/file");
    assert_eq!(exchange["status"], 200);
    assert_eq!(number(exchange, "req_header_bytes"), sent);
    assert_eq!(number(exchange, "req_body_bytes"), 0);
    assert_eq!(number(exchange, "resp_header_bytes"), head);
    assert_eq!(number(exchange, "resp_body_bytes"), 300_000);
    assert_eq!(number(exchange, "wire_out"), received);
    assert_eq!(exchange["conn_id"], connection["conn_id"]);
    // The kernel's own count agrees: nothing was in flight any more.
    assert_eq!(number(&connection["tcp"], "acked_bytes"), received);
}

#[test]
fn the_server_closes_as_asked() {
    let serve = Serve::start(&[]);
    serve.file("file", 300_000);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "Connection: close\r\n");
    assert!(wire.reply().body == pattern(0, 300_000));
    assert!(wire.await_close(), "FIN, not a reset");
    let (from, sent, received) = (wire.local(), wire.sent, wire.received);
    drop(wire);
    let log = log_of(serve);
    assert_eq!(end(log.connection(from)), "server/ok");
    assert_eq!(number(log.connection(from), "wire_in"), sent);
    assert_eq!(number(log.connection(from), "wire_out"), received);
}

#[test]
fn every_pipelined_reply_has_its_own_record_and_they_add_up() {
    let serve = Serve::start(&["--rate", "400kB"]);
    serve.file("a", 50_000);
    serve.file("b", 0);
    serve.file("c", 100_000);
    let mut wire = Wire::connect(serve.address());
    wire.send(
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /c HTTP/1.1\r\nHost: x\r\n\r\n\
          GET /b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert!(wire.reply().body == pattern(0, 50_000));
    let (head, _) = wire.head();
    assert_eq!(head.length, Some(100_000), "of HEAD, without the body");
    assert!(wire.reply().body.is_empty());
    assert!(wire.reply().body == pattern(0, 100_000));
    let (from, sent, received) = (wire.local(), wire.sent, wire.received);
    drop(wire);
    await_record(&serve, from);
    let log = log_of(serve);

    let exchanges = log.exchanges(from);
    let targets: Vec<&str> = exchanges.iter().filter_map(|line| line["target"].as_str()).collect();
    assert_eq!(targets, ["/a", "/c", "/b", "/c"]);
    let sum = |field: &str| exchanges.iter().map(|line| number(line, field)).sum::<u64>();
    assert_eq!(sum("wire_out"), received);
    assert_eq!(sum("req_header_bytes"), sent);
    assert_eq!(sum("resp_body_bytes"), 150_000);
    assert_eq!(number(log.connection(from), "wire_out"), received);
    assert_eq!(number(log.connection(from), "exchanges"), 4);
    // Throttled are those that took time, not the one that had nothing to send.
    assert!(number(exchanges[0], "throttled_us") > 50_000, "{:#}", exchanges[0]);
    assert!(number(exchanges[3], "throttled_us") > 120_000, "{:#}", exchanges[3]);
    assert!(number(exchanges[3], "total_us") < 60_000_000);
}

#[test]
fn the_client_resets_in_the_middle_of_a_reply() {
    let serve = Serve::start(&["--rate", "200kB"]);
    serve.file("big", 10_000_000);
    let mut wire = Wire::connect(serve.address());
    let reply = wire.download_for("/big", Duration::from_millis(300));
    let (from, received) = (wire.local(), wire.received);
    assert!(!reply.body.is_empty());
    wire.reset();
    await_record(&serve, from);
    let log = log_of(serve);
    let connection = log.connection(from);
    assert_eq!(end(connection), "client/abort");
    let exchange = log.exchange(from);
    assert_eq!(end(exchange), "client/abort");
    // What went to the kernel is at least what came out at the client, and far from all.
    let out = number(connection, "wire_out");
    assert!((received..5_000_000).contains(&out), "{out} bytes out, {received} received");
    assert_eq!(number(exchange, "wire_out"), out);
    assert_eq!(number(exchange, "resp_header_bytes") + number(exchange, "resp_body_bytes"), out);
}

#[test]
fn the_client_half_closes_and_still_gets_every_byte() {
    let serve = Serve::start(&["--rate", "400kB"]);
    serve.file("file", 200_000);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "");
    wire.half_close();
    assert!(wire.reply().body == pattern(0, 200_000));
    assert!(wire.await_close(), "FIN, not a reset");
    let (from, received) = (wire.local(), wire.received);
    drop(wire);
    let log = log_of(serve);
    assert_eq!(number(log.connection(from), "wire_out"), received);
    assert_eq!(end(log.exchange(from)), "server/ok");
    assert!(end(log.connection(from)).ends_with("/ok"), "{}", end(log.connection(from)));
}

#[test]
fn a_connection_that_asks_nothing_is_closed() {
    let serve = Serve::start(&["--idle-timeout", "200ms", "--header-timeout", "200ms"]);
    let mut wire = Wire::connect(serve.address());
    assert!(wire.await_close());
    let from = wire.local();
    let log = log_of(serve);
    assert_eq!(end(log.connection(from)), "server/timeout");
    assert_eq!(number(log.connection(from), "exchanges"), 0);
}

#[test]
fn a_kept_connection_that_is_idle_is_closed() {
    let serve = Serve::start(&["--idle-timeout", "200ms"]);
    serve.file("file", 10);
    let mut wire = Wire::connect(serve.address());
    wire.get("/file");
    assert!(wire.await_close());
    let from = wire.local();
    let log = log_of(serve);
    assert_eq!(end(log.connection(from)), "server/timeout");
    assert_eq!(number(log.connection(from), "exchanges"), 1);
    assert_eq!(end(log.exchange(from)), "server/ok");
}

#[test]
fn a_header_that_never_ends_is_not_awaited_for_ever() {
    let serve = Serve::start(&["--header-timeout", "300ms", "--idle-timeout", "60s"]);
    let mut wire = Wire::connect(serve.address());
    wire.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    wire.await_close();
    let (from, sent, received) = (wire.local(), wire.sent, wire.received);
    let log = log_of(serve);
    assert_eq!(end(log.connection(from)), "server/timeout");
    assert_eq!(number(log.connection(from), "wire_in"), sent);
    assert_eq!(number(log.connection(from), "wire_out"), received);
}

#[test]
fn a_header_that_drips_is_not_awaited_for_ever() {
    let serve = Serve::start(&["--header-timeout", "500ms", "--idle-timeout", "60s"]);
    let mut wire = Wire::connect(serve.address());
    wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n");
    // A line now and then must not start the timeout again.
    let deadline = wire.now() + PATIENCE.as_nanos() as u64;
    while wire.send_if_open(b"X-Drip: 1\r\n", Duration::from_millis(100)) {
        assert!(wire.now() < deadline, "still open");
    }
    let from = wire.local();
    drop(wire);
    let log = log_of(serve);
    assert_eq!(end(log.connection(from)), "server/timeout");
}

#[test]
fn a_reader_that_stops_reading_is_given_up() {
    let serve = Serve::start(&["--send-timeout", "500ms"]);
    serve.file("big", 64_000_000);
    let mut wire = Wire::connect_with_window(serve.address(), 4096);
    wire.ask("/big", "");
    let from = wire.local();
    await_record(&serve, from);
    let log = log_of(serve);
    let connection = log.connection(from);
    let end = end(connection);
    assert!(["server/slow_consumer", "server/timeout"].contains(&end.as_str()), "{end}");
    assert!(number(connection, "blocked_us") >= 400_000, "{connection:#}");
    assert!(number(connection, "wire_out") < 64_000_000);
    assert_eq!(log.exchanges(from).len(), 1);
}

#[test]
fn garbage_is_answered_and_recorded() {
    let serve = Serve::start(&[]);
    let garbage: [&[u8]; 3] =
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"];
    let mut from = Vec::new();
    for bytes in garbage {
        let mut wire = Wire::connect(serve.address());
        wire.send(bytes);
        let (head, _) = wire.head();
        assert_eq!(head.status, 400, "to {bytes:?}");
        assert!(wire.await_close());
        from.push((wire.local(), wire.sent, wire.received));
    }
    let log = log_of(serve);
    for (from, sent, received) in from {
        let connection = log.connection(from);
        assert_eq!(connection["end_reason"], "protocol_error");
        assert_eq!(number(connection, "wire_in"), sent);
        assert_eq!(number(connection, "wire_out"), received);
        assert_eq!(log.exchange(from)["status"], 400);
    }
}

#[test]
fn the_server_stops_while_a_download_is_paused() {
    for signal in [Tell::Terminate, Tell::Interrupt] {
        let serve = Serve::start(&["--rate", "1000", "--shutdown-timeout", "300ms"]);
        serve.file("big", 10_000_000);
        serve.file("small", 1);
        let mut wire = Wire::connect(serve.address());
        wire.ask("/big", "");
        wire.head();
        let mut idle = Wire::connect(serve.address());
        idle.get("/small");
        let (from, idle_from) = (wire.local(), idle.local());
        serve.tell(signal);
        let log = serve.await_end().log();
        assert_eq!(end(log.connection(from)), "server/shutdown");
        assert_eq!(end(log.exchange(from)), "server/shutdown");
        wire.await_close();
        assert_eq!(number(log.connection(from), "wire_out"), wire.received, "what went out did arrive");
        assert_eq!(end(log.connection(idle_from)), "server/shutdown");
    }
}

#[test]
fn callers_at_the_door_are_served_before_the_server_stops() {
    let serve = Serve::start(&["--shutdown-timeout", "10s"]);
    serve.file("file", 1_000);
    // What comes while it stands still waits in the kernel, and the signal with it.
    serve.tell(Tell::Freeze);
    let mut wires: Vec<Wire> = (0..100).map(|_| Wire::connect(serve.address())).collect();
    for wire in &mut wires {
        wire.ask("/file", "");
    }
    serve.tell(Tell::Terminate);
    serve.tell(Tell::Thaw);
    for mut wire in wires {
        assert_eq!(wire.reply().head.status, 200);
        assert!(wire.await_close());
    }
    let log = serve.await_end().log();
    assert_eq!((log.connections.len(), log.exchanges.len()), (100, 100));
}

#[test]
fn what_is_in_flight_is_finished_before_the_server_stops() {
    let serve = Serve::start(&["--rate", "100kB", "--shutdown-timeout", "30s"]);
    serve.file("file", 100_000);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "");
    let (head, text) = wire.head();
    serve.tell(Tell::Terminate);
    let mut reply = support::Reply { head, text, body: Vec::new(), reads: Vec::new() };
    wire.body(&mut reply, u64::MAX, PATIENCE);
    assert!(reply.body == pattern(0, 100_000), "{} bytes", reply.body.len());
    assert!(wire.await_close());
    let log = serve.await_end().log();
    assert_eq!(end(log.exchange(wire.local())), "server/ok");
    assert_eq!(number(log.connection(wire.local()), "wire_out"), wire.received);
}

#[test]
fn out_of_descriptors_it_sheds_callers_and_counts_them() {
    for pollers in ["1", "2"] {
        out_of_descriptors(pollers);
    }
}

fn out_of_descriptors(pollers: &str) {
    let serve = Serve::start(&["--pollers", pollers]);
    serve.file("file", 10);
    // Room for a handful; what is open stays open.
    let open = account::open_files(serve.pid()) as u64;
    sys::limit_open_files(serve.pid(), open + 6).unwrap();
    let mut wires: Vec<Wire> = (0..30).map(|_| Wire::connect(serve.address())).collect();
    // An answer is being served, even if it says that the file could not be opened.
    let served: Vec<bool> = wires.iter_mut().map(|wire| wire.try_get("/file").is_some()).collect();
    let count = served.iter().filter(|served| **served).count();
    // Numbers are the limit, so holes below it give a few more.
    assert!((1..=10).contains(&count), "{count} of 30 were served with 6 descriptors");

    // It does not spin meanwhile.
    let before = account::Account::read(&[serve.pid()]).unwrap();
    let last = served.iter().position(|served| *served).unwrap();
    wires[last].expect_silence(Duration::from_millis(500));
    let spent = account::Account::read(&[serve.pid()]).unwrap().since(&before, 0, 0);
    assert!(spent.process_seconds < 0.1, "{} s of CPU in 0.5 s of silence", spent.process_seconds);

    // The ones it has are still served, and when they go there is room again.
    assert!(wires[last].try_get("/file").is_some());
    let from: Vec<_> = wires.iter().map(Wire::local).collect();
    drop(wires);
    support::await_that("there is room again", || {
        let mut wire = Wire::connect(serve.address());
        (wire.try_get("/file") == Some(200)).then_some(())
    });
    let log = log_of(serve);
    for (from, served) in from.into_iter().zip(served) {
        let reason = log.connection(from)["end_reason"].clone();
        assert_eq!(reason == "descriptors", !served, "{from}: {reason}");
    }
}

#[test]
fn many_short_connections_leave_a_record_each() {
    let serve = Serve::start(&[]);
    serve.file("file", 100);
    let (mut sent, mut received) = (0, 0);
    for nth in 0..200 {
        let mut wire = Wire::connect(serve.address());
        wire.get("/file");
        if nth % 2 == 0 {
            wire.get("/file");
        }
        (sent, received) = (sent + wire.sent, received + wire.received);
        if nth % 3 == 0 {
            wire.reset();
        }
    }
    serve.await_log("all records", |log| log.connections.len() == 200);
    let log = log_of(serve);
    assert_eq!((log.connections.len(), log.exchanges.len()), (200, 300));
    let sum = |field: &str| log.connections.iter().map(|line| number(line, field)).sum::<u64>();
    assert_eq!((sum("wire_in"), sum("wire_out")), (sent, received));
    assert_eq!(sum("exchanges"), 300);
    assert!(log.own.is_empty(), "{:?}", log.own);
}

#[test]
fn one_connection_too_many_is_told_so_and_recorded() {
    let serve = Serve::start(&["--max-connections", "2"]);
    serve.file("file", 10);
    let mut kept: Vec<Wire> = (0..2).map(|_| Wire::connect(serve.address())).collect();
    for wire in &mut kept {
        wire.get("/file");
    }
    let mut wire = Wire::connect(serve.address());
    let refused = wire.try_get("/file");
    assert!(refused.is_none_or(|status| status == 503), "{refused:?}");
    let from = wire.local();
    await_record(&serve, from);
    drop(kept);
    support::await_that("there is room again", || {
        (Wire::connect(serve.address()).try_get("/file") == Some(200)).then_some(())
    });
    let log = log_of(serve);
    assert_eq!(log.connection(from)["end_reason"], "denied");
}

/// A client that does some of what clients do, good and bad, and goes.
fn misbehave(to: SocketAddr, random: &mut fastrand::Rng) {
    let mut wire = match random.u8(..3) {
        0 => Wire::connect_with_window(to, 4_096),
        _ => Wire::connect(to),
    };
    for _ in 0..random.u8(..6) {
        let file = ["none", "0", "10", "5000", "300000", "9000000"][random.usize(..6)];
        let close = if random.u8(..4) == 0 { "Connection: close\r\n" } else { "" };
        let method = if random.u8(..4) == 0 { "HEAD" } else { "GET" };
        let mut request = format!("{method} /{file} HTTP/1.1\r\nHost: x\r\n{close}\r\n").into_bytes();
        match random.u8(..10) {
            0 => request = (0..random.usize(1..300)).map(|_| random.u8(..)).collect(),
            1 => request.truncate(random.usize(1..request.len())),
            2 => {
                request = b"POST /10 HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n".to_vec();
                request.resize(request.len() + random.usize(..6_000), b'z');
            }
            3 => request = request.repeat(30),
            _ => {}
        }
        if !wire.try_send(&request) {
            return;
        }
        if random.bool() {
            wire.read_for(Duration::from_millis(random.u64(1..60)), random.usize(1..2_000_000));
        }
    }
    match random.u8(..4) {
        0 => wire.reset(),
        1 => wire.half_close(),
        2 => {
            wire.half_close();
            wire.read_for(Duration::from_millis(300), usize::MAX);
        }
        _ => {}
    }
}

#[test]
fn whatever_clients_do_the_lines_add_up() {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("TIDEGATE_SEED={seed}");
    for arguments in [
        &["--send-timeout", "200ms"][..],
        &["--rate", "300kB", "--rate-after", "20k", "--max-connections", "6"],
        &["--rate", "2MB", "--client-rate", "3MB", "--total-rate", "4MB", "--pollers", "1"],
    ] {
        let common = [
            "--header-timeout",
            "300ms",
            "--body-timeout",
            "300ms",
            "--idle-timeout",
            "300ms",
            "--shutdown-timeout",
            "500ms",
        ];
        let serve = Serve::start(&[arguments, &common].concat());
        for bytes in [0, 10, 5_000, 300_000, 9_000_000] {
            serve.file(&bytes.to_string(), bytes);
        }
        std::thread::scope(|scope| {
            for client in 0..8 {
                let (to, mut random) = (serve.address(), fastrand::Rng::with_seed(seed.wrapping_add(client)));
                scope.spawn(move || (0..12).for_each(|_| misbehave(to, &mut random)));
            }
        });
        let log = log_of(serve);
        assert_eq!(log.connections.len(), 8 * 12, "{arguments:?}");
    }
}
