//! One epoll loop a thread, a gate every written byte passes, and a ledger for each socket.
pub mod budget;
pub mod moment;
pub mod pace;
