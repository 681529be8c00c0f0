//! Listeners: accepting, admitting, refusing, and shedding when there is no descriptor left.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::SystemTime;

use mio::Interest;
use mio::net::{TcpListener, UnixListener};

use super::Poller;
use super::figures::add;
use super::open::{next_conn_id, unix_peer};
use crate::due::Due;
use crate::ledger::{Ledger, Teardown};
use crate::record::{ConnectionRecord, End, Peer, Reason, Refusal, Role};
use crate::session::{Acceptor, Admission};
use crate::sys::Reserve;
use crate::transport::Plain;

/// Callers taken in one visit of a listener, then sockets are served first.
const ACCEPTS_PER_VISIT: usize = 64;
/// The most callers that wait at a listener when it is to close: more than kernels are set to keep.
const CALLERS_WAIT_MAX: usize = 65_536;
/// How long a listener that cannot accept waits before it tries again.
const RETRY_NS: u64 = 100_000_000;

/// The descriptor that the process keeps to turn callers away with when it has no other. One for all pollers: each with
/// its own would lose it to a neighbour, whose caller then keeps it. Held alone while it is given up, used and taken back,
/// so that no other poller's accept comes in between; a file that is opened in between may take it, and whoever accepts
/// next gives that descriptor back to it.
static RESERVE: RwLock<Reserve> = RwLock::new(Reserve::new());

/// Takes the reserve, if no poller of this process has it yet.
pub(super) fn take_reserve() -> io::Result<()> {
    reserve().reopen()
}

fn reserve() -> RwLockWriteGuard<'static, Reserve> {
    RESERVE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A socket that listens.
pub enum Listening {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix stream socket.
    Unix(std::os::unix::net::UnixListener),
}

impl From<std::net::TcpListener> for Listening {
    fn from(listener: std::net::TcpListener) -> Listening {
        Listening::Tcp(listener)
    }
}

impl From<std::os::unix::net::UnixListener> for Listening {
    fn from(listener: std::os::unix::net::UnixListener) -> Listening {
        Listening::Unix(listener)
    }
}

/// Names a listener of one poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(u32);

