//! What a protocol implements to live on a socket, and what decides who may come in.
//!
//! The poller drives a [`Session`] from its own thread, one call at a time, never with a lock held. A session
//! must not block; what may block goes through [`Io::offload`]. The session never sees the file descriptor: it
//! speaks to its socket through the [`Io`] it is lent for the length of a call.

use std::any::Any;

use crate::event::Io;
use crate::outbox::Passed;
use crate::record::{ConnectionRecord, Peer, Refusal};
use crate::transport::{Plain, Wire};

/// The protocol state machine that lives on a socket.
pub trait Session: Any {
    /// The socket is connected (accepted, or our connect succeeded). Called once, before anything else.
    fn opened(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// Bytes can be exchanged: directly after [`Session::opened`] with a plain transport, after the handshake with
    /// another ([`Io::handshake`] tells what it came to). Called once. What is queued before waits; a clock that is to
    /// measure the peer, not the handshake, is started here. If the handshake fails this never comes.
    fn ready(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// Bytes arrived, in order. The slice is lent: the session keeps what it cannot use yet, in a buffer it
    /// bounds, or calls [`Io::pause_reading`] so that TCP's window closes.
    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]);

    /// The outbox fell to its low watermark or below after it had been above the high one.
    fn drained(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }

    /// The gate passed a mark that this session had put in the outbox.
    fn passed(&mut self, io: &mut Io<'_>, mark: Passed) {
        let _ = (io, mark);
    }

    /// A timer started by [`Io::start_timer`] came due; `reason` is the number it was started with.
    fn timer(&mut self, io: &mut Io<'_>, reason: u32) {
        let _ = (io, reason);
    }

    /// The peer will send no more (it sent FIN, or said so by its transport). Writing may still work. Where the end of
    /// the bytes is the end of what they mean, ask [`Io::is_truncated`]. The default closes once the outbox is empty.
    fn peer_finished(&mut self, io: &mut Io<'_>) {
        io.finish(crate::record::End::peer(crate::record::Reason::Ok));
    }

    /// A job given to [`Io::offload`] came back.
    fn offloaded(&mut self, io: &mut Io<'_>, result: Box<dyn Any + Send>) {
        let _ = (io, result);
    }

    /// The poller is shutting down, or, for who serves a caller,
    /// [closed to callers](crate::PollerHandle::close_to_callers): finish what is in flight, then [`Io::finish`]. What is
    /// not gone at the shutdown deadline is cut. The default closes once the outbox is empty.
    fn shutdown(&mut self, io: &mut Io<'_>) {
        io.finish(crate::record::End::local(crate::record::Reason::Shutdown));
    }

    /// In which phase of its work the session is: a short constant word such as `idle`, `request`, `handler`
    /// or `reply`. Read once, at teardown, for the record.
    fn phase(&self) -> &'static str {
        "open"
    }

    /// Whether what the kernel knew of the connection ([`ConnectionRecord::tcp`]) will be looked at: asking costs a system
    /// call. Read once, at teardown.
    fn wants_figures(&self) -> bool {
        true
    }

    /// The socket is gone; here is its account. Called exactly once for every session, whatever ended it, and
    /// always last.
    fn closed(self: Box<Self>, record: ConnectionRecord);
}

/// What an [`Acceptor`] says of a caller.
pub enum Admission {
    /// Let it in, to be served by this session.
    Admit(Box<dyn Session>),
    /// Close it at once; the record goes to [`Acceptor::refused`].
    Refuse(Refusal),
}

/// Decides about each accepted connection; lives with its listener, on the poller's thread.
pub trait Acceptor {
    /// A caller is at the door.
    fn accept(&mut self, peer: &Peer) -> Admission;

    /// The transport for a caller that was let in; plain by default.
    fn transport(&mut self, plain: Plain) -> Wire {
        Wire::Plain(plain)
    }

    /// The record of a caller that never got a session: refused by [`Acceptor::accept`], or shed by the poller
    /// because the process is out of file descriptors.
    fn refused(&mut self, record: ConnectionRecord);
}
