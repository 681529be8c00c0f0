//! Listening, what sockets spend through, datagrams, TLS, and protocols of one's own.

pub(crate) mod account;
pub(crate) mod call;
mod listen;
mod pacing;
pub(crate) mod patience;
pub(crate) mod pool;
pub mod protocol;
mod resolve;
mod spending;
#[cfg(feature = "tls")]
pub mod tls;
mod udp;

pub use call::Waited;
pub use listen::{ListenError, Listeners};
pub use pacing::{ClientKey, Pacing, PacingBuilder};
pub use resolve::{Resolve, Resolving, SystemResolver};
pub use spending::Spending;
pub use udp::{DATAGRAM_MAX, Datagram, Receive, SendTo, UdpSocket};
