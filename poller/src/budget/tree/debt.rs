//! Debt: a node that spent more than it has is closed until time has paid.
//!
//! Charges and refills the nodes' buckets, and keeps the list of when each closed node opens. Driven by the leases, and
//! by changes of a rate. Who is served meanwhile it must not decide: it tells the queues that a node opened or closed.

use std::cmp::Reverse;

use super::Tree;
use super::parts::{Contender, NodeId};
use crate::budget::bucket::Bucket;
use crate::budget::interval::{credit_ceiling, quantum};
use crate::moment::Moment;

impl Tree {
    /// When the next closed node opens.
    pub(crate) fn next_opening(&self) -> Option<Moment> {
        self.opening.peek().map(|Reverse((opens, _))| *opens)
    }

    pub(super) fn open_due(&mut self, now: Moment) {
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

    pub(super) fn charge(&mut self, id: NodeId, bytes: u64, now: Moment) {
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

    pub(super) fn refill(&mut self, id: NodeId, now: Moment) {
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

    pub(super) fn ceiling(&self, id: NodeId) -> u64 {
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
    pub(super) fn reconsider(&mut self, id: NodeId) {
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
}
