//! Short requests, as many as wrk can make: how many the server answers for a second of its CPU, and how soon.
//!
//! wrk runs on the client's CPU, which it fills: requests a second are as much its figure as the server's. So the
//! server is judged by what it did with the CPU time that it took.

use std::io;
use std::time::Duration;

use super::{Asking, Bench, Figures, Measured, Sample};
use crate::account::{Account, Memory};
use crate::figures::Window;
use crate::servers::{Server, Wish};
use crate::wrk::{self, Load};

/// Runs the load once.
pub fn run(
    bench: &Bench,
    server: &Server,
    label: &str,
    connections: usize,
    asking: Asking,
) -> io::Result<Vec<Sample>> {
    let running = bench.start(server, Wish::default())?;
    let load = |span| Load { to: running.address(), path: "/hello", connections, asking, span };
    // Buffers, branch predictors and the clients' ports: the first second is not like the others.
    wrk::run(&load(bench.span_or(1, QUICK_WARM_UP)))?;
    let pids = running.processes();
    let before = Account::read(&pids)?;
    let report = wrk::run(&load(bench.span_or(8, QUICK)))?;
    let spent = Account::read(&pids)?.since(&before, bench.server_cpu, bench.client_cpu);
    if report.refused > 0 || report.requests == 0 {
        let text = format!("{} replies, {} of them no 200", report.requests, report.refused);
        return Err(io::Error::other(text));
    }
    let window = Window { from: 0, to: (report.seconds * 1e9) as u64 };
    let measured = Measured { window, spent, memory: Memory::read(&pids)?, stall: Duration::ZERO };
    let figures = figures(&report, &measured);
    Ok(vec![Sample { label: label.to_owned(), figures, bins: Vec::new() }])
}

fn figures(report: &wrk::Report, measured: &Measured) -> Figures {
    let requests = report.requests as f64;
    let mut out = measured.figures(0);
    // wrk does not say when it stood still.
    out.remove("stall_ms");
    out.extend([
        ("requests_per_cpu_s", requests / measured.spent.process_seconds.max(1e-9)),
        ("cpu_us_per_request", measured.spent.process_seconds * 1e6 / requests.max(1.0)),
        ("requests_per_s", requests / report.seconds),
        ("p50_ms", report.p50_ms),
        ("p99_ms", report.p99_ms),
        ("errors", report.errors as f64),
    ]);
    out
}

const QUICK_WARM_UP: Duration = Duration::from_millis(100);
const QUICK: Duration = Duration::from_millis(300);
