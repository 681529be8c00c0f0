//! Ends are told apart, and each leaves one record that says who and why.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use tidegate::net::tls::{ClientTls, ServerTls};
use tidegate::poller::{End, Limit, PollerSettings, Reason};

use crate::pki::{Pki, pair};
use crate::poller::{Part, Running, Told, pattern};
use crate::raw::RawClient;

fn finished(running: &Running) -> bool {
    running.wait(|told| match told {
        Told::Finished { truncated } => Some(truncated),
        _ => None,
    })
}

#[test]
fn a_goodbye_is_told_from_a_bare_fin() {
    let pki = Pki::new("ends");
    let (server, client) = pair(&pki);
    let serving = Running::serve(&server, Part::Echo);
    // Ours says goodbye.
    let words = Arc::new(b"bye".to_vec());
    let asking = Running::connect(serving.address, &client, "localhost", Part::SaysAndCloses(words));
    assert!(!finished(&serving));
    let (served, asked) = (serving.record(), asking.record());
    assert!(!served.handshake.unwrap().truncated);
    assert_eq!((served.end, asked.end), (End::peer(Reason::Ok), End::local(Reason::Ok)));
    assert_eq!((served.plain_in, asked.plain_out), (3, 3));
    // Through a relay that cuts the connection after the handshake and some bytes.
    let relay = cutting_relay(serving.address, 3_000);
    let _asking = Running::connect(relay, &client, "localhost", Part::Says(Arc::new(vec![7; 100_000])));
    assert!(finished(&serving), "a cut must be known as one");
    assert!(serving.record().handshake.unwrap().truncated);
}

/// Relays one connection to `to` both ways, and ends it with a plain FIN after so many bytes of the caller's.
fn cutting_relay(to: std::net::SocketAddr, after: usize) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(to).unwrap();
        let (mut back_in, mut back_out) = (server.try_clone().unwrap(), caller.try_clone().unwrap());
        let back = std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = back_in.read(&mut buf) {
                if back_out.write_all(&buf[..n]).is_err() {
                    break;
                }
            }
        });
        let mut left = vec![0; after];
        while !left.is_empty() {
            let n = caller.read(&mut left).unwrap();
            server.write_all(&left[..n]).unwrap();
            left.truncate(left.len() - n);
        }
        server.shutdown(std::net::Shutdown::Write).unwrap();
        back.join().unwrap();
    });
    address
}

#[test]
fn a_certificate_that_is_not_believed_ends_both_with_the_alert() {
    let pki = Pki::new("right");
    let (server, _) = pair(&pki);
    let serving = Running::serve(&server, Part::Echo);
    let other = Pki::new("wrong");
    let client = ClientTls::builder().authorities(other.ca_pem()).build().unwrap();
    let asking = Running::connect(serving.address, &client, "localhost", Part::Says(Arc::new(vec![1; 50])));
    let asked = asking.record();
    assert_eq!((asked.end, asked.phase), (End::local(Reason::TransportError), "handshake"));
    let handshake = asked.handshake.unwrap();
    assert!(handshake.fault.as_ref().unwrap().contains("certificate"), "{handshake:?}");
    assert!(handshake.took.is_none());
    assert_eq!((asked.plain_out, asked.dropped_out), (0, 50));
    let served = serving.record();
    assert_eq!((served.end, served.phase), (End::peer(Reason::TransportError), "handshake"));
    let fault = served.handshake.unwrap().fault.unwrap();
    assert!(fault.contains("alert") && fault.contains("UnknownCA"), "{fault}");
}

