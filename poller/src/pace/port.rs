//! A port: this poller's end of one shared budget, and the queue of its flows that wait there.

use std::collections::VecDeque;

use crate::budget::Budget;
use crate::budget::interval::{bytes_in, quantum};
use crate::budget::tree::PortId;
use crate::moment::Moment;

/// An entry of a queue: a flow and the generation that tells it from a later one in the same slot.
pub(super) type Waiter = (u32, u32);

#[derive(Debug)]
pub(super) struct Port {
    /// The pacer's seat at the tree.
    pub(super) seat: u32,
    pub(super) budget: Budget,
    /// Charging stops below this ancestor; see [`Tree::open_port`](crate::budget::tree::Tree::open_port).
    pub(super) stop: Option<Budget>,
    pub(super) id: PortId,
    /// Flows that have a place here.
    pub(super) places: u32,
    /// Nothing on the way up limits: no lease is needed.
    pub(super) free: bool,
    /// Leased bytes not drawn yet.
    pub(super) lease: u64,
    /// When an unused lease goes back.
    pub(super) expires: Option<Moment>,
    /// Bytes per second to count on; see [`Tree::share`](crate::budget::tree::Tree::share).
    pub(super) share: f64,
    /// Flows that have not waited since they rested; their first quantum goes first.
    pub(super) fresh: VecDeque<Waiter>,
    pub(super) seasoned: VecDeque<Waiter>,
    /// Sum of the weights of the flows that wait, and of those in the queue of the fresh among them.
    pub(super) waiting_weight: u64,
    pub(super) fresh_weight: u64,
    /// Bytes that fresh flows got beyond their part while seasoned ones waited; negative when they are owed some.
    lead: i64,
    /// Sum of the bytes they want.
    pub(super) waiting_bytes: u64,
    /// It is on the list of ports to settle.
    pub(super) listed: bool,
    /// The tree knows of a demand that is not met: its index in the seat's list of those.
    pub(super) asked: Option<u32>,
}

impl Port {
    pub(super) fn new(seat: u32, budget: Budget, stop: Option<Budget>, id: PortId) -> Port {
        Port {
            seat,
            budget,
            stop,
            id,
            places: 0,
            free: false,
            lease: 0,
            expires: None,
            share: f64::INFINITY,
            fresh: VecDeque::new(),
            seasoned: VecDeque::new(),
            waiting_weight: 0,
            fresh_weight: 0,
            lead: 0,
            waiting_bytes: 0,
            listed: false,
            asked: None,
        }
    }

    /// What a flow of this weight may draw at a time: an interval's worth of its part.
    pub(super) fn quantum(&self, weight: u32, interval_ns: u64) -> u64 {
        if !self.share.is_finite() {
            return u64::MAX;
        }
        let part = f64::from(weight) / (self.waiting_weight.max(u64::from(weight)) as f64);
        quantum((self.share * part) as u64, interval_ns)
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.waiting_weight > 0
    }

    /// Whether most entries are of flows that are gone.
    pub(super) fn has_too_many_entries(&self) -> bool {
        self.fresh.len() + self.seasoned.len() > 2 * self.places as usize + 32
    }

    pub(super) fn drop_entries(&mut self, keep: impl Fn(Waiter) -> bool) {
        for queue in [&mut self.fresh, &mut self.seasoned] {
            queue.retain(|entry| keep(*entry));
            queue.shrink_to(2 * queue.len() + 32);
        }
    }

    /// The queue whose turn it is: that of the fresh flows, unless those are an interval's bytes ahead of their part.
    pub(super) fn queue(&mut self, interval_ns: u64) -> &mut VecDeque<Waiter> {
        let [first, second] = match self.fresh_first(interval_ns) {
            true => [&mut self.fresh, &mut self.seasoned],
            false => [&mut self.seasoned, &mut self.fresh],
        };
        if first.is_empty() { second } else { first }
    }

    /// All that wait, the queue whose turn it is first.
    pub(super) fn waiters(&self, interval_ns: u64) -> impl Iterator<Item = &Waiter> {
        let [first, second] = match self.fresh_first(interval_ns) {
            true => [&self.fresh, &self.seasoned],
            false => [&self.seasoned, &self.fresh],
        };
        first.iter().chain(second)
    }

    fn fresh_first(&self, interval_ns: u64) -> bool {
        self.lead <= 0 || self.lead.unsigned_abs() <= bytes_in(self.share as u64, interval_ns)
    }

    /// Counts a turn of `bytes`. Fresh flows go first, so that short replies are quick; yet flows that come and go all
    /// the time must not starve those that stay. The part of the fresh is that of their weight, or half if that is more.
    pub(super) fn count_turn(&mut self, bytes: u64, fresh: bool) {
        let seasoned_weight = self.waiting_weight - self.fresh_weight;
        if seasoned_weight == 0 {
            self.lead = 0;
        } else if fresh {
            self.lead = self.lead.saturating_add_unsigned(bytes);
        } else if self.fresh_weight == 0 {
            self.lead = self.lead.saturating_sub_unsigned(bytes).max(0);
        } else {
            let part = (self.fresh_weight / seasoned_weight).max(1);
            self.lead = self.lead.saturating_sub_unsigned(bytes.saturating_mul(part));
        }
    }
}
