//! The fair queue of each node: who has been served least stands first.
//!
//! Keeps the standings of all contenders and the order in which they wait. A contender is in the queue of its node while
//! it wants something and may have it, and its node, for that reason, in its parent's, and so on. It must not
//! charge a bucket: the module `debt` tells whether a node is closed.

use std::cmp::Reverse;

use super::Tree;
use super::parts::{Contender, NodeId, SERVICE_SHIFT, Standing};
use crate::budget::interval::bytes_in;

impl Tree {
    /// Puts a contender in the queue of its node, and the node in its parent's, and so on. One that comes back from
    /// idleness is lifted to the present less one interval of its share.
    pub(super) fn enqueue(&mut self, who: Contender, from_idle: bool) {
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

    /// Takes a contender out of the queue of its node; the node leaves its parent's when that was the last.
    pub(super) fn withdraw(&mut self, who: Contender) {
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
    pub(super) fn served(&mut self, who: Contender, bytes: u64) {
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

    /// Puts a node in its parent's queue or takes it out, as its state says.
    pub(super) fn requeue(&mut self, who: Contender) {
        if self.may_wait(who) {
            self.enqueue(who, true);
        } else {
            self.withdraw(who);
        }
    }

    pub(super) fn may_wait(&mut self, who: Contender) -> bool {
        match who {
            Contender::Node(id) => self.node(id).closed.is_none() && self.head(id).is_some(),
            Contender::Port(id) => {
                let port = self.port(id);
                port.is_hungry() && (port.posted == 0 || self.trading == Some(port.seat))
            }
        }
    }

    /// The valid head of a node's queue; entries that went stale are dropped on the way.
    pub(super) fn head(&mut self, id: NodeId) -> Option<Contender> {
        while let Some(Reverse((_, ticket, who))) = self.nodes[id as usize].queue.peek().copied() {
            if self.ticket_of(who) == Some(ticket) {
                return Some(who);
            }
            self.nodes[id as usize].queue.pop();
        }
        None
    }

    /// What must hold after every serve (debug builds only).
    pub(super) fn check_invariants(&mut self) {
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

    /// The ticket a contender waits under; `None` when it is gone.
    fn ticket_of(&self, who: Contender) -> Option<u64> {
        match who {
            Contender::Node(id) => self.nodes.get(id as usize).map(|node| node.standing.ticket),
            Contender::Port(id) => self.ports.get(id as usize).map(|port| port.standing.ticket),
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

    /// Drops the stale entries of a queue, so that it stays as long as what waits in it.
    fn drop_stale(&mut self, id: NodeId) {
        let mut entries = std::mem::take(&mut self.node_mut(id).queue).into_vec();
        entries.retain(|Reverse((_, ticket, who))| self.ticket_of(*who) == Some(*ticket));
        self.node_mut(id).queue = entries.into();
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
}
