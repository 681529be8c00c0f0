//! Listening, what sockets spend through, datagrams, TLS, and protocols of one's own.

mod account;
mod call;
mod listen;
mod pacing;
mod patience;
mod pool;
pub mod protocol;
mod resolve;
#[cfg(feature = "tls")]
pub mod tls;
mod udp;

pub use listen::{ListenError, Listeners};
pub use pacing::{ClientKey, Pacing, PacingBuilder};
pub use resolve::{Resolve, Resolving, SystemResolver};
pub use udp::{DATAGRAM_MAX, Datagram, Receive, SendTo, UdpSocket};
