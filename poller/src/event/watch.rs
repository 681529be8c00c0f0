//! Descriptors that the poller watches, and does not read or write.
//!
//! For what is no stream of bytes: a UDP socket, a pipe to another process. The poller owns the registration, and
//! tells what the kernel said; reading and writing, budgets and records are the owner's. The kernel tells once (an
//! edge): whoever is told goes on until a call would block.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::Poller;
use super::figures::add;

/// Marks the tokens of what is watched: neither a socket's (generation zero) nor a listener's.
const WATCHED: usize = 1 << 31;

/// Names something that a poller watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId {
    index: u32,
    /// The place is used again; this is not.
    serial: u64,
}

/// What the kernel told of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Reading may work, or tell of an error.
    pub readable: bool,
    /// Writing may work, or tell of an error.
    pub writable: bool,
}

impl Ready {
    pub(super) fn of(event: &mio::event::Event) -> Ready {
        let error = event.is_error();
        Ready {
            readable: event.is_readable() || event.is_read_closed() || error,
            writable: event.is_writable() || event.is_write_closed() || error,
        }
    }
}

type Told = Box<dyn FnMut(Ready)>;

pub(super) struct Watched {
    /// Of our own, so that what is registered stays open for as long as it is.
    descriptor: OwnedFd,
    /// Absent only while it is called.
    told: Option<Told>,
    serial: u64,
}

impl Poller {
    /// Calls `told` on this thread whenever the kernel says that the descriptor has become readable or writable, once at
    /// the start if it is already. `told` must not block; it is dropped with the registration, at the latest with the
    /// poller. What is watched does not keep a poller from ending.
    ///
    /// Fails when the process has no descriptor left, or this one cannot be watched (a plain file).
    pub fn watch(&mut self, descriptor: impl AsFd, told: impl FnMut(Ready) + 'static) -> io::Result<WatchId> {
        let descriptor = descriptor.as_fd().try_clone_to_owned()?;
        let entry = self.watched.vacant_entry();
        let index = entry.key();
        let token = Token(WATCHED | index);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&descriptor.as_raw_fd()), token, interest)?;
        self.watch_serial += 1;
        let serial = self.watch_serial;
        entry.insert(Watched { descriptor, told: Some(Box::new(told)), serial });
        Ok(WatchId { index: index as u32, serial })
    }

    /// Watches it no longer.
    pub fn unwatch(&mut self, id: WatchId) {
        let index = id.index as usize;
        if self.watched.get(index).is_some_and(|watched| watched.serial == id.serial) {
            let watched = self.watched.remove(index);
            let _ = self.poll.registry().deregister(&mut SourceFd(&watched.descriptor.as_raw_fd()));
        }
    }

    /// The place of what is watched under a token, if it is one of these.
    pub(super) fn watched_place(token: Token) -> Option<usize> {
        (token.0 & WATCHED != 0).then_some(token.0 & !WATCHED)
    }

    pub(super) fn tell_watched(&mut self, index: usize, ready: Ready) {
        let Some(watched) = self.watched.get_mut(index) else { return };
        let Some(mut told) = watched.told.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| told(ready))).is_err() {
            log::error!("{}: what watches a descriptor panicked", self.settings.name);
            add(&self.shared.counters.panics, 1);
        }
        if let Some(watched) = self.watched.get_mut(index) {
            watched.told = Some(told);
        }
    }
}
