//! Budgets on real sockets. What they promise in numbers is the simulation's to prove; here it is shown that the loop
//! and the gate keep to them, and that no socket is left behind. Bounds are wide: the machine may be busy.

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Rig, Script, TempFile, pattern, read_exact, read_to_end};
use tidegate_poller::{Budget, Direction, Edge, End, Limit, Mark, PollerSettings, Reason};

const MB: u64 = 1_000_000;

/// Sends `bytes` under a limit, then closes.
fn limited(limit: &Limit, bytes: usize) -> impl FnMut() -> Script + Send + 'static {
    let limit = limit.clone();
    move || {
        let limit = limit.clone();
        Script::new().opened(move |io| {
            io.set_limit(Direction::Egress, Some(&limit));
            io.send(vec![1; bytes]);
            io.finish(End::local(Reason::Ok));
        })
    }
}

#[test]
fn a_limit_is_kept_and_the_pauses_are_in_the_record() {
    let limit = Limit::new("each", Some(4 * MB));
    let mut rig = Rig::start(limited(&limit, 2_000_000));
    let start = Instant::now();
    assert_eq!(read_to_end(&mut rig.dial()).len(), 2_000_000);
    let took = start.elapsed();
    assert!((Duration::from_millis(420)..Duration::from_millis(1_500)).contains(&took), "{took:?}");
    let record = rig.record();
    assert_eq!((record.wire_out, record.end), (2_000_000, End::local(Reason::Ok)));
    assert!(record.pauses.throttle_count >= 5, "{record:?}");
    assert!(record.pauses.throttled_ns > 300_000_000, "{record:?}");
    assert!(record.pauses.blocked_ns < 100_000_000, "{record:?}");
    let figures = rig.handle.figures();
    println!("{figures:?}");
    assert!(figures.turns < 4 * record.pauses.throttle_count + 50, "spins: {figures:?}");
    rig.stop_clean();
}

#[test]
fn a_limited_file_is_exact() {
    let content = pattern(1_500_000, 21);
    let file = TempFile::new(&content);
    let limit = Limit::new("each", Some(10 * MB));
    let handle = file.file.clone();
    let mut rig = Rig::start(move || {
        let (file, limit) = (handle.clone(), limit.clone());
        Script::new().opened(move |io| {
            io.set_limit(Direction::Egress, Some(&limit));
            io.send("head");
            io.send_file(file.clone(), 0, 1_500_000);
            io.finish(End::local(Reason::Ok));
        })
    });
    assert!(read_to_end(&mut rig.dial()) == [&b"head"[..], &content].concat());
    assert!(rig.record().pauses.throttle_count > 0);
    rig.stop_clean();
}

#[test]
fn a_budget_that_is_left_binds_no_longer_and_the_others_do() {
    let (left, kept) =
        (Budget::builder("left").rate(0).build(), Budget::builder("kept").rate(100 * MB).build());
    let (leave, keep) = (left.clone(), kept.clone());
    let mut rig = Rig::start(move || {
        let (leave, keep) = (leave.clone(), keep.clone());
        Script::new().opened(move |io| {
            assert!(io.spend_through(Direction::Egress, &keep, 1));
            assert!(io.spend_through(Direction::Egress, &leave, 1));
            assert!(!io.spend_through(Direction::Egress, &leave, 1), "once is enough");
            io.send(vec![1; 1_000_000]);
            io.finish(End::local(Reason::Ok));
        })
    });
    let mut peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Paused");
    socket.submit(move |_, io| io.stop_spending_through(Direction::Egress, &left)).unwrap();
    assert_eq!(read_to_end(&mut peer).len(), 1_000_000);
    assert_eq!(rig.record().wire_out, 1_000_000);
    rig.stop_clean();
}

