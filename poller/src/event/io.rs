//! What a session sees of its socket.

use std::any::Any;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::handle::Work;
use super::poller::SHARP;
use super::socket::Life;
use super::{Poller, PollerHandle, SocketHandle};
use crate::budget::{Budget, Limit};
use crate::due::{Due, Key};
use crate::ledger::Sums;
use crate::moment::Moment;
use crate::offload::Full;
use crate::outbox::{Chunk, Mark, Source};
use crate::record::{End, Handshake, Peer, Role};
use crate::session::Session;
use crate::sys;
use crate::timer::TimerId;
use crate::transport::{Plain, Wire};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Out of this program.
    Egress,
    /// Into it.
    Ingress,
}

/// A session's socket, lent for the length of a call.
///
/// Nothing here blocks or calls back: what is sent is queued, and the gate runs when the call has returned.
pub struct Io<'a> {
    poller: &'a mut Poller,
    index: usize,
    replacement: Option<Box<dyn Session>>,
}

impl<'a> Io<'a> {
    pub(super) fn new(poller: &'a mut Poller, index: usize) -> Io<'a> {
        Io { poller, index, replacement: None }
    }

    pub(super) fn take_replacement(&mut self) -> Option<Box<dyn Session>> {
        self.replacement.take()
    }
}

/// Who and when.
impl Io<'_> {
    /// This turn's moment.
    pub fn now(&self) -> Moment {
        self.poller.now
    }

    /// The connection's number, unique in this process.
    pub fn conn_id(&self) -> u64 {
        self.poller.sockets[self.index].conn_id
    }

    /// The other end.
    pub fn peer(&self) -> Peer {
        self.poller.sockets[self.index].peer()
    }

    /// Whether we accepted or connected.
    pub fn role(&self) -> Role {
        self.poller.sockets[self.index].role
    }

    /// Reaches this socket from other threads.
    pub fn socket(&self) -> SocketHandle {
        SocketHandle::new(self.poller.handle(), self.key())
    }

    /// Reaches the poller from other threads.
    pub fn poller(&self) -> PollerHandle {
        self.poller.handle()
    }

    /// Whether this socket is to come to its end: the poller is closed to callers, and this is one, or it is shutting down
    /// and has no callers left.
    pub fn is_shutting_down(&self) -> bool {
        self.poller.is_shutting_down(self.role())
    }

    /// What the ledger has added up so far.
    pub fn sums(&self) -> Sums {
        self.poller.sockets[self.index].gate.ledger.sums(self.poller.now)
    }

    /// The state of the gate, in words.
    pub fn gate_state(&self) -> String {
        format!("{:?}", self.poller.sockets[self.index].gate)
    }

    /// What the transport agreed on with the peer; `None` for a plain one.
    pub fn handshake(&self) -> Option<Handshake> {
        self.poller.sockets[self.index].handshake()
    }

    /// Whether the peer's end, told by [`Session::peer_finished`], came bare, so that what came may not be all; see
    /// [`Transport::is_truncated`](crate::Transport::is_truncated).
    pub fn is_truncated(&self) -> bool {
        self.poller.sockets[self.index].gate.wire.is_truncated()
    }

    /// The transport, for what only it knows.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.poller.sockets[self.index].gate.wire
    }
}

/// Writing.
impl Io<'_> {
    /// An empty buffer, used before where possible. Sent as a chunk, it goes back by itself.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.poller.pools.buffers.take()
    }

    /// Queues bytes.
    pub fn send(&mut self, chunk: impl Into<Chunk>) {
        let chunk = chunk.into();
        self.queue(|outbox| outbox.push_bytes(chunk));
    }

    /// Queues a range of a file. A file that turns out shorter ends the socket, for its bytes cannot be made up.
    pub fn send_file(&mut self, file: Arc<File>, offset: u64, len: u64) {
        self.queue(|outbox| outbox.push_file(file, offset, len));
    }

    /// Queues a source, pulled when its turn comes, until it ends.
    pub fn send_source(&mut self, source: Box<dyn Source>) {
        self.queue(|outbox| outbox.push_source(source));
    }

    /// Queues a mark: [`Session::passed`] tells when the gate passes it.
    pub fn mark(&mut self, mark: Mark) {
        self.queue(|outbox| outbox.push_mark(mark));
    }

    /// The source that had nothing has something again.
    pub fn wake_source(&mut self) {
        self.poller.sockets[self.index].gate.wake_source();
        self.poller.schedule(self.index);
    }

    /// Bytes queued and not yet taken by the kernel, file ranges included; what a source will make is not known.
    pub fn queued(&self) -> u64 {
        self.poller.sockets[self.index].gate.queued()
    }

    /// Sets the watermarks of [`Io::queued`]: above `high` a producer had better wait, and is told by
    /// [`Session::drained`] when `low` is reached. Nothing is refused above. 256 KiB and 64 KiB by default.
    pub fn set_watermarks(&mut self, low: u64, high: u64) {
        self.poller.sockets[self.index].gate.set_watermarks(low, high);
        self.poller.schedule(self.index);
    }

    /// Whether more than the high watermark is queued, or was, and the low one is not reached yet.
    pub fn above_high(&self) -> bool {
        self.poller.sockets[self.index].gate.above_high()
    }

    /// Stops writing until [`Io::release`].
    pub fn hold(&mut self) {
        if let Some((socket, mut env)) = self.poller.gate_parts(self.index) {
            socket.gate.hold(&mut env);
        }
    }

    /// Goes on writing.
    pub fn release(&mut self) {
        self.poller.sockets[self.index].gate.release(self.poller.now);
        self.poller.schedule(self.index);
    }

    /// Ends the socket ([`Reason::Timeout`](crate::Reason::Timeout)) when the kernel's buffer is full and the peer has
    /// taken none of it for so long. Pauses and holds do not count. `None`: never, the default.
    /// Kept in steps of 10 ms, from five minutes on in seconds, at most nine hours; late by up to an eighth.
    pub fn set_send_timeout(&mut self, timeout: Option<Duration>) {
        if let Some((socket, mut env)) = self.poller.gate_parts(self.index) {
            socket.gate.set_send_timeout(timeout.unwrap_or(Duration::ZERO), &mut env);
        }
    }
}

