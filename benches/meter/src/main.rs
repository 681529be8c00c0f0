//! The meter's own program: the table, and single measurements of a server that runs already.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tidegate_meter::account::{Account, Memory, process_tree};
use tidegate_meter::cases::{Figures, Measured, idle, paced, small};
use tidegate_meter::client::{Client, Discard, Plan, Then};
use tidegate_meter::figures::{Read, Window};
use tidegate_meter::table::Programs;
use tidegate_meter::{report, sys, table};

/// Measures a file server from outside
#[derive(Parser)]
#[command(name = "tidegate-meter")]
struct Command {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Lay servers side by side, case by case
    Table {
        #[command(flatten)]
        options: table::Options,
        /// The cases of the HTTP server, not those of `tidegate serve`
        #[arg(long)]
        http: bool,
        /// The program `tidegate`
        #[arg(long, value_name = "PATH", default_value = "target/release/tidegate")]
        tidegate: PathBuf,
        /// The example `hello`
        #[arg(long, value_name = "PATH", default_value = "target/release/examples/hello")]
        hello: PathBuf,
        /// The hello server on hyper
        #[arg(long, value_name = "PATH", default_value = "target/peers/release/hyper-hello")]
        hyper: PathBuf,
        /// The folder of the files that are served; they are made once and kept
        #[arg(long, value_name = "DIR", default_value = "target/tmp/bench")]
        data: PathBuf,
    },
    /// Paced downloads from a server that runs
    Get {
        #[command(flatten)]
        target: Target,
        /// How many connections
        #[arg(short = 'n', long, default_value_t = 1)]
        connections: usize,
        /// The rate each connection was limited to, bytes per second
        #[arg(short, long)]
        rate: f64,
        /// What becomes of the bodies
        #[arg(long, value_enum, default_value_t = Bodies::Copy)]
        bodies: Bodies,
        /// Ask on a new connection for each download, with `Connection: close`
        #[arg(long)]
        close: bool,
    },
    /// Keep-alive connections that ask once and do nothing
    Idle {
        #[command(flatten)]
        target: Target,
        /// How many connections
        #[arg(short = 'n', long, default_value_t = 10_000)]
        connections: usize,
    },
    /// Short replies in a loop beside downloads
    Small {
        #[command(flatten)]
        target: Target,
        /// The path of the downloads
        #[arg(long)]
        big: String,
        /// How many downloads
        #[arg(long, default_value_t = 50)]
        downloads: usize,
        /// What all together were limited to, bytes per second
        #[arg(short, long)]
        rate: f64,
    },
}

#[derive(clap::Args)]
struct Target {
    /// Address and path: HOST:PORT/PATH
    url: String,
    /// The server's process, to take CPU and memory from
    #[arg(long)]
    pid: Option<u32>,
    /// Seconds before measuring
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Seconds of measuring
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The server's CPU, of which the busy share is taken
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bodies {
    /// Copied out of the kernel
    Copy,
    /// Dropped in the kernel
    Truncate,
    /// Copied and hashed
    Hash,
}

fn main() -> ExitCode {
    let result = match Command::parse().mode {
        Mode::Table { options, http, tidegate, hello, hyper, data } => {
            let suite = if http { table::HTTP } else { table::SERVE };
            return table::run(&suite, &options, &Programs { tidegate, hello, hyper }, &data);
        }
        Mode::Get { target, connections, rate, bodies, close } => {
            get(&target, connections, rate, bodies, close)
        }
        Mode::Idle { target, connections } => idle_mode(&target, connections),
        Mode::Small { target, big, downloads, rate } => small_mode(&target, &big, downloads, rate),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-meter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn get(target: &Target, connections: usize, rate: f64, bodies: Bodies, close: bool) -> io::Result<()> {
    let (to, path) = target.prepare()?;
    let mut client = Client::new()?;
    let plan = Plan {
        to,
        connections,
        path,
        keep_alive: !close,
        then: if close { Then::Reconnect } else { Then::Repeat },
        discard: match bodies {
            Bodies::Copy => Discard::Copy,
            Bodies::Truncate => Discard::Truncate,
            Bodies::Hash => Discard::Hash,
        },
    };
    client.open(&plan, false, OPEN_WITHIN)?;
    let measured = target.measure(&mut client)?;
    let timelines: Vec<&[Read]> = client.connections().iter().map(|connection| connection.reads()).collect();
    target.print(&paced::figures(&timelines, &measured, rate))
}

fn idle_mode(target: &Target, connections: usize) -> io::Result<()> {
    let (to, path) = target.prepare()?;
    let mut client = Client::new()?;
    client.open(&idle::plan(to, &path, 1), true, OPEN_WITHIN)?;
    let before = Memory::read(&target.processes())?;
    client.open(&idle::plan(to, &path, connections), true, OPEN_WITHIN)?;
    let measured = target.measure(&mut client)?;
    let mut figures = measured.figures(0);
    figures.extend(idle::per_connection(before, measured.memory, connections));
    target.print(&figures)
}

fn small_mode(target: &Target, big: &str, downloads: usize, rate: f64) -> io::Result<()> {
    let (to, path) = target.prepare()?;
    let mut client = Client::new()?;
    let probes = small::open(&mut client, to, big, downloads, &path)?;
    let measured = target.measure(&mut client)?;
    target.print(&small::figures(&client, &measured, probes, rate))
}

impl Target {
    /// Puts us on our CPU and finds the address and the path.
    fn prepare(&self) -> io::Result<(SocketAddr, String)> {
        sys::catch_stop()?;
        sys::raise_open_files();
        if let Some(cpu) = self.cpu {
            sys::pin_to_cpu(cpu)?;
        }
        let rest = self.url.trim_start_matches("http://");
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = host.to_socket_addrs()?.next();
        let address = address.ok_or_else(|| io::Error::other(format!("no address for {host}")))?;
        Ok((address, format!("/{path}")))
    }

    fn processes(&self) -> Vec<u32> {
        self.pid.map(process_tree).unwrap_or_default()
    }

    fn measure(&self, client: &mut Client) -> io::Result<Measured> {
        client.run_until(client.now() + (self.warm_up * 1e9) as u64)?;
        let pids = self.processes();
        client.forget_stalls();
        let before = Account::read(&pids)?;
        let from = client.now();
        client.run_until(from + (self.seconds * 1e9) as u64)?;
        let window = Window { from, to: client.now() };
        let client_cpu = self.cpu.unwrap_or(self.server_cpu);
        let spent = Account::read(&pids)?.since(&before, self.server_cpu, client_cpu);
        client.check()?;
        Ok(Measured { window, spent, memory: Memory::read(&pids)?, stall: client.longest_stall() })
    }

    fn print(&self, figures: &Figures) -> io::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(figures)?);
        } else {
            print!("{}", report::list(figures));
        }
        Ok(())
    }
}

const OPEN_WITHIN: Duration = Duration::from_secs(30);