#[test]
fn rate_zero_pauses_and_a_new_rate_resumes() {
    let limit = Limit::new("each", Some(0));
    let mut rig = Rig::start(limited(&limit, 1_000_000));
    let mut peer = rig.dial();
    let socket = rig.opened();
    let state = rig.gate_becomes(&socket, "Paused");
    assert!(state.contains("rate 0"), "{state}");
    peer.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(peer.read(&mut [0; 8]).is_err(), "a byte went at rate 0");
    peer.set_read_timeout(Some(support::PATIENCE)).unwrap();
    limit.set_rate(Some(100 * MB));
    read_exact(&mut peer, 1_000);
    limit.set_rate(None);
    assert_eq!(read_to_end(&mut peer).len(), 999_000);
    rig.record();
    rig.stop_clean();
}

#[test]
fn a_pause_does_not_count_against_the_peer() {
    let limit = Limit::new("each", Some(0));
    let paused = limit.clone();
    let mut rig = Rig::start(move || {
        let limit = paused.clone();
        Script::new().opened(move |io| {
            io.set_send_timeout(Some(Duration::from_millis(30)));
            io.set_limit(Direction::Egress, Some(&limit));
            io.send("late but whole");
            io.start_timer(Duration::from_millis(200), 0);
            io.finish(End::local(Reason::Ok));
        })
    });
    let mut peer = rig.dial();
    rig.next(|told| matches!(told, support::Told::Timer(0)).then_some(()));
    limit.set_rate(None);
    assert_eq!(read_to_end(&mut peer), b"late but whole");
    drop(peer);
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::Ok));
    assert!(record.pauses.throttled_ns >= 190_000_000, "{record:?}");
    rig.stop_clean();
}

#[test]
fn shutdown_while_paused_leaves_the_record() {
    let limit = Limit::new("each", Some(1_000));
    let mut rig = Rig::start(limited(&limit, 1_000_000));
    let _peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Paused");
    rig.handle.shutdown(Duration::from_millis(50));
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::Shutdown));
    assert_eq!(record.wire_out + record.dropped_out, 1_000_000);
    rig.join();
}

#[test]
fn reset_while_paused_is_noticed() {
    let limit = Limit::new("each", Some(0));
    let mut rig = Rig::start(limited(&limit, 1_000_000));
    let peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Paused");
    tidegate_poller::sys::set_linger_reset(&peer).unwrap();
    drop(peer);
    assert_eq!(rig.record().end, End::peer(Reason::Abort));
    rig.stop_clean();
}

#[test]
fn free_bytes_of_each_exchange_are_free() {
    let limit = Limit::new("each", Some(0));
    let mut rig = Rig::start(move || {
        let limit = limit.clone();
        Script::new().opened(move |io| {
            io.set_limit(Direction::Egress, Some(&limit));
            for (id, free) in [(1, 300_000), (2, 1_000)] {
                io.mark(Mark { id, edge: Edge::Begin { free } });
                io.send(vec![id as u8; 300_000]);
                io.mark(Mark { id, edge: Edge::End });
            }
        })
    });
    let mut peer = rig.dial();
    let socket = rig.opened();
    let got = read_exact(&mut peer, 301_000);
    assert!(got[..300_000].iter().all(|byte| *byte == 1) && got[300_000..].iter().all(|byte| *byte == 2));
    let state = rig.gate_becomes(&socket, "Paused");
    assert!(state.contains("299000 queued"), "{state}");
    assert_eq!(rig.stop().len(), 1);
}

#[test]
fn two_sockets_share_a_budget() {
    let budget = Budget::builder("all").rate(8 * MB).build();
    let shared = budget.clone();
    let mut rig = Rig::start(move || {
        let budget = shared.clone();
        Script::new().opened(move |io| {
            io.spend_through(Direction::Egress, &budget, 1);
            io.send(vec![1; 2_000_000]);
            io.finish(End::local(Reason::Ok));
        })
    });
    let start = Instant::now();
    let readers: Vec<_> = (0..2).map(|_| std::thread::spawn(drain(rig.dial()))).collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 2_000_000);
    }
    let took = start.elapsed();
    assert!((Duration::from_millis(430)..Duration::from_millis(1_500)).contains(&took), "{took:?}");
    for _ in 0..2 {
        assert!(rig.record().pauses.throttle_count > 0);
    }
    assert_eq!(budget.spent(), 4_000_000);
    rig.stop_clean();
}

