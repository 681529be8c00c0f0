//! Bytes come whole and are counted exactly, above and below TLS.

use std::io::Write as _;
use std::sync::Arc;

use tidegate::poller::{End, Limit, PollerSettings, Reason, Who};

use crate::pki::{Pki, pair};
use crate::poller::{Part, Running, Told, pattern};

#[test]
fn a_session_learns_of_the_handshake_and_what_it_queued_before_waits() {
    let pki = Pki::new("handshake");
    let (server, client) = pair(&pki);
    let serving = Running::serve(&server, Part::Echo);
    let words = Arc::new(b"hello".to_vec());
    let asking = Running::connect(serving.address, &client, "localhost", Part::Says(words));
    let Told::Opened { gate } = asking.next() else { panic!("not opened first") };
    assert!(gate.contains("5 queued: Unready") && !gate.contains("Blocked"), "{gate}");
    let Told::Ready(Some(handshake)) = asking.next() else { panic!("not ready next") };
    assert_eq!(handshake.version, Some("TLSv1.3"));
    assert!(handshake.cipher.as_ref().unwrap().starts_with("TLS_"), "{handshake:?}");
    assert_eq!(handshake.protocol.as_deref(), Some("echo/1"));
    assert_eq!(handshake.server_name.as_deref(), Some("localhost"));
    assert!(!handshake.resumed && handshake.fault.is_none() && handshake.took.is_some());
    let served = serving.ready();
    assert_eq!((served.version, &served.cipher), (handshake.version, &handshake.cipher));
    assert_eq!(served.server_name.as_deref(), Some("localhost"));
    assert_eq!((served.protocol.as_deref(), served.certificate), (Some("echo/1"), None));
    let came = asking.wait(|told| match told {
        Told::Bytes(bytes) => Some(bytes),
        _ => None,
    });
    assert_eq!(came, b"hello");
}

#[test]
fn ten_megabytes_both_ways_under_rates_are_exact_and_both_ends_count_the_same() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let pki = Pki::new("exact");
    let (server, client) = pair(&pki);
    let limit = Limit::new("echo", Some(40_000_000));
    let serving = Running::serve_with(&server, Part::Echo, Some(limit), PollerSettings::default());
    let content = Arc::new(pattern(10 * 1024 * 1024 + fastrand::Rng::with_seed(seed).usize(0..20_000), seed));
    let part = Part::Says(content.clone());
    let asking = Running::connect(serving.address, &client, "localhost", part);
    let mut came = Vec::new();
    while came.len() < content.len() {
        came.extend_from_slice(&asking.wait(|told| match told {
            Told::Bytes(bytes) => Some(bytes),
            Told::Closed(record) => panic!("{record:?}"),
            _ => None,
        }));
    }
    assert!(came == *content);
    asking.handle.shutdown(std::time::Duration::from_secs(10));
    let (asked, served) = (asking.record(), serving.record());
    let len = content.len() as u64;
    assert_eq!((asked.plain_out, asked.plain_in), (len, len));
    assert_eq!((served.plain_in, served.plain_out), (len, len));
    assert_eq!((asked.wire_out, asked.wire_in), (served.wire_in, served.wire_out));
    let overhead = served.wire_out - served.plain_out;
    assert!((600 * 22..100_000).contains(&overhead), "{overhead} bytes of overhead");
    assert_eq!((served.dropped_out, served.end), (0, End::peer(Reason::Ok)));
    assert_eq!(served.end.who, Who::Peer);
    assert!(served.handshake.unwrap().took.unwrap() > std::time::Duration::ZERO);
    assert_eq!(asked.tcp.unwrap().acked_bytes, Some(asked.wire_out));
}

#[test]
fn a_file_goes_through_tls_as_it_is() {
    let pki = Pki::new("file");
    let (server, client) = pair(&pki);
    let content = pattern(5_000_001, 9);
    let path = pki.path("content");
    std::fs::File::create(&path).unwrap().write_all(&content).unwrap();
    let file = Arc::new(std::fs::File::open(&path).unwrap());
    let serving = Running::serve(&server, Part::Gives(file, content.len() as u64));
    let asking = Running::connect(serving.address, &client, "localhost", Part::Says(Arc::default()));
    let (came, asked) = asking.bytes();
    assert!(came == content);
    let served = serving.record();
    assert_eq!((served.plain_out, served.dropped_out), (5_000_001, 0));
    assert_eq!((served.end, asked.end), (End::local(Reason::Ok), End::peer(Reason::Ok)));
    assert_eq!(served.wire_out, asked.wire_in);
    // Full records: head, type and tag for each 16 KiB.
    let records = 5_000_001u64.div_ceil(16 * 1024);
    let overhead = served.wire_out - served.plain_out;
    assert!(overhead < records * 22 + 6_000, "{overhead} bytes of overhead");
}
