//! The pacer itself; see the [module above](super).
//!
//! This file has the flows and the gate's questions about them. `turn` has what the loop asks once a turn, `trade` what is
//! said to a tree then; `queues` are where flows wait, `ports` and `seat` how the pacer knows the trees.

mod ports;
mod queues;
mod seat;
mod trade;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::flow::{Flow, FlowId, OwnAllowance, OwnBucket, Place};
use super::port::Port;
use crate::budget::interval::Interval;
use crate::budget::{Budget, Limit, Signal};
use crate::moment::Moment;
use seat::Seat;

/// How much a flow may write now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// So many bytes, at least 1.
    Now(u64),
    /// None until then: its own limit says so.
    Until(Moment),
    /// None until [`Pacer::next_turn`] names it: it is queued at a shared budget.
    Turn,
    /// None until a rate is changed: a rate is 0.
    Never,
}

/// Spends for the sockets of one poller; see the [module](crate::pace).
pub struct Pacer {
    flows: Slab<Flow>,
    ports: Slab<Port>,
    seats: Slab<Seat>,
    interval: Interval,
    interval_ns: u64,
    paced: usize,
    signal: Arc<Signal>,
    /// Ports that have something to say to their tree.
    to_settle: Vec<u32>,
    /// The list that was settled last, empty, kept for its memory.
    settling: Vec<u32>,
    /// Ports that hold a lease and waiters.
    to_serve: Vec<u32>,
    /// Ports that keep an unused lease, and when it goes back; an entry that is not the port's latest is stale.
    expiring: VecDeque<(Moment, u32)>,
    generation: u32,
    /// Settles in this turn; bounds what one turn does.
    settles: u32,
    /// Times in a row that a tree was locked by another poller.
    pub(super) lockouts: u32,
}

/// Spread of the first pauses; see [`OwnBucket::new`]. The golden ratio's fraction keeps any number of successive
/// phases apart.
const PHASE_STEP: f64 = 0.618_033_988_749_895;
/// At most so much of the first quantum is taken away for it.
const PHASE_SPREAD: f64 = 0.75;

impl Pacer {
    /// A pacer whose interval is fixed or adapts; `signal` ends the poller's sleep when a rate is changed.
    pub fn new(interval: Option<Duration>, signal: Arc<Signal>) -> Pacer {
        let interval = Interval::new(interval);
        Pacer {
            flows: Slab::new(),
            ports: Slab::new(),
            seats: Slab::new(),
            interval,
            interval_ns: interval.nanos(0),
            paced: 0,
            signal,
            to_settle: Vec::new(),
            settling: Vec::new(),
            to_serve: Vec::new(),
            expiring: VecDeque::new(),
            generation: 0,
            settles: 0,
            lockouts: 0,
        }
    }

    // --- flows ---------------------------------------------------------------------------------------------------

    /// A new flow of the socket `owner`, not limited yet.
    pub fn join(&mut self, owner: usize) -> FlowId {
        self.generation = self.generation.wrapping_add(1);
        let (own, places) = (None, Vec::new());
        let flow = Flow { owner, generation: self.generation, own, free: 0, places, paced: false };
        FlowId(self.flows.insert(flow) as u32)
    }

    /// Gives the flow a bucket of its own under `limit`, or takes it away. A second exchange on a connection finds the
    /// debt of the first, under the same limit or, as with a change of rate, under another.
    pub fn set_limit(&mut self, flow: FlowId, limit: Option<&Limit>, now: Moment) {
        let flow = &mut self.flows[flow.0 as usize];
        let Some(limit) = limit else {
            flow.own = None;
            return;
        };
        match &mut flow.own {
            Some(own) if own.limit().is(limit) => return,
            Some(own) => own.change_limit(limit.clone()),
            None => {
                let phase = (f64::from(flow.generation) * PHASE_STEP).fract() * PHASE_SPREAD;
                flow.own = Some(OwnBucket::new(limit.clone(), phase, now));
            }
        }
        limit.watch(&self.signal);
    }

    /// Hears of changes of a limit that is kept elsewhere: by the kernel.
    pub fn watch(&self, limit: &Limit) {
        limit.watch(&self.signal);
    }

    /// Lets the flow spend through `budget` too, with this weight among the flows that do. The allowance is the least
    /// of all leaves; an ancestor that several leaves of the flow share is charged once. False: it spends there already.
    pub fn spend_through(&mut self, flow: FlowId, budget: &Budget, weight: u32) -> bool {
        let flow = flow.0 as usize;
        let leaves = self.flows[flow].places.iter().map(|place| &self.ports[place.port as usize].budget);
        if leaves.clone().any(|leaf| leaf.is_below(budget)) {
            return false; // Charged already, on the way up from that leaf.
        }
        let charged = |ancestor: &Budget| leaves.clone().any(|leaf| leaf.is_below(ancestor));
        let mut stop = budget.parent();
        while let Some(ancestor) = stop.filter(|ancestor| !charged(ancestor)) {
            stop = ancestor.parent();
        }
        let stop = stop.cloned();
        let port = self.port_at(budget, stop);
        self.ports[port as usize].places += 1;
        self.flows[flow].places.push(Place::new(port, weight));
        true
    }

