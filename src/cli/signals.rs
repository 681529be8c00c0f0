//! Signals: stop, and open the access log anew.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use crate::runtime::Handles;

/// Signals are caught from here on; what comes before [`Caught::obey`] waits.
pub(super) struct Caught(Signals);

/// The thread that obeys.
pub(super) struct Obeying {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Caught {
    pub(super) fn new() -> io::Result<Caught> {
        Signals::new([SIGTERM, SIGINT, SIGUSR1]).map(Caught)
    }

    /// TERM and INT stop the pollers within `grace`, a second one at once; USR1 calls `reopen`.
    pub(super) fn obey(
        mut self,
        handles: Handles,
        grace: Duration,
        reopen: Option<Box<dyn Fn() + Send>>,
    ) -> io::Result<Obeying> {
        let handle = self.0.handle();
        let thread = thread::Builder::new().name("tidegate-signals".into()).stack_size(128 * 1024).spawn(
            move || {
                let mut stopping = false;
                for signal in self.0.forever() {
                    match signal {
                        SIGUSR1 => {
                            if let Some(reopen) = &reopen {
                                reopen();
                            }
                        }
                        _ if !stopping => {
                            stopping = true;
                            log::info!("stopping; another signal cuts what is in flight");
                            handles.shutdown(grace);
                        }
                        _ => handles.shutdown(Duration::ZERO),
                    }
                }
            },
        )?;
        Ok(Obeying { handle, thread })
    }
}

impl Obeying {
    /// Ends the thread. Signals are still caught, and do nothing.
    pub(super) fn end(self) {
        self.handle.close();
        if self.thread.join().is_err() {
            log::error!("the signal thread panicked");
        }
    }
}