#[test]
fn wrong_name_and_expired_are_refused_and_the_danger_switch_takes_them() {
    let pki = Pki::new("names");
    let identity = pki.expired("old");
    let server = ServerTls::builder().certificate(identity.chain, identity.key).build().unwrap();
    let serving = Running::serve(&server, Part::Echo);
    let client = ClientTls::builder().authorities(pki.ca_pem()).build().unwrap();
    let asking = Running::connect(serving.address, &client, "localhost", Part::Says(Arc::default()));
    let fault = asking.record().handshake.unwrap().fault.unwrap();
    assert!(fault.contains("Expired") || fault.contains("expired"), "{fault}");
    let client = ClientTls::builder().danger_accept_any_certificate().build().unwrap();
    let asking = Running::connect(serving.address, &client, "127.0.0.1", Part::Says(Arc::default()));
    assert_eq!(asking.ready().certificate, Some(identity.der));

    let identity = pki.server("named", &["example.test"]);
    let server = ServerTls::builder().certificate(identity.chain, identity.key).build().unwrap();
    let serving = Running::serve(&server, Part::Echo);
    let client = ClientTls::builder().authorities(pki.ca_pem()).build().unwrap();
    for wrong in ["localhost", "127.0.0.1"] {
        let asking = Running::connect(serving.address, &client, wrong, Part::Says(Arc::default()));
        let record = asking.record();
        assert_eq!(record.end, End::local(Reason::TransportError), "{wrong}");
        let fault = record.handshake.unwrap().fault.unwrap();
        assert!(fault.contains("not valid for name"), "{fault}");
    }
}

#[test]
fn no_protocol_in_common_is_an_alert() {
    let pki = Pki::new("alpn");
    let (server, _) = pair(&pki);
    let serving = Running::serve(&server, Part::Echo);
    let client = ClientTls::builder().authorities(pki.ca_pem()).alpn(["other"]).build().unwrap();
    let asking = Running::connect(serving.address, &client, "localhost", Part::Says(Arc::default()));
    let (asked, served) = (asking.record(), serving.record());
    assert_eq!((served.end, served.phase), (End::local(Reason::TransportError), "handshake"));
    assert_eq!((asked.end, asked.phase), (End::peer(Reason::TransportError), "handshake"));
    assert!(asked.handshake.unwrap().fault.unwrap().contains("NoApplicationProtocol"));
    // Who offers none is served.
    let client = ClientTls::builder().authorities(pki.ca_pem()).build().unwrap();
    let asking = Running::connect(serving.address, &client, "localhost", Part::Says(Arc::default()));
    assert_eq!(asking.ready().protocol, None);
}

#[test]
fn bytes_and_the_end_that_come_together_are_not_lost_to_a_pause() {
    const LEN: usize = 120_000;
    let pki = Pki::new("together");
    let (server, _) = pair(&pki);
    let content = pattern(LEN, 8);
    let rate = || Limit::new("some", Some(400_000));
    let takes = || Part::Takes { limit: rate(), echoes: true };
    for (part, egress) in [(takes(), None), (Part::Echo, Some(rate())), (takes(), Some(rate()))] {
        let serving = Running::serve_with(&server, part, egress, PollerSettings::default());
        let mut client = RawClient::ready(serving.address, &pki);
        // Bytes, goodbye and FIN lie in the kernel long before the gate has let the bytes through.
        client.say(&content);
        client.leave();
        assert!(client.rest().unwrap() == content);
        let record = serving.record();
        assert_eq!((record.plain_in, record.plain_out, record.dropped_out), (LEN as u64, LEN as u64, 0));
        assert_eq!(record.end, End::peer(Reason::Ok), "{record:?}");
        assert!(!record.handshake.unwrap().truncated);
        let waited = record.ingress_throttled_ns.max(record.pauses.throttled_ns);
        assert!(waited > 100_000_000, "it never paused: {waited} ns");
    }
}

#[test]
fn bytes_and_a_bare_fin_that_come_together_are_all_there_and_the_cut_is_told() {
    let pki = Pki::new("bare");
    let part = Part::Takes { limit: Limit::new("some", Some(400_000)), echoes: true };
    let serving = Running::serve(&pair(&pki).0, part);
    let content = pattern(100_000, 9);
    let mut client = RawClient::ready(serving.address, &pki);
    client.say(&content);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.rest().unwrap() == content);
    assert!(finished(&serving));
    let record = serving.record();
    assert_eq!((record.plain_in, record.plain_out), (100_000, 100_000));
    assert!(record.handshake.unwrap().truncated);
}
