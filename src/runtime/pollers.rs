//! Poller threads: started, stopped, joined.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidegate_poller::{Poller, PollerFigures, PollerHandle, PollerSettings};

use super::local;

/// Threads that each run a poller.
#[derive(Debug)]
pub(crate) struct Pollers {
    threads: Vec<JoinHandle<()>>,
    handles: PollerHandles,
    /// Each thread says how it ended. Behind a lock only so that a runtime can be shared; it is used once, by value.
    ended: Mutex<mpsc::Receiver<io::Result<()>>>,
    end: mpsc::Sender<io::Result<()>>,
}

/// Reaches the pollers of a runtime from any thread.
#[derive(Clone, Debug, Default)]
pub struct PollerHandles(Vec<PollerHandle>);

/// What each poller is given to do when it starts, on its own thread.
pub type Setup = Box<dyn FnOnce(&mut Poller) -> io::Result<()> + Send>;

impl Pollers {
    /// Starts a thread for each of `setups`, called `NAME-N`, and returns when all have been set up. When one cannot
    /// be, the others are stopped and the error is returned.
    pub(crate) fn start(settings: &PollerSettings, setups: Vec<Setup>) -> io::Result<Pollers> {
        let (end, ended) = mpsc::channel();
        let mut pollers = Pollers {
            threads: Vec::new(),
            handles: PollerHandles(Vec::new()),
            ended: Mutex::new(ended),
            end,
        };
        for (index, setup) in setups.into_iter().enumerate() {
            let started = pollers.start_one(
                PollerSettings { name: format!("{}-{index}", settings.name), ..settings.clone() },
                setup,
            );
            if let Err(error) = started {
                pollers.handles.shutdown(Duration::ZERO);
                // The first error is the one that says what is wrong.
                let _ = pollers.join();
                return Err(error);
            }
        }
        Ok(pollers)
    }

    fn start_one(&mut self, settings: PollerSettings, setup: Setup) -> io::Result<()> {
        let (tell, told) = mpsc::channel();
        let (name, end) = (settings.name.clone(), self.end.clone());
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            let made = || Poller::new(settings).and_then(|mut poller| setup(&mut poller).map(|()| poller));
            let made = catch_unwind(AssertUnwindSafe(made))
                .unwrap_or_else(|_| Err(io::Error::other("its set-up panicked")));
            let mut poller = match made {
                Ok(poller) => poller,
                // Said to whoever starts it; the thread itself has nothing to add.
                Err(error) => {
                    local::leave();
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            let _ = tell.send(Ok(poller.handle()));
            let ran = catch_unwind(AssertUnwindSafe(|| poller.run()));
            // What is left gets its records before anybody is told.
            drop(poller);
            local::leave();
            let _ = end.send(ran.unwrap_or_else(|_| Err(io::Error::other("a poller panicked"))));
        })?;
        self.threads.push(thread);
        // Nothing comes when the thread did not get that far.
        let handle =
            told.recv().unwrap_or_else(|_| Err(io::Error::other(format!("poller {name} did not start"))))?;
        self.handles.0.push(handle);
        Ok(())
    }

    /// Reaches the pollers.
    pub(crate) fn handles(&self) -> PollerHandles {
        self.handles.clone()
    }

    /// Waits until all pollers have ended. When one fails, the others are stopped.
    pub(crate) fn join(self) -> io::Result<()> {
        // Without our own end, the channel closes when the last thread has ended.
        drop(self.end);
        let mut outcome = Ok(());
        for ended in self.ended.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if ended.is_err() {
                self.handles.shutdown(Duration::ZERO);
                outcome = outcome.and(ended);
            }
        }
        for thread in self.threads {
            if thread.join().is_err() {
                outcome = outcome.and(Err(io::Error::other("a poller's thread panicked")));
            }
        }
        outcome
    }
}

impl PollerHandles {
    /// Shuts all pollers down: no more callers, and what is not done after `grace` is cut. Asked again, the shorter
    /// grace counts.
    pub fn shutdown(&self, grace: Duration) {
        for handle in &self.0 {
            handle.shutdown(grace);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PollerHandle> {
        self.0.iter()
    }

    /// How each poller is doing.
    pub fn figures(&self) -> Vec<PollerFigures> {
        self.0.iter().map(PollerHandle::figures).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setups(count: usize, make: impl Fn(usize) -> io::Result<()> + Clone + Send + 'static) -> Vec<Setup> {
        (0..count)
            .map(|index| {
                let make = make.clone();
                Box::new(move |_: &mut Poller| make(index)) as Setup
            })
            .collect()
    }

    #[test]
    fn starts_and_stops() {
        let pollers = Pollers::start(&PollerSettings::default(), setups(2, |_| Ok(()))).unwrap();
        assert_eq!(pollers.handles().figures().len(), 2);
        pollers.handles().shutdown(Duration::ZERO);
        pollers.join().unwrap();
    }

    #[test]
    fn one_that_cannot_start_stops_the_others() {
        let failing = |index| if index == 1 { Err(io::Error::other("as planned")) } else { Ok(()) };
        let error = Pollers::start(&PollerSettings::default(), setups(3, failing)).unwrap_err();
        assert_eq!(error.to_string(), "as planned");
        let panicking = |index| if index == 1 { panic!("as planned") } else { Ok(()) };
        assert!(Pollers::start(&PollerSettings::default(), setups(2, panicking)).is_err());
    }
}
