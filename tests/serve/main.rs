//! The file server over real sockets.
#![cfg(feature = "cli")]

mod ends;
mod files;
mod requests;
#[path = "../support/mod.rs"]
mod support;
mod times;
