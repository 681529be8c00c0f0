//! What idle connections cost: opens many to itself from another process's point of view, and prints the anonymous
//! memory before and after.
//!
//! `cargo run --release -p tidegate-poller --example idle [connections]`

mod help;

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use tidegate_poller::{
    Acceptor, Admission, ConnectionRecord, Io, Peer, Poller, PollerSettings, Session, sys,
};

/// As large as an HTTP session may be.
struct Idle {
    _state: [u64; 15],
}

impl Session for Idle {
    fn opened(&mut self, io: &mut Io<'_>) {
        io.start_timer(Duration::from_secs(60), 0);
    }
    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        io.send(bytes.to_vec());
    }
    fn closed(self: Box<Self>, _record: ConnectionRecord) {}
}

struct Door;

impl Acceptor for Door {
    fn accept(&mut self, _peer: &Peer) -> Admission {
        Admission::Admit(Box::new(Idle { _state: [0; 15] }))
    }
    fn refused(&mut self, _record: ConnectionRecord) {}
}

/// Anonymous memory of this process, in KiB.
fn anonymous_kib() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().map_err(io::Error::other)
}

fn main() -> io::Result<()> {
    if help::is_asked(include_str!("idle.rs")) {
        return Ok(());
    }
    let count: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(4_000);
    let listener = sys::listen_tcp("127.0.0.1:0".parse().map_err(io::Error::other)?, 4_096, false)?;
    let address = listener.local_addr()?;
    let mut poller = Poller::new(PollerSettings::default())?;
    poller.listen(listener, Box::new(Door))?;
    let mut peers = Vec::with_capacity(count);
    let before = anonymous_kib()?;
    while poller.sockets() < count {
        if peers.len() < count {
            peers.push(TcpStream::connect(address)?);
        }
        poller.turn(Some(Duration::ZERO))?;
    }
    let after = anonymous_kib()?;
    println!(
        "{before} KiB before, {after} KiB with {count}: {} bytes each",
        (after - before) * 1024 / count as u64
    );
    Ok(())
}
