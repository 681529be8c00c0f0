//! Reaching a poller, or one of its sockets, from another thread.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::figures::{Counters, PollerFigures};
use super::{Io, Poller};
use crate::due::Key;
use crate::record::End;
use crate::session::Session;

/// Most submissions that wait for the loop. A loop takes them all once a turn; at the bound, a turn is so long
/// that more work would not help.
const INBOX_BOUND: usize = 65_536;

/// Reaches a poller from any thread.
#[derive(Clone)]
pub struct PollerHandle {
    pub(crate) shared: Arc<Shared>,
}

/// Reaches one socket from any thread. What it asks for happens on the poller's thread, in order, and not at all
/// if the socket is gone by then.
#[derive(Clone)]
pub struct SocketHandle {
    handle: PollerHandle,
    key: Key,
}

/// Why a submission was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The poller has ended.
    Closed,
    /// Too many submissions wait already (65,536).
    Full,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubmitError::Closed => "the poller has ended",
            SubmitError::Full => "too many submissions wait for the poller",
        })
    }
}

impl std::error::Error for SubmitError {}

impl PollerHandle {
    /// Runs `work` on the poller's thread, in its next turn.
    ///
    /// # Errors
    /// The poller has ended, or 65,536 submissions wait already; `work` is dropped.
    pub fn submit(&self, work: impl FnOnce(&mut Poller) + Send + 'static) -> Result<(), SubmitError> {
        self.shared.push(Work::Run(Box::new(work)))
    }

    /// Shuts the poller down: no more callers, [`Session::shutdown`] for every session that serves one, and when they are gone
    /// for the others; what is not gone after `grace` is cut. [`Poller::run`] returns when the last socket is gone.
    pub fn shutdown(&self, grace: Duration) {
        let _ = self.shared.push(Work::Shutdown(grace));
    }

    /// Closes the listeners, and asks [`Session::shutdown`] of every session that serves a caller. The poller turns on, for
    /// what it does besides: it connects, keeps time, has work submitted, until it is [shut down](PollerHandle::shutdown).
    /// `gone` is called on its thread when the last caller is gone; dropped instead if the poller ends before.
    pub fn close_to_callers(&self, gone: impl FnOnce() + Send + 'static) {
        let _ = self.shared.push(Work::CloseToCallers(Box::new(gone)));
    }

    /// How the poller is doing.
    pub fn figures(&self) -> PollerFigures {
        self.shared.counters.read()
    }

    /// Has the loop turn once more, to look again at what changed outside (a budget's rate).
    pub fn wake(&self) {
        self.shared.wake();
    }
}

impl fmt::Debug for PollerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollerHandle").field("figures", &self.figures()).finish()
    }
}

impl SocketHandle {
    pub(crate) fn new(handle: PollerHandle, key: Key) -> SocketHandle {
        SocketHandle { handle, key }
    }

    /// Runs `work` with the session and its socket. To reach a session's own type, upcast:
    /// `(session as &mut dyn Any).downcast_mut::<Mine>()`.
    ///
    /// # Errors
    /// As [`PollerHandle::submit`]. That the socket is gone is none: then `work` is dropped, unrun.
    pub fn submit(
        &self,
        work: impl FnOnce(&mut dyn Session, &mut Io<'_>) + Send + 'static,
    ) -> Result<(), SubmitError> {
        let key = self.key;
        self.handle.submit(move |poller| poller.with_socket(key, work))
    }

    /// See [`Io::hold`].
    pub fn hold(&self) -> Result<(), SubmitError> {
        self.submit(|_, io| io.hold())
    }

    /// See [`Io::release`].
    pub fn release(&self) -> Result<(), SubmitError> {
        self.submit(|_, io| io.release())
    }

    /// See [`Io::wake_source`]. Refused only where the poller has ended: a source that waits must not wait for ever, so
    /// whoever wakes one does so once each time it was starved.
    pub fn wake_source(&self) -> Result<(), SubmitError> {
        self.handle.shared.push(Work::WakeSource(self.key))
    }

    /// See [`Io::finish`].
    pub fn finish(&self, end: End) -> Result<(), SubmitError> {
        self.submit(move |_, io| io.finish(end))
    }

    /// See [`Io::abort`].
    pub fn abort(&self, end: End) -> Result<(), SubmitError> {
        self.submit(move |_, io| io.abort(end))
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The poller the socket lives on.
    pub fn poller(&self) -> &PollerHandle {
        &self.handle
    }
}

impl fmt::Debug for SocketHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketHandle({}.{})", self.key.index, self.key.generation)
    }
}

/// A submitted closure.
pub(crate) type Job = Box<dyn FnOnce(&mut Poller) + Send>;

/// A call that needs nothing of the poller.
pub(crate) type Call = Box<dyn FnOnce() + Send>;

/// What waits for the loop.
pub(crate) enum Work {
    Run(Job),
    /// A session's job is done; `None`: it panicked.
    Offloaded(Key, Option<Box<dyn Any + Send>>),
    /// A cold file is in memory up to here.
    Warmed(Key, u64),
    CloseToCallers(Call),
    /// A source has something again.
    WakeSource(Key),
    Shutdown(Duration),
}

/// What the loop shares with its handles.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// The waker has been used since the loop last looked.
    woken: AtomicBool,
    waker: mio::Waker,
    pub(crate) counters: Counters,
}

#[derive(Default)]
struct Inbox {
    work: Vec<Work>,
    closed: bool,
}

impl Shared {
    pub(crate) fn new(waker: mio::Waker) -> Shared {
        Shared {
            inbox: Mutex::default(),
            woken: AtomicBool::new(false),
            waker,
            counters: Counters::default(),
        }
    }

    pub(crate) fn push(&self, work: Work) -> Result<(), SubmitError> {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            if inbox.closed {
                return Err(SubmitError::Closed);
            }
            // What answers a session is bounded where it was asked for, and must not be lost.
            if inbox.work.len() >= INBOX_BOUND && matches!(work, Work::Run(_)) {
                self.counters.submissions_refused.fetch_add(1, Ordering::Relaxed);
                return Err(SubmitError::Full);
            }
            inbox.work.push(work);
        }
        self.wake();
        Ok(())
    }

    /// Wakes the loop, unless that was done since it last looked.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake a poller: {error}");
        }
    }

    /// The loop is awake. Says whether it was woken; must come before it looks at anything it may be woken for, so
    /// that whatever comes too late to be seen wakes it again.
    pub(crate) fn awake(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    /// Swaps what waits with `spare`, which is empty.
    pub(crate) fn take(&self, spare: &mut Vec<Work>) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut inbox.work, spare);
    }

    /// Takes no more. What waits is dropped.
    pub(crate) fn close(&self) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.closed = true;
        let dropped = std::mem::take(&mut inbox.work);
        drop(inbox);
        drop(dropped);
    }
}
