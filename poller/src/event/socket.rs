//! One socket in the slab: its gate, its session, and the read side's state.
//!
//! Kept small, for most sockets are idle: what only a writing socket needs, its [gate](crate::gate) borrows; what few
//! ever need is in [`Rare`].

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::budget::Limit;
use crate::gate::Gate;
use crate::pace::FlowId;
use crate::record::{End, Handshake, Peer, Role};
use crate::session::Session;
use crate::sys;
use crate::timer::TimerId;
use crate::transport::Wire;

pub(crate) struct Socket {
    pub(crate) gate: Gate,
    /// Absent only while the session is being called.
    pub(crate) session: Option<Box<dyn Session>>,
    /// A timer of the session; most have one at a time, further ones are in [`Rare`].
    timer: Option<TimerId>,
    pub(crate) rare: Option<Box<Rare>>,
    peer: PackedPeer,
    pub(crate) conn_id: u64,
    started_wall_ns: u64,
    pub(crate) role: Role,
    pub(crate) life: Life,
    /// How it ends, once that is known.
    pub(crate) end: Option<End>,
    /// Stands in the list of sockets to visit.
    pub(crate) queued: bool,
    /// Stands in the list of sockets to tear down; nothing else happens to it.
    pub(crate) doomed: bool,
    /// The kernel told that there is something to read, and no read since came up short.
    pub(crate) told_readable: bool,
    /// The kernel told that the peer will send no more: reading goes on to the end whatever a read gives.
    pub(crate) told_hup: bool,
    pub(crate) told_error: bool,
    /// The session does not want bytes.
    pub(crate) reading_paused: bool,
    /// A budget keeps us from reading.
    pub(crate) ingress_paused: bool,
    /// The peer's FIN was read, or its goodbye.
    pub(crate) peer_finished: bool,
    /// Closing does not wait for the peer's FIN.
    pub(crate) hasty: bool,
}

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Connecting,
    /// The transport has its handshake to do; the session is not told that bytes can go.
    Handshake,
    Open,
    /// The transport failed; what it has still to say about that (an alert) goes, then FIN.
    Failing,
    /// FIN was sent; what the peer still sends is discarded.
    Lingering,
    /// The peer is gone; what it said before is still read.
    Bereft,
}

/// What few sockets need.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) ingress: Option<FlowId>,
    pub(crate) ingress_timer: Option<TimerId>,
    /// Connecting, the handshake or lingering ends here.
    pub(crate) deadline: Option<TimerId>,
    /// How long the handshake took, in nanoseconds, once it is done.
    pub(crate) handshake_ns: Option<u64>,
    /// The egress limit, where the kernel keeps it.
    pub(crate) kernel_limit: Option<Limit>,
    /// Bytes given up because the peer was gone, before the socket came to its end.
    pub(crate) dropped_out: u64,
    /// Bytes that the peer had acknowledged when a send timeout asked.
    acked: u64,
    /// Timers of the session after the first.
    timers: Vec<Option<TimerId>>,
}

impl Socket {
    pub(crate) fn new(gate: Gate, session: Box<dyn Session>, peer: Peer, role: Role, conn_id: u64) -> Socket {
        Socket {
            gate,
            session: Some(session),
            timer: None,
            rare: None,
            peer: PackedPeer::new(peer),
            conn_id,
            started_wall_ns: wall_ns(),
            role,
            life: Life::Open,
            end: None,
            queued: false,
            doomed: false,
            told_readable: false,
            told_hup: false,
            told_error: false,
            reading_paused: false,
            ingress_paused: false,
            peer_finished: false,
            hasty: false,
        }
    }

    /// Tells this socket from others that had its place before.
    pub(crate) fn generation(&self) -> u32 {
        self.conn_id as u32
    }

    /// Where a further timer of the session can be kept.
    pub(crate) fn free_timer_slot(&mut self) -> u16 {
        if self.timer.is_none() {
            return 0;
        }
        let timers = &mut self.rare().timers;
        let place = timers.iter().position(Option::is_none).unwrap_or_else(|| {
            timers.push(None);
            timers.len() - 1
        });
        // Past 65,535 timers of one session, the last place is shared: those fire, but do not end with the socket.
        u16::try_from(place + 1).unwrap_or(u16::MAX)
    }

    pub(crate) fn set_timer(&mut self, slot: u16, timer: Option<TimerId>) {
        let place = match slot {
            0 => Some(&mut self.timer),
            _ => self.rare.as_mut().and_then(|rare| rare.timers.get_mut(usize::from(slot) - 1)),
        };
        if let Some(place) = place {
            *place = timer;
        }
    }

