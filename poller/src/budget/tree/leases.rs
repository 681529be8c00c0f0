//! Leases: who gets the next bytes, and how many.
//!
//! Hands out what the nodes have, from the root down, each node to the contender at the head of its queue. Driven by the
//! poller that trades. It must not touch a bucket nor a queue itself: the modules `debt` and `queue` do.

use super::Tree;
use super::parts::{Contender, Lease, NodeId, PortId, SERVICE_SHIFT, SeatId};
use crate::moment::{Moment, NANOS_PER_MS, NANOS_PER_SEC};

impl Tree {
    /// Hands out what time has brought, to whoever is next, on whichever poller.
    ///
    /// The pollers are not awake at the same time. The one that trades (at `seat`) gets lease after lease while it is
    /// its turn; any other gets one in advance, and catches up when it comes to collect it.
    pub(crate) fn serve(&mut self, seat: SeatId, now: Moment) {
        self.trading = Some(seat);
        self.open_due(now);
        while let Some(port) = self.next_port() {
            self.lease(port, now);
        }
        self.serve_cut_ports(now);
        self.trading = None;
        self.check_invariants();
    }

    /// The next lease put at this seat.
    pub(crate) fn collect(&mut self, seat: SeatId) -> Option<Lease> {
        let port = self.seats[seat].pop_front()?;
        let bytes = std::mem::take(&mut self.port_mut(port).posted);
        if self.port(port).is_hungry() {
            self.enqueue(Contender::Port(port), true);
        }
        Some(Lease { port, bytes })
    }

    /// When it is worth asking again for this hungry port: when the closed nodes above it are open, and, as far as
    /// can be foreseen, it is its turn. `None`: not before something changes.
    pub(crate) fn turn_of(&self, id: PortId, now: Moment) -> Option<Moment> {
        let port = self.port(id);
        let (mut when, mut at) = (now, Some(port.node));
        let mut service = port.standing.service;
        while let Some(node_id) = at.filter(|node| Some(*node) != port.stop) {
            let node = self.node(node_id);
            if let Some(opens) = node.closed {
                when = when.max(opens?);
            }
            if let Some(rate) = node.spec.rate.filter(|rate| *rate > 0) {
                let ahead = service.saturating_sub(node.present) >> SERVICE_SHIFT;
                let bytes = ahead.saturating_mul(u128::from(node.waiting_weight));
                let nanos = bytes.saturating_mul(u128::from(NANOS_PER_SEC)) / u128::from(rate);
                // The estimate is for when all rivals stay; half of it, at most an interval, is never too late by much.
                let nanos = u64::try_from(nanos / 2).unwrap_or(u64::MAX).min(self.interval_ns);
                when = when.max(now.plus_nanos(nanos));
            }
            service = node.standing.service;
            at = node.parent;
        }
        Some(when)
    }

    /// Follows the least served contenders from each root to a port. The queues on the way hold only contenders
    /// that are open and want something.
    fn next_port(&mut self) -> Option<PortId> {
        let root = self.root()?;
        if self.node(root).closed.is_some() {
            return None;
        }
        let mut at = root;
        loop {
            match self.head(at) {
                None => return None,
                Some(Contender::Node(child)) => at = child,
                Some(Contender::Port(port)) => return Some(port),
            }
        }
    }

    fn root(&self) -> Option<NodeId> {
        // A tree has one root, and it was made first.
        self.nodes.get(0).map(|_| 0)
    }

    /// Ports whose charging stops below the root do not depend on the nodes above that: they also take what their
    /// own branch has while the rest of it waits for those.
    fn serve_cut_ports(&mut self, now: Moment) {
        for at in 0..self.cut_ports.len() {
            let id = self.cut_ports[at];
            while self.may_wait(Contender::Port(id)) && self.branch_is_open(id) {
                self.lease(id, now);
            }
        }
    }

    fn branch_is_open(&self, id: PortId) -> bool {
        let port = self.port(id);
        let mut at = Some(port.node);
        while let Some(node) = at.filter(|node| Some(*node) != port.stop) {
            if self.node(node).closed.is_some() {
                return false;
            }
            at = self.node(node).parent;
        }
        true
    }

    /// Gives one lease to a port whose way up is open, and charges every node on it.
    fn lease(&mut self, id: PortId, now: Moment) {
        let bytes = self.lease_size(id);
        let (node, stop) = (self.port(id).node, self.port(id).stop);
        let mut path = std::mem::take(&mut self.path);
        let mut at = Some(node);
        while let Some(node_id) = at.filter(|node| Some(*node) != stop) {
            path.push(node_id);
            at = self.node(node_id).parent;
        }
        let port = self.port_mut(id);
        let (seat, newly) = (port.seat, port.posted == 0);
        port.posted += bytes;
        port.demand.wanted = port.demand.wanted.saturating_sub(bytes);
        if newly {
            self.seats[seat].push_back(id);
        }
        self.served(Contender::Port(id), bytes);
        for (depth, node_id) in path.iter().enumerate() {
            self.charge(*node_id, bytes, now);
            if depth + 1 < path.len() {
                self.served(Contender::Node(*node_id), bytes);
            } else {
                self.requeue(Contender::Node(*node_id));
            }
        }
        path.clear();
        self.path = path;
    }

    /// What its head needs, or a millisecond of its share where that is more; never more than it wants.
    fn lease_size(&self, id: PortId) -> u64 {
        let demand = self.port(id).demand;
        let share = self.share(id);
        let millisecond =
            if share.is_finite() { share * NANOS_PER_MS as f64 / NANOS_PER_SEC as f64 } else { f64::MAX };
        demand.head.max(millisecond as u64).clamp(1, demand.wanted.max(1))
    }
}
