//! The end of a poller, and of its listeners.

use std::net::TcpListener;
use std::time::Duration;

use tidegate_poller::{End, Poller, PollerSettings, Reason, Role, sys};

use crate::support::{Door, PATIENCE, Rig, Script, Told, read_exact, read_to_end};
use crate::{MORE_THAN_FITS, flood};

#[test]
fn shutdown_lets_finish_what_can() {
    let mut rig = Rig::start(|| Script::new().opened(|io| io.send(vec![3; MORE_THAN_FITS])));
    let mut peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Blocked");
    rig.handle.shutdown(PATIENCE);
    assert_eq!(read_to_end(&mut peer).len(), MORE_THAN_FITS);
    drop(peer);
    let record = rig.record();
    assert_eq!((record.end, record.dropped_out), (End::local(Reason::Shutdown), 0));
    assert!(rig.dial_fails());
    rig.join();
}

/// Has the poller connect elsewhere, and sees that it does.
fn connects(rig: &Rig) {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = elsewhere.local_addr().unwrap();
    let (tell, _told) = std::sync::mpsc::channel();
    let connect = move |poller: &mut Poller| {
        let session = Script::new().opened(|io| {
            assert!(!io.is_shutting_down());
            io.send("out");
        });
        assert!(poller.connect(address, session.session(&tell)).is_some());
    };
    rig.handle.submit(connect).unwrap();
    let (mut accepted, _) = elsewhere.accept().unwrap();
    assert_eq!(read_exact(&mut accepted, 3), b"out");
}

#[test]
fn shut_down_a_poller_connects_until_its_last_caller_is_gone() {
    let mut rig = Rig::start(|| Script::new().opened(|io| io.send(vec![3; MORE_THAN_FITS])));
    let mut peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Blocked");
    rig.handle.shutdown(PATIENCE);
    connects(&rig);
    assert_eq!(read_to_end(&mut peer).len(), MORE_THAN_FITS);
    drop(peer);
    rig.record();
    rig.join();
}

#[test]
fn closed_to_callers_a_poller_lets_them_go_and_turns_on() {
    let mut rig = Rig::start(|| Script::new().opened(|io| io.send(vec![3; MORE_THAN_FITS])));
    let mut peer = rig.dial();
    let socket = rig.opened();
    rig.gate_becomes(&socket, "Blocked");
    let (tell, told) = std::sync::mpsc::channel();
    let again = tell.clone();
    rig.handle.close_to_callers(move || tell.send(1).unwrap());
    // Ours are no callers. What is asked of the poller is done in order: then the listener is closed, too.
    connects(&rig);
    assert!(rig.dial_fails());
    assert!(told.try_recv().is_err(), "one is still there");
    assert_eq!(read_to_end(&mut peer).len(), MORE_THAN_FITS);
    drop(peer);
    assert_eq!(rig.record().end, End::local(Reason::Shutdown));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(1));
    rig.handle.close_to_callers(move || again.send(2).unwrap());
    assert_eq!(told.recv_timeout(PATIENCE), Ok(2), "asked again, there is nobody");
    rig.handle.shutdown(Duration::ZERO);
    rig.join();
}

#[test]
fn shutdown_cuts_what_is_blocked_or_held() {
    let mut rig = Rig::start(flood);
    let (_blocked, _held) = (rig.dial(), rig.dial());
    let (one, two) = (rig.opened(), rig.opened());
    two.hold().unwrap();
    rig.gate_becomes(&one, "Blocked");
    rig.handle.shutdown(Duration::from_millis(50));
    for _ in 0..2 {
        let record = rig.record();
        assert_eq!(record.end, End::local(Reason::Shutdown));
        assert!(record.dropped_out > 0);
        assert_eq!(record.wire_out + record.dropped_out, MORE_THAN_FITS as u64);
    }
    rig.join();
}

#[test]
fn callers_at_the_door_have_a_record_when_the_poller_stops() {
    const CALLERS: usize = 100;
    let (tell, told) = std::sync::mpsc::channel();
    let listener = sys::listen_tcp(([127, 0, 0, 1], 0).into(), 1_024, false).unwrap();
    let address = listener.local_addr().unwrap();
    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    let door = Door { script: || Script::new().opened(|io| io.send("hello")), refuse: None, tell };
    poller.listen(listener, Box::new(door)).unwrap();
    // The kernel lets them in; nobody has accepted them when the poller is told to stop.
    let mut peers: Vec<_> = (0..CALLERS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    poller.handle().shutdown(Duration::from_secs(10));
    let reading = std::thread::spawn(move || {
        for peer in &mut peers {
            assert_eq!(read_to_end(peer), b"hello");
        }
    });
    poller.run().unwrap();
    reading.join().unwrap();
    let records = told.try_iter().filter(|told| matches!(told, Told::Closed(record) if record.wire_out == 5));
    assert_eq!(records.count(), CALLERS);
}

#[test]
fn a_dropped_poller_delivers_its_records() {
    let (tell, told) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    poller.connect(listener.local_addr().unwrap(), Script::new().session(&tell)).unwrap();
    drop(poller);
    let records = told
        .try_iter()
        .filter(|told| matches!(told, Told::Closed(record) if record.role == Role::Client))
        .count();
    assert_eq!(records, 1);
}
