//! A tree of shared budgets and the fair sharing of its bytes: the arithmetic, without a clock or a lock.
//!
//! Owns the nodes (one a [`Budget`](super::Budget)), the *ports* (one for each poller that spends through a node) and
//! the leases on their way to the pollers. The [`Pacer`](crate::pace::Pacer)s drive it, one at a time, behind the
//! lock of [`Shared`](super::shared::Shared); the simulation drives it directly. It must not know sockets.
//!
//! How bytes are shared. Each node is a fair queue of *contenders*: its child nodes and its ports. A contender that
//! wants bytes waits in the queue of its node under its *service*, the bytes it got divided by its weight; the least
//! served is next. A lease goes from the root down, each node handing it to its next contender, and is charged to
//! every node on the way. A node whose level is negative is *closed*: it leaves its parent's queue until time has paid
//! the debt, so that what it cannot use goes to its siblings. A contender that comes back from idleness is lifted to
//! the present, less one interval of its share: a short reply goes first, and idleness earns no more than that.
//!
//! This file has what is asked of nodes and ports. `leases` hands the bytes out, `queue` knows who is next, `debt` when a
//! node opens again; `parts` is what they work on.

mod debt;
mod leases;
mod parts;
mod queue;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use slab::Slab;

use super::bucket::Bucket;
use super::interval::INTERVAL_MIN_NS;
use crate::moment::Moment;
use parts::{Active, Contender, Node, Port, SERVICE_SHIFT, Standing};
pub(crate) use parts::{Demand, NodeId, NodeSpec, PortId, SeatId};

