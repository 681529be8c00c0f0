//! Short replies beside downloads that take all they can, all under one budget: how long a short reply waits.
//!
//! nginx has no budget that several connections share; it gets the part of each connection as its limit, which is
//! another thing and stands there for comparison only.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::{BIG, Bench, Figures, Measured, SMALL, Sample};
use crate::client::{Client, Connection, Discard, Plan, Then};
use crate::figures::{self, Spread};
use crate::servers::{Server, Wish};

/// Runs the load once.
pub fn run(
    bench: &Bench,
    server: &Server,
    label: &str,
    downloads: usize,
    client_rate: u64,
) -> io::Result<Vec<Sample>> {
    let wish = match server {
        Server::Tidegate { .. } => Wish { client_rate: Some(client_rate), ..Wish::default() },
        Server::Nginx | Server::Bare { .. } | Server::Program { .. } | Server::Raw => {
            Wish { rate: Some(client_rate / downloads as u64), ..Wish::default() }
        }
    };
    let running = bench.start(server, wish)?;
    let mut client = Client::new()?;
    let probes =
        open(&mut client, running.address(), &format!("/{}", BIG.0), downloads, &format!("/{}", SMALL.0))?;
    let warm = client.now() + bench.span(3).as_nanos() as u64;
    client.run_until(warm)?;
    let measured = bench.measure(&running, &mut client, bench.span(15))?;
    let figures = figures(&client, &measured, probes, client_rate as f64);
    Ok(vec![Sample { label: label.to_owned(), figures, bins: Vec::new() }])
}

/// Where the probes are among the client's connections: one that keeps its connection, one that makes a new one
/// for each request. What is before them are the downloads.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    kept: usize,
    fresh: usize,
}

/// Opens the downloads, then the two that ask for small replies in a loop.
pub fn open(
    client: &mut Client,
    to: SocketAddr,
    big: &str,
    downloads: usize,
    small: &str,
) -> io::Result<Probes> {
    let plan = |path: &str, connections, then| Plan {
        to,
        connections,
        path: path.to_owned(),
        keep_alive: then != Then::Reconnect,
        then,
        discard: Discard::Truncate,
    };
    client.open(&plan(big, downloads, Then::Repeat), false, OPEN_WITHIN)?;
    let kept = client.open(&plan(small, 1, Then::Repeat), false, OPEN_WITHIN)?;
    let fresh = client.open(&plan(small, 1, Then::Reconnect), false, OPEN_WITHIN)?;
    Ok(Probes { kept, fresh })
}

/// The latencies of the probes, and how the budget was used.
pub fn figures(client: &Client, measured: &Measured, probes: Probes, client_rate: f64) -> Figures {
    let window = measured.window;
    let bytes = |connection: &Connection| figures::total(window.of(connection.reads()));
    let all: u64 = client.connections().iter().map(bytes).sum();
    let downloads: Vec<f64> =
        client.connections()[..probes.kept].iter().map(|connection| bytes(connection) as f64).collect();

    let mut out = measured.figures(all);
    let kept = latencies(&client.connections()[probes.kept], measured);
    out.insert("kept_replies", kept.len() as f64);
    let spread = Spread::of(kept);
    out.extend([("kept_p50_ms", spread.p50), ("kept_p99_ms", spread.p99), ("kept_max_ms", spread.max)]);
    let fresh = latencies(&client.connections()[probes.fresh], measured);
    out.insert("fresh_replies", fresh.len() as f64);
    let spread = Spread::of(fresh);
    out.extend([("fresh_p50_ms", spread.p50), ("fresh_p99_ms", spread.p99), ("fresh_max_ms", spread.max)]);
    out.insert("sum_ratio", all as f64 / (client_rate * window.seconds()));
    out.insert("downloads_jain", figures::jain(&downloads));
    out
}

/// Milliseconds from asking to the last byte, of what was asked in the window. A reply that had not come at its
/// end has waited until then at least: to leave it out would hide just the worst.
fn latencies(connection: &Connection, measured: &Measured) -> Vec<f64> {
    let window = measured.window;
    let mut out: Vec<f64> = connection
        .exchanges()
        .iter()
        .filter(|exchange| (window.from..window.to).contains(&exchange.done))
        .map(|exchange| (exchange.done - exchange.asked) as f64 / 1e6)
        .collect();
    let waiting = window.to.saturating_sub(connection.asked()) as f64 / 1e6;
    if out.iter().all(|&latency| latency < waiting) {
        out.push(waiting);
    }
    out
}

const OPEN_WITHIN: Duration = Duration::from_secs(20);
