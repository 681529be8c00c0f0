//! A tree of shared budgets and the fair sharing of its bytes: the arithmetic, without a clock or a lock.
//!
//! Owns the nodes (one a [`Budget`](crate::budget::Budget)), the *ports* (one for each poller that spends through a node) and
//! the leases on their way to the pollers. The [`Pacer`](crate::pace::Pacer)s drive it, one at a time, behind the
//! lock of [`Shared`](crate::budget::shared::Shared); the simulation drives it directly. It must not know sockets.
//!
//! How bytes are shared. Each node is a fair queue of *contenders*: its child nodes and its ports. A contender that
//! wants bytes waits in the queue of its node under its *service*, the bytes it got divided by its weight; the least
//! served is next. A lease goes from the root down, each node handing it to its next contender, and is charged to
//! every node on the way. A node whose level is negative is *closed*: it leaves its parent's queue until time has paid
//! the debt, so that what it cannot use goes to its siblings. A contender that comes back from idleness is lifted to
//! the present, less one interval of its share: a short reply goes first, and idleness earns no more than that.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use crate::budget::bucket::Bucket;
use crate::budget::interval::{INTERVAL_MIN_NS, bytes_in, credit_ceiling, quantum};
use crate::moment::{Moment, NANOS_PER_MS, NANOS_PER_SEC};

/// Index of a node in its tree.
pub(crate) type NodeId = u32;
/// Index of a port in its tree.
pub(crate) type PortId = u32;
/// A poller's place at a tree, where its leases are put.
pub(crate) type SeatId = usize;

/// What a node is made with.
#[derive(Clone, Debug)]
pub(crate) struct NodeSpec {
    pub(crate) name: Arc<str>,
    /// Bytes per second; `None` does not limit.
    pub(crate) rate: Option<u64>,
    /// Bytes that may pass at once; see [`credit_ceiling`].
    pub(crate) burst: u64,
    /// Part of the parent's bytes, relative to the siblings'. At least 1.
    pub(crate) weight: u32,
}

/// What a port wants of its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Bytes its waiting sockets could send now.
    pub(crate) wanted: u64,
    /// Bytes the socket at its head needs at least.
    pub(crate) head: u64,
    /// Sum of the waiting sockets' weights.
    pub(crate) weight: u64,
}

/// A lease that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) port: PortId,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Node(NodeId),
    Port(PortId),
}

/// One entry of a fair queue: least service first, then first come.
type Waiting = Reverse<(u128, u64, Contender)>;

/// Where a contender stands in the fair queue of its node.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Bytes received, shifted left by [`SERVICE_SHIFT`], divided by the weight.
    service: u128,
    /// The ticket of its entry in the queue; 0 when it does not wait. An entry with another ticket is stale.
    ticket: u64,
    /// Weight it was counted with while it waits.
    counted: u64,
    /// The period in which it last counted as active.
    period: u64,
}

/// Service keeps 16 binary digits below the byte, so that a weight of 65,535 still moves it.
const SERVICE_SHIFT: u32 = 16;

#[derive(Debug)]
struct Node {
    spec: NodeSpec,
    parent: Option<NodeId>,
    bucket: Bucket,
    /// Present while the bucket is in debt: when it opens again (`None` inside: not before a change).
    closed: Option<Option<Moment>>,
    queue: BinaryHeap<Waiting>,
    standing: Standing,
    /// Service of the contender served last: the present of this queue.
    present: u128,
    /// Sum of the weights that wait now.
    waiting_weight: u64,
    /// How many wait now: valid entries of the queue.
    waiting: usize,
    active: Active,
    spent: u64,
    lost: u64,
}

/// Weights seen active, by period: what waits at one instant undercounts contenders that were served just now.
#[derive(Clone, Copy, Debug, Default)]
struct Active {
    period: u64,
    now: u64,
    before: u64,
}

impl Active {
    fn roll(&mut self, period: u64) {
        if period != self.period {
            self.before = if period == self.period + 1 { self.now } else { 0 };
            self.now = 0;
            self.period = period;
        }
    }
}

#[derive(Debug)]
struct Port {
    node: NodeId,
    /// Charging stops below this node: what lies above is charged by another leaf of the same sockets.
    stop: Option<NodeId>,
    seat: SeatId,
    demand: Demand,
    standing: Standing,
    /// Bytes leased and not collected yet.
    posted: u64,
}

