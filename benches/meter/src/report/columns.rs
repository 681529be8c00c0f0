//! The columns of the table of each kind of load.

use super::{Group, number};
use crate::cases::{Load, Pick};
use crate::figures::Spread;

/// A column: how it is headed and what stands in it.
pub(super) struct Column {
    pub(super) title: &'static str,
    kind: Kind,
}

enum Kind {
    /// The median and, of several repeats, the least and the most.
    Median(&'static str),
    /// Several figures with a stroke between, each picked so over the repeats.
    Several(&'static [&'static str], Pick),
    /// The median of the first; the least of the second and the greatest of the third in all repeats. With four
    /// decimals: rates.
    Rate(&'static str, &'static str, &'static str),
    /// How many repeats there were.
    Count,
}

impl Column {
    pub(super) fn cell(&self, group: &Group) -> String {
        let picked = |name: &str, pick| group.figure(name, pick).map_or("-".to_owned(), number);
        match self.kind {
            Kind::Median(name) => group.spread(name).map_or("-".to_owned(), median),
            Kind::Several(names, pick) => {
                let mut cells: Vec<String> = names.iter().map(|name| picked(name, pick)).collect();
                // One connection has no percentiles.
                if cells.windows(2).all(|two| two[0] == two[1]) {
                    cells.truncate(1);
                }
                cells.join(" / ")
            }
            Kind::Rate(middle, least, greatest) => {
                let rate = |name, pick| {
                    group.figure(name, pick).map_or("-".to_owned(), |value| format!("{value:.4}"))
                };
                let (least, greatest) = (rate(least, Pick::Least), rate(greatest, Pick::Greatest));
                let middle = rate(middle, Pick::Median);
                if least == greatest { middle } else { format!("{middle} ({least}-{greatest})") }
            }
            Kind::Count => group.repeats.len().to_string(),
        }
    }
}

fn median(spread: Spread) -> String {
    let (low, middle, high) = (number(spread.min), number(spread.p50), number(spread.max));
    if low == high { middle } else { format!("{middle} ({low}-{high})") }
}

/// The columns for a load.
pub(super) fn of(load: &Load) -> Vec<Column> {
    let mut columns = match load {
        Load::Paced { .. } => paced(),
        Load::Small { .. } => small(),
        Load::Unlimited => unlimited(),
        Load::Flat { .. } => flat(),
        Load::Idle { .. } => idle(),
        Load::Hello { .. } => hello(),
        Load::Tls => tls(),
    };
    // Only our own client knows.
    if !matches!(load, Load::Hello { .. } | Load::Tls) {
        columns.push(Column { title: "client's stall ms", kind: Kind::Several(&["stall_ms"], Pick::Least) });
    }
    columns.push(Column {
        title: "steal on the server's CPU",
        kind: Kind::Several(&["cpu0_steal"], Pick::Greatest),
    });
    columns.push(Column { title: "n", kind: Kind::Count });
    columns
}

fn paced() -> Vec<Column> {
    vec![
        rate("rate ÷ asked: p50 (least-most of all conns)", "ratio_p50", "ratio_min", "ratio_max"),
        rate("the same as slope", "slope_p50", "slope_min", "slope_max"),
        least("burst 10 ms p50 / p99", &["burst_10ms_p50", "burst_10ms_p99"]),
        least("burst 100 ms p50 / p99", &["burst_100ms_p50", "burst_100ms_p99"]),
        least("burst 1 s p50 / p99", &["burst_1s_p50", "burst_1s_p99"]),
        least("start burst 100 ms", &["start_burst_p50"]),
        least("all together, 10 / 100 ms", &["together_10ms", "together_100ms"]),
        least("longest gap ms p50 / p99 / max", &["gap_p50_ms", "gap_p99_ms", "gap_max_ms"]),
        least("Jain", &["jain"]),
        median_of("CPU s/GB", "cpu_s_per_gb"),
        median_of("CPU 0 s/GB", "cpu0_s_per_gb"),
        median_of("CPU s/s", "cpu_s_per_s"),
        median_of("RSS MB", "rss_mb"),
        median_of("anonymous MB", "anon_mb"),
    ]
}

fn small() -> Vec<Column> {
    vec![
        median_of("kept connection: p50 ms", "kept_p50_ms"),
        median_of("p99 ms", "kept_p99_ms"),
        median_of("max ms", "kept_max_ms"),
        median_of("new connections: p50 ms", "fresh_p50_ms"),
        median_of("p99 ms", "fresh_p99_ms"),
        median_of("max ms", "fresh_max_ms"),
        median_of("all bytes ÷ budget", "sum_ratio"),
        median_of("Jain of the downloads", "downloads_jain"),
        median_of("CPU s/GB", "cpu_s_per_gb"),
    ]
}

fn unlimited() -> Vec<Column> {
    vec![
        median_of("MB/s", "mb_per_s"),
        median_of("CPU s/GB", "cpu_s_per_gb"),
        median_of("CPU 0 s/GB", "cpu0_s_per_gb"),
        median_of("CPU 0 busy", "cpu0_busy"),
        median_of("client's CPU busy", "client_cpu_busy"),
        median_of("bytes a read", "bytes_per_read"),
    ]
}

fn flat() -> Vec<Column> {
    vec![
        median_of("CPU µs a resume", "cpu_us_per_read"),
        median_of("resumes a second", "reads_per_s"),
        median_of("bytes a resume", "bytes_per_read"),
        rate("rate ÷ asked: p50 (least-most of all conns)", "ratio_p50", "ratio_min", "ratio_max"),
        median_of("CPU s/GB", "cpu_s_per_gb"),
        median_of("CPU 0 busy", "cpu0_busy"),
        median_of("RSS MB", "rss_mb"),
        median_of("anonymous MB", "anon_mb"),
    ]
}

fn idle() -> Vec<Column> {
    vec![
        median_of("anonymous bytes each", "anon_per_connection"),
        median_of("RSS bytes each", "rss_per_connection"),
        median_of("RSS before MB", "rss_before_mb"),
        median_of("RSS MB", "rss_mb"),
        median_of("anonymous MB", "anon_mb"),
        median_of("CPU s/s", "cpu_s_per_s"),
    ]
}

fn hello() -> Vec<Column> {
    vec![
        median_of("requests per CPU second", "requests_per_cpu_s"),
        median_of("CPU µs a request", "cpu_us_per_request"),
        median_of("p50 ms", "p50_ms"),
        median_of("p99 ms", "p99_ms"),
        median_of("requests a second", "requests_per_s"),
        median_of("CPU s/s", "cpu_s_per_s"),
        median_of("wrk's CPU busy", "client_cpu_busy"),
        median_of("RSS MB", "rss_mb"),
        median_of("errors", "errors"),
    ]
}

fn tls() -> Vec<Column> {
    vec![
        median_of("MB/s", "mb_per_s"),
        median_of("CPU s/GB", "cpu_s_per_gb"),
        median_of("CPU 0 s/GB", "cpu0_s_per_gb"),
        median_of("CPU 0 busy", "cpu0_busy"),
        median_of("client's CPU busy", "client_cpu_busy"),
    ]
}

fn rate(title: &'static str, middle: &'static str, least: &'static str, greatest: &'static str) -> Column {
    Column { title, kind: Kind::Rate(middle, least, greatest) }
}

fn least(title: &'static str, names: &'static [&'static str]) -> Column {
    Column { title, kind: Kind::Several(names, Pick::Least) }
}

fn median_of(title: &'static str, name: &'static str) -> Column {
    Column { title, kind: Kind::Median(name) }
}
