//! Budgets in a tree, budgets by key, and rates that are changed from another thread while bytes flow.
//!
//! `cargo run --release -p tidegate-poller --example budgets`
//!
//! One poller gives endless bytes to readers in this process. A reader says in its first line who it is; by that its
//! connection is given what it spends through. The main thread changes rates, and prints what each reader got.
//! `docs/tutorial/03-budgets.md` explains it.

mod help;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tidegate_poller::{
    Acceptor, Admission, Budget, ConnectionRecord, Direction, End, Io, KeyedBudgets, Limit, Peer, Poller,
    PollerSettings, Pull, Reason, Session, Source,
};

/// After a change, before measuring: the new rate holds within one pacing interval, but what the kernel's buffers
/// hold is still of the old one.
const SETTLE: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_secs(1);
/// How long a client that is gone keeps its budget.
const CLIENT_EXPIRY: Duration = Duration::from_secs(60);
const NAME_MAX: usize = 64;

/// All that connections can spend through.
#[derive(Clone)]
struct House {
    total: Budget,
    gold: Budget,
    free: Budget,
    clients: KeyedBudgets<String>,
    each: Limit,
}

impl House {
    fn new() -> House {
        let total = Budget::builder("total").rate(4_000_000).build();
        let gold = Budget::builder("gold").weight(3).parent(&total).build();
        let free = Budget::builder("free").weight(1).parent(&total).build();
        let clients = KeyedBudgets::new("client", Some(1_000_000), None, CLIENT_EXPIRY);
        House { total, gold, free, clients, each: Limit::new("each", None) }
    }

    /// Has a connection spend through what its name says.
    fn join(&self, io: &mut Io<'_>, name: &str) {
        let budget = match name {
            "gold" => self.gold.clone(),
            "free" => self.free.clone(),
            client => self.clients.get(&client.to_owned(), io.now()),
        };
        io.spend_through(Direction::Egress, &budget, 1);
        io.set_limit(Direction::Egress, Some(&self.each));
    }
}

/// Reads a name, then sends for as long as the socket lives.
struct Flood {
    house: House,
    name: Vec<u8>,
    named: bool,
}

impl Session for Flood {
    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        if self.named {
            return;
        }
        self.name.extend_from_slice(&bytes[..bytes.len().min(NAME_MAX)]);
        let Some(end) = self.name.iter().position(|byte| *byte == b'\n') else {
            if self.name.len() >= NAME_MAX {
                io.finish(End::local(Reason::ProtocolError));
            }
            return;
        };
        self.named = true;
        let name = String::from_utf8_lossy(&self.name[..end]).into_owned();
        self.house.join(io, &name);
        io.send_source(Box::new(Endless));
    }

    fn peer_finished(&mut self, io: &mut Io<'_>) {
        // The default waits until all is sent, which here is never.
        io.abort(End::peer(Reason::Ok));
    }

    fn closed(self: Box<Self>, _record: ConnectionRecord) {}
}

struct Endless;

impl Source for Endless {
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        out.resize(max, b'~');
        Pull::More
    }
}

struct Door(House);

impl Acceptor for Door {
    fn accept(&mut self, _peer: &Peer) -> Admission {
        Admission::Admit(Box::new(Flood { house: self.0.clone(), name: Vec::new(), named: false }))
    }

    fn refused(&mut self, _record: ConnectionRecord) {}
}

/// A client that reads as fast as it can, and counts.
struct Reader {
    name: &'static str,
    stream: TcpStream,
    read: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(server: SocketAddr, name: &'static str) -> io::Result<Reader> {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(format!("{name}\n").as_bytes())?;
        let (mut from, read) = (stream.try_clone()?, Arc::new(AtomicU64::new(0)));
        let count = read.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            // The end of the stream and its failure both end the reader.
            while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                count.fetch_add(bytes as u64, Relaxed);
            }
        });
        Ok(Reader { name, stream, read, thread })
    }

    fn stop(self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.thread.join().expect("a reader does not panic");
    }
}

/// Prints what each reader gets, in MB/s.
fn watch(what: &str, readers: &[Reader]) {
    thread::sleep(SETTLE);
    let before: Vec<u64> = readers.iter().map(|reader| reader.read.load(Relaxed)).collect();
    let start = Instant::now();
    thread::sleep(MEASURE);
    let seconds = start.elapsed().as_secs_f64();
    print!("{what:<44}");
    let mut sum = 0.0;
    for (reader, before) in readers.iter().zip(before) {
        let rate = (reader.read.load(Relaxed) - before) as f64 / seconds / 1e6;
        sum += rate;
        print!("  {} {rate:5.2}", reader.name);
    }
    println!("  sum {sum:5.2}");
}

fn main() -> io::Result<()> {
    if help::is_asked(include_str!("budgets.rs")) {
        return Ok(());
    }
    let house = House::new();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    let (tell, told) = mpsc::channel();
    let door = Door(house.clone());
    let poller = thread::spawn(move || {
        // A poller stays on the thread that made it.
        let mut poller = Poller::new(PollerSettings::default())?;
        poller.listen(listener, Box::new(door))?;
        tell.send(poller.handle()).expect("main waits for it");
        poller.run()
    });
    let handle = told.recv().expect("the poller starts");

    println!("A tree: total 4 MB/s, below it gold (weight 3) and free (weight 1). All in MB/s.");
    let mut readers = vec![Reader::start(server, "gold")?, Reader::start(server, "free")?];
    watch("weights 3:1", &readers);
    house.free.set_rate(Some(500_000));
    watch("free at most 0.5: gold gets the rest", &readers);
    house.free.set_rate(None);
    house.total.set_rate(Some(1_000_000));
    watch("total lowered to 1", &readers);
    house.free.set_weight(3);
    watch("weights 3:3", &readers);
    house.total.set_rate(Some(0));
    watch("total 0: paused", &readers);
    house.total.set_rate(Some(4_000_000));
    watch("total 4 again", &readers);
    house.each.set_rate(Some(500_000));
    watch("a limit of 0.5 for each connection", &readers);
    house.each.set_rate(None);
    readers.swap_remove(0).stop();
    watch("gold is gone: free gets all", &readers);
    readers.drain(..).for_each(Reader::stop);

    println!("\nBy key: each client 1 MB/s, however many connections it opens.");
    for name in ["alice", "alice", "alice", "bob"] {
        readers.push(Reader::start(server, name)?);
    }
    watch("three connections of alice, one of bob", &readers);
    house.clients.set_rate(Some(2_000_000));
    watch("each client 2", &readers);
    readers.drain(..).for_each(Reader::stop);
    readers.push(Reader::start(server, "alice")?);
    watch("alice comes back: the same budget", &readers);
    println!("{} clients have a budget", house.clients.len());
    readers.drain(..).for_each(Reader::stop);

    handle.shutdown(Duration::ZERO);
    poller.join().expect("the poller does not panic")
}