    /// Takes back one [`Pacer::spend_through`]. The flow [rests](Pacer::rest) for it: what it drew there goes back, and where
    /// it waited it has to ask again.
    pub fn stop_spending_through(&mut self, id: FlowId, budget: &Budget, now: Moment) {
        let places = &self.flows[id.0 as usize].places;
        let Some(at) = places.iter().position(|place| self.ports[place.port as usize].budget.is(budget))
        else {
            return;
        };
        self.rest(id, now);
        let place = self.flows[id.0 as usize].places.swap_remove(at);
        self.leave_port(place.port);
        // An entry that is left in the port's queue names a flow without a place there: it is passed over.
    }

    /// Exempts the next `bytes` of the flow from its own limit; shared budgets are charged all the same.
    pub fn free_bytes(&mut self, flow: FlowId, bytes: u64) {
        self.flows[flow.0 as usize].free = bytes;
    }

    /// The flow is gone.
    pub fn part(&mut self, id: FlowId, now: Moment) {
        self.rest(id, now);
        let flow = self.flows.remove(id.0 as usize);
        for place in flow.places {
            self.leave_port(place.port);
        }
    }

    /// One place less at a port.
    fn leave_port(&mut self, id: u32) {
        let port = &mut self.ports[id as usize];
        port.places -= 1;
        if port.places == 0 {
            self.close_port(id);
        } else if port.has_too_many_entries() {
            // Its turn may be far off, at a rate of zero for one; meanwhile others come and go.
            let flows = &self.flows;
            port.drop_entries(|(flow, generation)| {
                let flow = flows.get(flow as usize).filter(|flow| flow.generation == generation);
                flow.is_some_and(|flow| flow.places.iter().any(|place| place.port == id))
            });
        }
    }

    // --- the gate's questions --------------------------------------------------------------------------------------

    /// How much of `wanted` bytes (at least 1) may go now. To be asked before the syscall, and again after it while more
    /// is wanted; what really went is told by [`Pacer::charge`].
    pub fn allow(&mut self, id: FlowId, wanted: u64, now: Moment) -> Allowance {
        let flow = &mut self.flows[id.0 as usize];
        let mut bytes = wanted;
        if let Some(own) = &mut flow.own {
            bytes = match flow.free {
                0 => match own.allow(wanted, self.interval_ns, now) {
                    OwnAllowance::Now(bytes) => bytes,
                    OwnAllowance::Until(when) => {
                        self.count_paced(id);
                        return Allowance::Until(when);
                    }
                    OwnAllowance::Never => return Allowance::Never,
                },
                free => wanted.min(free),
            };
        }
        for place in 0..self.flows[id.0 as usize].places.len() {
            match self.draw(id, place, bytes) {
                Some(drawn) => bytes = drawn,
                None => {
                    self.count_paced(id);
                    return Allowance::Turn;
                }
            }
        }
        Allowance::Now(bytes)
    }

    /// So many bytes of an allowance went.
    pub fn charge(&mut self, id: FlowId, bytes: u64) {
        let flow = &mut self.flows[id.0 as usize];
        let exempt = flow.free.min(bytes);
        flow.free -= exempt;
        if let Some(own) = &mut flow.own {
            own.charge(bytes - exempt);
        }
        for place in &mut flow.places {
            // Without a lease (a free port) there is nothing in the purse.
            place.purse = place.purse.saturating_sub(bytes);
        }
    }

    /// The flow has nothing to write, or cannot (blocked, held, starved): it leaves its queues, and what it drew goes
    /// back to the port.
    pub fn rest(&mut self, id: FlowId, now: Moment) {
        let flow = &mut self.flows[id.0 as usize];
        if let Some(own) = &mut flow.own {
            own.rest();
        }
        if flow.paced {
            flow.paced = false;
            self.paced -= 1;
        }
        for at in 0..flow.places.len() {
            let place = &mut self.flows[id.0 as usize].places[at];
            let (port, returned) = (place.port, std::mem::take(&mut place.purse));
            place.seasoned = false;
            let waited = std::mem::take(&mut place.waits);
            let (weight, wanted, fresh) = (u64::from(place.weight), place.wanted, place.fresh);
            let entry = &mut self.ports[port as usize];
            entry.lease += returned;
            if waited {
                entry.waiting_weight -= weight;
                entry.fresh_weight -= if fresh { weight } else { 0 };
                entry.waiting_bytes = entry.waiting_bytes.saturating_sub(wanted);
                if entry.asked.is_some() {
                    self.list(port);
                }
            }
            if returned > 0 {
                if self.ports[port as usize].has_waiters() {
                    self.to_serve.push(port);
                } else {
                    self.keep_lease(port, now);
                }
            }
        }
    }

    // --- figures ---------------------------------------------------------------------------------------------------

    /// The pacing interval in force, in nanoseconds.
    pub fn interval_nanos(&self) -> u64 {
        self.interval_ns
    }

    /// How many flows are paced now.
    pub fn paced(&self) -> usize {
        self.paced
    }

    #[cfg(test)]
    pub(super) fn waiting_entries(&self) -> usize {
        self.ports.iter().map(|(_, port)| port.waiters(self.interval_ns).count()).sum()
    }

    fn count_paced(&mut self, id: FlowId) {
        let flow = &mut self.flows[id.0 as usize];
        if !flow.paced {
            flow.paced = true;
            self.paced += 1;
        }
    }
}
