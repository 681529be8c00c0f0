//! Threads: pollers and computing threads, started and stopped together.
//!
//! A [`Runtime`] owns its threads; there may be several in a process, and nothing of them is global. What runs on
//! it holds a [`RuntimeHandle`]. This module starts and stops, keeps time, and lends threads; it knows no task.

mod builder;
mod compute;
mod handle;
mod local;
mod pollers;
mod under_way;
pub(crate) mod work;

use std::sync::atomic::{AtomicU64, Ordering};

pub use builder::RuntimeBuilder;
pub use handle::{OwnThread, Runtime, RuntimeFigures, RuntimeHandle};
pub use pollers::{PollerHandles, Setup};

pub(crate) use compute::{Job, in_job};
pub(crate) use handle::RuntimeTimer;
#[cfg(feature = "sse")]
pub(crate) use handle::WeakRuntime;
pub(crate) use local::TimerKey;
pub(crate) use under_way::Running;

/// Counts.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
