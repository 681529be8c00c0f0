//! Three tenants of weights 1, 2 and 4 share one budget of 100 MB/s, over two pollers and loopback.
//!
//! `cargo run --release -p tidegate-poller --example shares [seconds]`
//!
//! The tenants have 120, 60 and 20 sockets, spread over both pollers; their shares follow the weights all the same. The
//! second round adds 99 idle tenants of weight 7, which change nothing.

mod help;

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tidegate_poller::{
    Budget, ConnectionRecord, Direction, Io, Poller, PollerHandle, PollerSettings, Role, Session,
};

const RATE: u64 = 100_000_000;
/// Weight and number of sockets of each tenant.
const TENANTS: [(u32, usize); 3] = [(1, 120), (2, 60), (4, 20)];
const IDLE_HOLDERS: usize = 99;

/// Sends for as long as the socket lives.
struct Flood {
    budget: Budget,
    chunk: Arc<[u8]>,
    idle: bool,
}

impl Session for Flood {
    fn opened(&mut self, io: &mut Io<'_>) {
        io.spend_through(Direction::Egress, &self.budget, 1);
        io.set_watermarks(1 << 20, 2 << 20);
        if !self.idle {
            self.drained(io);
        }
    }

    fn received(&mut self, _io: &mut Io<'_>, _bytes: &[u8]) {}

    fn drained(&mut self, io: &mut Io<'_>) {
        while !io.above_high() {
            io.send(self.chunk.clone());
        }
    }

    fn closed(self: Box<Self>, _record: ConnectionRecord) {}
}

/// One tenant: its budget, what its sockets have read, and the reading ends.
struct Tenant {
    budget: Budget,
    weight: u32,
    sockets: usize,
    read: Arc<AtomicU64>,
    streams: Vec<TcpStream>,
}

fn main() -> std::io::Result<()> {
    if help::is_asked(include_str!("shares.rs")) {
        return Ok(());
    }
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    let mut threads = Vec::new();
    let mut handles = Vec::new();
    for number in 0..2 {
        let (sender, receiver) = mpsc::channel();
        threads.push(thread::spawn(move || {
            // A poller stays on the thread that made it.
            let mut poller = Poller::new(PollerSettings {
                name: format!("poller-{number}"),
                ..PollerSettings::default()
            })?;
            sender.send(poller.handle()).expect("main waits for it");
            poller.run()
        }));
        handles.push(receiver.recv().expect("the poller starts"));
    }
    println!("100 MB/s over two pollers, {seconds} s a round");
    for idle_holders in [0, IDLE_HOLDERS] {
        round(&handles, idle_holders, Duration::from_secs(seconds))?;
    }
    for handle in &handles {
        handle.shutdown(Duration::ZERO);
    }
    for thread in threads {
        thread.join().expect("the poller does not panic")?;
    }
    Ok(())
}

fn round(handles: &[PollerHandle], idle_holders: usize, length: Duration) -> std::io::Result<()> {
    let total = Budget::builder("total").rate(RATE).build();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut tenants = Vec::new();
    for (weight, sockets) in TENANTS {
        let budget = Budget::builder(format!("tenant-{weight}")).weight(weight).parent(&total).build();
        let read = Arc::new(AtomicU64::new(0));
        let streams = open(&listener, handles, &budget, sockets, false)?;
        tenants.push(Tenant { budget, weight, sockets, read, streams });
    }
    let mut idle = Vec::new();
    for number in 0..idle_holders {
        let budget = Budget::builder(format!("idle-{number}")).weight(7).parent(&total).build();
        idle.extend(open(&listener, handles, &budget, 1, true)?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        tenants.iter().map(|tenant| reader(tenant, stop.clone())).collect::<Result<_, _>>()?;
    thread::sleep(Duration::from_secs(1)); // The start is not measured.
    let before: Vec<u64> = tenants.iter().map(|tenant| tenant.read.load(Relaxed)).collect();
    let start = Instant::now();
    thread::sleep(length);
    let read: Vec<u64> =
        tenants.iter().zip(&before).map(|(tenant, before)| tenant.read.load(Relaxed) - before).collect();
    let elapsed = start.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    report(&tenants, &read, elapsed, idle_holders);
    for stream in tenants.iter().flat_map(|tenant| &tenant.streams).chain(&idle) {
        // The peer may be gone already.
        let _ = stream.shutdown(Shutdown::Both);
    }
    for reader in readers {
        reader.join().expect("a reader does not panic");
    }
    Ok(())
}

/// Opens connections to ourselves; the sending ends go to the pollers in turn.
fn open(
    listener: &TcpListener,
    handles: &[PollerHandle],
    budget: &Budget,
    sockets: usize,
    idle: bool,
) -> std::io::Result<Vec<TcpStream>> {
    let chunk: Arc<[u8]> = vec![0x5a; 256 * 1024].into();
    let mut streams = Vec::with_capacity(sockets);
    for number in 0..sockets {
        streams.push(TcpStream::connect(listener.local_addr()?)?);
        let (server, _) = listener.accept()?;
        let session = Flood { budget: budget.clone(), chunk: chunk.clone(), idle };
        server.set_nonblocking(true)?;
        let server = mio::net::TcpStream::from_std(server);
        let adopt = move |poller: &mut Poller| {
            poller.adopt(server, Role::Server, Box::new(session));
        };
        handles[number % handles.len()].submit(adopt).map_err(std::io::Error::other)?;
    }
    Ok(streams)
}

/// Reads all of a tenant's connections, as fast as they come, in one thread.
fn reader(tenant: &Tenant, stop: Arc<AtomicBool>) -> std::io::Result<thread::JoinHandle<()>> {
    let mut streams: Vec<TcpStream> =
        tenant.streams.iter().map(TcpStream::try_clone).collect::<Result<_, _>>()?;
    for stream in &streams {
        stream.set_nonblocking(true)?;
    }
    let read = tenant.read.clone();
    Ok(thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        while !stop.load(Relaxed) {
            let mut sum = 0;
            for stream in &mut streams {
                sum += stream.read(&mut buffer).unwrap_or(0) as u64;
            }
            read.fetch_add(sum, Relaxed);
            // Reading is not what is measured; this keeps it from taking the pollers' cores.
            thread::sleep(Duration::from_millis(2));
        }
    }))
}

fn report(tenants: &[Tenant], read: &[u64], elapsed: f64, idle_holders: usize) {
    let sum: u64 = read.iter().sum();
    let weights: u32 = tenants.iter().map(|tenant| tenant.weight).sum();
    println!("\n{idle_holders} idle holders");
    println!("{:>8} {:>8} {:>12} {:>9} {:>9} {:>8}", "weight", "sockets", "MB/s", "share", "due", "off");
    for (tenant, bytes) in tenants.iter().zip(read) {
        let share = *bytes as f64 / sum as f64;
        let due = f64::from(tenant.weight) / f64::from(weights);
        println!(
            "{:>8} {:>8} {:>12.2} {:>8.2}% {:>8.2}% {:>+7.2}%",
            tenant.weight,
            tenant.sockets,
            *bytes as f64 / elapsed / 1e6,
            share * 100.0,
            due * 100.0,
            (share / due - 1.0) * 100.0,
        );
        debug_assert!(tenant.budget.spent() > 0);
    }
    let rate = sum as f64 / elapsed;
    println!(
        "{:>8} {:>8} {:>12.2} {:>28} {:>+7.2}%",
        "sum",
        "",
        rate / 1e6,
        "",
        (rate / RATE as f64 - 1.0) * 100.0
    );
}
