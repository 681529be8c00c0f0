//! The cases of the table: what is loaded how, what is measured, and what is to be reached.
//!
//! A case has contestants, each a server with its settings. One run of one contestant gives [`Sample`]s; whoever
//! drives the table runs the contestants in turn, several times over, and hands the samples to [`crate::report`].

pub mod flat;
pub mod hello;
mod http;
pub mod idle;
mod list;
pub mod paced;
pub mod small;
pub mod tls;
pub mod unlimited;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use http::HTTP;
pub use list::SERVE;

use crate::account::{Account, Memory, Spent};
use crate::client::Client;
use crate::figures::Window;
use crate::scratch;
use crate::servers::{Running, Server, Wish};
use crate::sys;
pub use crate::wrk::Asking;

/// Figures of one run, by name. The names are those of the JSON output.
pub type Figures = BTreeMap<&'static str, f64>;

/// What one run of one contestant gave.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The contestant, and the variant where one run gives several.
    pub label: String,
    /// The figures.
    pub figures: Figures,
    /// Bytes a 100 ms of one connection, where a plot may be wanted.
    pub bins: Vec<u64>,
}

/// A case of the table.
#[derive(Debug)]
pub struct Case {
    /// By which it is selected.
    pub name: &'static str,
    /// In words.
    pub title: &'static str,
    /// What is done.
    pub load: Load,
    /// Which program of ours.
    pub ours: Ours,
    /// Variants of it: a label, and the arguments beyond those of the load.
    pub variants: &'static [(&'static str, &'static [&'static str])],
    /// Who does the same beside it.
    pub peers: &'static [Peer],
    /// What is to be reached.
    pub reach: &'static [Reach],
}

/// Which program of ours is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// `tidegate serve`.
    Serve,
    /// The example `hello`.
    Hello,
}

/// Who is measured beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A loop that only sends, each connection at intervals of so many milliseconds: a floor for pacing.
    Bare(u64),
    /// Epoll and one constant reply: a floor for requests.
    Raw,
    /// nginx.
    Nginx,
    /// The hello server on hyper.
    Hyper,
}

/// What is done to the server.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Downloads, each limited to the rate.
    Paced {
        /// How many.
        connections: usize,
        /// Bytes per second of each.
        rate: u64,
        /// Measured for so many seconds.
        seconds: u64,
    },
    /// Short replies in a loop beside downloads that take all they can, all under one budget.
    Small {
        /// How many downloads.
        downloads: usize,
        /// Bytes per second of all together.
        client_rate: u64,
    },
    /// One download without a limit.
    Unlimited,
    /// Paced downloads with equal bytes a resume, more and more of them.
    Flat {
        /// How many, in turn.
        connections: &'static [usize],
        /// Bytes per second of each.
        rate: u64,
    },
    /// Keep-alive connections that had one reply each and do nothing.
    Idle {
        /// How many.
        connections: usize,
    },
    /// As many short requests as wrk can make, one after another on each connection.
    Hello {
        /// How many connections.
        connections: usize,
        /// What they ask.
        asking: Asking,
    },
    /// Downloads over TLS, one at a time.
    Tls,
}

/// How a figure of several repeats becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The median.
    Median,
    /// The least: the best of all, for what a stall of the machine can only make worse.
    Least,
    /// The greatest.
    Greatest,
}

/// One thing to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// The label of the samples it is about.
    pub label: &'static str,
    /// In words.
    pub what: &'static str,
    /// The bound itself.
    pub bound: Bound,
}

