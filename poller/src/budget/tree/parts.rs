//! What a tree is made of: nodes, ports, and what either carries into a fair queue.
//!
//! Plain state. The other files of the [tree](super) change it, and keep what must hold between its parts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::budget::bucket::Bucket;
use crate::moment::Moment;

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
    /// Bytes that may pass at once; see [`credit_ceiling`](crate::budget::interval::credit_ceiling).
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

#[derive(Debug)]
pub(super) struct Node {
    pub(super) spec: NodeSpec,
    pub(super) parent: Option<NodeId>,
    pub(super) bucket: Bucket,
    /// Present while the bucket is in debt: when it opens again (`None` inside: not before a change).
    pub(super) closed: Option<Option<Moment>>,
    pub(super) queue: BinaryHeap<Waiting>,
    pub(super) standing: Standing,
    /// Service of the contender served last: the present of this queue.
    pub(super) present: u128,
    /// Sum of the weights that wait now.
    pub(super) waiting_weight: u64,
    /// How many wait now: valid entries of the queue.
    pub(super) waiting: usize,
    pub(super) active: Active,
    pub(super) spent: u64,
    pub(super) lost: u64,
}

#[derive(Debug)]
pub(super) struct Port {
    pub(super) node: NodeId,
    /// Charging stops below this node: what lies above is charged by another leaf of the same sockets.
    pub(super) stop: Option<NodeId>,
    pub(super) seat: SeatId,
    pub(super) demand: Demand,
    pub(super) standing: Standing,
    /// Bytes leased and not collected yet.
    pub(super) posted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contender {
    Node(NodeId),
    Port(PortId),
}

/// Where a contender stands in the fair queue of its node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Bytes received, shifted left by [`SERVICE_SHIFT`], divided by the weight.
    pub(super) service: u128,
    /// The ticket of its entry in the queue; 0 when it does not wait. An entry with another ticket is stale.
    pub(super) ticket: u64,
    /// Weight it was counted with while it waits.
    pub(super) counted: u64,
    /// The period in which it last counted as active.
    pub(super) period: u64,
}

/// One entry of a fair queue: least service first, then first come.
pub(super) type Waiting = Reverse<(u128, u64, Contender)>;

/// Weights seen active, by period: what waits at one instant undercounts contenders that were served just now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Active {
    pub(super) period: u64,
    pub(super) now: u64,
    pub(super) before: u64,
}

impl Node {
    pub(super) fn bucket_at(&self) -> Moment {
        self.bucket.at()
    }

    pub(super) fn bucket_period(&self, interval_ns: u64) -> u64 {
        self.bucket.at().as_nanos() / interval_ns.max(1) + 1
    }
}

impl Port {
    pub(super) fn is_hungry(&self) -> bool {
        self.demand.wanted > 0
    }
}

impl Active {
    pub(super) fn roll(&mut self, period: u64) {
        if period != self.period {
            self.before = if period == self.period + 1 { self.now } else { 0 };
            self.now = 0;
            self.period = period;
        }
    }
}

/// Service keeps 16 binary digits below the byte, so that a weight of 65,535 still moves it.
pub(super) const SERVICE_SHIFT: u32 = 16;
