//! The gate's states in combination, on a transport that does as it is told.

mod support;

use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use support::{Script, TempFile, Told};
use tidegate_poller::transport::{Received, Wrote};
use tidegate_poller::{
    Acceptor, Admission, Buffers, ConnectionRecord, Direction, Edge, End, Io, Limit, Mark, Peer, Plain,
    Poller, PollerSettings, Pull, Reason, Role, SocketHandle, Source, Sums, Transport, Wire, sys,
};

type Kernel = Box<dyn FnMut(u64) -> io::Result<Wrote>>;

/// Reads as a socket does, and writes as it is told, with how many bytes were offered; those go nowhere.
struct Obedient {
    plain: Plain,
    kernel: Kernel,
}

impl Transport for Obedient {
    fn read(&mut self, buf: &mut [u8], allowance: u64, buffers: &mut Buffers) -> io::Result<Received> {
        self.plain.read(buf, allowance, buffers)
    }
    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        _allowance: u64,
        _more: bool,
        _buffers: &mut Buffers,
    ) -> io::Result<Wrote> {
        (self.kernel)(bufs.iter().map(|slice| slice.len() as u64).sum())
    }
    fn finish(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        self.plain.finish(buffers)
    }
    fn plain(&self) -> &Plain {
        &self.plain
    }
    fn plain_mut(&mut self) -> &mut Plain {
        &mut self.plain
    }
}

fn takes_all(offered: u64) -> io::Result<Wrote> {
    Ok(Wrote { plain: offered, wire: offered, full: false })
}

/// A poller turned by hand, with one socket.
struct Bench {
    poller: Poller,
    socket: SocketHandle,
    peer: UnixStream,
    told: Receiver<Told>,
}

impl Bench {
    fn new(
        settings: PollerSettings,
        kernel: impl FnMut(u64) -> io::Result<Wrote> + 'static,
        script: Script,
    ) -> Bench {
        let (tell, told) = channel();
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let plain = Plain::Unix(mio::net::UnixStream::from_std(ours));
        let wire = Wire::Boxed(Box::new(Obedient { plain, kernel: Box::new(kernel) }));
        let mut poller = Poller::new(settings).unwrap();
        let socket = poller.adopt(wire, Role::Server, script.session(&tell)).unwrap();
        Bench { poller, socket, peer, told }
    }

    fn turn(&mut self) {
        self.poller.turn(Some(Duration::ZERO)).unwrap();
    }

    fn ask<T: Send + 'static>(&mut self, call: impl FnOnce(&mut Io<'_>) -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.socket.submit(move |_, io| tell.send(call(io)).unwrap()).unwrap();
        self.turn();
        told.recv().unwrap()
    }

    fn sums(&mut self) -> Sums {
        self.ask(|io| io.sums())
    }

    fn state(&mut self) -> String {
        self.ask(|io| io.gate_state())
    }

    /// Turns until the poller's clock is so much later.
    fn pass(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.turn();
        }
    }
}

#[test]
fn a_stop_is_over_when_the_gate_goes_on() {
    let mut full = true;
    let settings = PollerSettings { visit_cap: 4_096, ..PollerSettings::default() };
    let kernel = move |offered| match std::mem::take(&mut full) {
        true => Err(io::ErrorKind::WouldBlock.into()),
        false => takes_all(offered),
    };
    let mut bench = Bench::new(settings, kernel, Script::new().opened(|io| io.send(vec![1; 1 << 30])));
    bench.turn();
    bench.turn();
    assert!(bench.state().contains("Blocked"));
    bench.pass(Duration::from_millis(2));
    bench.peer.write_all(b"x").unwrap();
    bench.turn();
    bench.turn();
    assert!(bench.state().contains("Ready"));
    let before = bench.sums().pauses.blocked_ns;
    assert!(before >= 2_000_000);
    bench.pass(Duration::from_millis(5));
    assert_eq!(bench.sums().pauses.blocked_ns, before, "it writes all the time");
}

fn never_takes(_offered: u64) -> io::Result<Wrote> {
    Err(io::ErrorKind::WouldBlock.into())
}

impl Bench {
    /// Turns until the session has its record.
    fn record(&mut self) -> ConnectionRecord {
        let deadline = Instant::now() + support::PATIENCE;
        loop {
            self.poller.turn(Some(Duration::from_millis(1))).unwrap();
            for told in self.told.try_iter() {
                if let Told::Closed(record) = told {
                    return record;
                }
            }
            assert!(Instant::now() < deadline, "no record");
        }
    }

