//! Calls that block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tidegate_poller::offload::Full;

use super::Task;
use super::continuation::{Continuation, Parked};
use crate::runtime::work::Receive;

/// Has `call` called on a thread for what blocks: disks, names, other people's libraries. What it returns comes of the
/// task, or that too many calls wait already (1,024). A panic in it ends the series.
///
/// For what computes, there is [`go`](super::go): these threads are few, and wait most of their time.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::blocking;
///
/// let runtime = Runtime::new()?;
/// let names = runtime.run(blocking(|| std::fs::read_dir("/").map(Iterator::count)))??;
/// assert!(names? > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn blocking<R, F>(call: F) -> Blocking<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    Blocking { call }
}

/// See [`blocking`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct Blocking<F> {
    call: F,
}

impl<R, F> Task for Blocking<F>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = Result<R, Full>;

    fn dispatch(self, done: Continuation<Result<R, Full>>) {
        let runtime = done.runtime().clone();
        let poller = runtime.poller_here_or_next();
        let done = done.park();
        let (waiting, after, call) = (done.clone(), runtime.clone(), self.call);
        let submitted = runtime.offload().submit(Box::new(move || {
            // Cancelled while it waited: nobody wants to know.
            if waiting.is_waiting() {
                let result = catch_unwind(AssertUnwindSafe(call)).map(Ok);
                after.ready_on_poller(poller, Finish::new(result, waiting));
            }
        }));
        if let Err(full) = submitted {
            let _cancelled = done.complete(Err(full));
        }
    }
}

/// Completes a task that has been called elsewhere, on the thread where this runs: callbacks are not for threads that
/// others need to block on.
pub(super) struct Finish<O: Send + 'static> {
    output: Option<thread::Result<O>>,
    done: Parked<O>,
}

impl<O: Send + 'static> Finish<O> {
    pub(super) fn new(output: thread::Result<O>, done: Parked<O>) -> Box<Finish<O>> {
        Box::new(Finish { output: Some(output), done })
    }
}

impl<O: Send + 'static> Receive<()> for Finish<O> {
    fn receive(mut self: Box<Self>, (): ()) {
        let Some(done) = self.done.take() else { return };
        match self.output.take() {
            Some(Ok(output)) => done.complete(output),
            Some(Err(payload)) => done.panicked(payload),
            None => {}
        }
    }
}

impl<O: Send + 'static> Drop for Finish<O> {
    /// Others may hold the place where it is parked.
    fn drop(&mut self) {
        drop(self.done.take());
    }
}