impl Port {
    fn is_hungry(&self) -> bool {
        self.demand.wanted > 0
    }
}

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

    /// When the next closed node opens.
    pub(crate) fn next_opening(&self) -> Option<Moment> {
        self.opening.peek().map(|Reverse((opens, _))| *opens)
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

    // --- leases --------------------------------------------------------------------------------------------------

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

    fn open_due(&mut self, now: Moment) {
        while let Some(Reverse((at, id))) = self.opening.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.opening.pop();
            let stale = self.nodes.get(id as usize).is_none_or(|node| node.closed != Some(Some(at)));
            if !stale {
                self.refill(id, now);
                self.reconsider(id);
            }
        }
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

    fn charge(&mut self, id: NodeId, bytes: u64, now: Moment) {
        self.refill(id, now);
        let node = self.node_mut(id);
        node.spent += bytes;
        if node.spec.rate.is_some() {
            node.bucket.spend(bytes);
            if node.bucket.level() < 0 {
                self.close(id);
            }
        }
    }

    fn refill(&mut self, id: NodeId, now: Moment) {
        let ceiling = self.ceiling(id);
        let interval_ns = self.interval_ns;
        let node = self.node_mut(id);
        match node.spec.rate {
            Some(rate) => {
                let lost = node.bucket.refill(rate, ceiling, now);
                node.lost = node.lost.saturating_add(lost);
                if node.closed.is_some() && node.waiting > 0 {
                    node.bucket.make_up_for(lost, quantum(rate, interval_ns).saturating_add(ceiling));
                } else if lost > 0 {
                    node.bucket.forget_arrears();
                }
            }
            None => node.bucket = Bucket::new(now),
        }
    }

    fn ceiling(&self, id: NodeId) -> u64 {
        let spec = &self.node(id).spec;
        let rate = spec.rate.unwrap_or(0);
        credit_ceiling(quantum(rate, self.interval_ns), spec.burst)
    }

    /// Marks a node as closed until its debt is paid.
    fn close(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let rate = node.spec.rate.unwrap_or(0);
        let opens = node.bucket.reaches(0, rate).filter(|_| rate > 0);
        node.closed = Some(opens);
        if let Some(opens) = opens {
            self.opening.push(Reverse((opens, id)));
        }
        if self.opening.len() > 4 * self.nodes.len() + 64 {
            let nodes = &self.nodes;
            self.opening.retain(|Reverse((at, id))| {
                nodes.get(*id as usize).is_some_and(|node| node.closed == Some(Some(*at)))
            });
        }
    }

    /// Opens or closes a node by its level and rate, after one of them changed.
    fn reconsider(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        let open = node.spec.rate.is_none_or(|rate| rate > 0 && node.bucket.level() >= 0);
        node.closed = None;
        if open {
            self.requeue(Contender::Node(id));
        } else {
            self.close(id);
            self.withdraw(Contender::Node(id));
        }
    }

    // --- the fair queue ----------------------------------------------------------------------------------------------

    fn standing_mut(&mut self, who: Contender) -> &mut Standing {
        match who {
            Contender::Node(id) => &mut self.nodes[id as usize].standing,
            Contender::Port(id) => &mut self.ports[id as usize].standing,
        }
    }

    /// The node in whose queue it waits.
    fn queue_of(&self, who: Contender) -> Option<NodeId> {
        match who {
            Contender::Node(id) => self.node(id).parent,
            Contender::Port(id) => Some(self.port(id).node),
        }
    }

    fn weight_of(&self, who: Contender) -> u64 {
        match who {
            Contender::Node(id) => u64::from(self.node(id).spec.weight),
            Contender::Port(id) => self.port(id).demand.weight.max(1),
        }
    }

    fn may_wait(&mut self, who: Contender) -> bool {
        match who {
            Contender::Node(id) => self.node(id).closed.is_none() && self.head(id).is_some(),
            Contender::Port(id) => {
                let port = self.port(id);
                port.is_hungry() && (port.posted == 0 || self.trading == Some(port.seat))
            }
        }
    }

    /// Drops the stale entries of a queue, so that it stays as long as what waits in it.
    fn drop_stale(&mut self, id: NodeId) {
        let mut entries = std::mem::take(&mut self.node_mut(id).queue).into_vec();
        entries.retain(|Reverse((_, ticket, who))| self.ticket_of(*who) == Some(*ticket));
        self.node_mut(id).queue = entries.into();
    }

    /// The ticket a contender waits under; `None` when it is gone.
    fn ticket_of(&self, who: Contender) -> Option<u64> {
        match who {
            Contender::Node(id) => self.nodes.get(id as usize).map(|node| node.standing.ticket),
            Contender::Port(id) => self.ports.get(id as usize).map(|port| port.standing.ticket),
        }
    }

    /// The valid head of a node's queue; entries that went stale are dropped on the way.
    fn head(&mut self, id: NodeId) -> Option<Contender> {
        while let Some(Reverse((_, ticket, who))) = self.nodes[id as usize].queue.peek().copied() {
            if self.ticket_of(who) == Some(ticket) {
                return Some(who);
            }
            self.nodes[id as usize].queue.pop();
        }
        None
    }

    /// Puts a contender in the queue of its node, and the node in its parent's, and so on. One that comes back from
    /// idleness is lifted to the present less one interval of its share.
    fn enqueue(&mut self, who: Contender, from_idle: bool) {
        let Some(queue) = self.queue_of(who) else { return };
        if self.ticket_of(who) != Some(0) {
            return;
        }
        let weight = self.weight_of(who);
        let earliest = if from_idle {
            let credit = self.interval_credit(queue, weight);
            self.node(queue).present.saturating_sub(credit)
        } else {
            0
        };
        self.tickets += 1;
        let ticket = self.tickets;
        let standing = self.standing_mut(who);
        standing.service = standing.service.max(earliest);
        standing.ticket = ticket;
        standing.counted = weight;
        let service = standing.service;
        self.count_active(queue, who, weight);
        let node = self.node_mut(queue);
        node.waiting_weight += weight;
        node.waiting += 1;
        node.queue.push(Reverse((service, ticket, who)));
        if self.node(queue).queue.len() > 2 * self.node(queue).waiting + 32 {
            self.drop_stale(queue);
        }
        if self.node(queue).closed.is_none() {
            self.enqueue(Contender::Node(queue), from_idle);
        }
    }

    /// Service that one interval of this queue's bytes is worth to each weight that is active.
    fn interval_credit(&self, queue: NodeId, weight: u64) -> u128 {
        let node = self.node(queue);
        let mut at = Some(queue);
        let mut rate = None;
        while let Some(id) = at {
            rate = rate.into_iter().chain(self.node(id).spec.rate).min();
            at = self.node(id).parent;
        }
        let bytes = u128::from(bytes_in(rate.unwrap_or(0), self.interval_ns)) << SERVICE_SHIFT;
        bytes / u128::from(node.waiting_weight.max(node.active.now).max(node.active.before).max(weight))
    }

    fn count_active(&mut self, queue: NodeId, who: Contender, weight: u64) {
        let period = self.node(queue).bucket_period(self.interval_ns);
        let standing = self.standing_mut(who);
        let first = standing.period != period;
        standing.period = period;
        let active = &mut self.node_mut(queue).active;
        active.roll(period);
        if first {
            active.now += weight;
        }
    }

    /// Takes a contender out of the queue of its node; the node leaves its parent's when that was the last.
    fn withdraw(&mut self, who: Contender) {
        let Some(queue) = self.queue_of(who) else { return };
        let standing = self.standing_mut(who);
        if standing.ticket == 0 {
            return;
        }
        standing.ticket = 0;
        let counted = std::mem::take(&mut standing.counted);
        let node = self.node_mut(queue);
        node.waiting_weight -= counted;
        node.waiting -= 1;
        if self.head(queue).is_none() {
            self.withdraw(Contender::Node(queue));
        }
    }

    /// A contender got `bytes`: its service grows, and it queues again at its new place if it wants more.
    fn served(&mut self, who: Contender, bytes: u64) {
        let Some(queue) = self.queue_of(who) else { return };
        let weight = self.weight_of(who);
        let standing = self.standing_mut(who);
        let before = standing.service;
        standing.service += (u128::from(bytes) << SERVICE_SHIFT) / u128::from(weight);
        let waited = standing.ticket != 0;
        let node = self.node_mut(queue);
        node.present = node.present.max(before);
        self.count_active(queue, who, weight);
        if waited {
            self.withdraw_alone(who, queue);
        }
        if self.may_wait(who) {
            self.enqueue(who, false);
        }
    }

    /// As [`Tree::withdraw`], but leaves the queue's node where it is: the caller requeues it.
    fn withdraw_alone(&mut self, who: Contender, queue: NodeId) {
        let standing = self.standing_mut(who);
        standing.ticket = 0;
        let counted = std::mem::take(&mut standing.counted);
        let node = self.node_mut(queue);
        node.waiting_weight -= counted;
        node.waiting -= 1;
    }

    /// Puts a node in its parent's queue or takes it out, as its state says.
    fn requeue(&mut self, who: Contender) {
        if self.may_wait(who) {
            self.enqueue(who, true);
        } else {
            self.withdraw(who);
        }
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

    /// What must hold after every serve (debug builds only).
    fn check_invariants(&mut self) {
        if !cfg!(debug_assertions) {
            return;
        }
        for id in 0..self.nodes.capacity() as NodeId {
            if !self.nodes.contains(id as usize) {
                continue;
            }
            let head = self.head(id);
            let node = self.node(id);
            if node.parent.is_some() {
                let queued = node.standing.ticket != 0;
                assert_eq!(
                    queued,
                    head.is_some() && node.closed.is_none(),
                    "{:?} queued {queued}",
                    node.spec.name
                );
            }
            assert_eq!(head.is_none(), node.waiting_weight == 0, "weights of {:?}", node.spec.name);
            if let Some(Some(opens)) = node.closed {
                assert!(opens > node.bucket_at(), "{:?} is closed until the past", node.spec.name);
            }
        }
    }
}

impl Node {
    fn bucket_at(&self) -> Moment {
        self.bucket.at()
    }

    fn bucket_period(&self, interval_ns: u64) -> u64 {
        self.bucket.at().as_nanos() / interval_ns.max(1) + 1
    }
}
