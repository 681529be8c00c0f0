//! Rates hold over TLS, counted on the wire. Alone in its binary: two per cent leave no room for other tests beside it.

// Shared with the other tests of TLS, which use all of it.
#![allow(dead_code)]

#[path = "tls/pki.rs"]
mod pki;
#[path = "tls/poller.rs"]
mod poller;
#[path = "tls/raw.rs"]
mod raw;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::poller::{Limit, PollerSettings};

use pki::{Pki, pair};
use poller::{Part, Running, Told, pattern};
use raw::RawClient;

#[test]
fn a_rate_holds_on_the_wire_and_comes_without_bursts() {
    const RATE: u64 = 2_000_000;
    const LEN: usize = 4_000_000;
    let pki = Pki::new("pacing");
    let (server, client) = pair(&pki);
    let path = pki.path("content");
    std::fs::File::create(&path).unwrap().write_all(&pattern(LEN, 3)).unwrap();
    let file = Arc::new(std::fs::File::open(&path).unwrap());
    let part = Part::Gives(file, LEN as u64);
    let serving =
        Running::serve_with(&server, part, Some(Limit::new("given", Some(RATE))), PollerSettings::default());
    let asking = Running::connect(serving.address, &client, "localhost", Part::Says(Arc::default()));
    let mut arrivals = Vec::new();
    asking.wait(|told| match told {
        Told::Bytes(bytes) => {
            arrivals.push((Instant::now(), bytes.len()));
            None
        }
        Told::Closed(_) => Some(()),
        _ => None,
    });
    let served = serving.record();
    assert_eq!(served.plain_out, LEN as u64);
    let took = served.last_out.unwrap() - served.first_out.unwrap();
    let rate = served.wire_out as f64 / took.as_secs_f64();
    println!("{rate:.0} bytes a second on the wire, {} of overhead", served.wire_out - served.plain_out);
    assert!((rate / RATE as f64 - 1.0).abs() < 0.02, "{rate}");
    // Overhead of records cut to the quantum stays small.
    assert!(served.wire_out - served.plain_out < LEN as u64 / 200, "{}", served.wire_out);
    let burst = most_within(&arrivals, Duration::from_millis(100));
    println!("most in 100 ms: {burst}");
    // What the loop was late is made up for, within one depth.
    assert!(burst < RATE as usize / 10 * 2, "{burst} bytes in 100 ms");
    let pauses = served.pauses;
    assert!(
        pauses.throttled_ns > took.as_nanos() as u64 * 8 / 10 && pauses.blocked_ns < 100_000_000,
        "{pauses:?}"
    );
}

#[test]
fn a_rate_inwards_counts_what_is_on_the_wire_however_little_that_holds() {
    const RATE: u64 = 1_000_000;
    let pki = Pki::new("inwards");
    // Full records, and records of 64 bytes, of which a quarter is TLS's own.
    for (len, each) in [(2_000_000, 16 * 1024), (1_400_000, 64)] {
        let part = Part::Takes { limit: Limit::new("taken", Some(RATE)), echoes: false };
        let serving = Running::serve(&pair(&pki).0, part);
        let mut client = RawClient::ready(serving.address, &pki);
        let content = pattern(len, 4);
        let mut words = client.records(&content, each);
        client.tls.send_close_notify();
        words.extend(client.words());
        let mut out = client.stream.try_clone().unwrap();
        let on_the_wire = words.len();
        let begun = Instant::now();
        let sender = std::thread::spawn(move || out.write_all(&words).unwrap());
        let (mut came, mut took) = (Vec::new(), Duration::ZERO);
        let record = serving.wait(|told| match told {
            Told::Bytes(bytes) => {
                came.extend_from_slice(&bytes);
                took = begun.elapsed();
                None
            }
            Told::Closed(record) => Some(*record),
            _ => None,
        });
        sender.join().unwrap();
        assert!(came == content);
        let rate = on_the_wire as f64 / took.as_secs_f64();
        println!("{rate:.0} bytes a second off the wire, {} of overhead", record.wire_in - record.plain_in);
        assert!((rate / RATE as f64 - 1.0).abs() < 0.02, "{rate}");
        assert!(record.ingress_throttled_ns > took.as_nanos() as u64 * 8 / 10, "{record:?}");
    }
}

fn most_within(arrivals: &[(Instant, usize)], window: Duration) -> usize {
    let mut most = 0;
    let (mut first, mut sum) = (0, 0);
    for (at, len) in arrivals {
        sum += len;
        while *at - arrivals[first].0 > window {
            sum -= arrivals[first].1;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}
