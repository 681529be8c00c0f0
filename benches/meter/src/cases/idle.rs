//! Keep-alive connections that had one reply each and do nothing: what each costs in memory.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Bench, Figures, SMALL, Sample};
use crate::account::Memory;
use crate::client::{Client, Discard, Plan, Then};
use crate::servers::{Running, Server, Wish};

/// Runs the load once.
pub fn run(bench: &Bench, server: &Server, label: &str, connections: usize) -> io::Result<Vec<Sample>> {
    let running = bench.start(server, Wish::default())?;
    let figures = measure(bench, &running, connections)?;
    Ok(vec![Sample { label: label.to_owned(), figures, bins: Vec::new() }])
}

fn measure(bench: &Bench, running: &Running, connections: usize) -> io::Result<Figures> {
    let path = format!("/{}", SMALL.0);
    let mut client = Client::new()?;
    // One before: what the server sets up once is not a connection's.
    client.open(&plan(running.address(), &path, 1), true, Duration::from_secs(5))?;
    let before = Memory::read(&running.processes())?;
    client.open(&plan(running.address(), &path, connections), true, Duration::from_secs(30))?;
    let measured = bench.measure(running, &mut client, bench.span(3))?;
    let mut out = measured.figures(0);
    out.extend(per_connection(before, measured.memory, connections));
    Ok(out)
}

/// Keep-alive connections that ask once.
pub fn plan(to: SocketAddr, path: &str, connections: usize) -> Plan {
    Plan {
        to,
        connections,
        path: path.to_owned(),
        keep_alive: true,
        then: Then::Stay,
        discard: Discard::Copy,
    }
}

/// What each connection added.
pub fn per_connection(before: Memory, after: Memory, connections: usize) -> [(&'static str, f64); 4] {
    let each = |before: u64, after: u64| (after as f64 - before as f64) / connections as f64;
    [
        ("anon_per_connection", each(before.anonymous, after.anonymous)),
        ("rss_per_connection", each(before.rss, after.rss)),
        ("anon_before_mb", before.anonymous as f64 / 1e6),
        ("rss_before_mb", before.rss as f64 / 1e6),
    ]
}