pub(super) struct Listener {
    socket: Socket,
    /// Absent only while it is asked.
    acceptor: Option<Box<dyn Acceptor>>,
    queued: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Poller {
    /// Accepts connections from `listening`, as `acceptor` decides.
    ///
    /// # Errors
    /// No descriptor is left, or the socket cannot be watched.
    pub fn listen(
        &mut self,
        listening: impl Into<Listening>,
        acceptor: Box<dyn Acceptor>,
    ) -> io::Result<ListenerId> {
        if self.closed_to_callers {
            return Err(io::Error::other("the poller lets nobody in any more"));
        }
        let mut socket = match listening.into() {
            Listening::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Socket::Tcp(TcpListener::from_std(listener))
            }
            Listening::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Socket::Unix(UnixListener::from_std(listener))
            }
        };
        let entry = self.listeners.vacant_entry();
        let (index, token) = (entry.key(), Self::listener_token(entry.key()));
        let registry = self.poll.registry();
        match &mut socket {
            Socket::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Socket::Unix(listener) => registry.register(listener, token, Interest::READABLE),
        }?;
        entry.insert(Listener { socket, acceptor: Some(acceptor), queued: false });
        Ok(ListenerId(index as u32))
    }

    /// Stops accepting from a listener and closes it. Its connections live on.
    pub fn close_listener(&mut self, id: ListenerId) {
        self.listeners.try_remove(id.0 as usize);
    }

    pub(super) fn schedule_listener(&mut self, index: u32) {
        if let Some(listener) = self.listeners.get_mut(index as usize)
            && !listener.queued
        {
            listener.queued = true;
            self.to_accept.push(index);
        }
    }

    /// Accepts until there is nobody left, or the visit's cap.
    pub(super) fn visit_listener(&mut self, index: u32) {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return };
        listener.queued = false;
        for _ in 0..ACCEPTS_PER_VISIT {
            let Some(listener) = self.listeners.get_mut(index as usize) else { return };
            let (accepted, has_reserve) = {
                let reserve = RESERVE.read().unwrap_or_else(PoisonError::into_inner);
                (listener.socket.accept(), reserve.is_held())
            };
            match accepted {
                Ok((plain, peer)) if has_reserve => self.admit(index, plain, peer),
                Ok((plain, peer)) => {
                    self.give_to_reserve(plain);
                    self.tell_shed(index, peer);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    Some(libc::EMFILE | libc::ENFILE) => {
                        if !self.shed(index) {
                            return;
                        }
                    }
                    _ => {
                        log::warn!("{}: cannot accept: {error}", self.settings.name);
                        return self.retry_listener(index);
                    }
                },
            }
        }
        self.schedule_listener(index);
    }

    /// Accepts whoever waits, up to what the kernel lets wait.
    pub(super) fn visit_listener_to_the_end(&mut self, index: u32) {
        for _ in 0..CALLERS_WAIT_MAX / ACCEPTS_PER_VISIT {
            self.visit_listener(index);
            if self.listeners.get(index as usize).is_none_or(|listener| !listener.queued) {
                break;
            }
        }
    }

    fn admit(&mut self, index: u32, plain: Plain, peer: Peer) {
        if let Some(end) = self.refusal(Role::Server) {
            return self.refuse(index, plain, peer, Refusal(end.reason));
        }
        match self.ask(index, |acceptor| acceptor.accept(&peer)) {
            None => self.refuse(index, plain, peer, Refusal(Reason::Internal)),
            Some(Admission::Refuse(refusal)) => self.refuse(index, plain, peer, refusal),
            Some(Admission::Admit(session)) => {
                let Some(wire) = self.ask(index, |acceptor| acceptor.transport(plain)) else {
                    // The acceptor took the socket with it. The session still gets its record.
                    return self.close_unopened(session, peer, Role::Server, End::local(Reason::Internal));
                };
                add(&self.shared.counters.accepted, 1);
                let _ = self.open(wire, peer, Role::Server, session, false);
            }
        }
    }

    /// The process is out of descriptors: the reserve lets one caller in, to be closed at once. Otherwise the
    /// listener would stay readable and the caller wait for nothing. Says whether to go on accepting.
    fn shed(&mut self, index: u32) -> bool {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return false };
        let accepted = {
            let mut reserve = reserve();
            reserve.release();
            // Closed at once: the reserve comes back from the caller's descriptor.
            let accepted = listener.socket.accept().map(|(_, peer)| peer);
            self.reopen(&mut reserve);
            accepted
        };
        match accepted {
            Ok(peer) => {
                self.tell_shed(index, peer);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.retry_listener(index);
                false
            }
        }
    }

    /// The reserve was lost, so this caller cannot stay: nobody could be turned away any more.
    fn give_to_reserve(&self, plain: Plain) {
        let mut reserve = reserve();
        drop(plain);
        self.reopen(&mut reserve);
    }

    fn reopen(&self, reserve: &mut Reserve) {
        if let Err(error) = reserve.reopen() {
            log::warn!("{}: cannot get the reserve descriptor back: {error}", self.settings.name);
        }
    }

    fn tell_shed(&mut self, index: u32, peer: Peer) {
        add(&self.shared.counters.shed, 1);
        self.tell_refused(index, peer, Reason::Descriptors);
    }

    fn refuse(&mut self, index: u32, plain: Plain, peer: Peer, refusal: Refusal) {
        drop(plain);
        add(&self.shared.counters.refused, 1);
        self.tell_refused(index, peer, refusal.0);
    }

    fn tell_refused(&mut self, index: u32, peer: Peer, reason: Reason) {
        let record = self.record_unopened(peer, Role::Server, End::local(reason), "accept");
        self.ask(index, |acceptor| acceptor.refused(record));
    }

    /// The record of a connection that never had a socket of its own.
    pub(super) fn record_unopened(
        &mut self,
        peer: Peer,
        role: Role,
        end: End,
        phase: &'static str,
    ) -> ConnectionRecord {
        Ledger::new(self.now).into_record(Teardown {
            now: self.now,
            conn_id: next_conn_id(),
            peer,
            role,
            started: SystemTime::now(),
            end,
            phase,
            dropped_out: 0,
            tcp: None,
            handshake: None,
        })
    }

    /// Calls an acceptor; `None` if it panicked.
    fn ask<T>(&mut self, index: u32, call: impl FnOnce(&mut dyn Acceptor) -> T) -> Option<T> {
        let acceptor = self.listeners.get_mut(index as usize)?.acceptor.as_mut()?;
        let answer = catch_unwind(AssertUnwindSafe(|| call(acceptor.as_mut())));
        if answer.is_err() {
            log::error!("{}: an acceptor panicked", self.settings.name);
            add(&self.shared.counters.panics, 1);
        }
        answer.ok()
    }

    fn retry_listener(&mut self, index: u32) {
        self.wheel.insert(self.now.plus_nanos(RETRY_NS), Due::Listener(index));
    }
}

impl Socket {
    fn accept(&mut self) -> io::Result<(Plain, Peer)> {
        match self {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Plain::Tcp(stream), Peer::Inet(peer)))
            }
            Socket::Unix(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Plain::Unix(stream), unix_peer(peer.as_pathname())))
            }
        }
    }
}
