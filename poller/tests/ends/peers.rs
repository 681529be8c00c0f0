//! Peers that reset, read slowly or not at all, and sessions that hold, close and panic.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use tidegate_poller::{End, Reason, sys};

use crate::support::{PATIENCE, Rig, Script, read_exact, read_to_end};
use crate::{MORE_THAN_FITS, flood};

#[test]
fn reset_in_the_middle_of_a_write() {
    let mut rig = Rig::start(flood);
    let mut peer = rig.dial();
    read_exact(&mut peer, 100_000);
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Blocked");
    sys::set_linger_reset(&peer).unwrap();
    drop(peer);
    let record = rig.record();
    assert_eq!(record.end, End::peer(Reason::Abort));
    assert_eq!(record.end_who(), "client");
    assert_eq!(record.wire_out + record.dropped_out, MORE_THAN_FITS as u64);
    assert!(record.dropped_out > 0);
    rig.stop_clean();
}

#[test]
fn reset_while_held_and_not_reading() {
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            io.hold();
            io.pause_reading();
            io.send("never");
        })
    });
    let peer = rig.dial();
    rig.opened();
    sys::set_linger_reset(&peer).unwrap();
    drop(peer);
    let record = rig.record();
    assert_eq!(record.end, End::peer(Reason::Abort));
    assert_eq!((record.wire_out, record.dropped_out), (0, 5));
    assert!(record.pauses.held_ns > 0);
    rig.stop_clean();
}

#[test]
fn a_peer_that_never_reads_times_out() {
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            io.set_send_timeout(Some(Duration::from_millis(150)));
            io.send(vec![1; MORE_THAN_FITS]);
        })
    });
    let _peer = rig.dial();
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::Timeout));
    assert!(record.pauses.blocked_ns >= 150_000_000, "{record:?}");
    assert!(record.pauses.longest_gap_ns >= 150_000_000, "{record:?}");
    assert_eq!(record.pauses.held_ns, 0);
    rig.stop_clean();
}

#[test]
fn a_peer_that_reads_slowly_does_not_time_out() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            io.set_send_timeout(Some(TIMEOUT));
            io.send(vec![1; MORE_THAN_FITS]);
        })
    });
    let mut peer = rig.dial();
    sys::set_buffers(&peer, None, Some(4_096)).unwrap();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Blocked");
    // So little that the kernel's buffer stays full, but steadily.
    let started = Instant::now();
    while started.elapsed() < TIMEOUT * 4 {
        read_exact(&mut peer, 8 * 1024);
        std::thread::sleep(Duration::from_millis(20)); // The slowness itself.
    }
    // Then not at all.
    let stopped = Instant::now();
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::Timeout));
    assert!(stopped.elapsed() >= TIMEOUT / 2, "{record:?}");
    assert!(record.pauses.blocked_ns >= 1_200_000_000, "it was to be blocked all the time: {record:?}");
    rig.stop_clean();
}

#[test]
fn a_socket_that_closes_slowly_does_not_read_on_and_on() {
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            io.hold();
            io.send("slowly");
            io.finish(End::local(Reason::Ok));
        })
    });
    let mut peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Closing");
    // The kernel's buffers take some megabytes of what nobody reads, then the peer has to wait.
    peer.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut taken = 0;
    let stopped = loop {
        match peer.write(&[0; 65_536]) {
            Ok(n) if taken < 200_000_000 => taken += n,
            Ok(_) => panic!("it took {taken} bytes to throw them away"),
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(stopped, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{stopped:?}");
    socket.release().unwrap();
    // What is there is discarded now, so that the reply does not turn into a reset.
    assert_eq!(read_to_end(&mut peer), b"slowly");
    drop(peer);
    assert_eq!(rig.record().end, End::local(Reason::Ok));
    rig.stop_clean();
}

#[test]
fn a_hold_does_not_count_against_the_peer() {
    let mut rig = Rig::start(|| {
        Script::new()
            .opened(|io| {
                io.set_send_timeout(Some(Duration::from_millis(50)));
                io.send(vec![1; MORE_THAN_FITS]);
                io.start_timer(Duration::from_millis(10), 0);
            })
            .timer(|io, reason| match reason {
                0 => {
                    io.hold();
                    io.start_timer(Duration::from_millis(300), 1);
                }
                _ => io.release(),
            })
    });
    let _peer = rig.dial();
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::Timeout));
    assert!(record.duration >= Duration::from_millis(350), "{record:?}");
    assert!(record.pauses.held_ns >= 300_000_000, "{record:?}");
    rig.stop_clean();
}

#[test]
fn hold_and_release_from_another_thread() {
    let mut rig = Rig::start(|| Script::new().received(|io, bytes| io.send(bytes.to_vec())));
    let mut peer = rig.dial();
    let socket = rig.opened();
    socket.hold().unwrap();
    peer.write_all(b"hello").unwrap();
    rig.gate_becomes(&socket, "Held");
    peer.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(peer.read(&mut [0; 8]).is_err(), "a held socket wrote");
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.release().unwrap();
    assert_eq!(read_exact(&mut peer, 5), b"hello");
    rig.gate_becomes(&socket, "Idle");
    socket.finish(End::local(Reason::LocalClose)).unwrap();
    assert!(read_to_end(&mut peer).is_empty());
    drop(peer);
    let record = rig.record();
    assert!(record.pauses.held_ns >= 15_000_000, "{record:?}");
    assert_eq!(record.end, End::local(Reason::LocalClose));
    rig.stop_clean();
}

#[test]
fn panics_end_their_socket_only() {
    let mut rig = Rig::start(|| {
        Script::new()
            .received(|io, bytes| match bytes[0] {
                b'p' => panic!("on purpose"),
                _ => io.send(bytes.to_vec()),
            })
            .closed(|| panic!("in closed, on purpose"))
    });
    let mut calm = rig.dial();
    let mut wild = rig.dial();
    wild.write_all(b"p").unwrap();
    let record = rig.record();
    assert_eq!(record.end, End::local(Reason::Internal));
    calm.write_all(b"still here").unwrap();
    assert_eq!(read_exact(&mut calm, 10), b"still here");
    rig.figures(|figures| figures.panics == 2);
    rig.handle.submit(|_| panic!("submitted, on purpose")).unwrap();
    calm.write_all(b"and here").unwrap();
    assert_eq!(read_exact(&mut calm, 8), b"and here");
    drop(calm);
    rig.record();
    rig.stop_clean();
}
