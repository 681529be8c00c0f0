//! How a runtime is to be.

use std::io;
use std::thread;

use tidegate_poller::{Poller, PollerSettings};

use super::handle::Runtime;
use super::pollers::Setup;

/// Jobs that may wait for a computing thread, unless told otherwise: about a gigabyte of them.
const COMPUTE_QUEUE_MAX: usize = 1 << 24;

/// Builds a [`Runtime`].
pub struct RuntimeBuilder {
    pub(super) name: String,
    pub(super) pollers: usize,
    pub(super) compute_threads: usize,
    pub(super) compute_queue: usize,
    pub(super) poller_settings: PollerSettings,
    pub(super) setups: Vec<Setup>,
}

impl RuntimeBuilder {
    pub(super) fn new() -> RuntimeBuilder {
        RuntimeBuilder {
            name: String::from("tidegate"),
            pollers: 1,
            compute_threads: thread::available_parallelism().map_or(1, usize::from),
            compute_queue: COMPUTE_QUEUE_MAX,
            poller_settings: PollerSettings::default(),
            setups: Vec::new(),
        }
    }

    /// What its threads are called: `NAME-0` and so on for pollers, `NAME-compute-0` for the others. Default:
    /// `tidegate`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> RuntimeBuilder {
        self.name = name.into();
        self
    }

    /// How many pollers; at least one. Default: one, which serves tens of thousands of sockets.
    #[must_use]
    pub fn pollers(mut self, pollers: usize) -> RuntimeBuilder {
        self.pollers = pollers;
        self
    }

    /// How many threads compute; at least one. Default: the CPUs.
    #[must_use]
    pub fn compute_threads(mut self, threads: usize) -> RuntimeBuilder {
        self.compute_threads = threads;
        self
    }

    /// How many jobs may wait for a computing thread; what comes beyond is dropped, which ends its series. Default:
    /// 16,777,216.
    #[must_use]
    pub fn compute_queue(mut self, jobs: usize) -> RuntimeBuilder {
        self.compute_queue = jobs;
        self
    }

    /// The settings of each poller, its name apart.
    #[must_use]
    pub fn poller_settings(mut self, settings: PollerSettings) -> RuntimeBuilder {
        self.poller_settings = settings;
        self
    }

    /// Adds a poller that is given something to do when it starts, on its own thread. The number of pollers is that of
    /// these calls, if there are more of them than [`pollers`](RuntimeBuilder::pollers) says.
    #[must_use]
    pub fn poller(
        mut self,
        setup: impl FnOnce(&mut Poller) -> io::Result<()> + Send + 'static,
    ) -> RuntimeBuilder {
        self.setups.push(Box::new(setup));
        self
    }

    /// Starts the threads, and returns when all pollers are set up. When one cannot be, the others are stopped and the
    /// error is returned.
    pub fn build(self) -> io::Result<Runtime> {
        Runtime::launch(self)
    }
}
