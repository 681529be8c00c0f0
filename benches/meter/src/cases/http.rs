//! The cases of the HTTP server and what is to be reached in each.

use super::Bound::{AtLeastOf, AtLeastOfAll, AtMost, AtMostOf, AtMostOfAll};
use super::Pick::Median;
use super::{Asking, Case, Load, Ours, Peer, Reach};

/// All of them, in the order of the table.
pub const HTTP: &[Case] = &[
    Case {
        name: "hello-64",
        title: "Hello on 64 connections",
        ours: Ours::Hello,
        load: Load::Hello { connections: 64, asking: Asking::Again },
        variants: WITH_AND_WITHOUT_LIMITS,
        peers: ALL_PEERS,
        reach: &[
            ours("≥ 0.94 of raw epoll's", AtLeastOf(PER_CPU_SECOND, "raw epoll", 0.94)),
            AHEAD,
            LATENCY,
            LIMITED,
        ],
    },
    Case {
        name: "hello-256",
        title: "Hello on 256 connections",
        ours: Ours::Hello,
        load: Load::Hello { connections: 256, asking: Asking::Again },
        variants: WITH_AND_WITHOUT_LIMITS,
        peers: ALL_PEERS,
        reach: &[
            ours("≥ 0.90 of raw epoll's", AtLeastOf(PER_CPU_SECOND, "raw epoll", 0.90)),
            AHEAD,
            LATENCY,
            LIMITED,
        ],
    },
    Case {
        name: "hello-1000",
        title: "Hello on 1,000 connections",
        ours: Ours::Hello,
        load: Load::Hello { connections: 1000, asking: Asking::Again },
        variants: WITH_AND_WITHOUT_LIMITS,
        peers: ALL_PEERS,
        reach: &[
            ours("≥ 0.82 of raw epoll's", AtLeastOf(PER_CPU_SECOND, "raw epoll", 0.82)),
            AHEAD,
            LATENCY,
            LIMITED,
        ],
    },
    Case {
        name: "varied",
        title: "Hello on 64 connections, each request another",
        ours: Ours::Hello,
        load: Load::Hello { connections: 64, asking: Asking::Another },
        variants: &[("tidegate", &[])],
        peers: ALL_PEERS,
        reach: &[AHEAD],
    },
    Case {
        name: "close",
        title: "A new connection for each request, 64 at a time",
        ours: Ours::Hello,
        load: Load::Hello { connections: 64, asking: Asking::Anew },
        variants: &[("tidegate", &[])],
        // Raw epoll never closes first: it cannot do this.
        peers: &[Peer::Nginx, Peer::Hyper],
        reach: &[ours("ahead of nginx", AtLeastOf(PER_CPU_SECOND, "nginx", 1.0))],
    },
    Case {
        name: "idle",
        title: "10,000 idle keep-alive connections",
        ours: Ours::Hello,
        load: Load::Idle { connections: 10_000 },
        variants: &[("tidegate", &[])],
        peers: &[Peer::Nginx, Peer::Hyper],
        reach: &[ours("≤ 480 bytes of anonymous memory each", AtMost("anon_per_connection", Median, 480.0))],
    },
    Case {
        name: "tls",
        title: "1 GiB over TLS 1.3, one connection",
        ours: Ours::Serve,
        load: Load::Tls,
        variants: &[("tidegate", &[])],
        peers: &[Peer::Nginx],
        reach: &[ours("CPU s/GB ≤ nginx's", AtMostOf("cpu_s_per_gb", "nginx", 1.0))],
    },
];

/// Ten gigabytes a second: no wrk comes near it.
const WITH_AND_WITHOUT_LIMITS: &[(&str, &[&str])] = &[
    ("tidegate", &[]),
    (
        "tidegate, limits",
        &["--rate", "10000000000", "--client-rate", "10000000000", "--total-rate", "10000000000"],
    ),
];

const ALL_PEERS: &[Peer] = &[Peer::Raw, Peer::Nginx, Peer::Hyper];
/// Those that are servers.
const RIVALS: &[&str] = &["nginx", "hyper"];
const PER_CPU_SECOND: &str = "requests_per_cpu_s";

const AHEAD: Reach = ours("ahead of nginx and hyper", AtLeastOfAll(PER_CPU_SECOND, RIVALS));
const LATENCY: Reach = ours("p99 no worse than the better of them", AtMostOfAll("p99_ms", RIVALS));
const LIMITED: Reach = Reach {
    label: "tidegate, limits",
    what: "≥ 0.95 of that without limits",
    bound: AtLeastOf(PER_CPU_SECOND, "tidegate", 0.95),
};

const fn ours(what: &'static str, bound: super::Bound) -> Reach {
    Reach { label: "tidegate", what, bound }
}
