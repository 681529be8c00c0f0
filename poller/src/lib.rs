//! One epoll loop a thread, a gate every written byte passes, and a ledger for each socket.
pub mod budget;
pub mod moment;
pub mod pace;

/// The monotonic clock, for handles that are used outside a loop.
pub(crate) fn clock() -> moment::Moment {
    moment::Moment::from_nanos(1)
}
