//! What a session may do meanwhile: submissions, timers, pauses, another session in its place, work aside.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_poller::{End, PollerSettings, Reason, Session, SocketOptions};

use crate::MORE_THAN_FITS;
use crate::support::{PATIENCE, Rig, Script, Told, read_exact, read_to_end};

#[test]
fn submissions_from_many_threads_all_run() {
    let rig = Rig::start(Script::new);
    let ran = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let ran = ran.clone();
                    rig.handle
                        .submit(move |_| {
                            ran.fetch_add(1, Ordering::SeqCst);
                        })
                        .unwrap();
                }
            });
        }
    });
    let handle = rig.handle.clone();
    // A turn is counted when it is over.
    rig.figures(|figures| ran.load(Ordering::SeqCst) == 8_000 && figures.turns > 0);
    rig.stop_clean();
    assert!(handle.submit(|_| {}).is_err(), "a poller that ended takes no work");
}

#[test]
fn stale_handles_and_timers_reach_nobody() {
    let mut rig = Rig::start(|| {
        Script::new().opened(|io| {
            for reason in 0..10 {
                io.start_timer(Duration::from_millis(30), reason);
            }
        })
    });
    let first = rig.dial();
    let stale = rig.opened();
    drop(first);
    rig.record();
    // The second takes the first's place in the slab.
    let mut second = rig.dial();
    let socket = rig.opened();
    stale.abort(End::local(Reason::Evicted)).unwrap();
    stale.hold().unwrap();
    for reason in 0..10 {
        let fired = rig.next(|told| if let Told::Timer(reason) = told { Some(*reason) } else { None });
        assert_eq!(fired, reason);
    }
    socket.finish(End::local(Reason::Ok)).unwrap();
    assert!(read_to_end(&mut second).is_empty());
    drop(second);
    assert_eq!(rig.record().end, End::local(Reason::Ok));
    assert_eq!(rig.figures(|_| true).timers, 10);
    rig.stop_clean();
}

#[test]
fn timers_fire_in_time_and_can_be_cancelled() {
    let mut rig = Rig::start(|| {
        Script::new()
            .opened(|io| {
                let cancelled = io.start_timer(Duration::from_millis(1), 1);
                io.start_timer(Duration::from_micros(300), 2);
                assert!(io.cancel_timer(cancelled));
                assert!(!io.cancel_timer(cancelled));
            })
            .timer(|io, reason| {
                if reason < 200 {
                    io.start_timer(Duration::from_micros(300), reason + 1);
                } else {
                    io.abort(End::local(Reason::Ok));
                }
            })
    });
    // 199 timers of 0.3 ms are 60 ms; at whole milliseconds they would be 200. On a busy machine any one round may take
    // longer than that, so the best of some is taken.
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let _peer = rig.dial();
        let record = rig.record();
        assert!(record.duration >= Duration::from_millis(59), "{record:?}");
        best = best.min(record.duration);
        if best < Duration::from_millis(180) {
            break;
        }
    }
    assert!(best < Duration::from_millis(180), "{best:?}");
    rig.stop_clean();
}

#[test]
fn paused_reading_closes_the_window() {
    let settings = PollerSettings {
        socket: SocketOptions { receive_buffer: Some(64 * 1024), ..SocketOptions::default() },
        ..PollerSettings::default()
    };
    let mut rig = Rig::with(settings, || Script::new().quiet().opened(|io| io.pause_reading()));
    let mut peer = rig.dial();
    let socket = rig.opened();
    peer.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let bytes = vec![5; MORE_THAN_FITS];
    let mut sent = 0;
    while let Ok(n) = peer.write(&bytes[sent..]) {
        sent += n;
    }
    assert!(sent < MORE_THAN_FITS);
    socket.submit(|_, io| io.resume_reading()).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    peer.write_all(&bytes[sent..]).unwrap();
    drop(peer);
    let record = rig.record();
    assert_eq!(record.wire_in, MORE_THAN_FITS as u64);
    rig.stop_clean();
}

#[test]
fn a_replaced_session_gets_the_rest() {
    let (tell, told) = std::sync::mpsc::channel();
    let mut rig = Rig::start(move || {
        let tell = tell.clone();
        Script::new().received(move |io, _| {
            let next: Box<dyn Session> = Script::new().received(|io, _| io.send("new")).session(&tell);
            io.replace_session(next);
            io.send("old");
        })
    });
    let mut peer = rig.dial();
    peer.write_all(b"1").unwrap();
    assert_eq!(read_exact(&mut peer, 3), b"old");
    peer.write_all(b"2").unwrap();
    assert_eq!(read_exact(&mut peer, 3), b"new");
    drop(peer);
    loop {
        if let Told::Closed(record) = told.recv_timeout(PATIENCE).unwrap() {
            assert_eq!((record.wire_in, record.wire_out), (2, 6));
            break;
        }
    }
    rig.opened();
    rig.stop_clean();
}

#[test]
fn offloaded_work_comes_back_and_its_panic_ends_the_socket() {
    let mut rig = Rig::start(|| {
        Script::new().received(|io, bytes| {
            let wild = bytes[0] == b'p';
            io.offload(move || {
                assert!(!wild, "on purpose");
                Box::new(42_u32)
            })
            .unwrap();
        })
    });
    let mut peer = rig.dial();
    peer.write_all(b"x").unwrap();
    let answer = rig
        .next(|told| if let Told::Offloaded(any) = told { any.downcast_ref::<u32>().copied() } else { None });
    assert_eq!(answer, 42);
    peer.write_all(b"p").unwrap();
    assert_eq!(rig.record().end, End::local(Reason::Internal));
    rig.stop_clean();
}
