//! The loop: sockets, listeners, timers and submitted work of one thread, on one [`mio::Poll`].
//!
//! Owns the descriptors and the order in which things happen. It decides nothing about bytes (the
//! [gate](crate::gate) does) nor about budgets (the [pacer](crate::pace) does). One turn:
//!
//! 1. **Sleep** until the next timer, the pacer's deadline, an event or a wake-up; not at all when a socket
//!    stands in line from the turn before. The kernel's wait has whole milliseconds, rounded up, which merges
//!    wake-ups; a session's timer asked for with less than 4 ms to run gets a `timerfd`.
//! 2. **Read the clock**. All below get this moment. If a limit or budget was changed from outside, whoever is
//!    paused gets in line.
//! 3. **Kernel events.** What the kernel told is remembered, and the socket put in line. Only who [watches](Poller::watch)
//!    a descriptor of its own is told at once.
//! 4. **Submitted work**, from other threads: one swap of the queue.
//! 5. **Due timers.**
//! 6. **Visits**, in line: listeners accept; a socket reads and its session is called, then its gate runs, all up
//!    to the visit's caps. Who stops early gets in line for the next turn, for no edge will come.
//! 7. **The hook**: the embedder's own work, if it has set one ([`Hook`]).
//! 8. **Settle** with the shared budgets, then the gates whose turn it is.
//! 9. **Teardown** of what ended: the one place where a ledger becomes a record.
//!
//! Sessions are called in phases 4 to 8, one at a time, and never from within their own calls: what a session
//! asks of its [`Io`] is queued or noted, and done when the call has returned. A panic in a session ends that
//! socket only.

mod bereft;
mod figures;
mod handle;
mod hook;
mod io;
mod limits;
mod listener;
mod open;
mod poller;
mod settings;
mod shutdown;
mod socket;
mod teardown;
mod visit;
mod watch;

pub use figures::PollerFigures;
pub use handle::{PollerHandle, SocketHandle, SubmitError};
pub use hook::Hook;
pub use io::{Direction, Io};
pub use listener::{ListenerId, Listening};
pub use poller::Poller;
pub use settings::{PollerSettings, SocketOptions};
pub use watch::{Ready, WatchId};
