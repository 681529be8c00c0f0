//! Callers that begin a handshake and do not go on cost little, and keep nobody out. Alone in its binary: it counts what is
//! allocated.

// Shared with the other tests of TLS, which use all of it.
#![allow(dead_code)]

#[path = "../poller/tests/counting/mod.rs"]
mod counting;
#[path = "tls/pki.rs"]
mod pki;
#[path = "tls/poller.rs"]
mod poller;
#[path = "tls/raw.rs"]
mod raw;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::poller::{End, PollerSettings, Reason};
use tidegate_meter::sys::raise_open_files;

use pki::{Pki, pair};
use poller::{PATIENCE, Part, Running};
use raw::RawClient;

const CROWD: usize = 1_000;

/// So many callers that have each said this; once the server has seen them all.
fn crowd(serving: &Running, words: &[u8]) -> Vec<TcpStream> {
    let begun = Instant::now();
    let callers: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let mut caller = TcpStream::connect(serving.address).unwrap();
            caller.write_all(words).unwrap();
            caller
        })
        .collect();
    println!("{CROWD} callers in {:?}", begun.elapsed());
    let deadline = Instant::now() + PATIENCE;
    while serving.handle.figures().open < CROWD as u64 {
        assert!(Instant::now() < deadline, "{:?}", serving.handle.figures());
        // Figures give no event to wait on.
        std::thread::sleep(Duration::from_millis(2));
    }
    callers
}

#[test]
fn a_thousand_callers_that_do_not_go_on_cost_little_and_keep_nobody_out() {
    raise_open_files();
    let pki = Pki::new("crowd");
    let (server, client) = pair(&pki);
    let config =
        PollerSettings { handshake_timeout: Some(Duration::from_secs(60)), ..PollerSettings::default() };
    let serving = Running::serve_with(&server, Part::Echo, None, config);
    // Large buffers are lying about in the poller, as after other work.
    let mut worker = RawClient::ready(serving.address, &pki);
    worker.say(&vec![7; 300_000]);
    assert_eq!(worker.bytes(300_000).len(), 300_000);
    worker.leave();
    assert!(worker.rest().unwrap().is_empty());
    assert_eq!(serving.record().end, End::peer(Reason::Ok));

    let hello = RawClient::connect(serving.address, &pki).words();
    serving.record();
    for words in [&b""[..], &hello[..hello.len() - 1], &hello] {
        let before = counting::live_bytes();
        let callers = crowd(&serving, words);
        let asking = Running::connect(
            serving.address,
            &client,
            "localhost",
            Part::SaysAndCloses(Arc::new(b"hello".to_vec())),
        );
        assert_eq!(asking.record().end, End::local(Reason::Ok), "somebody else is served");
        let each = (counting::live_bytes().saturating_sub(before)) / CROWD;
        println!("{each} bytes for each caller that said {} bytes", words.len());
        assert!(each < 12_000, "{each}");
        drop(asking);
        drop(callers);
        let mut ends = Vec::new();
        while ends.len() < CROWD + 1 {
            ends.push(serving.record().end);
        }
        assert_eq!(ends.iter().filter(|end| **end == End::peer(Reason::Abort)).count(), CROWD);
        let left = counting::live_bytes().saturating_sub(before) / CROWD;
        assert!(left < 500, "{left}");
    }
    let figures = server.figures();
    assert_eq!((figures.failed, figures.answered_plainly), (0, 0));
}
