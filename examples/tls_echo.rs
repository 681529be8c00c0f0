//! Sends back what comes, over TLS.
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
//!     -addext subjectAltName=DNS:localhost -keyout key.pem -out chain.pem
//! cargo run --example tls_echo -- 127.0.0.1:7443 chain.pem key.pem
//! openssl s_client -brief -CAfile chain.pem -servername localhost -connect 127.0.0.1:7443
//! ```
//!
//! Says on standard output what each connection agreed on, and how it ended.

mod help;

use std::error::Error;
use std::net::TcpListener;

use tidegate::net::tls::{Pem, ServerTls};
use tidegate::poller::{
    Acceptor, Admission, ConnectionRecord, Io, Peer, Plain, Poller, PollerSettings, Session, Wire,
};

struct Echo;

impl Session for Echo {
    fn ready(&mut self, io: &mut Io<'_>) {
        if let Some(agreed) = io.handshake() {
            println!("{}: {:?} {:?}, {:?}", io.peer(), agreed.version, agreed.cipher, agreed.server_name);
        }
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        let mut buffer = io.buffer();
        buffer.extend_from_slice(bytes);
        io.send(buffer);
        if io.above_high() {
            io.pause_reading();
        }
    }

    fn drained(&mut self, io: &mut Io<'_>) {
        io.resume_reading();
    }

    fn closed(self: Box<Self>, record: ConnectionRecord) {
        let fault = record.handshake.as_ref().and_then(|handshake| handshake.fault.as_deref()).unwrap_or("-");
        let (who, why) = (record.end_who(), record.end.reason.as_str());
        println!("{}: {} bytes back, {who}/{}/{why} {fault}", record.peer, record.plain_out, record.phase);
    }
}

struct Door(ServerTls);

impl Acceptor for Door {
    fn accept(&mut self, _peer: &Peer) -> Admission {
        Admission::Admit(Box::new(Echo))
    }

    fn transport(&mut self, plain: Plain) -> Wire {
        self.0.transport(plain)
    }

    fn refused(&mut self, _record: ConnectionRecord) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    if help::is_asked(include_str!("tls_echo.rs")) {
        return Ok(());
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, chain, key] = &arguments[..] else {
        return Err("usage: tls_echo ADDRESS CHAIN KEY".into());
    };
    let tls = ServerTls::builder().certificate(Pem::file(chain), Pem::file(key)).build()?;
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let mut poller = Poller::new(PollerSettings::default())?;
    poller.listen(listener, Box::new(Door(tls)))?;
    Ok(poller.run()?)
}