    /// Forgets a timer; says whether it was there.
    pub(crate) fn forget_timer(&mut self, timer: TimerId) -> bool {
        let others = self.rare.iter_mut().flat_map(|rare| rare.timers.iter_mut());
        match std::iter::once(&mut self.timer).chain(others).find(|place| **place == Some(timer)) {
            Some(place) => {
                *place = None;
                true
            }
            None => false,
        }
    }

    /// Takes all that is armed, for cancelling.
    pub(crate) fn take_timers(&mut self, mut cancel: impl FnMut(TimerId)) {
        let rare = self.rare.as_mut();
        let others = rare.map(|rare| {
            let others = [rare.ingress_timer.take(), rare.deadline.take()];
            std::mem::take(&mut rare.timers).into_iter().chain(others)
        });
        others.into_iter().flatten().chain([self.timer.take()]).flatten().for_each(&mut cancel);
    }

    /// Whether the kernel keeps the limit and the peer has acknowledged more than when this was last asked.
    pub(crate) fn acked_since_asked(&mut self) -> bool {
        let fin_came = self.fin_came();
        let plain = self.gate.wire.plain();
        let Some(rare) = self.rare.as_mut().filter(|rare| rare.kernel_limit.is_some()) else { return false };
        let figures = sys::tcp_info(plain, self.role, fin_came).ok();
        let acked = figures.and_then(|figures| figures.acked_bytes).unwrap_or(0);
        acked > std::mem::replace(&mut rare.acked, acked)
    }

    /// Whether the peer's FIN is known to have come. A transport may have told of the peer's end before that.
    pub(crate) fn fin_came(&self) -> bool {
        let by_goodbye = matches!(self.gate.wire, Wire::Boxed(_)) && self.life != Life::Lingering;
        self.told_hup || self.peer_finished && (!by_goodbye || self.gate.wire.is_truncated())
    }

    /// Whether nothing but our goodbye, which a peer that has left will not hear, can be lost any more: it has said its
    /// own or sent FIN, and all of ours has gone.
    pub(crate) fn has_only_its_goodbye_left(&self) -> bool {
        let all_gone = self.gate.queued() == 0 && !self.gate.has_source();
        self.gate.closing && all_gone && (self.peer_finished || self.gate.wire.is_truncated())
    }

    /// What the transport agreed on, and how long that took.
    pub(crate) fn handshake(&self) -> Option<Handshake> {
        let mut handshake = self.gate.wire.handshake()?;
        let nanos = self.rare.as_ref().and_then(|rare| rare.handshake_ns);
        handshake.took = nanos.map(Duration::from_nanos);
        Some(handshake)
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer.get()
    }

    pub(crate) fn started_wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.started_wall_ns)
    }

    /// Whether to read: what we want, whatever the kernel told. What comes after the end was decided on is discarded,
    /// but only once our FIN is out: a peer must not have us read for nothing as long as a slow reply takes.
    pub(crate) fn wants_bytes(&self) -> bool {
        let wanted = match self.life {
            Life::Connecting | Life::Failing => false,
            Life::Handshake => true,
            Life::Open | Life::Bereft => !self.reading_paused && !self.gate.closing,
            Life::Lingering => true,
        };
        wanted && !self.ingress_paused && !self.peer_finished && !self.doomed
    }

    pub(crate) fn ingress(&self) -> Option<FlowId> {
        self.rare.as_ref().and_then(|rare| rare.ingress)
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// Nanoseconds of the wall clock since 1970.
fn wall_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A [`Peer`] in 16 bytes where it is an IPv4 address, else in a box.
enum PackedPeer {
    V4(SocketAddrV4),
    Other(Box<Peer>),
}

impl PackedPeer {
    fn new(peer: Peer) -> PackedPeer {
        match peer {
            Peer::Inet(SocketAddr::V4(address)) => PackedPeer::V4(address),
            other => PackedPeer::Other(Box::new(other)),
        }
    }

    fn get(&self) -> Peer {
        match self {
            PackedPeer::V4(address) => Peer::Inet(SocketAddr::V4(*address)),
            PackedPeer::Other(peer) => Peer::clone(peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_socket_is_small() {
        println!(
            "socket {} gate {} wire {} ledger {}",
            size_of::<Socket>(),
            size_of::<Gate>(),
            size_of::<crate::transport::Wire>(),
            size_of::<crate::ledger::Ledger>()
        );
        // In debug builds a mio socket carries 4 to 8 bytes of checks.
        let checks = if cfg!(debug_assertions) { 8 } else { 0 };
        assert!(size_of::<Socket>() <= 232 + checks, "{} bytes", size_of::<Socket>());
    }
}
