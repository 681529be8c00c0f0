//! Rates on real sockets, each test named by the way in which shipped limiters fail. The bounds are wide: they tell
//! a limiter that works from one that fails so, on a machine that may stand still for a tenth of a second. How
//! exact it is, the benches say.
#![cfg(feature = "cli")]

mod support;

use std::time::{Duration, Instant};

use support::{Reply, Serve, Wire, end, number};
use tidegate_meter::account::{Account, Memory};
use tidegate_meter::figures::{MS, Window, longest_gap, most_in, total};

/// Bytes that came within the first `ms` from the first byte of the body on.
fn first(reply: &Reply, ms: u64) -> u64 {
    let from = reply.reads.first().expect("something came").at;
    total(Window { from, to: from + ms * MS }.of(&reply.reads))
}

#[test]
fn the_limit_is_kept_and_used() {
    let serve = Serve::start(&["--rate", "1MB"]);
    serve.file("big", 16_000_000);
    let mut wire = Wire::connect(serve.address());
    let reply = wire.download_for("/big", Duration::from_secs(3));
    let seconds = wire.now() as f64 / 1e9;
    let rate = wire.received as f64 / seconds;
    assert!((900_000.0..1_080_000.0).contains(&rate), "{rate} bytes a second, {} reads", reply.reads.len());
}

#[test]
fn no_saw_tooth() {
    let serve = Serve::start(&["--rate", "1MB"]);
    serve.file("big", 16_000_000);
    let reply = Wire::connect(serve.address()).download_for("/big", Duration::from_secs(3));
    // nginx: a second's worth at once, ten times the rate over 100 ms, then 950 ms of silence.
    let most = most_in(&reply.reads, 100 * MS);
    assert!(most <= 300_000, "{most} bytes in 100 ms");
    let start = reply.reads[0].at;
    let gap = longest_gap(&reply.reads, Window { from: start, to: start + 2500 * MS });
    assert!(gap <= 300 * MS, "{} ms of silence", gap / MS);
}

#[test]
fn one_kilobyte_a_second_is_one_kilobyte_a_second() {
    let serve = Serve::start(&["--rate", "1000"]);
    serve.file("big", 1_000_000);
    let mut wire = Wire::connect(serve.address());
    let reply = wire.download_for("/big", Duration::from_secs(5));
    // The head counts: it went through the same gate.
    assert!((3_500..=6_000).contains(&wire.received), "{} bytes in 5 s", wire.received);
    let last = reply.reads.last().expect("something came").at;
    let gap = longest_gap(&reply.reads, Window { from: reply.reads[0].at, to: last });
    assert!(gap <= 600 * MS, "{} ms of silence", gap / MS);
}

#[test]
fn a_reply_that_fits_into_the_socket_buffer_is_limited_too() {
    let serve = Serve::start(&["--rate", "8000"]);
    serve.file("small", 8_000);
    let start = Instant::now();
    let reply = Wire::connect(serve.address()).get("/small");
    assert!(start.elapsed() >= Duration::from_millis(700), "8 kB at 8 kB/s in {:?}", start.elapsed());
    assert!(first(&reply, 100) <= 4_000, "{} bytes in the first 100 ms", first(&reply, 100));
}

#[test]
fn keep_alive_keeps_the_limit() {
    let serve = Serve::start(&["--rate", "200kB"]);
    serve.file("file", 100_000);
    let mut wire = Wire::connect(serve.address());
    for nth in 0..3 {
        let start = Instant::now();
        wire.get("/file");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(400), "reply {nth}: 100 kB at 200 kB/s in {took:?}");
        assert!(took <= Duration::from_millis(1500), "reply {nth}: 100 kB at 200 kB/s in {took:?}");
    }
}

#[test]
fn idleness_earns_no_credit() {
    let serve = Serve::start(&["--rate", "200kB"]);
    serve.file("small", 1_000);
    serve.file("big", 4_000_000);
    let mut wire = Wire::connect(serve.address());
    wire.get("/small");
    // nginx's formula would let 400 kB go at once after this.
    wire.expect_silence(Duration::from_secs(2));
    let reply = wire.download_for("/big", Duration::from_secs(1));
    assert!(first(&reply, 100) <= 70_000, "{} bytes in the first 100 ms", first(&reply, 100));
}

#[test]
fn a_new_connection_brings_no_new_burst_to_the_clients_budget() {
    let serve = Serve::start(&["--client-rate", "200kB"]);
    serve.file("file", 20_000);
    let start = Instant::now();
    for _ in 0..15 {
        Wire::connect(serve.address()).get("/file");
    }
    // 300 kB of bodies.
    assert!(start.elapsed() >= Duration::from_millis(1300), "{:?}", start.elapsed());
}

#[test]
fn idle_holders_take_no_share() {
    let serve = Serve::start(&["--client-rate", "2MB"]);
    serve.file("small", 100);
    serve.file("big", 16_000_000);
    let holders: Vec<Wire> = (0..99)
        .map(|_| {
            let mut wire = Wire::connect(serve.address());
            wire.get("/small");
            wire
        })
        .collect();
    let mut wire = Wire::connect(serve.address());
    let reply = wire.download_for("/big", Duration::from_secs(2));
    // HAProxy would give it a hundredth: 40 kB.
    assert!(reply.body.len() >= 3_000_000, "{} bytes in 2 s of 4 MB", reply.body.len());
    drop(holders);
}

