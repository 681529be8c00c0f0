//! Bytes go out whole, in order, and as counted.

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Rig, Script, TempFile, Told, pattern, read_exact, read_to_end};
use tidegate_poller::{Chunk, Edge, End, Mark, Pull, Reason, Source, Who};

#[test]
fn echo_counts_what_the_peer_counts() {
    let mut rig = Rig::start(|| Script::new().quiet().received(|io, bytes| io.send(bytes.to_vec())));
    let mut peer = rig.dial();
    let sent = pattern(3_000_000, 1);
    let echoed = std::thread::scope(|scope| {
        let mut reader = peer.try_clone().unwrap();
        let echoed = scope.spawn(move || read_to_end(&mut reader));
        peer.write_all(&sent).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        echoed.join().unwrap()
    });
    assert!(echoed == sent);
    let record = rig.record();
    assert_eq!((record.wire_in, record.wire_out), (3_000_000, 3_000_000));
    assert_eq!((record.plain_in, record.plain_out, record.dropped_out), (3_000_000, 3_000_000, 0));
    assert_eq!(record.end, End::peer(Reason::Ok));
    assert_eq!(record.phase, "scripted");
    assert!(record.connected.is_some() && record.first_in.is_some() && record.last_out.is_some());
    let tcp = record.tcp.unwrap();
    assert_eq!(tcp.received_bytes.unwrap(), 3_000_000);
    rig.stop_clean();
}

#[test]
fn partial_writes_go_on_where_they_stopped() {
    // Many kinds of chunk, to a peer that reads in small pieces: the kernel's buffer fills again and again.
    let shared: Arc<[u8]> = pattern(700_001, 2).into();
    let expected: Vec<u8> =
        std::iter::repeat_n([&b"head"[..], &shared, &shared[10..20]].concat(), 40).flatten().collect();
    let bytes = shared.clone();
    let mut rig = Rig::start(move || {
        let bytes = bytes.clone();
        Script::new().opened(move |io| {
            for _ in 0..40 {
                io.send(&b"head"[..]);
                io.send(bytes.clone());
                io.send(Chunk::Shared(bytes.clone(), 10..20));
            }
            io.finish(End::local(Reason::Ok));
        })
    });
    let mut peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Blocked");
    let mut got = Vec::new();
    for piece in [1, 100, 10_000, 65_536, 3].iter().cycle() {
        if got.len() + piece > expected.len() {
            break;
        }
        got.extend(read_exact(&mut peer, *piece));
    }
    got.extend(read_to_end(&mut peer));
    assert!(got == expected);
    drop(peer);
    let record = rig.record();
    assert_eq!(record.wire_out, expected.len() as u64);
    assert_eq!(record.end, End::local(Reason::Ok));
    assert!(record.pauses.blocked_ns > 0, "{record:?}");
    rig.stop_clean();
}

#[test]
fn many_small_chunks_go_in_order() {
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            for n in 0..10_000u32 {
                io.send(n.to_be_bytes().to_vec());
            }
            io.finish(End::local(Reason::Ok));
        })
    });
    let got = read_to_end(&mut rig.dial());
    let expected: Vec<u8> = (0..10_000u32).flat_map(u32::to_be_bytes).collect();
    assert!(got == expected);
    rig.record();
    rig.stop_clean();
}

#[test]
fn a_file_range_goes_between_bytes() {
    let content = pattern(2_500_000, 3);
    let file = TempFile::new(&content);
    let handle = file.file.clone();
    let mut rig = Rig::start(move || {
        let file = handle.clone();
        Script::new().opened(move |io| {
            io.send("head");
            io.send_file(file.clone(), 1_001, 2_000_000);
            io.send("between");
            io.send_file(file.clone(), 0, 1);
            io.send("tail");
            io.finish(End::local(Reason::Ok));
        })
    });
    let got = read_to_end(&mut rig.dial());
    let expected = [b"head", &content[1_001..2_001_001], b"between", &content[..1], b"tail"].concat();
    assert!(got == expected);
    let record = rig.record();
    assert_eq!(record.wire_out, expected.len() as u64);
    rig.stop_clean();
}

