//! Signals: stop, and open the access log anew.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

use crate::runtime::PollerHandles;

/// Signals are caught from here on; what comes before [`Caught::obey`] waits.
pub(super) struct Caught(Signals);

/// What signals have done, where there is something to do.
#[derive(Default)]
pub(super) struct Duties {
    /// USR1: open the access log anew.
    pub(super) reopen: Option<Duty>,
    /// HUP: read the certificates anew.
    pub(super) reload: Option<Duty>,
}

pub(super) type Duty = Box<dyn Fn() + Send>;

/// The thread that obeys.
pub(super) struct Obeying {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Caught {
    /// Catches HUP only where it means something: else it ends the program when its terminal goes, as users expect.
    pub(super) fn new(hangups: bool) -> io::Result<Caught> {
        // Where files may not grow any further, a write of the log is to fail, and not the server.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        let hangup = hangups.then_some(SIGHUP);
        Signals::new([SIGTERM, SIGINT, SIGUSR1].into_iter().chain(hangup)).map(Caught)
    }

    /// TERM and INT stop the pollers within `grace`, a second one at once; others are for `duties`.
    pub(super) fn obey(
        mut self,
        handles: PollerHandles,
        grace: Duration,
        duties: Duties,
    ) -> io::Result<Obeying> {
        let handle = self.0.handle();
        let thread = thread::Builder::new().name("tidegate-signals".into()).stack_size(128 * 1024).spawn(
            move || {
                let mut stopping = false;
                for signal in self.0.forever() {
                    match signal {
                        SIGUSR1 => duties.reopen.iter().for_each(|duty| duty()),
                        SIGHUP => duties.reload.iter().for_each(|duty| duty()),
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
