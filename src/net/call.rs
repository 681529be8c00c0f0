//! A request on its way: what was promised to whoever started it, and until when.
//!
//! Protocols of one's own and HTTP have this in common; what is asked, and how, is theirs. Whoever holds a [`Call`] when
//! it is dropped ends its task.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_poller::Moment;

use crate::net::pool::Pooled;
use crate::runtime::{RuntimeHandle, RuntimeTimer};
use crate::task::Continuation;

/// A request that has no reply yet.
pub(crate) struct Call<P: Pooled> {
    /// Unlike that of any other call of its client.
    pub(crate) id: u64,
    pub(crate) pledge: Pledge<P::Output>,
    /// Until when it must be done.
    pub(crate) deadline: Option<Moment>,
    /// It went out on a connection that had been idle, and was dead: it gets a new one.
    pub(crate) retried: bool,
    /// Runs while it is on no connection.
    pub(crate) timer: Option<RuntimeTimer>,
    /// What it is about.
    pub(crate) work: P::Work,
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waited {
    /// A connection that is free.
    Connection,
    /// The addresses of a name.
    Addresses,
    /// A new connection.
    Connect,
    /// TLS to be agreed on.
    Tls,
    /// The kernel to take the request: the peer does not read.
    Send,
    /// The first byte of the reply.
    FirstByte,
    /// A further byte of it.
    NextByte,
    /// All of it.
    Total,
}

impl<P: Pooled> Call<P> {
    pub(crate) fn stop_timer(&mut self, runtime: &RuntimeHandle) {
        if let Some(timer) = self.timer.take() {
            runtime.cancel_timer(timer);
        }
    }
}

/// What was promised to whoever started the task. It is completed once, or taken by a cancel.
pub(crate) struct Pledge<O>(Arc<Promise<O>>);

struct Promise<O> {
    done: Mutex<Option<Continuation<O>>>,
    /// How a cancel ends the call where it is.
    at: Mutex<Option<Withdraw>>,
}

type Withdraw = Box<dyn FnOnce() + Send>;

impl<O: Send + 'static> Pledge<O> {
    pub(crate) fn new(mut done: Continuation<O>) -> Pledge<O> {
        let cancellation = done.cancellation();
        let promise = Arc::new(Promise { done: Mutex::new(Some(done)), at: Mutex::default() });
        if cancellation.is_possible() {
            // Not a strong one: the cancellation is kept by what is in the promise.
            let reached = Arc::downgrade(&promise);
            cancellation.on_cancel(move || {
                let Some(promise) = reached.upgrade() else { return };
                let done = lock(&promise.done).take();
                let at = lock(&promise.at).take();
                if let Some(withdraw) = at {
                    withdraw();
                }
                drop(done);
            });
        }
        Pledge(promise)
    }

    /// Says how a cancel ends the call from now on.
    pub(crate) fn on_cancel(&self, withdraw: impl FnOnce() + Send + 'static) {
        let before = lock(&self.0.at).replace(Box::new(withdraw));
        drop(before);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        lock(&self.0.done).is_some()
    }

    pub(crate) fn complete(&self, output: O) {
        let done = lock(&self.0.done).take();
        if let Some(done) = done {
            done.complete(output);
        }
    }
}

impl<O> Clone for Pledge<O> {
    fn clone(&self) -> Pledge<O> {
        Pledge(self.0.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Waited::Connection => "a free connection",
            Waited::Addresses => "the host's addresses",
            Waited::Connect => "a connection to be made",
            Waited::Tls => "TLS to be agreed on",
            Waited::Send => "the peer to take the request",
            Waited::FirstByte => "the first byte of the reply",
            Waited::NextByte => "the next byte of the reply",
            Waited::Total => "the whole reply",
        })
    }
}