/// A bound on figures.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// The figure, picked so, is at most that.
    AtMost(&'static str, Pick, f64),
    /// The least of the first and the greatest of the second figure are within so much of 1.
    Around1(&'static str, &'static str, f64),
    /// The figure is at most that of the other label in the same run, times the factor.
    AtMostOf(&'static str, &'static str, f64),
    /// The figure is at least that of the other label in the same run, times the factor.
    AtLeastOf(&'static str, &'static str, f64),
    /// The figure is at most the least of those of the other labels in the same run.
    AtMostOfAll(&'static str, &'static [&'static str]),
    /// The figure is at least the greatest of those of the other labels in the same run.
    AtLeastOfAll(&'static str, &'static [&'static str]),
}

/// The place where measuring is done.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Holds [`BIG`] and [`SMALL`], and is served.
    pub data: PathBuf,
    /// The CPU of the servers.
    pub server_cpu: usize,
    /// The CPU of the client.
    pub client_cpu: usize,
    /// Short windows, to see that everything works; the figures mean little.
    pub quick: bool,
}

/// The large file and its size.
pub const BIG: (&str, u64) = ("big.bin", 1 << 30);
/// The small file and its size.
pub const SMALL: (&str, u64) = ("small.bin", 4096);

impl Bench {
    /// Makes the files that the cases need, unless they are there, and brings them into memory.
    pub fn prepare(&self, cases: &[&Case]) -> io::Result<()> {
        let big = !cases.iter().all(|case| matches!(case.load, Load::Hello { .. } | Load::Idle { .. }));
        for (name, bytes) in [SMALL].into_iter().chain(big.then_some(BIG)) {
            let path = self.data.join(name);
            scratch::keep_file(&path, bytes)?;
            io::copy(&mut std::fs::File::open(&path)?, &mut io::sink())?;
        }
        Ok(())
    }

    /// Starts the server on its CPU and puts us on ours.
    pub fn start(&self, server: &Server, wish: Wish) -> io::Result<Running> {
        sys::pin_to_cpu(self.server_cpu)?;
        let running = server.start(&Wish { root: self.data.clone(), ..wish });
        sys::pin_to_cpu(self.client_cpu)?;
        running
    }

    /// How long to measure and to warm up before.
    pub fn span(&self, full: u64) -> Duration {
        Duration::from_secs(if self.quick { full.min(2) } else { full })
    }

    /// So many seconds, or else what is enough to see that everything works.
    pub fn span_or(&self, full: u64, quick: Duration) -> Duration {
        if self.quick { quick } else { Duration::from_secs(full) }
    }

    /// Lets the client read for the span and returns what the kernel's accounts say of that time.
    pub fn measure(&self, running: &Running, client: &mut Client, span: Duration) -> io::Result<Measured> {
        let pids = running.processes();
        client.forget_stalls();
        let before = Account::read(&pids)?;
        let from = client.now();
        client.run_until(from + span.as_nanos() as u64)?;
        let window = Window { from, to: client.now() };
        let spent = Account::read(&pids)?.since(&before, self.server_cpu, self.client_cpu);
        client.check()?;
        Ok(Measured { window, spent, memory: Memory::read(&pids)?, stall: client.longest_stall() })
    }
}

/// What was measured around a window of time, beside the client's timelines.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The window on the client's clock.
    pub window: Window,
    /// CPU time.
    pub spent: Spent,
    /// Memory of the server at its end.
    pub memory: Memory,
    /// The client's longest stall.
    pub stall: Duration,
}

impl Measured {
    /// The figures that every case has, for so many bytes of body.
    pub fn figures(&self, bytes: u64) -> Figures {
        let seconds = self.window.seconds();
        let gigabytes = bytes as f64 / 1e9;
        let mut figures = Figures::from([
            ("seconds", seconds),
            ("bytes", bytes as f64),
            ("mb_per_s", bytes as f64 / 1e6 / seconds),
            ("cpu_s_per_s", self.spent.process_seconds / seconds),
            ("cpu0_busy", self.spent.cpu_busy),
            ("cpu0_steal", self.spent.cpu_steal),
            ("client_cpu_busy", self.spent.client_cpu_busy),
            ("client_cpu_steal", self.spent.client_cpu_steal),
            ("rss_mb", self.memory.rss as f64 / 1e6),
            ("anon_mb", self.memory.anonymous as f64 / 1e6),
            ("stall_ms", self.stall.as_secs_f64() * 1e3),
        ]);
        if bytes > 0 {
            figures.insert("cpu_s_per_gb", self.spent.process_seconds / gigabytes);
            // Counted in ticks of 10 ms, and the rest of the machine is in it: below this it says nothing.
            if self.spent.cpu_busy > 0.02 {
                figures.insert("cpu0_s_per_gb", self.spent.cpu_busy * seconds / gigabytes);
            }
        }
        figures
    }
}

impl Case {
    /// Runs one contestant once.
    pub fn run(&self, bench: &Bench, server: &Server, label: &str) -> io::Result<Vec<Sample>> {
        match self.load {
            Load::Paced { connections, rate, seconds } => {
                paced::run(bench, server, label, connections, rate, seconds)
            }
            Load::Small { downloads, client_rate } => {
                small::run(bench, server, label, downloads, client_rate)
            }
            Load::Unlimited => unlimited::run(bench, server, label),
            Load::Flat { connections, rate } => flat::run(bench, server, label, connections, rate),
            Load::Idle { connections } => idle::run(bench, server, label, connections),
            Load::Hello { connections, asking } => hello::run(bench, server, label, connections, asking),
            Load::Tls => tls::run(bench, server, label),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_bound_names_a_variant() {
        for cases in [SERVE, HTTP] {
            for (nth, case) in cases.iter().enumerate() {
                assert!(cases[nth + 1..].iter().all(|other| other.name != case.name), "{}", case.name);
                for reach in case.reach {
                    let known = case.variants.iter().any(|(label, _)| reach.label.starts_with(label));
                    assert!(known, "{}: {}", case.name, reach.label);
                }
            }
        }
    }
}
