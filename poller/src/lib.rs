//! One epoll loop a thread, a gate every written byte passes, and a ledger for each socket.
#![deny(unsafe_code)]

pub mod budget;
pub mod ledger;
pub mod moment;
pub mod offload;
pub mod pace;
pub mod record;
#[allow(unsafe_code)]
pub mod sys;
mod tcp_info;
pub mod timer;
