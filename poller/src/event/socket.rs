//! One socket in the slab: its gate, its session, and the read side's state.
//!
//! Kept small, for most sockets are idle: what only a writing socket needs is in [`Outgoing`](crate::gate::Outgoing),
//! what few ever need in [`Rare`].

use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::timers::SessionTimers;
use crate::gate::Gate;
use crate::pace::FlowId;
use crate::record::{End, Peer, Role};
use crate::session::Session;
use crate::timer::TimerId;

pub(crate) struct Socket {
    pub(crate) gate: Gate,
    /// Absent only while the session is being called.
    pub(crate) session: Option<Box<dyn Session>>,
    pub(crate) timers: SessionTimers,
    pub(crate) rare: Option<Box<Rare>>,
    peer: PackedPeer,
    pub(crate) conn_id: u64,
    started_wall_ns: u64,
    pub(crate) generation: u32,
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
    /// The peer's FIN was read.
    pub(crate) peer_finished: bool,
}

/// Where a socket is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Connecting,
    Open,
    /// FIN was sent; what the peer still sends is discarded.
    Lingering,
}

/// What few sockets need.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    pub(crate) ingress: Option<FlowId>,
    pub(crate) ingress_timer: Option<TimerId>,
    /// Connecting or lingering ends here.
    pub(crate) deadline: Option<TimerId>,
}

impl Socket {
    pub(crate) fn new(
        gate: Gate,
        session: Box<dyn Session>,
        peer: Peer,
        role: Role,
        conn_id: u64,
        generation: u32,
    ) -> Socket {
        Socket {
            gate,
            session: Some(session),
            timers: SessionTimers::default(),
            rare: None,
            peer: PackedPeer::new(peer),
            conn_id,
            started_wall_ns: wall_ns(),
            generation,
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
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer.get()
    }

    pub(crate) fn started_wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.started_wall_ns)
    }

    /// Whether to read: what we want, whatever the kernel told.
    pub(crate) fn wants_bytes(&self) -> bool {
        let wanted = !self.reading_paused || self.gate.closing;
        wanted && !self.ingress_paused && !self.peer_finished && !self.doomed && self.life != Life::Connecting
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
        let size = size_of::<slab::Slab<Socket>>();
        println!(
            "socket {} gate {} ledger {} slab {size}",
            size_of::<Socket>(),
            size_of::<Gate>(),
            size_of::<crate::ledger::Ledger>()
        );
        assert!(size_of::<Socket>() <= 304, "{} bytes", size_of::<Socket>());
    }
}
