//! How one poller spends: which of its sockets may write now, how much, and who is next.
//!
//! A [`Pacer`] owns the *flows* of one poller (one for each direction of a socket that has a limit or a budget) and its
//! *ports* into the shared budgets. The gate asks [`Pacer::allow`] before a syscall and tells [`Pacer::charge`] after it.
//! Neither takes a lock, allocates or reads the clock: they spend from the flow's own bucket and from leases the ports
//! already hold. Once a turn the loop calls [`Pacer::settle`], which trades with the shared trees, and then runs the gates
//! that [`Pacer::next_turn`] names.
//!
//! It must not know sockets, nor file descriptors, nor time other than what it is told: the simulation runs it as it is.

mod flow;
#[cfg(test)]
mod hostile;
mod pacer;
mod port;
#[cfg(test)]
mod simulation;

pub use flow::FlowId;
pub use pacer::{Allowance, Pacer};