/// Reading.
impl Io<'_> {
    /// Stops reading: the peer's window closes. Where we connected, the session hears of a reset only when it reads on, for
    /// what came before that is still to be read.
    pub fn pause_reading(&mut self) {
        let now = self.poller.now;
        let socket = &mut self.poller.sockets[self.index];
        socket.reading_paused = true;
        // A place in a budget's queue is given up; the budget is asked again when reading goes on.
        socket.ingress_paused = false;
        socket.gate.ledger.set_ingress_paused(false, now);
        if let Some(rare) = &mut socket.rare {
            if let Some(timer) = rare.ingress_timer.take() {
                self.poller.wheel.cancel(timer);
            }
            if let Some(flow) = rare.ingress {
                self.poller.pacer.rest(flow, now);
            }
        }
    }

    /// Whether there are bytes, or the peer's end, that were not read yet. This asks the kernel: before something is said that
    /// must not be taken for a word on what is there already.
    pub fn has_unread(&self) -> bool {
        let wire = &self.poller.sockets[self.index].gate.wire;
        wire.wants_read() || sys::has_unread(wire.plain())
    }

    /// Reads again.
    pub fn resume_reading(&mut self) {
        self.poller.sockets[self.index].reading_paused = false;
        // The gate's end of this visit will not read: one more visit.
        self.poller.requeue(self.index);
    }
}

/// Budgets.
impl Io<'_> {
    /// Gives this socket a rate of its own, or takes it away. One [by the kernel](Limit::by_kernel) is handed on where
    /// it can be (TCP, egress); there, bytes are not exempt by marks.
    pub fn set_limit(&mut self, direction: Direction, limit: Option<&Limit>) {
        let limit = match direction {
            Direction::Egress => self.poller.hand_to_kernel(self.index, limit),
            Direction::Ingress => limit,
        };
        if limit.is_none() && self.flow(direction).is_none() {
            return;
        }
        let flow = self.join(direction);
        self.poller.pacer.set_limit(flow, limit, self.poller.now);
        self.ask_again(direction);
    }

    /// Spends through a shared budget as well. A flow has a bounded number of them. False: it spends through it already,
    /// or through one below it, and nothing was changed.
    pub fn spend_through(&mut self, direction: Direction, budget: &Budget, weight: u32) -> bool {
        let flow = self.join(direction);
        let added = self.poller.pacer.spend_through(flow, budget, weight);
        self.ask_again(direction);
        added
    }

    /// Spends through a shared budget no longer: takes back one [`Io::spend_through`] that was true.
    pub fn stop_spending_through(&mut self, direction: Direction, budget: &Budget) {
        if let Some(flow) = self.flow(direction) {
            self.poller.pacer.stop_spending_through(flow, budget, self.poller.now);
            self.ask_again(direction);
        }
    }

    fn flow(&self, direction: Direction) -> Option<crate::pace::FlowId> {
        let socket = &self.poller.sockets[self.index];
        match direction {
            Direction::Egress => socket.gate.flow,
            Direction::Ingress => socket.ingress(),
        }
    }

    fn join(&mut self, direction: Direction) -> crate::pace::FlowId {
        self.poller.join(self.index, direction)
    }

    fn ask_again(&mut self, direction: Direction) {
        let index = self.index;
        match direction {
            Direction::Egress => {
                if let Some((socket, env)) = self.poller.gate_parts(index)
                    && socket.gate.is_paused()
                {
                    socket.gate.resume(env.wheel, env.now);
                }
                self.poller.schedule(index);
            }
            Direction::Ingress => {
                if self.poller.sockets[index].ingress_paused {
                    self.poller.resume_reading(index);
                }
            }
        }
    }
}

