//! What is heard of a server that resets us.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tidegate_poller::{ConnectionRecord, Direction, End, Io, Limit, Poller, PollerSettings, Reason, sys};

use crate::support::{PATIENCE, Script, Told};

/// Bytes that fit into the kernel's buffers.
const SAID: usize = 50_000;

/// What a session hears of a server that says something and resets us, of which the poller learns nothing before the session
/// was opened; and whether it was told of an end.
fn hear(
    settings: PollerSettings,
    script: Script,
    mut opened: impl FnMut(&mut Io<'_>) + Send + 'static,
) -> (Vec<u8>, bool, ConnectionRecord) {
    let (tell, told) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut poller = Poller::new(settings).unwrap();
    let script = script.opened(move |io| {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[7; SAID]).unwrap();
        sys::set_linger_reset(&stream).unwrap();
        drop(stream);
        opened(io);
    });
    poller.connect(address, script.session(&tell)).unwrap();
    let (mut heard, mut finished) = (Vec::new(), false);
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "it never ends");
        poller.turn(Some(Duration::from_millis(10))).unwrap();
        for told in told.try_iter() {
            match told {
                Told::Received(bytes) => heard.extend_from_slice(&bytes),
                Told::PeerFinished => finished = true,
                Told::Closed(record) => return (heard, finished, record),
                _ => {}
            }
        }
    }
}

#[test]
fn what_a_server_said_before_it_reset_us_is_heard_although_a_write_fails_first() {
    let (heard, finished, record) =
        hear(PollerSettings::default(), Script::new(), |io| io.send("a question"));
    assert!(heard == [7; SAID], "{} bytes", heard.len());
    assert!(!finished, "a reset is no end");
    assert_eq!((record.end, record.wire_in), (End::peer(Reason::Abort), SAID as u64));
    assert_eq!((record.wire_out, record.dropped_out), (0, 10));
}

#[test]
fn who_reads_slowly_hears_all_that_was_said_before_a_reset() {
    for (asks, budget) in [(true, false), (false, false), (true, true)] {
        let pause = |io: &mut Io<'_>| {
            io.pause_reading();
            io.start_timer(Duration::from_millis(1), 0);
        };
        // A session that takes a little at a time, each in a visit of its own.
        let script = Script::new().timer(|io, _| io.resume_reading()).received(move |io, _| pause(io));
        let limit = Limit::new("each", Some(1_000_000));
        let settings = PollerSettings { read_buffer: 4_096, ..PollerSettings::default() };
        let (heard, finished, record) = hear(settings, script, move |io| {
            if budget {
                io.set_limit(Direction::Ingress, Some(&limit));
            }
            if asks {
                io.send("a question");
            }
            pause(io);
        });
        assert!(heard == [7; SAID], "{} bytes, asks: {asks}, budget: {budget}", heard.len());
        assert!(!finished, "a reset is no end");
        assert_eq!((record.end, record.wire_in), (End::peer(Reason::Abort), SAID as u64));
        assert_eq!((record.wire_out, record.dropped_out), (0, if asks { 10 } else { 0 }));
    }
}

#[test]
fn a_session_whose_peer_is_gone_may_still_end_it_by_itself() {
    let script = Script::new().received(|io, _| {
        io.send("too late");
        io.abort(End::local(Reason::Ok));
    });
    let (heard, _, record) = hear(PollerSettings::default(), script, |io| io.send("a question"));
    assert!(!heard.is_empty());
    assert_eq!((record.end, record.dropped_out), (End::local(Reason::Ok), 18));
    let script = Script::new().received(|io, _| io.finish(End::local(Reason::Denied)));
    let (_, _, record) = hear(PollerSettings::default(), script, |io| io.send("a question"));
    assert_eq!(record.end, End::local(Reason::Denied));
}
