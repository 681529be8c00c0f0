//! Connecting, and callers that are turned away.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use tidegate_poller::{End, Peer, Poller, PollerSettings, Reason, Role, sys};

use crate::support::{PATIENCE, Rig, Script, Told, pattern, read_to_end};

#[test]
fn connecting_succeeds_fails_and_times_out() {
    let (tell, told) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let closed: SocketAddr = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    let mut poller = Poller::new(PollerSettings {
        connect_timeout: Some(Duration::from_millis(100)),
        ..PollerSettings::default()
    })
    .unwrap();
    poller.connect(closed, Script::new().session(&tell));
    let script = Script::new().opened(|io| {
        io.send("hello");
        io.finish(End::local(Reason::Ok));
    });
    poller.connect(address, script.session(&tell)).unwrap();
    let mut accepted = None;
    let mut ends = Vec::new();
    while ends.len() < 2 {
        poller.turn(Some(Duration::from_millis(10))).unwrap();
        if accepted.is_none() {
            let (mut stream, _) = listener.accept().unwrap();
            std::thread::spawn(move || assert_eq!(read_to_end(&mut stream), b"hello"));
            accepted = Some(());
        }
        for told in told.try_iter() {
            if let Told::Closed(record) = told {
                assert_eq!((record.role, record.connected.is_some()), (Role::Client, record.wire_out == 5));
                ends.push(record.end);
            }
        }
    }
    ends.sort_by_key(|end| end.reason as u8);
    assert_eq!(ends, [End::local(Reason::Ok), End::peer(Reason::ConnectFailed)]);
}

#[test]
fn unix_sockets_work_alike() {
    let path = std::env::temp_dir().join(format!("tidegate-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let mut rig = Rig::on(PollerSettings::default(), listener, None, || {
        Script::new().quiet().received(|io, bytes| io.send(bytes.to_vec()))
    });
    let mut peer = UnixStream::connect(&path).unwrap();
    let sent = pattern(1_000_000, 9);
    let echoed = std::thread::scope(|scope| {
        let mut reader = peer.try_clone().unwrap();
        let echoed = scope.spawn(move || read_to_end(&mut reader));
        peer.write_all(&sent).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        echoed.join().unwrap()
    });
    assert!(echoed == sent);
    let record = rig.record();
    assert_eq!((record.wire_in, record.wire_out), (1_000_000, 1_000_000));
    assert!(record.tcp.is_none());
    assert_eq!(record.peer, Peer::Unix(None));

    // And as a client.
    let (tell, told) = std::sync::mpsc::channel();
    let client = path.clone();
    rig.handle
        .submit(move |poller| {
            let script = Script::new()
                .opened(|io| io.send("ping"))
                .received(|io, _| io.finish(End::local(Reason::Ok)));
            poller.connect_unix(client, script.session(&tell)).unwrap();
        })
        .unwrap();
    let got = loop {
        if let Told::Received(bytes) = told.recv_timeout(PATIENCE).unwrap() {
            break bytes;
        }
    };
    assert_eq!(got, b"ping");
    let record = rig.record();
    assert_eq!(record.role, Role::Server);
    let _ = std::fs::remove_file(&path);
    rig.stop();
}

#[test]
fn refused_callers_leave_a_record() {
    let listener = sys::listen_tcp("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
    let address = listener.local_addr().unwrap();
    let mut rig = Rig::on(PollerSettings::default(), listener, Some(Reason::Denied), Script::new);
    rig.address = address;
    let mut peer = rig.dial();
    assert!(matches!(peer.read(&mut [0; 1]), Ok(0) | Err(_)));
    let record = rig.refused();
    assert_eq!((record.end, record.phase), (End::local(Reason::Denied), "accept"));
    rig.figures(|figures| figures.refused == 1);
    rig.stop_clean();
}

#[test]
fn beyond_max_sockets_callers_are_refused() {
    let mut rig = Rig::with(PollerSettings { max_sockets: 2, ..PollerSettings::default() }, Script::new);
    let _in = (rig.dial(), rig.dial());
    let (_one, _two) = (rig.opened(), rig.opened());
    let _out = rig.dial();
    assert_eq!(rig.refused().end, End::local(Reason::Denied));
    assert_eq!(rig.stop().len(), 2);
}