#[test]
fn a_cold_file_is_brought_in() {
    let content = pattern(6_000_000, 4);
    let file = TempFile::new(&content);
    file.file.sync_all().unwrap();
    tidegate_poller::sys::chill_file(&*file.file, 0, content.len() as u64).unwrap();
    let handle = file.file.clone();
    let mut rig = Rig::start(move || {
        let file = handle.clone();
        Script::new().opened(move |io| {
            io.send_file(file.clone(), 0, 6_000_000);
            io.finish(End::local(Reason::Ok));
        })
    });
    assert!(read_to_end(&mut rig.dial()) == content);
    // Whether it really was cold is the file system's to say; that no byte is lost is ours.
    rig.record();
    rig.stop_clean();
}

#[test]
fn a_file_that_got_shorter_ends_the_socket() {
    let file = TempFile::new(&pattern(100_000, 5));
    let handle = file.file.clone();
    let mut rig = Rig::start(move || {
        let file = handle.clone();
        Script::new().opened(move |io| {
            io.send_file(file.clone(), 0, 200_000);
            io.finish(End::local(Reason::Ok));
        })
    });
    let mut peer = rig.dial();
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::SourceFailed));
    assert_eq!((record.wire_out, record.dropped_out), (100_000, 100_000));
    // The peer must not take the part for the whole: it gets a reset, no orderly end.
    let mut got = Vec::new();
    assert!(std::io::Read::read_to_end(&mut peer, &mut got).is_err(), "{} bytes", got.len());
    rig.stop_clean();
}

#[test]
fn fin_follows_the_last_byte() {
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            io.send(vec![7; 16_000_000]);
            io.finish(End::local(Reason::LocalClose));
        })
    });
    let mut peer = rig.dial();
    let socket = rig.opened();
    let state = rig.gate_becomes(&socket, "Blocked");
    assert!(state.contains("Closing"), "{state}");
    assert_eq!(read_to_end(&mut peer).len(), 16_000_000);
    // Lingering: what the peer says now is discarded, without a reset.
    peer.write_all(b"late").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let record = rig.record();
    assert_eq!((record.wire_out, record.wire_in), (16_000_000, 4));
    assert_eq!(record.end, End::local(Reason::LocalClose));
    rig.stop_clean();
}

#[test]
fn half_closed_peer_gets_its_reply() {
    let mut rig = Rig::start(|| {
        Script::new().peer_finished(|io| {
            io.send(vec![9; 2_000_000]);
            io.finish(End::local(Reason::Ok));
        })
    });
    let mut peer = rig.dial();
    peer.write_all(b"question").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut peer).len(), 2_000_000);
    let record = rig.record();
    assert_eq!((record.wire_in, record.wire_out), (8, 2_000_000));
    rig.stop_clean();
}

#[test]
fn marks_tell_pipelined_replies_apart() {
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            for id in 1..=3u64 {
                io.mark(Mark { id, edge: Edge::Begin { free: if id == 2 { 10 } else { 0 } } });
                io.send(vec![id as u8; id as usize * 1_000]);
                io.mark(Mark { id, edge: Edge::End });
            }
            // An exchange without a byte.
            io.mark(Mark { id: 4, edge: Edge::Begin { free: 0 } });
            io.mark(Mark { id: 4, edge: Edge::End });
            io.finish(End::local(Reason::Ok));
        })
    });
    assert_eq!(read_to_end(&mut rig.dial()).len(), 6_000);
    let mut seen = Vec::new();
    for _ in 0..8 {
        let passed = rig.passed();
        assert!(passed.reached <= passed.at);
        assert_eq!(passed.sums.plain_out, passed.offset);
        seen.push((passed.id, passed.edge == Edge::End, passed.offset));
    }
    assert_eq!(
        seen,
        [
            (1, false, 0),
            (1, true, 1_000),
            (2, false, 1_000),
            (2, true, 3_000),
            (3, false, 3_000),
            (3, true, 6_000),
            (4, false, 6_000),
            (4, true, 6_000)
        ]
    );
    rig.record();
    rig.stop_clean();
}

