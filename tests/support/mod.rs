//! What the integration tests share: the program itself, clients of all manners, the access log, and the real
//! programs it has to get on with. Waiting is always for something, up to a deadline.

// Each test binary uses its part of this, and may have another that shares a file with it.
#![allow(dead_code, unused_imports, clippy::duplicate_mod)]

mod host;
mod keeps;
mod kernel;
mod log;
mod programs;
mod serve;
mod site;
mod waiting;
mod wire;

pub(crate) use host::Host;
pub(crate) use keeps::Keeps;
pub(crate) use log::{Log, check_line, check_log, end, number};
pub(crate) use programs::{Nginx, program};
pub(crate) use serve::{Serve, Stopped};
pub(crate) use site::Site;
pub(crate) use waiting::{PATIENCE, Waits, await_that};
pub(crate) use wire::{Reply, Wire};
