//! One epoll loop a thread, a gate every written byte passes, and a ledger for each socket.
//!
//! ```text
//! Session ──send──▶ Outbox ──▶ gate ──▶ Transport ──▶ kernel
//!    ▲                           │
//!    │                           ├─ Pacer: budgets and limits say how many bytes may go, before the system call
//!    └─ received, passed, … ◀────┴─ Ledger: what went, when, and why not; in the end a ConnectionRecord
//! ```
//!
//! Implement [`Session`] for what lives on a socket and [`Acceptor`] for who may come in; give both to a [`Poller`]
//! and run it, one a thread. A session speaks to its socket through the [`Io`] it is lent for each call. Other
//! threads reach a poller by its [`PollerHandle`], a socket by its [`SocketHandle`].
//!
//! ```no_run
//! use tidegate_poller::{Acceptor, Admission, Budget, ConnectionRecord, Direction, Io, Peer, Poller, PollerSettings, Session};
//!
//! struct Echo(Budget);
//!
//! impl Session for Echo {
//!     fn opened(&mut self, io: &mut Io<'_>) {
//!         io.spend_through(Direction::Egress, &self.0, 1);
//!     }
//!     fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
//!         io.send(bytes.to_vec());
//!     }
//!     fn closed(self: Box<Self>, record: ConnectionRecord) {
//!         println!("{record:?}");
//!     }
//! }
//!
//! struct Door(Budget);
//!
//! impl Acceptor for Door {
//!     fn accept(&mut self, _peer: &Peer) -> Admission {
//!         Admission::Admit(Box::new(Echo(self.0.clone())))
//!     }
//!     fn refused(&mut self, record: ConnectionRecord) {
//!         println!("{record:?}");
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let everything = Budget::builder("everything").rate(1_000_000).build();
//!     let mut poller = Poller::new(PollerSettings::default())?;
//!     poller.listen(std::net::TcpListener::bind("127.0.0.1:7007")?, Box::new(Door(everything)))?;
//!     poller.run()
//! }
//! ```
#![deny(unsafe_code)]

pub mod budget;
mod buffers;
mod due;
mod event;
pub mod file;
mod gate;
pub mod ledger;
pub mod moment;
pub mod offload;
pub mod outbox;
pub mod pace;
pub mod record;
mod session;
#[allow(unsafe_code)]
pub mod sys;
mod tcp_info;
pub mod timer;
pub mod transport;

pub use budget::{Budget, BudgetBuilder, KeyedBudgets, Limit};
pub use buffers::Buffers;
pub use event::{
    Direction, Hook, Io, ListenerId, Listening, Poller, PollerFigures, PollerHandle, PollerSettings, Ready,
    SocketHandle, SocketOptions, SubmitError, WatchId,
};
pub use ledger::{Ledger, Sums};
pub use moment::Moment;
pub use outbox::{Chunk, Edge, Mark, Passed, Pull, Source};
pub use record::{ConnectionRecord, End, Handshake, Pauses, Peer, Reason, Refusal, Role, TcpFigures, Who};
pub use session::{Acceptor, Admission, Session};
pub use timer::TimerId;
pub use transport::{Fault, Plain, Transport, Wire};
