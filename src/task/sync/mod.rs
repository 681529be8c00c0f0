//! Tasks that wait for other work: counters, messages, signals, locks, pools, named timers, queues of computations.
//!
//! All of them are built alike. What is waited for is a *place*, shared by handles: a state under one short lock, and
//! in it the [`Waiters`](waiters::Waiters), first come, first served. Whoever takes a waiter out of the list, under the
//! lock, owns its continuation and goes on with it once the lock is released: the one who gives, a timer, or who
//! cancels. So no two of them ever do.
//!
//! What is given is not lost when the waiter is cancelled at that moment. Who gives passes over waiters that are
//! cancelled; and what reaches a series that is cancelled before its callback runs goes back when it is dropped, to the
//! next one that waits. That is why messages come wrapped ([`Message`]), and signals as a value ([`Signal`]).
//!
//! Names belong to a runtime, and live while a handle has them, somebody waits under them, or a signal is kept.
//!
//! Nothing here owns a thread. Who gives goes on with who waited, on its own thread: see
//! [`Continuation::complete`](super::Continuation::complete).

mod condition;
mod counter;
mod elapsed;
mod go_queue;
mod go_within;
mod lock;
mod mailbox;
mod map;
mod named_sleep;
mod names;
mod pool;
mod queue;
mod turn;
mod waiters;

pub use condition::{Condition, Signal, WaitSignal};
pub use counter::{Counter, NamedCounter};
pub use elapsed::Elapsed;
pub use go_queue::{GoQueue, QueueFull, QueuedGo, WhenFull};
pub use go_within::{GoWithin, go_within};
pub use lock::{Guarded, Lock};
pub use mailbox::{Mailbox, Receive};
pub use named_sleep::{NamedSleep, TimerCancelled};
pub use pool::{Get, GetWithin, Pool, Pooled};
pub use queue::{Closed, Message, MessageQueue, Put, PutError, Take};
