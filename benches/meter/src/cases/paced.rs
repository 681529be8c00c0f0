//! Downloads, each limited to a rate: how even, how exact, and at what cost.

use std::io;
use std::time::Duration;

use super::{BIG, Bench, Figures, Measured, Sample};
use crate::client::{Client, Discard, Plan, Then};
use crate::figures::{self, MS, Paced, Read, Spread};
use crate::servers::{Server, Wish};

/// Runs the load once.
pub fn run(
    bench: &Bench,
    server: &Server,
    label: &str,
    connections: usize,
    rate: u64,
    seconds: u64,
) -> io::Result<Vec<Sample>> {
    let running = bench
        .start(server, Wish { rate: Some(rate), share_open_files: connections > 9000, ..Wish::default() })?;
    let mut client = Client::new()?;
    client.open(&plan(running.address(), connections), false, OPEN_WITHIN)?;
    let warm = client.now() + bench.span(WARM_UP_SECONDS).as_nanos() as u64;
    client.run_until(warm)?;
    let measured = bench.measure(&running, &mut client, bench.span(seconds))?;
    let timelines: Vec<&[Read]> = client.connections().iter().map(|connection| connection.reads()).collect();
    let bins = figures::bins(timelines[0], measured.window, 100 * MS);
    Ok(vec![Sample { label: label.to_owned(), figures: figures(&timelines, &measured, rate as f64), bins }])
}

/// Long downloads, asked for again and again.
pub fn plan(to: std::net::SocketAddr, connections: usize) -> Plan {
    Plan {
        to,
        connections,
        path: format!("/{}", BIG.0),
        keep_alive: true,
        then: Then::Repeat,
        discard: Discard::Copy,
    }
}

/// The figures of connections that were asked to go at `rate` bytes per second each.
pub fn figures(timelines: &[&[Read]], measured: &Measured, rate: f64) -> Figures {
    let window = measured.window;
    let each: Vec<Paced> = timelines.iter().map(|reads| Paced::of(reads, window, rate)).collect();
    let spread = |pick: fn(&Paced) -> f64| Spread::of(each.iter().map(pick));
    let all = figures::together(timelines.iter().map(|reads| window.of(reads)));
    let together = |width: u64| {
        figures::most_in(&all, width) as f64 / (rate * timelines.len() as f64 * width as f64 / 1e9)
    };

    let mut out = measured.figures(figures::total(&all));
    let ratio = spread(|paced| paced.ratio);
    out.extend([("ratio_p50", ratio.p50), ("ratio_min", ratio.min), ("ratio_max", ratio.max)]);
    let ratio = spread(|paced| paced.slope_ratio);
    out.extend([("slope_p50", ratio.p50), ("slope_min", ratio.min), ("slope_max", ratio.max)]);
    out.insert("jain", figures::jain(&each.iter().map(|paced| paced.ratio).collect::<Vec<_>>()));
    let burst = spread(|paced| paced.burst_10ms);
    out.extend([("burst_10ms_p50", burst.p50), ("burst_10ms_p99", burst.p99)]);
    let burst = spread(|paced| paced.burst_100ms);
    out.extend([
        ("burst_100ms_p50", burst.p50),
        ("burst_100ms_p99", burst.p99),
        ("burst_100ms_max", burst.max),
    ]);
    let burst = spread(|paced| paced.burst_1s);
    out.extend([("burst_1s_p50", burst.p50), ("burst_1s_p99", burst.p99)]);
    let burst = spread(|paced| paced.start_burst);
    out.extend([("start_burst_p50", burst.p50), ("start_burst_p99", burst.p99)]);
    out.extend([("together_10ms", together(10 * MS)), ("together_100ms", together(100 * MS))]);
    let gap = spread(|paced| paced.gap_ns as f64 / 1e6);
    out.extend([("gap_p50_ms", gap.p50), ("gap_p99_ms", gap.p99), ("gap_max_ms", gap.max)]);
    out.extend(per_read(measured, &all));
    out
}

/// What one read of the client stands for: where the server writes now and then, one resume.
pub fn per_read(measured: &Measured, all: &[Read]) -> [(&'static str, f64); 3] {
    let reads = all.len().max(1) as f64;
    [
        ("reads_per_s", all.len() as f64 / measured.window.seconds()),
        ("bytes_per_read", figures::total(all) as f64 / reads),
        ("cpu_us_per_read", measured.spent.process_seconds * 1e6 / reads),
    ]
}

/// Before the window: a second or two is what saw-teeth and averages need to settle.
const WARM_UP_SECONDS: u64 = 3;
/// For all connections to be answered. At 1 kB/s the head of the reply alone takes a while.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
