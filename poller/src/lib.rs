//! One epoll loop a thread, a gate every written byte passes, and a ledger for each socket.
#![deny(unsafe_code)]

pub mod budget;
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
pub use event::{
    Config, Direction, Figures, Handle, Io, ListenerId, Listening, Poller, SocketHandle, SocketOptions,
    SubmitError,
};
pub use ledger::{Ledger, Sums};
pub use moment::Moment;
pub use outbox::{Chunk, Edge, Mark, Passed, Pull, Source};
pub use record::{ConnectionRecord, End, Pauses, Peer, Reason, Refusal, Role, TcpFigures, Who};
pub use session::{Acceptor, Admission, Session};
pub use timer::TimerId;
pub use transport::{Plain, Transport, Wire};