/// Timers, jobs, other sockets.
impl Io<'_> {
    /// Starts a timer: [`Session::timer`] is called with `reason` when it comes due. It ends with the socket.
    pub fn start_timer(&mut self, after: Duration, reason: u32) -> TimerId {
        let now = self.poller.now;
        let at = (now + after).max(now.plus_nanos(1));
        let key = self.key();
        let slot = self.poller.sockets[self.index].free_timer_slot();
        let timer = self.poller.wheel.insert(at, Due::Session { key, reason, slot });
        self.poller.sockets[self.index].set_timer(slot, Some(timer));
        if after < SHARP {
            self.poller.remember_sharp(at);
        }
        timer
    }

    /// Cancels a timer of this session; says whether it was still to fire.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.poller.sockets[self.index].forget_timer(timer) && self.poller.wheel.cancel(timer).is_some()
    }

    /// Runs `job`, which may block, off the poller. Its result comes to [`Session::offloaded`], if the socket is
    /// still there.
    ///
    /// # Errors
    /// 1,024 jobs wait already.
    pub fn offload(
        &mut self,
        job: impl FnOnce() -> Box<dyn Any + Send> + Send + 'static,
    ) -> Result<(), Full> {
        let key = self.key();
        let shared = self.poller.shared.clone();
        self.poller.offload.submit(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(job)).ok();
            let _ = shared.push(Work::Offloaded(key, result));
        }))
    }

    /// Connects to another peer on the same poller, as [`Poller::connect`] does.
    pub fn connect(
        &mut self,
        address: std::net::SocketAddr,
        session: Box<dyn Session>,
    ) -> Option<SocketHandle> {
        self.poller.connect(address, session)
    }

    /// Connects to another peer on the same poller, as [`Poller::connect_with`] does.
    pub fn connect_with(
        &mut self,
        address: std::net::SocketAddr,
        session: Box<dyn Session>,
        transport: impl FnOnce(Plain) -> Wire,
    ) -> Option<SocketHandle> {
        self.poller.connect_with(address, session, transport)
    }

    /// Speaks through another transport from now on: a proxy has made a tunnel, or both ends agreed to go on in TLS. Only where
    /// bytes went plainly until now, and none is queued; else, or where the system has no descriptor to spare for the
    /// change, nothing changes and this is false. The session is [ready](Session::ready) again after the handshake.
    pub fn change_transport(&mut self, transport: impl FnOnce(Plain) -> Wire) -> bool {
        // Stands in the socket's place while that is handed over; whatever happens then, there is something to close.
        let Ok((stand_in, _)) = mio::net::UnixStream::pair() else { return false };
        let socket = &mut self.poller.sockets[self.index];
        if !matches!(socket.gate.wire, Wire::Plain(_)) || !socket.gate.is_empty() || socket.life != Life::Open
        {
            return false;
        }
        if let Wire::Plain(plain) = std::mem::replace(&mut socket.gate.wire, stand_in.into()) {
            socket.gate.wire = transport(plain);
        }
        self.poller.start_handshake(self.index);
        self.poller.schedule(self.index);
        true
    }

    /// Puts another session in this one's place when this call has returned (an upgrade). The old one is dropped
    /// and gets no record; the new one is not [opened](Session::opened).
    pub fn replace_session(&mut self, session: Box<dyn Session>) {
        self.replacement = Some(session);
    }
}

/// Ending.
impl Io<'_> {
    /// Closes when all that is queued has gone: then FIN, then what the peer still sends is read and discarded
    /// until its FIN or for [`PollerSettings::linger`](super::PollerSettings::linger). The session receives no more. Only the
    /// first call counts.
    pub fn finish(&mut self, end: End) {
        let socket = &mut self.poller.sockets[self.index];
        if socket.life == Life::Connecting {
            return self.abort(end);
        }
        // One that failed, and whose last words have gone, has its end already.
        if !socket.gate.closing && !matches!(socket.life, Life::Failing | Life::Lingering) {
            socket.gate.closing = true;
            socket.end = Some(end);
            // With nothing queued, FIN is due at once.
            self.poller.requeue(self.index);
        }
    }

    /// The same, but without waiting for the peer's FIN, or reading what it may still send: for a peer that said that it
    /// sends no more. Where it does all the same, its kernel is told with a reset, which may cost it the last bytes.
    pub fn finish_in_haste(&mut self, end: End) {
        self.poller.sockets[self.index].hasty = true;
        self.finish(end);
    }

    /// Closes at once, with a reset when bytes are left unsent.
    pub fn abort(&mut self, end: End) {
        self.poller.doom(self.index, end);
    }
}

impl Io<'_> {
    fn key(&self) -> Key {
        Key { index: self.index as u32, generation: self.poller.sockets[self.index].generation() }
    }

    /// Every enqueue goes through here, so that none is left without a visit.
    fn queue(&mut self, push: impl FnOnce(&mut crate::outbox::Outbox)) {
        let (now, poller) = (self.poller.now, &mut *self.poller);
        poller.sockets[self.index].gate.queue(now, &mut poller.pools, push);
        poller.schedule(self.index);
    }
}
