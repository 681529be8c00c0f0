//! The gate's states in combination, on a transport that does as it is told.

mod support;

use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use support::{Script, Told};
use tidegate_poller::transport::{Received, Wrote};
use tidegate_poller::{Config, Io, Plain, Poller, Role, SocketHandle, Sums, Transport, Wire};

type Kernel = Box<dyn FnMut(u64) -> io::Result<Wrote>>;

/// Reads as a socket does, and writes as it is told, with how many bytes were offered; those go nowhere.
struct Obedient {
    plain: Plain,
    kernel: Kernel,
}

impl Transport for Obedient {
    fn read(&mut self, buf: &mut [u8], allowance: u64) -> io::Result<Received> {
        self.plain.read(buf, allowance)
    }
    fn write(&mut self, bufs: &[IoSlice<'_>], _allowance: u64, _more: bool) -> io::Result<Wrote> {
        (self.kernel)(bufs.iter().map(|slice| slice.len() as u64).sum())
    }
    fn shutdown(&mut self) -> io::Result<bool> {
        self.plain.shutdown()
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
    tell: Sender<Told>,
}

impl Bench {
    fn new(config: Config, kernel: impl FnMut(u64) -> io::Result<Wrote> + 'static, script: Script) -> Bench {
        let (tell, told) = channel();
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let plain = Plain::Unix(mio::net::UnixStream::from_std(ours));
        let wire = Wire::Boxed(Box::new(Obedient { plain, kernel: Box::new(kernel) }));
        let mut poller = Poller::new(config).unwrap();
        let socket = poller.adopt(wire, Role::Server, script.session(&tell)).unwrap();
        Bench { poller, socket, peer, told, tell }
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
    let config = Config { visit_cap: 4_096, ..Config::default() };
    let kernel = move |offered| match std::mem::take(&mut full) {
        true => Err(io::ErrorKind::WouldBlock.into()),
        false => takes_all(offered),
    };
    let mut bench = Bench::new(config, kernel, Script::new().opened(|io| io.send(vec![1; 1 << 30])));
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