#[test]
fn a_beginning_waits_for_its_first_byte() {
    let mut rig = Rig::start(|| {
        Script::new()
            .opened(|io| io.mark(Mark { id: 1, edge: Edge::Begin { free: 0 } }))
            .received(|io, _| io.send("reply"))
    });
    let mut peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Idle");
    peer.write_all(b"x").unwrap();
    read_exact(&mut peer, 5);
    let passed = rig.passed();
    assert!(passed.reached < passed.at, "{passed:?}");
    drop(peer);
    rig.record();
    rig.stop_clean();
}

#[test]
fn watermarks_pause_the_producer_once() {
    let mut rig = Rig::start(|| {
        Script::new()
            .opened(|io| {
                io.set_watermarks(1_000_000, 5_000_000);
                assert!(!io.above_high());
                io.send(vec![1; 8_000_000]);
                assert!(io.above_high());
            })
            .drained(|io| {
                assert!(!io.above_high());
                io.finish(End::local(Reason::Ok));
            })
    });
    assert_eq!(read_to_end(&mut rig.dial()).len(), 8_000_000);
    let queued = rig.next(|told| if let Told::Drained(queued) = told { Some(*queued) } else { None });
    assert!(queued <= 1_000_000);
    rig.record();
    rig.stop_clean();
}

/// Gives what it was told it may, and starves in between.
struct Counting {
    next: u32,
    upto: u32,
    starve_at: u32,
    ready: Arc<AtomicBool>,
}

impl Source for Counting {
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        assert!(max > 0 && out.is_empty());
        while out.len() + 4 <= max {
            if self.next == self.upto {
                return Pull::End;
            }
            if self.next == self.starve_at && !self.ready.load(Ordering::SeqCst) {
                return Pull::Starved;
            }
            out.extend_from_slice(&self.next.to_be_bytes());
            self.next += 1;
        }
        Pull::More
    }
}

#[test]
fn a_source_is_pulled_starves_and_is_woken() {
    let ready = Arc::new(AtomicBool::new(false));
    let theirs = ready.clone();
    let mut rig = Rig::start(move || {
        let ready = theirs.clone();
        Script::new().opened(move |io| {
            io.send("head");
            let ready = ready.clone();
            io.send_source(Box::new(Counting { next: 0, upto: 500_000, starve_at: 100_000, ready }));
            io.send("tail");
            io.finish(End::local(Reason::Ok));
        })
    });
    let mut peer = rig.dial();
    let socket = rig.opened();
    assert_eq!(read_exact(&mut peer, 4), b"head");
    let mut got = read_exact(&mut peer, 400_000);
    let state = rig.gate_becomes(&socket, "Starved");
    assert!(state.contains("Closing") && !state.contains("Idle"), "{state}");
    ready.store(true, Ordering::SeqCst);
    socket.wake_source().unwrap();
    got.extend(read_to_end(&mut peer));
    let expected: Vec<u8> = (0..500_000u32).flat_map(u32::to_be_bytes).chain(*b"tail").collect();
    assert!(got == expected);
    drop(peer);
    let record = rig.record();
    assert!(record.pauses.starved_ns > 0);
    rig.stop_clean();
}

struct Broken;

impl Source for Broken {
    fn pull(&mut self, _max: usize, _out: &mut Vec<u8>) -> Pull {
        Pull::Failed
    }
}

#[test]
fn a_source_that_fails_ends_the_socket() {
    let mut rig = Rig::start(|| Script::new().opened(|io| io.send_source(Box::new(Broken))));
    let _peer = rig.dial();
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::SourceFailed));
    assert_eq!(record.end.who, Who::Local);
    rig.stop_clean();
}
