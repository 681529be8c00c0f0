//! An echo server: what comes in goes out, and each connection leaves a line.
//!
//! `cargo run -p tidegate-poller --example tcp_echo [address]`, then `nc localhost 7007`.

mod help;

use tidegate_poller::{
    Acceptor, Admission, ConnectionRecord, Io, Peer, Poller, PollerSettings, Session, sys,
};

struct Echo;

impl Session for Echo {
    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        let mut buffer = io.buffer();
        buffer.extend_from_slice(bytes);
        io.send(buffer);
        if io.above_high() {
            // The peer sends faster than it reads: let its window close.
            io.pause_reading();
        }
    }

    fn drained(&mut self, io: &mut Io<'_>) {
        io.resume_reading();
    }

    fn closed(self: Box<Self>, record: ConnectionRecord) {
        report(&record);
    }
}

struct Door;

impl Acceptor for Door {
    fn accept(&mut self, _peer: &Peer) -> Admission {
        Admission::Admit(Box::new(Echo))
    }

    fn refused(&mut self, record: ConnectionRecord) {
        report(&record);
    }
}

fn report(record: &ConnectionRecord) {
    println!(
        "{} in {} out {} in {:?}: {} by {}",
        record.peer,
        record.wire_in,
        record.wire_out,
        record.duration,
        record.end.reason.as_str(),
        record.end_who(),
    );
}

fn main() -> std::io::Result<()> {
    if help::is_asked(include_str!("tcp_echo.rs")) {
        return Ok(());
    }
    let address = std::env::args().nth(1).unwrap_or_else(|| String::from("127.0.0.1:7007"));
    let address = address.parse().map_err(std::io::Error::other)?;
    let listener = sys::listen_tcp(address, 1024, false)?;
    println!("listening on {}", listener.local_addr()?);
    let mut poller = Poller::new(PollerSettings::default())?;
    poller.listen(listener, Box::new(Door))?;
    poller.run()
}
