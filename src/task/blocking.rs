//! Calls that block.

use tidegate_poller::offload::Full;

use super::Task;
use super::continuation::Continuation;

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
        // Reached by the call and, where there is no room for it, from here.
        let runtime = done.runtime().clone();
        let done = done.park();
        let waiting = done.clone();
        let call = self.call;
        let submitted = runtime.offload().submit(Box::new(move || {
            // Cancelled while it waited: nobody wants to know. One that panics drops the continuation.
            if let Some(done) = waiting.take() {
                let result = call();
                done.complete(Ok(result));
            }
        }));
        if let Err(full) = submitted {
            let _ = done.complete(Err(full));
        }
    }
}