    /// What was told so far, in words.
    fn heard(&mut self) -> Vec<&'static str> {
        let word = |told| match told {
            Told::Opened(_) => "opened",
            Told::Received(_) => "received",
            Told::Drained(_) => "drained",
            Told::Passed(_) => "passed",
            Told::Closed(_) => "closed",
            _ => "other",
        };
        self.told.try_iter().map(word).collect()
    }
}

#[test]
fn a_send_timeout_set_while_blocked_holds_at_once() {
    for before in [None, Some(Duration::from_secs(100))] {
        let script = Script::new().opened(move |io| {
            io.set_send_timeout(before);
            io.send("never");
        });
        let mut bench = Bench::new(PollerSettings::default(), never_takes, script);
        bench.turn();
        bench.turn();
        assert!(bench.state().contains("Blocked"));
        bench.ask(|io| io.set_send_timeout(Some(Duration::from_millis(30))));
        let record = bench.record();
        assert_eq!(record.end, End::local(Reason::Timeout));
        assert!(record.duration < Duration::from_secs(5), "{record:?}");
    }
}

#[test]
fn a_producer_that_waits_is_told_when_the_watermarks_move() {
    let script = Script::new().opened(|io| {
        io.set_watermarks(10, 100);
        io.send(vec![1; 1_000]);
        assert!(io.above_high());
    });
    let mut bench = Bench::new(PollerSettings::default(), never_takes, script);
    bench.turn();
    bench.turn();
    // Between the new marks, having been above the old ones: still to wait for the low one.
    assert!(bench.ask(|io| {
        io.set_watermarks(500, 2_000);
        io.above_high()
    }));
    assert_eq!(bench.heard(), ["opened"]);
    bench.ask(|io| io.set_watermarks(5_000, 10_000));
    bench.turn();
    assert_eq!(bench.heard(), ["drained"]);
    assert!(!bench.ask(|io| io.above_high()));
}

#[test]
fn free_bytes_that_an_exchange_left_over_are_not_the_next_ones() {
    let limit = Limit::new("each", Some(0));
    let script = Script::new().opened(move |io| {
        io.set_limit(Direction::Egress, Some(&limit));
        for (id, free, len) in [(1, 100_000, 10), (2, 0, 1_000), (3, 5, 1_000)] {
            io.mark(Mark { id, edge: Edge::Begin { free } });
            io.send(vec![id as u8; len]);
            io.mark(Mark { id, edge: Edge::End });
        }
    });
    let mut bench = Bench::new(PollerSettings::default(), takes_all, script);
    bench.turn();
    bench.turn();
    assert_eq!(bench.sums().plain_out, 10, "the second has no free bytes");
    assert!(bench.state().contains("rate 0"));
}

#[test]
fn one_socket_cannot_keep_a_turn_to_itself() {
    struct Drops(u32);
    impl Source for Drops {
        fn pull(&mut self, _max: usize, out: &mut Vec<u8>) -> Pull {
            out.push(1);
            self.0 -= 1;
            if self.0 == 0 { Pull::End } else { Pull::More }
        }
    }
    // A byte a write.
    let script = Script::new().opened(|io| io.send_source(Box::new(Drops(100_000))));
    let mut bench = Bench::new(PollerSettings::default(), takes_all, script);
    bench.turn();
    bench.turn();
    let out = bench.sums().plain_out;
    assert!((1..5_000).contains(&out), "{out} writes in a turn");

    // Exchanges without a byte, one after the other.
    let script = Script::new().opened(|io| io.mark(Mark { id: 0, edge: Edge::End })).passed(|io, passed| {
        if passed.id < 1_000_000 {
            io.mark(Mark { id: passed.id + 1, edge: Edge::End });
        }
    });
    let mut bench = Bench::new(PollerSettings::default(), takes_all, script);
    bench.turn();
    let heard = bench.heard().len();
    assert!((2..5_000).contains(&heard), "{heard} marks in a turn");
}

