//! What a hub costs: one publisher, thousands of subscribers.
//!
//! ```text
//! cargo bench --bench sse                                            5,000 subscribers, 10 events/s of 100 bytes
//! cargo bench --bench sse -- --subscribers 1000 --rate 100 --seconds 5
//! ```
//!
//! The server is a process of its own, pinned with its publisher to one core; the clients, all on one thread, have another.
//! Each event carries the moment at which it was published, on the clock that both processes share; its delivery ends when
//! a client has read it.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tidegate::http::{Exchange, Server, ServerSettings};
use tidegate::net::Listeners;
use tidegate::poller::{ConnectionRecord, Io, Moment, Poller, PollerSettings, Session, sys};
use tidegate::sse::{Event, Hub};
use tidegate::task::{Error, Ticks};
use tidegate_meter::account::{Account, Memory, machine};
use tidegate_meter::figures::percentile;
use tidegate_meter::sys::{allowed_cpus, pin_to_cpu, raise_open_files};

/// What a hub costs: one publisher, thousands of subscribers
#[derive(Parser)]
struct Options {
    /// How many clients
    #[arg(long, default_value_t = 5_000)]
    subscribers: usize,
    /// Events per second
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Bytes of data in an event
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// For how long
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Be the server
    #[arg(long, hide = true)]
    child: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn events(&self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = if options.child { server(&options) } else { clients(&options) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn cpus() -> (usize, usize) {
    let cpus = allowed_cpus();
    (cpus[0], cpus[cpus.len() - 1])
}

/// Serves until its input ends; publishes when it is told to, by a line.
fn server(options: &Options) -> Result<(), Error> {
    raise_open_files();
    pin_to_cpu(cpus().0)?;
    let hub = Hub::new();
    let handler = {
        let hub = hub.clone();
        move |exchange: &mut Exchange| exchange.context.reply = hub.subscribe(["all"]).reply()
    };
    let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1)?;
    let server = Server::builder(handler)
        .settings(ServerSettings { max_connections: 100_000, ..ServerSettings::default() })
        .start(listeners)?;
    println!("{}", server.address());
    let mut lines = std::io::stdin().lines();
    if lines.next().is_some() {
        let (publishes, bytes, events) = (hub.clone(), options.bytes, options.events());
        let ticks = Ticks::every(Duration::from_secs(1) / options.rate).for_each(move |tick| {
            if tick.number > events {
                return ControlFlow::Break(());
            }
            let data = format!("{:<bytes$}", format!("{} at {}.", tick.number, sys::now().as_nanos()));
            match publishes.publish("all", Event::data(data)) {
                Ok(_) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        server.runtime().start(ticks).detach();
    }
    while lines.next().is_some() {}
    eprintln!("{:?}", hub.figures());
    server.shutdown(Duration::ZERO);
    Ok(server.join()?)
}

/// What the clients have seen, all together.
#[derive(Default)]
struct Seen {
    connected: usize,
    /// Nanoseconds from publishing to reading.
    delays: Vec<f64>,
    wrong: u64,
}

/// A client.
struct Client {
    seen: Rc<RefCell<Seen>>,
    last: u64,
    began: bool,
}

impl Session for Client {
    fn opened(&mut self, io: &mut Io<'_>) {
        io.send(&b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"[..]);
    }

    fn received(&mut self, _: &mut Io<'_>, bytes: &[u8]) {
        let now = sys::now();
        let mut seen = self.seen.borrow_mut();
        if !std::mem::replace(&mut self.began, true) {
            seen.connected += 1;
        }
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let mut words = line.trim_end().trim_end_matches('.').split(' ');
            let number = words.next().and_then(|word| word.parse().ok());
            let at = words.nth(1).and_then(|word| word.parse().ok());
            match (number, at) {
                (Some(number), Some(at)) if number == self.last + 1 => {
                    self.last = number;
                    seen.delays.push((now - Moment::from_nanos(at)).as_nanos() as f64);
                }
                _ => seen.wrong += 1,
            }
        }
    }

    fn closed(self: Box<Self>, _: ConnectionRecord) {}
}

struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start() -> Result<Process, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args().skip(1)).arg("--child");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Process { child, output })
    }

    fn tell(&mut self, word: &str) -> Result<(), Error> {
        let input = self.child.stdin.as_mut().ok_or("no input")?;
        Ok(writeln!(input, "{word}")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn clients(options: &Options) -> Result<(), Error> {
    raise_open_files();
    let mut server = Process::start()?;
    let mut line = String::new();
    server.output.read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse()?;
    pin_to_cpu(cpus().1)?;
    let pid = [server.child.id()];
    let mut poller = Poller::new(PollerSettings::default())?;
    let seen = Rc::<RefCell<Seen>>::default();
    let turn = |poller: &mut Poller| poller.turn(Some(Duration::from_millis(100)));
    let before = Memory::read(&pid)?;
    for _ in 0..options.subscribers {
        poller.connect(address, Box::new(Client { seen: seen.clone(), last: 0, began: false }));
        turn(&mut poller)?;
    }
    while seen.borrow().connected < options.subscribers {
        turn(&mut poller)?;
    }
    let memory = Memory::read(&pid)?;
    let account = Account::read(&pid)?;
    server.tell("publish")?;
    let expected = options.events() * options.subscribers as u64;
    let deadline = sys::now() + Duration::from_secs(u64::from(options.seconds) * 2 + 10);
    while (seen.borrow().delays.len() as u64) < expected && sys::now() < deadline {
        turn(&mut poller)?;
    }
    let (server_cpu, client_cpu) = cpus();
    let spent = Account::read(&pid)?.since(&account, server_cpu, client_cpu);
    let after = Memory::read(&pid)?;
    let mut seen = seen.borrow_mut();
    let got = seen.delays.len();
    seen.delays.sort_unstable_by(f64::total_cmp);
    let ms = |part| percentile(&seen.delays, part) / 1e6;
    println!("{}", machine());
    println!(
        "{} subscribers, {} events/s of {} bytes, {} s",
        options.subscribers, options.rate, options.bytes, options.seconds
    );
    println!("delivered {got} of {expected}, out of order or twice {}", seen.wrong);
    println!(
        "delay p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(1.0)
    );
    println!(
        "server: {:.2} µs of CPU for each delivery, {:.0}% of its core busy; clients' core {:.0}%",
        spent.process_seconds * 1e6 / got as f64,
        spent.cpu_busy * 100.0,
        spent.client_cpu_busy * 100.0
    );
    let each =
        |then: Memory| (then.anonymous.saturating_sub(before.anonymous)) as f64 / options.subscribers as f64;
    println!("memory for each subscriber: {:.0} bytes idle, {:.0} bytes after", each(memory), each(after));
    Ok(())
}
