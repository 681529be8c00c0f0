//! Waiting: always for something, up to a deadline.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tidegate::task::{Continuation, Parked, Task};

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
        // Files, processes and figures give no event to wait on.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A task that waits until it is told what comes of it, or cancelled. It hands out where it waits.
#[derive(Clone)]
pub(crate) struct Waits<O>(pub(crate) mpsc::Sender<Parked<O>>);

impl<O> Waits<O> {
    pub(crate) fn new() -> (Waits<O>, mpsc::Receiver<Parked<O>>) {
        let (tell, told) = mpsc::channel();
        (Waits(tell), told)
    }
}

impl<O: Send + 'static> Task for Waits<O> {
    type Output = O;

    fn dispatch(self, done: Continuation<O>) {
        let _ = self.0.send(done.park());
    }
}
