//! The measuring client, and what is needed to lay servers side by side.
//!
//! It owns: an epoll client that time-stamps every read ([`client`]), the figures made of those reads
//! ([`figures`], pure), the kernel's accounts of a process ([`account`]), starting and stopping the servers that
//! are compared ([`servers`]), the cases of the table ([`cases`]) and how they are printed ([`report`], [`plot`]).
//! It must not know anything of the server's inside: what it measures, any client on the wire could measure.
//! It is driven by its own program (`src/main.rs`), by `benches/end_to_end.rs` and by the tests.
//!
//! One thread, no async runtime, no unsafe code.

#![forbid(unsafe_code)]

pub mod account;
pub mod cases;
pub mod client;
pub mod figures;
pub mod plot;
pub mod reply;
pub mod report;
pub mod scratch;
pub mod servers;
pub mod sys;
pub mod table;
pub mod wrk;
