//! Writing allocates nothing: a counting allocator around turns of the loop.

mod counting;
mod support;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use support::TempFile;
use tidegate_poller::{
    Budget, ConnectionRecord, Direction, Io, Limit, Poller, PollerSettings, Pull, Role, Session, Source,
};

enum Feed {
    File(Arc<std::fs::File>, u64),
    Shared(Arc<[u8]>),
    Owned,
    Source,
}

/// Keeps the outbox filled.
struct Feeder {
    feed: Feed,
    rounds: u32,
    limit: Option<Limit>,
    budget: Option<Budget>,
}

struct Zeros(u64);

impl Source for Zeros {
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let n = self.0.min(max as u64);
        out.resize(n as usize, 0);
        self.0 -= n;
        if self.0 == 0 { Pull::End } else { Pull::More }
    }
}

impl Feeder {
    fn feed(&mut self, io: &mut Io<'_>) {
        for _ in 0..8 {
            if self.rounds == 0 {
                return;
            }
            self.rounds -= 1;
            match &self.feed {
                Feed::File(file, len) => io.send_file(file.clone(), 0, *len),
                Feed::Shared(bytes) => io.send(bytes.clone()),
                Feed::Owned => {
                    let mut buffer = io.buffer();
                    buffer.resize(4_000, 7);
                    io.send(buffer);
                }
                Feed::Source => {}
            }
        }
    }
}

impl Session for Feeder {
    fn opened(&mut self, io: &mut Io<'_>) {
        io.set_watermarks(0, 1);
        if let Some(limit) = &self.limit {
            io.set_limit(Direction::Egress, Some(limit));
        }
        if let Some(budget) = &self.budget {
            io.spend_through(Direction::Egress, budget, 1);
        }
        if let Feed::Source = self.feed {
            io.send_source(Box::new(Zeros(u64::from(self.rounds) * 65_536)));
        }
        self.feed(io);
    }
    fn received(&mut self, _io: &mut Io<'_>, _bytes: &[u8]) {}
    fn drained(&mut self, io: &mut Io<'_>) {
        self.feed(io);
    }
    fn closed(self: Box<Self>, _record: ConnectionRecord) {}
}

/// Allocations of the turns that write `expected` bytes, after the first tenth of them.
fn allocations(feed: Feed, rounds: u32, expected: u64) -> u64 {
    paced_allocations(feed, rounds, expected, None, None)
}

fn paced_allocations(
    feed: Feed,
    rounds: u32,
    expected: u64,
    limit: Option<Limit>,
    budget: Option<Budget>,
) -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        let mut read = 0;
        while read < expected {
            read += client.read(&mut buffer).unwrap() as u64;
        }
        client
    });

    let mut poller = Poller::new(PollerSettings::default()).unwrap();
    let session = Box::new(Feeder { feed, rounds, limit, budget });
    let socket = poller.adopt(mio::net::TcpStream::from_std(stream), Role::Server, session).unwrap();
    let gone = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut warm = None;
    let mut last = 0;
    // How far it is can be asked only by a submission, which allocates: once in a few turns, and not counted.
    while last < expected {
        let before = counting::of_this_thread();
        for _ in 0..4 {
            poller.turn(Some(std::time::Duration::from_millis(1))).unwrap();
        }
        let during = counting::of_this_thread() - before;
        let count = warm.get_or_insert(0);
        if last > expected / 10 {
            *count += during;
        }
        let out = gone.clone();
        socket
            .submit(move |_, io| out.store(io.sums().plain_out, std::sync::atomic::Ordering::SeqCst))
            .unwrap();
        poller.turn(Some(std::time::Duration::ZERO)).unwrap();
        last = gone.load(std::sync::atomic::Ordering::SeqCst);
    }
    reader.join().unwrap();
    warm.unwrap()
}

/// What a ledger needs from the first time its socket is kept from writing, it allocates then, once. Without a limit that
/// is when the kernel's buffer is full for the first time: early or late, as the reader is.
const FIRST_STOP: u64 = 1;

#[test]
fn a_big_file_goes_without_allocating() {
    let file = TempFile::new(&vec![1; 4_000_000]);
    assert!(allocations(Feed::File(file.file.clone(), 4_000_000), 40, 160_000_000) <= FIRST_STOP);
}

#[test]
fn shared_chunks_go_without_allocating() {
    let bytes: Arc<[u8]> = vec![2; 100_000].into();
    assert!(allocations(Feed::Shared(bytes), 1_000, 100_000_000) <= FIRST_STOP);
}

#[test]
fn owned_chunks_go_without_allocating() {
    assert!(allocations(Feed::Owned, 10_000, 40_000_000) <= FIRST_STOP);
}

#[test]
fn a_source_goes_without_allocating() {
    assert!(allocations(Feed::Source, 1_000, 65_536_000) <= FIRST_STOP);
}

#[test]
fn a_limited_file_goes_without_allocating() {
    let file = TempFile::new(&vec![1; 4_000_000]);
    let limit = Limit::new("each", Some(40_000_000));
    let feed = Feed::File(file.file.clone(), 4_000_000);
    assert_eq!(paced_allocations(feed, 10, 40_000_000, Some(limit), None), 0);
}

#[test]
fn limited_chunks_go_without_allocating() {
    let bytes: Arc<[u8]> = vec![2; 100_000].into();
    let limit = Limit::new("each", Some(40_000_000));
    assert_eq!(paced_allocations(Feed::Shared(bytes), 400, 40_000_000, Some(limit), None), 0);
}

#[test]
fn chunks_under_shared_budgets_go_without_allocating() {
    let bytes: Arc<[u8]> = vec![2; 100_000].into();
    let total = Budget::builder("total").rate(50_000_000).build();
    let client = Budget::builder("client").rate(40_000_000).parent(&total).build();
    assert_eq!(paced_allocations(Feed::Shared(bytes), 400, 40_000_000, None, Some(client)), 0);
}
