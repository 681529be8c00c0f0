//! What the integration tests share: the program itself, clients of all manners, the access log, and the real
//! programs it has to get on with. Waiting is always for something, up to a deadline.

// Each test binary uses its part of this.
#![allow(dead_code, unused_imports)]

mod host;
mod log;
mod programs;
mod serve;
mod site;
mod wire;

pub(crate) use host::Host;
pub(crate) use log::{Log, check_line, check_log, end, number};
pub(crate) use programs::{Nginx, program};
pub(crate) use serve::{Serve, Stopped};
pub(crate) use site::{Records, Site};
pub(crate) use wire::{Reply, Wire};

use std::time::{Duration, Instant};

/// Longer than anything should take on a busy machine; what is awaited mostly comes at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until there is something, and fails at the deadline.
pub(crate) fn await_that<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        // Files and processes give no event to wait on.
        std::thread::sleep(Duration::from_millis(2));
    }
}