#[test]
fn caps_of_zero_let_something_through() {
    let settings = PollerSettings {
        visit_cap: 0,
        read_cap: 0,
        events_per_turn: 0,
        read_buffer: 0,
        ..PollerSettings::default()
    };
    let script = Script::new().received(|io, bytes| io.send(bytes.to_vec()));
    let mut bench = Bench::new(settings, takes_all, script);
    bench.peer.write_all(b"hello").unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while bench.sums().plain_out < 5 {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn nobody_comes_in_during_a_shutdown() {
    let mut bench =
        Bench::new(PollerSettings::default(), never_takes, Script::new().opened(|io| io.send("never")));
    bench.turn();
    bench.poller.handle().shutdown(Duration::ZERO);
    let (tell, told) = channel();
    let (late, _peer) = UnixStream::pair().unwrap();
    late.set_nonblocking(true).unwrap();
    bench
        .poller
        .handle()
        .submit(move |poller| {
            let late = mio::net::UnixStream::from_std(late);
            assert!(poller.adopt(late, Role::Server, Script::new().session(&tell)).is_none());
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            struct Nobody;
            impl Acceptor for Nobody {
                fn accept(&mut self, _peer: &Peer) -> Admission {
                    unreachable!("nobody calls")
                }
                fn refused(&mut self, _record: ConnectionRecord) {}
            }
            assert!(poller.listen(listener, Box::new(Nobody)).is_err());
        })
        .unwrap();
    bench.record();
    assert!(bench.poller.is_done());
    match told.try_iter().collect::<Vec<_>>().as_slice() {
        [Told::Closed(record)] => assert_eq!(record.end, End::local(Reason::Shutdown)),
        others => panic!("{} told", others.len()),
    }
}

#[test]
fn adopted_sockets_count_as_others_do() {
    let settings = PollerSettings { max_sockets: 1, ..PollerSettings::default() };
    let mut bench = Bench::new(settings, takes_all, Script::new());
    let (tell, told) = channel();
    let (late, _peer) = UnixStream::pair().unwrap();
    let late = mio::net::UnixStream::from_std(late);
    assert!(bench.poller.adopt(late, Role::Server, Script::new().session(&tell)).is_none());
    assert!(
        matches!(&told.recv().unwrap(), Told::Closed(record) if record.end == End::local(Reason::Denied))
    );
}

#[test]
fn a_dropped_poller_counts_the_time_until_then() {
    let mut bench = Bench::new(PollerSettings::default(), takes_all, Script::new());
    bench.turn();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {
        std::hint::spin_loop();
    }
    let Bench { poller, told, .. } = bench;
    drop(poller);
    let record = told.try_iter().find_map(|told| match told {
        Told::Closed(record) => Some(record),
        _ => None,
    });
    assert!(record.unwrap().duration >= Duration::from_millis(5));
}

#[test]
fn one_warm_file_says_nothing_of_the_next() {
    // The transport takes no files, so they are read; that must not wait for the disk.
    let starved = |warm_first: bool| {
        let files = [TempFile::new(&[1; 100_000]), TempFile::new(&[2; 100_000])];
        let cold = files[1].file.clone();
        cold.sync_all().unwrap();
        sys::chill_file(&*cold, 0, 100_000).unwrap();
        let warm = files[0].file.clone();
        let script = Script::new().opened(move |io| {
            if warm_first {
                io.send_file(warm.clone(), 0, 100_000);
            }
            io.send_file(cold.clone(), 0, 100_000);
        });
        let mut bench = Bench::new(PollerSettings::default(), takes_all, script);
        let deadline = Instant::now() + support::PATIENCE;
        while bench.ask(|io| io.queued()) > 0 {
            assert!(Instant::now() < deadline);
        }
        bench.sums().pauses.starved_ns > 0
    };
    if starved(false) {
        assert!(starved(true));
    } else {
        println!("this file system does not tell what is cold");
    }
}

#[test]
fn a_range_beyond_all_files_ends_its_socket_only() {
    for (offset, len) in [(u64::MAX, 10), (u64::MAX - 5, u64::MAX), (i64::MAX as u64, 10), (1 << 60, 1)] {
        let file = TempFile::new(b"short");
        let ours = file.file.clone();
        let mut bench = Bench::new(
            PollerSettings::default(),
            takes_all,
            Script::new().opened(move |io| io.send_file(ours.clone(), offset, len)),
        );
        assert_eq!(bench.record().end, End::local(Reason::SourceFailed), "{offset}+{len}");
        // And by sendfile.
        let (tell, told) = channel();
        let (ours, _peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let file = file.file.clone();
        let script = Script::new().opened(move |io| io.send_file(file.clone(), offset, len));
        let plain = mio::net::UnixStream::from_std(ours);
        bench.poller.adopt(plain, Role::Server, script.session(&tell)).unwrap();
        bench.told = told;
        assert_eq!(bench.record().end, End::local(Reason::SourceFailed), "{offset}+{len}");
    }
}
