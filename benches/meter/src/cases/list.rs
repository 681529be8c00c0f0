//! The cases of `tidegate serve` and what is to be reached in each.

use super::Bound::{Around1, AtMost, AtMostOf};
use super::Pick::{Least, Median};
use super::{Bound, Case, Load, Ours, Peer, Reach};

/// All of them, in the order of the table.
pub const SERVE: &[Case] = &[
    Case {
        name: "1x1MB",
        title: "1 × 1 MB/s",
        load: Load::Paced { connections: 1, rate: 1_000_000, seconds: 10 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Nginx],
        reach: &[
            rate("within ±0.5 %", 0.005),
            ours("burst 100 ms ≤ 1.25", AtMost("burst_100ms_p99", Least, 1.25)),
            ours("longest gap ≤ 40 ms", AtMost("gap_max_ms", Least, 40.0)),
            ours("≤ 20 CPU s/GB", AtMost("cpu_s_per_gb", Median, 20.0)),
        ],
    },
    Case {
        name: "1x50MB",
        title: "1 × 50 MB/s",
        load: Load::Paced { connections: 1, rate: 50_000_000, seconds: 10 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Bare(16), Peer::Nginx],
        reach: &[
            rate("within ±0.5 %", 0.005),
            ours("burst 100 ms ≤ 1.25", AtMost("burst_100ms_p99", Least, 1.25)),
            ours("≤ 0.8 CPU s/GB", AtMost("cpu_s_per_gb", Median, 0.8)),
        ],
    },
    Case {
        name: "1x64KB",
        title: "1 × 64 KiB/s",
        load: Load::Paced { connections: 1, rate: 65_536, seconds: 10 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Bare(31), Peer::Nginx],
        reach: &[
            rate("within ±1 %", 0.01),
            ours("longest gap ≤ 60 ms", AtMost("gap_max_ms", Least, 60.0)),
            ours("≤ 120 CPU s/GB", AtMost("cpu_s_per_gb", Median, 120.0)),
        ],
    },
    Case {
        name: "1x1KB",
        title: "1 × 1 kB/s",
        // Long: one portion in 200 ms more or less must not be a per cent.
        load: Load::Paced { connections: 1, rate: 1_000, seconds: 30 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Bare(200), Peer::Nginx],
        reach: &[rate("within ±1 %", 0.01), ours("longest gap ≤ 250 ms", AtMost("gap_max_ms", Least, 250.0))],
    },
    Case {
        name: "100x1MB",
        title: "100 × 1 MB/s",
        load: Load::Paced { connections: 100, rate: 1_000_000, seconds: 10 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Nginx],
        reach: &[
            rate("of every connection within ±0.5 %", 0.005),
            ours("burst 100 ms p99 ≤ 1.25", AtMost("burst_100ms_p99", Least, 1.25)),
            ours("≤ 1.2 CPU s/GB", AtMost("cpu_s_per_gb", Median, 1.2)),
        ],
    },
    Case {
        name: "1000x100KB",
        title: "1,000 × 100 kB/s",
        load: Load::Paced { connections: 1000, rate: 100_000, seconds: 20 },
        ours: Ours::Serve,
        variants: &[
            ("tidegate", &[]),
            ("tidegate, 40 ms", &["--pace-interval", "40ms"]),
            ("tidegate, 1 s", &["--pace-interval", "1s"]),
        ],
        peers: &[Peer::Bare(40), Peer::Nginx],
        reach: &[
            rate("of every connection within ±1 %", 0.01),
            ours("burst 100 ms p99 ≤ 1.7", AtMost("burst_100ms_p99", Least, 1.7)),
            ours("≤ 1.1 CPU s/GB", AtMost("cpu_s_per_gb", Median, 1.1)),
            Reach {
                label: "tidegate, 40 ms",
                what: "burst 100 ms p99 ≤ 1.35",
                bound: AtMost("burst_100ms_p99", Least, 1.35),
            },
            Reach {
                label: "tidegate, 40 ms",
                what: "≤ 3.0 CPU s/GB",
                bound: AtMost("cpu_s_per_gb", Median, 3.0),
            },
            Reach {
                label: "tidegate, 1 s",
                what: "CPU s/GB ≤ nginx's",
                bound: AtMostOf("cpu_s_per_gb", "nginx", 1.0),
            },
        ],
    },
    Case {
        name: "5000x20KB",
        title: "5,000 × 20 kB/s",
        load: Load::Paced { connections: 5000, rate: 20_000, seconds: 20 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Bare(200), Peer::Nginx],
        reach: &[
            rate("of every connection within ±2 %", 0.02),
            ours("burst 100 ms p99 ≤ 2.2", AtMost("burst_100ms_p99", Least, 2.2)),
            ours("≤ 4.0 CPU s/GB", AtMost("cpu_s_per_gb", Median, 4.0)),
            ours("RSS ≤ 30 MB", AtMost("rss_mb", Median, 30.0)),
        ],
    },
    Case {
        name: "small-replies",
        title: "4 KiB replies beside 50 downloads under one budget of 20 MB/s",
        load: Load::Small { downloads: 50, client_rate: 20_000_000 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Nginx],
        reach: &[
            ours("p99 ≤ 60 ms", AtMost("kept_p99_ms", Median, 60.0)),
            ours("p99 ≤ 60 ms on new connections", AtMost("fresh_p99_ms", Median, 60.0)),
        ],
    },
    Case {
        name: "unlimited",
        title: "1 GiB without a limit",
        load: Load::Unlimited,
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Nginx],
        reach: &[
            Reach {
                label: "tidegate, client copies",
                what: "CPU s/GB ≤ nginx's",
                bound: AtMostOf("cpu_s_per_gb", "nginx, client copies", 1.0),
            },
            Reach {
                label: "tidegate, client discards",
                what: "CPU s/GB ≤ nginx's",
                bound: AtMostOf("cpu_s_per_gb", "nginx, client discards", 1.0),
            },
        ],
    },
    Case {
        name: "flat",
        title: "Cost of a resume, 8 KiB once a second on each connection",
        load: Load::Flat { connections: &[100, 1000, 5000, 15_000], rate: 8192 },
        ours: Ours::Serve,
        variants: &[("tidegate", &["--pace-interval", "1s"])],
        peers: &[Peer::Nginx],
        reach: &[
            flat("tidegate, 1000 connections"),
            flat("tidegate, 5000 connections"),
            flat("tidegate, 15000 connections"),
        ],
    },
    Case {
        name: "idle",
        title: "10,000 idle keep-alive connections",
        load: Load::Idle { connections: 10_000 },
        ours: Ours::Serve,
        variants: DEFAULT,
        peers: &[Peer::Nginx],
        reach: &[
            ours("≤ 480 bytes of anonymous memory each", AtMost("anon_per_connection", Median, 480.0)),
            ours("process ≤ 8 MB in all", AtMost("rss_mb", Median, 8.0)),
        ],
    },
];

const DEFAULT: &[(&str, &[&str])] = &[("tidegate", &[])];

const fn ours(what: &'static str, bound: Bound) -> Reach {
    Reach { label: "tidegate", what, bound }
}

const fn rate(what: &'static str, tolerance: f64) -> Reach {
    Reach { label: "tidegate", what, bound: Around1("ratio_min", "ratio_max", tolerance) }
}

const fn flat(label: &'static str) -> Reach {
    Reach {
        label,
        what: "CPU of a resume ≤ 1.5 × that with 100 connections",
        bound: AtMostOf("cpu_us_per_read", "tidegate, 100 connections", 1.5),
    }
}