/// The tree; see the module.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Slab<Node>,
    ports: Slab<Port>,
    seats: Slab<VecDeque<PortId>>,
    /// Closed nodes by the moment they open; stale entries are recognised by their moment.
    opening: BinaryHeap<Reverse<(Moment, NodeId)>>,
    /// Ports whose charging stops below the root; they are served beside the top-down pass.
    cut_ports: Vec<PortId>,
    tickets: u64,
    interval_ns: u64,
    /// The seat that is being served.
    trading: Option<SeatId>,
    /// Nodes on the way of the lease being given; kept to spare an allocation.
    path: Vec<NodeId>,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        Tree { interval_ns: INTERVAL_MIN_NS, ..Tree::default() }
    }

    // --- nodes -------------------------------------------------------------------------------------------------

    pub(crate) fn add_node(&mut self, spec: NodeSpec, parent: Option<NodeId>, now: Moment) -> NodeId {
        let spec = NodeSpec { weight: spec.weight.max(1), ..spec };
        let mut node = Node {
            spec,
            parent,
            bucket: Bucket::new(now),
            closed: None,
            queue: BinaryHeap::new(),
            standing: Standing::default(),
            present: 0,
            waiting_weight: 0,
            waiting: 0,
            active: Active::default(),
            spent: 0,
            lost: 0,
        };
        if node.spec.rate == Some(0) {
            node.closed = Some(None);
        }
        self.nodes.insert(node) as NodeId
    }

    /// Removes a node that has neither children nor ports left.
    pub(crate) fn remove_node(&mut self, id: NodeId) {
        debug_assert!(!self.ports.iter().any(|(_, port)| port.node == id), "a port keeps its node");
        self.withdraw(Contender::Node(id));
        self.nodes.remove(id as usize);
    }

    pub(crate) fn spec(&self, id: NodeId) -> &NodeSpec {
        &self.node(id).spec
    }

    /// Bytes charged to the node in its life, what was given back taken off.
    pub(crate) fn spent(&self, id: NodeId) -> u64 {
        self.node(id).spent
    }

    /// Bytes of credit that found no room: not asked for, or asked for too late.
    pub(crate) fn lost(&self, id: NodeId) -> u64 {
        self.node(id).lost
    }

    /// Changes the rate; it holds at once, debt and credit are kept as time.
    pub(crate) fn set_rate(&mut self, id: NodeId, rate: Option<u64>, now: Moment) {
        self.refill(id, now);
        let node = self.node_mut(id);
        let old = node.spec.rate.unwrap_or(0);
        node.bucket.rescale(old, rate.unwrap_or(0));
        node.spec.rate = rate;
        self.reconsider(id);
    }

    pub(crate) fn set_burst(&mut self, id: NodeId, burst: u64) {
        self.node_mut(id).spec.burst = burst;
    }

    /// Changes the weight; it counts from the next lease on.
    pub(crate) fn set_weight(&mut self, id: NodeId, weight: u32) {
        let weight = weight.max(1);
        let waits = self.node(id).standing.ticket != 0;
        self.withdraw(Contender::Node(id));
        self.node_mut(id).spec.weight = weight;
        if waits {
            self.enqueue(Contender::Node(id), false);
        }
    }

    /// Names, rates and totals of all nodes.
    pub(crate) fn each_node(&self) -> impl Iterator<Item = (NodeId, &NodeSpec, u64)> {
        self.nodes.iter().map(|(id, node)| (id as NodeId, &node.spec, node.spent))
    }

    // --- seats and ports -----------------------------------------------------------------------------------------

    pub(crate) fn take_seat(&mut self) -> SeatId {
        self.seats.insert(VecDeque::new())
    }

    pub(crate) fn leave_seat(&mut self, seat: SeatId) {
        self.seats.remove(seat);
    }

    pub(crate) fn open_port(&mut self, node: NodeId, stop: Option<NodeId>, seat: SeatId) -> PortId {
        let port =
            Port { node, stop, seat, demand: Demand::default(), standing: Standing::default(), posted: 0 };
        let id = self.ports.insert(port) as PortId;
        if stop.is_some() {
            self.cut_ports.push(id);
        }
        id
    }

    /// Closes a port; what was leased to it and not collected is given back.
    pub(crate) fn close_port(&mut self, id: PortId) {
        self.withdraw(Contender::Port(id));
        let posted = std::mem::take(&mut self.port_mut(id).posted);
        self.give_back(id, posted);
        let port = self.ports.remove(id as usize);
        self.cut_ports.retain(|other| *other != id);
        if let Some(seat) = self.seats.get_mut(port.seat) {
            seat.retain(|other| *other != id);
        }
    }

    /// Whether nothing on the way up from the port limits.
    pub(crate) fn is_free(&self, id: PortId) -> bool {
        let port = self.port(id);
        let mut at = Some(port.node);
        while let Some(node) = at.filter(|node| Some(*node) != port.stop) {
            if self.node(node).spec.rate.is_some() {
                return false;
            }
            at = self.node(node).parent;
        }
        true
    }

    /// Bytes per second the port may count on while everybody that is active stays so: its part of the tightest
    /// budget above it. A hint, for sizes; the queue decides.
    pub(crate) fn share(&self, id: PortId) -> f64 {
        let port = self.port(id);
        let (mut part, mut tightest) = (1.0, f64::INFINITY);
        let mut weight = port.demand.weight.max(1) as f64;
        let mut at = Some(port.node);
        while let Some(node_id) = at.filter(|node| Some(*node) != port.stop) {
            let node = self.node(node_id);
            let rivals = node.waiting_weight.max(node.active.now).max(node.active.before) as f64;
            part *= weight / rivals.max(weight);
            if let Some(rate) = node.spec.rate {
                tightest = f64::min(tightest, rate as f64 * part);
            }
            weight = f64::from(node.spec.weight);
            at = node.parent;
        }
        tightest
    }

    /// Says what the port wants from now on. Zero withdraws it.
    pub(crate) fn demand(&mut self, id: PortId, demand: Demand) {
        let port = self.port_mut(id);
        let waits = port.standing.ticket != 0;
        let same_weight = port.demand.weight == demand.weight;
        port.demand = demand;
        if waits && (demand.wanted == 0 || !same_weight) {
            self.withdraw(Contender::Port(id));
        }
        if (!waits || !same_weight) && self.may_wait(Contender::Port(id)) {
            self.enqueue(Contender::Port(id), !waits);
        }
    }

    /// Tells how large the lease should be at least, without asking anew.
    pub(crate) fn set_head(&mut self, id: PortId, head: u64) {
        self.port_mut(id).demand.head = head;
    }

    /// Whether the port's demand is not met yet.
    pub(crate) fn is_hungry(&self, id: PortId) -> bool {
        self.port(id).is_hungry()
    }

    /// Takes back `bytes` of leases that the port will not use.
    pub(crate) fn give_back(&mut self, id: PortId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let (mut at, stop) = (Some(self.port(id).node), self.port(id).stop);
        let weight = self.port(id).demand.weight.max(1);
        let unserved = (u128::from(bytes) << SERVICE_SHIFT) / u128::from(weight);
        let standing = &mut self.port_mut(id).standing;
        if standing.ticket == 0 {
            standing.service = standing.service.saturating_sub(unserved);
        }
        while let Some(node_id) = at.filter(|node| Some(*node) != stop) {
            let ceiling = self.ceiling(node_id);
            let node = self.node_mut(node_id);
            node.bucket.give_back(bytes, ceiling);
            node.spent = node.spent.saturating_sub(bytes);
            if node.standing.ticket == 0 {
                let unserved = (u128::from(bytes) << SERVICE_SHIFT) / u128::from(node.spec.weight);
                node.standing.service = node.standing.service.saturating_sub(unserved);
            }
            at = node.parent;
            if node.closed.is_some() {
                self.reconsider(node_id);
            }
        }
    }

    /// Sets the pacing interval, from which depths and leases follow.
    pub(crate) fn set_interval(&mut self, nanos: u64) {
        self.interval_ns = nanos;
    }

    // --- access ------------------------------------------------------------------------------------------------------

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn port(&self, id: PortId) -> &Port {
        &self.ports[id as usize]
    }

    fn port_mut(&mut self, id: PortId) -> &mut Port {
        &mut self.ports[id as usize]
    }
}