#[test]
fn small_replies_do_not_wait_behind_downloads() {
    let serve = Serve::start(&["--client-rate", "5MB"]);
    serve.file("small", 4096);
    serve.file("big", 64_000_000);
    let address = serve.address();
    let downloads: Vec<_> = (0..10)
        .map(|_| {
            std::thread::spawn(move || {
                Wire::connect(address).download_for("/big", Duration::from_secs(4)).body.len()
            })
        })
        .collect();
    let mut wire = Wire::connect(address);
    let mut times: Vec<Duration> = (0..30)
        .map(|_| {
            let start = Instant::now();
            wire.get("/small");
            start.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[15] <= Duration::from_millis(150), "median {:?} of {times:?}", times[15]);
    let bytes: usize = downloads.into_iter().map(|download| download.join().unwrap()).sum();
    assert!((14_000_000..=22_500_000).contains(&bytes), "{bytes} bytes of 20 MB");
}

#[test]
fn all_clients_together_keep_the_total_rate_over_several_pollers() {
    let serve = Serve::start(&["--total-rate", "2MB"]);
    serve.file("big", 16_000_000);
    let address = serve.address();
    let downloads: Vec<_> = (0..6)
        .map(|_| {
            std::thread::spawn(move || {
                Wire::connect(address).download_for("/big", Duration::from_secs(3)).body.len()
            })
        })
        .collect();
    let each: Vec<usize> = downloads.into_iter().map(|download| download.join().unwrap()).collect();
    let sum: usize = each.iter().sum();
    assert!((5_000_000..=6_700_000).contains(&sum), "{sum} bytes of 6 MB: {each:?}");
    let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
    assert!(most < &(least * 2), "not fair: {each:?}");
}

#[test]
fn the_first_bytes_of_each_reply_go_free() {
    let serve = Serve::start(&["--rate", "100kB", "--rate-after", "500k"]);
    serve.file("file", 560_000);
    let mut wire = Wire::connect(serve.address());
    for nth in 0..2 {
        let start = Instant::now();
        let reply = wire.get("/file");
        assert!(first(&reply, 200) >= 400_000, "reply {nth}: {} bytes at once", first(&reply, 200));
        // 512,000 bytes are free; 48,000 are not.
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(330), "reply {nth} took {took:?}");
        assert!(took <= Duration::from_millis(1500), "reply {nth} took {took:?}");
    }
}

#[test]
fn our_own_timeouts_do_not_kill_those_we_throttle() {
    let timeouts = ["--send-timeout", "300ms", "--idle-timeout", "300ms", "--header-timeout", "300ms"];
    let serve = Serve::start(&[&["--rate", "2000", "--pace-interval", "800ms"], &timeouts[..]].concat());
    serve.file("file", 6_000);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file", "Connection: close\r\n");
    // Most of three seconds, in portions more than two timeouts apart.
    assert_eq!(wire.reply().body.len(), 6_000);
    let from = wire.local();
    let log = serve.stop().log();
    assert_eq!(end(log.exchange(from)), "server/ok");
    assert!(number(log.connection(from), "throttled_us") >= 1_500_000);
}

#[test]
fn memory_is_flat_while_hundreds_of_downloads_are_paused() {
    let serve = Serve::start(&["--rate", "1000"]);
    serve.file("big", 64_000_000);
    serve.file("small", 10);
    Wire::connect(serve.address()).get("/small");
    let before = Memory::read(&[serve.pid()]).unwrap().anonymous;
    let mut wires: Vec<Wire> = (0..300).map(|_| Wire::connect(serve.address())).collect();
    for wire in &mut wires {
        wire.ask("/big", "");
    }
    for wire in &mut wires {
        wire.head();
    }
    let paused = Memory::read(&[serve.pid()]).unwrap().anonymous;
    // The kernel buffers would take megabytes of each; what waits in us should be a few kilobytes.
    let each = paused.saturating_sub(before) / 300;
    assert!(each <= 16_384, "{each} bytes for each paused download");
    wires[0].linger(Duration::from_secs(2));
    let later = Memory::read(&[serve.pid()]).unwrap().anonymous;
    assert!(later <= paused + 1_000_000, "grew from {paused} to {later}");
}

#[test]
fn memory_is_flat_while_many_take_a_page_slowly() {
    let serve = Serve::start(&["--rate", "1000", "--pollers", "1"]);
    for n in 0..2_000 {
        serve.file(&format!("{n:060}"), 1);
    }
    let mut wire = Wire::connect(serve.address());
    wire.ask("/", "");
    let page = wire.head().0.length.unwrap();
    assert!(page > 300_000);
    let before = Memory::read(&[serve.pid()]).unwrap().anonymous;
    let mut wires: Vec<Wire> = (0..60).map(|_| Wire::connect(serve.address())).collect();
    for wire in &mut wires {
        wire.ask("/", "");
    }
    for wire in &mut wires {
        wire.head();
    }
    let paused = Memory::read(&[serve.pid()]).unwrap().anonymous;
    // Some are being made at any time, and what was used for it the allocator keeps.
    assert!(paused <= before + 20 * page, "grew from {before} to {paused} with a page of {page}");
}

#[test]
fn a_paused_download_costs_next_to_nothing() {
    let serve = Serve::start(&["--rate", "1000"]);
    serve.file("big", 1_000_000);
    let mut wires: Vec<Wire> = (0..20).map(|_| Wire::connect(serve.address())).collect();
    for wire in &mut wires {
        wire.ask("/big", "");
    }
    for wire in &mut wires {
        wire.head();
    }
    let before = Account::read(&[serve.pid()]).unwrap();
    wires[0].linger(Duration::from_secs(1));
    let spent = Account::read(&[serve.pid()]).unwrap().since(&before, 0, 0);
    // A hundred or two writes. A deadline in the past, or a writable socket asked about while paused, would take
    // all of a CPU.
    assert!(spent.process_seconds < 0.2, "{} s of CPU in 1 s", spent.process_seconds);
}