fn drain(mut peer: TcpStream) -> impl FnOnce() -> usize {
    move || read_to_end(&mut peer).len()
}

#[test]
fn reading_is_limited_too() {
    let limit = Limit::new("in", Some(4 * MB));
    let mut rig =
        Rig::with(PollerSettings { read_buffer: 16 * 1024, ..PollerSettings::default() }, move || {
            let limit = limit.clone();
            Script::new().quiet().opened(move |io| io.set_limit(Direction::Ingress, Some(&limit)))
        });
    let mut peer = rig.dial();
    let start = Instant::now();
    std::io::Write::write_all(&mut peer, &vec![1; 2_000_000]).unwrap();
    drop(peer);
    let record = rig.record();
    let took = start.elapsed();
    assert!((Duration::from_millis(420)..Duration::from_millis(1_500)).contains(&took), "{took:?}");
    assert_eq!(record.wire_in, 2_000_000);
    assert!(record.ingress_throttled_ns > 300_000_000, "{record:?}");
    rig.stop_clean();
}

#[test]
fn the_kernel_keeps_a_limit_that_asks_for_it() {
    let limit = Limit::by_kernel("each", Some(4 * MB));
    let mut rig = Rig::start(limited(&limit, 2_000_000));
    let start = Instant::now();
    assert_eq!(read_to_end(&mut rig.dial()).len(), 2_000_000);
    let took = start.elapsed();
    assert!((Duration::from_millis(350)..Duration::from_millis(1_500)).contains(&took), "{took:?}");
    let record = rig.record();
    assert_eq!((record.wire_out, record.pauses.throttle_count), (2_000_000, 0));
    // A rate of zero is not the kernel's, and removing the limit sets the socket free.
    limit.set_rate(Some(0));
    let mut peer = rig.dial();
    rig.opened();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Paused");
    limit.set_rate(None);
    assert_eq!(read_to_end(&mut peer).len(), 2_000_000);
    rig.record();
    rig.stop_clean();
}

#[test]
fn a_change_of_rate_beside_a_submission_is_heard() {
    let limit = Limit::new("each", Some(0));
    let given = limit.clone();
    let mut rig = Rig::start(move || {
        let limit = given.clone();
        Script::new()
            .opened(move |io| io.set_limit(Direction::Egress, Some(&limit)))
            .received(|io, _| io.send("x"))
    });
    let mut peer = rig.dial();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(2) {
        rounds += 1;
        limit.set_rate(Some(0));
        std::io::Write::write_all(&mut peer, b"?").unwrap();
        rig.next(|told| matches!(told, support::Told::Received(_)).then_some(()));
        // The submission wakes the loop; the new rate comes while it is between waking and taking the work.
        rig.handle.submit(|_| {}).unwrap();
        for _ in 0..random.u32(0..4_000) {
            std::hint::spin_loop();
        }
        limit.set_rate(None);
        let heard = peer.read(&mut [0; 8]);
        assert!(matches!(heard, Ok(1)), "round {rounds}: {heard:?}");
    }
    drop(peer);
    rig.record();
    rig.stop();
}

#[test]
fn what_the_kernel_paces_does_not_count_against_the_peer() {
    let limit = Limit::by_kernel("each", Some(MB));
    let mut rig = Rig::start(move || {
        let limit = limit.clone();
        Script::new().opened(move |io| {
            io.set_limit(Direction::Egress, Some(&limit));
            io.set_send_timeout(Some(Duration::from_millis(300)));
            io.send(vec![1; 10_000_000]);
            io.start_timer(Duration::from_secs(2), 0);
        })
    });
    let mut peer = rig.dial();
    let reader = std::thread::spawn(move || {
        let mut read = 0;
        while let Ok(n @ 1..) = peer.read(&mut [0; 65_536]) {
            read += n;
        }
        read
    });
    rig.next(|told| match told {
        support::Told::Closed(record) => panic!("{record:?}"),
        support::Told::Timer(0) => Some(()),
        _ => None,
    });
    rig.handle.shutdown(Duration::ZERO);
    assert_eq!(rig.record().end, End::local(Reason::Shutdown));
    reader.join().unwrap();
    rig.join();
}
