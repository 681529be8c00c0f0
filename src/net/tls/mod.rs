//! TLS 1.3 and 1.2, by rustls, for servers and clients.
//!
//! Owns what a program configures ([`ServerTls`], [`ClientTls`]) and the [`Transport`](tidegate_poller::Transport) that
//! both make of a plain socket. The gate drives that one as it does any other: it hands an allowance of bytes on the
//! wire, and handshakes, alerts and tickets go within it too. Nothing here knows a protocol above; a session learns of
//! the handshake by [`Session::ready`](tidegate_poller::Session::ready) and
//! [`Io::handshake`](tidegate_poller::Io::handshake).
//!
//! A server makes its transports in [`Acceptor::transport`](tidegate_poller::Acceptor::transport), a client gives
//! [`Poller::connect_with`](tidegate_poller::Poller::connect_with) the way to make one:
//!
//! ```no_run
//! # use tidegate::net::tls::{ClientTls, Pem, PeerName, ServerTls, TlsError};
//! # use tidegate::poller::{Plain, Poller, Session, Wire};
//! # fn server(plain: Plain) -> Result<Wire, TlsError> {
//! let tls = ServerTls::builder()
//!     .certificate(Pem::file("chain.pem"), Pem::file("key.pem"))
//!     .alpn(["http/1.1"])
//!     .build()?;
//! let wire: Wire = tls.transport(plain); // for each caller
//! # Ok(wire)
//! # }
//! # fn client(poller: &mut Poller, address: std::net::SocketAddr, session: Box<dyn Session>) -> Result<(), TlsError> {
//! let tls = ClientTls::builder().alpn(["http/1.1"]).build()?;
//! let name = PeerName::new("example.org")?;
//! poller.connect_with(address, session, |plain| tls.transport(plain, &name));
//! # Ok(())
//! # }
//! ```
//!
//! No early data: what a client says before the handshake can be said again by others.

mod certificates;
mod client;
mod handshake;
mod incoming;
mod outgoing;
mod pem;
mod reception;
mod records;
mod server;
mod side;
mod transport;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

pub use client::{ClientTls, ClientTlsBuilder, PeerName};
pub use pem::{Pem, TlsError};
pub use reception::{PlainAnswer, TlsFigures};
pub use server::{ServerTls, ServerTlsBuilder};

/// Who does the cryptography. `docs/concepts/tls.md` has the figures that decided it.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}
