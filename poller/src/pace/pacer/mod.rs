//! The pacer itself; see the module above.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::budget::interval::Interval;
use crate::budget::shared::Shared;
use crate::budget::tree::{Demand, SeatId, Tree};
use crate::budget::{Budget, Limit, Signal};
use crate::moment::{Moment, NANOS_PER_MS};
use crate::pace::flow::{Flow, FlowId, OwnAllowance, OwnBucket, Place};
use crate::pace::port::{Port, Waiter};

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

/// This pacer's seat at one tree.
struct Seat {
    shared: Arc<Shared>,
    seat: SeatId,
    ports: u32,
    /// A port of it is listed, or it is due.
    concerned: bool,
    /// When to ask again for the ports whose demand is not met.
    due: Option<Moment>,
    /// The tree's number of a port to this pacer's.
    by_tree_id: Vec<u32>,
    /// This pacer's ports at each node.
    by_node: Vec<Vec<u32>>,
    /// Ports whose demand the tree knows and has not met.
    hungry: Vec<u32>,
    /// Ports that found the tree locked.
    locked_out: Vec<u32>,
}

/// Most trades with the shared budgets in one turn. A loop that comes late finds several leases ready, one after
/// another; the rest waits for the next turn, so that other sockets are not kept waiting.
const SETTLES_PER_TURN: u32 = 32;
/// How long to leave a tree that another poller is trading with.
const LOCKOUT_NS: u64 = NANOS_PER_MS / 10;
/// After so many of those in a row, wait for the lock: it is held for a microsecond at a time.
const LOCKOUTS_MAX: u32 = 8;
/// Up to so many hungry ports, the turn of each is foreseen.
const TURNS_FORESEEN: usize = 4;
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
    /// of all leaves; an ancestor that several leaves of the flow share is charged once.
    pub fn spend_through(&mut self, flow: FlowId, budget: &Budget, weight: u32) {
        let flow = flow.0 as usize;
        let leaves = self.flows[flow].places.iter().map(|place| &self.ports[place.port as usize].budget);
        if leaves.clone().any(|leaf| leaf.is_below(budget)) {
            return; // Charged already, on the way up from that leaf.
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
            let port = &mut self.ports[place.port as usize];
            port.places -= 1;
            if port.places == 0 {
                self.close_port(place.port);
            } else if port.has_too_many_entries() {
                // Its turn may be far off, at a rate of zero for one; meanwhile others come and go.
                let flows = &self.flows;
                port.drop_entries(|(flow, generation)| {
                    flows.get(flow as usize).is_some_and(|flow| flow.generation == generation)
                });
            }
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

    // --- once a turn ---------------------------------------------------------------------------------------------

    /// A new turn: pauses may be as many again. Returns whether a limit or a budget was changed from outside, so that
    /// the gate of every paused socket must run.
    pub fn begin_turn(&mut self) -> bool {
        self.settles = 0;
        self.interval_ns = self.interval.nanos(self.paced);
        if !self.signal.take() {
            return false;
        }
        let ports: Vec<u32> = self.ports.iter().map(|(id, _)| id as u32).collect();
        for port in ports {
            self.list(port);
        }
        true
    }

    /// Trades with the shared budgets where there is a reason to: a demand, a lease that is due or expired.
    pub fn settle(&mut self, now: Moment) {
        if self.settles >= SETTLES_PER_TURN {
            return;
        }
        self.expire(now);
        let seats = self.seats.capacity();
        for at in 0..seats {
            let Some(seat) = self.seats.get_mut(at).filter(|seat| seat.is_due(now)) else { continue };
            seat.concerned = true;
            while let Some(port) = self.seats[at].locked_out.pop() {
                self.list(port);
            }
        }
        let mut listed = std::mem::replace(&mut self.to_settle, std::mem::take(&mut self.settling));
        let mut traded = false;
        for at in 0..seats {
            if self.seats.get_mut(at).is_some_and(|seat| std::mem::take(&mut seat.concerned)) {
                traded = true;
                self.trade(at, &listed, now);
            }
        }
        self.settles += u32::from(traded);
        listed.clear();
        self.settling = listed;
    }

    /// The owner of the next flow whose turn came at a shared budget; its gate is to run now. `None` when there is no
    /// more to give out in this turn.
    pub fn next_turn(&mut self, now: Moment) -> Option<usize> {
        loop {
            while let Some(port) = self.to_serve.last().copied() {
                if let Some(owner) = self.serve_head(port) {
                    return Some(owner);
                }
                self.to_serve.pop();
                if self.ports[port as usize].lease > 0 {
                    self.keep_lease(port, now);
                }
            }
            if self.to_settle.is_empty() || self.settles >= SETTLES_PER_TURN {
                return None;
            }
            self.settle(now);
            if self.to_serve.is_empty() {
                return None;
            }
        }
    }

    /// When [`Pacer::settle`] must be called again, at the latest. May lie in the past, for "at once".
    pub fn deadline(&self) -> Option<Moment> {
        // A socket that was torn down after the turns were given out left a lease that others wait for.
        if !self.to_settle.is_empty() || !self.to_serve.is_empty() {
            return Some(Moment::FIRST);
        }
        let dues = self.seats.iter().filter_map(|(_, seat)| seat.due);
        dues.chain(self.expiring.front().map(|(expires, _)| *expires)).min()
    }

    /// The pacing interval in force, in nanoseconds.
    pub fn interval_nanos(&self) -> u64 {
        self.interval_ns
    }

    #[cfg(test)]
    pub(super) fn waiting_entries(&self) -> usize {
        self.ports.iter().map(|(_, port)| port.waiters(self.interval_ns).count()).sum()
    }

    /// How many flows are paced now.
    pub fn paced(&self) -> usize {
        self.paced
    }

    // --- ports -----------------------------------------------------------------------------------------------------

    /// This pacer's port to `budget`, opened if there is none.
    fn port_at(&mut self, budget: &Budget, stop: Option<Budget>) -> u32 {
        let same_stop = |port: &Port| match (&port.stop, &stop) {
            (None, None) => true,
            (Some(a), Some(b)) => a.is(b),
            _ => false,
        };
        let at = self.seat_at(budget);
        let known =
            self.seats[at as usize].by_node.get(budget.node() as usize).into_iter().flatten().copied().find(
                |port| self.ports.get(*port as usize).is_some_and(|p| p.budget.is(budget) && same_stop(p)),
            );
        if let Some(port) = known {
            return port;
        }
        let seat = &mut self.seats[at as usize];
        seat.ports += 1;
        let mut locked = seat.shared.lock();
        let id = locked.open_port(budget.node(), stop.as_ref().map(Budget::node), seat.seat);
        let (free, share) = (locked.is_free(id), locked.share(id));
        drop(locked);
        let port = self.ports.insert(Port::new(at, budget.clone(), stop, id)) as u32;
        self.ports[port as usize].free = free;
        self.ports[port as usize].share = share;
        seat.remember(budget.node(), id, port);
        port
    }

    fn seat_at(&mut self, budget: &Budget) -> u32 {
        if let Some((at, _)) = self.seats.iter().find(|(_, seat)| Arc::ptr_eq(&seat.shared, budget.shared()))
        {
            return at as u32;
        }
        let shared = budget.shared().clone();
        shared.watch(&self.signal);
        let seat = shared.lock().take_seat();
        self.seats.insert(Seat::new(shared, seat)) as u32
    }

    fn close_port(&mut self, id: u32) {
        let seat = &mut self.seats[self.ports[id as usize].seat as usize];
        note_fed(&mut seat.hungry, &mut self.ports, id);
        let port = self.ports.remove(id as usize);
        seat.forget(port.budget.node(), id);
        seat.ports -= 1;
        let mut tree = seat.shared.lock();
        tree.give_back(port.id, port.lease);
        tree.close_port(port.id);
        if seat.ports == 0 {
            tree.leave_seat(seat.seat);
            drop(tree);
            self.seats.remove(port.seat as usize);
        }
        self.to_settle.retain(|other| *other != id);
        self.to_serve.retain(|other| *other != id);
        self.expiring.retain(|(_, other)| *other != id);
    }

    /// Puts a port on the list for the next settle.
    fn list(&mut self, port: u32) {
        let entry = &mut self.ports[port as usize];
        if !entry.listed {
            entry.listed = true;
            self.seats[entry.seat as usize].concerned = true;
            self.to_settle.push(port);
        }
    }

    /// Keeps what is left of a lease for the flows to come, for one interval.
    fn keep_lease(&mut self, port: u32, now: Moment) {
        let entry = &mut self.ports[port as usize];
        if entry.expires.is_none() {
            let expires = now.plus_nanos(self.interval_ns);
            entry.expires = Some(expires);
            self.expiring.push_back((expires, port));
        }
    }

    fn expire(&mut self, now: Moment) {
        while let Some((_, id)) = self.expiring.front().copied().filter(|(expires, _)| *expires <= now) {
            self.expiring.pop_front();
            let port = &mut self.ports[id as usize];
            port.expires = None;
            if port.lease > 0 && !port.has_waiters() {
                self.list(id);
            }
        }
    }

    // --- trading -----------------------------------------------------------------------------------------------------

    /// Tells a tree what its listed ports want and what they give back, lets it hand out what it has, and collects.
    fn trade(&mut self, at: usize, listed: &[u32], now: Moment) {
        let seat = &mut self.seats[at];
        let locked = match seat.shared.try_lock() {
            None if self.lockouts >= LOCKOUTS_MAX => Some(seat.shared.lock()),
            locked => locked,
        };
        let Some(mut tree) = locked else {
            self.lockouts += 1;
            seat.due = Some(now.plus_nanos(LOCKOUT_NS));
            for id in listed {
                let port = &mut self.ports[*id as usize];
                if port.seat as usize == at {
                    port.listed = false;
                    seat.locked_out.push(*id);
                }
            }
            return;
        };
        self.lockouts = 0;
        tree.set_interval(self.interval_ns);
        for id in listed {
            let port = &mut self.ports[*id as usize];
            if port.seat as usize == at {
                port.listed = false;
                if present(*id, port, &mut tree, &self.flows, self.interval_ns) {
                    note_hungry(&mut seat.hungry, &mut self.ports, *id);
                } else {
                    note_fed(&mut seat.hungry, &mut self.ports, *id);
                }
                let port = &self.ports[*id as usize];
                if port.free && port.has_waiters() {
                    self.to_serve.push(*id);
                }
            }
        }
        // What was put here in advance first: it counts against nobody's turn.
        for serve in [false, true] {
            if serve {
                tree.serve(seat.seat, now);
            }
            while let Some(lease) = tree.collect(seat.seat) {
                let id = seat.by_tree_id[lease.port as usize];
                let port = &mut self.ports[id as usize];
                port.lease += lease.bytes;
                port.share = tree.share(lease.port);
                let head = port.quantum(1, self.interval_ns);
                tree.set_head(lease.port, head);
                self.to_serve.push(id);
                if !tree.is_hungry(lease.port) {
                    note_fed(&mut seat.hungry, &mut self.ports, id);
                }
            }
        }
        seat.due = match seat.hungry.as_slice() {
            [] => None,
            // Each knows its turn; with many, one of them is next whenever a node opens.
            few if few.len() <= TURNS_FORESEEN => {
                few.iter().filter_map(|id| tree.turn_of(self.ports[*id as usize].id, now)).min()
            }
            _ => tree.next_opening().map(|opens| opens.max(now)),
        };
    }

    // --- queues --------------------------------------------------------------------------------------------------------

    /// Bytes the flow may spend through one of its places: what it has drawn, or may draw now. `None` queues it there.
    fn draw(&mut self, id: FlowId, at: usize, bytes: u64) -> Option<u64> {
        let flow = &mut self.flows[id.0 as usize];
        let place = &mut flow.places[at];
        let port = &mut self.ports[place.port as usize];
        if port.free {
            return Some(bytes);
        }
        if place.purse == 0 && !place.in_queue && !port.has_waiters() && port.lease > 0 {
            let quantum = port.quantum(place.weight, self.interval_ns);
            if port.lease >= quantum.min(bytes) {
                place.purse = port.lease.min(quantum).min(bytes);
                port.lease -= place.purse;
            }
        }
        if place.purse > 0 {
            return Some(bytes.min(place.purse));
        }
        let entry = (id.0, flow.generation);
        let (port_id, fresh) = (place.port, !place.seasoned);
        wait(place, port, entry, bytes);
        if fresh || port.asked.is_none() {
            self.list(port_id);
        }
        None
    }

    /// Gives the head of a port's queue its quantum, if the lease has it. Entries that no longer want are dropped.
    fn serve_head(&mut self, port_id: u32) -> Option<usize> {
        let port = self.ports.get_mut(port_id as usize)?;
        loop {
            let (flow_id, generation) = port.queue(self.interval_ns).front().copied()?;
            let flow = self.flows.get_mut(flow_id as usize).filter(|flow| flow.generation == generation);
            let place = flow.and_then(|flow| {
                let place = flow.places.iter_mut().find(|place| place.port == port_id)?;
                Some((flow.owner, place))
            });
            let Some((owner, place)) = place else {
                port.queue(self.interval_ns).pop_front();
                continue;
            };
            if !place.waits {
                place.in_queue = false;
                port.queue(self.interval_ns).pop_front();
                continue;
            }
            let mut need = 0;
            if !port.free {
                need = port.quantum(place.weight, self.interval_ns).min(place.wanted);
                if port.lease < need {
                    if port.asked.is_none() {
                        self.list(port_id);
                    }
                    return None;
                }
                port.lease -= need;
                place.purse += need;
            }
            port.queue(self.interval_ns).pop_front();
            port.count_turn(need, place.fresh);
            place.in_queue = false;
            place.waits = false;
            let weight = u64::from(place.weight);
            port.waiting_weight -= weight;
            port.fresh_weight -= if place.fresh { weight } else { 0 };
            port.waiting_bytes = port.waiting_bytes.saturating_sub(place.wanted);
            return Some(owner);
        }
    }

    fn count_paced(&mut self, id: FlowId) {
        let flow = &mut self.flows[id.0 as usize];
        if !flow.paced {
            flow.paced = true;
            self.paced += 1;
        }
    }
}

impl Seat {
    fn new(shared: Arc<Shared>, seat: SeatId) -> Seat {
        let (by_tree_id, by_node) = (Vec::new(), Vec::new());
        Seat {
            shared,
            seat,
            ports: 0,
            concerned: false,
            due: None,
            by_tree_id,
            by_node,
            hungry: Vec::new(),
            locked_out: Vec::new(),
        }
    }

    fn is_due(&self, now: Moment) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    fn remember(&mut self, node: u32, tree_id: u32, port: u32) {
        let at = tree_id as usize;
        self.by_tree_id.resize(self.by_tree_id.len().max(at + 1), u32::MAX);
        self.by_tree_id[at] = port;
        let at = node as usize;
        self.by_node.resize(self.by_node.len().max(at + 1), Vec::new());
        self.by_node[at].push(port);
    }

    fn forget(&mut self, node: u32, port: u32) {
        if let Some(ports) = self.by_node.get_mut(node as usize) {
            ports.retain(|other| *other != port);
            if ports.is_empty() {
                // Of the nodes there ever were, few have a port now.
                *ports = Vec::new();
            }
        }
        self.locked_out.retain(|other| *other != port);
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        for (_, port) in &self.ports {
            let mut tree = self.seats[port.seat as usize].shared.lock();
            tree.give_back(port.id, port.lease);
            tree.close_port(port.id);
        }
        for (_, seat) in &self.seats {
            seat.shared.lock().leave_seat(seat.seat);
        }
    }
}

/// Tells the tree what a port wants now, if anything; an unused lease goes back. Returns whether it wants something.
fn present(id: u32, port: &mut Port, tree: &mut Tree, flows: &Slab<Flow>, interval_ns: u64) -> bool {
    port.free = tree.is_free(port.id);
    if !port.has_waiters() || port.free {
        tree.give_back(port.id, std::mem::take(&mut port.lease));
        tree.demand(port.id, Demand::default());
        return false;
    }
    let head = port.waiters(interval_ns).find_map(|(flow, generation)| {
        let flow = flows.get(*flow as usize).filter(|flow| flow.generation == *generation)?;
        flow.places.iter().find(|place| place.waits && place.port == id)
    });
    let weight = port.waiting_weight;
    // The share counts with the weight that waits now, which the tree must know first.
    tree.demand(port.id, Demand { wanted: 1, head: 1, weight });
    port.share = tree.share(port.id);
    let quantum = head.map_or(1, |place| port.quantum(place.weight, interval_ns).min(place.wanted));
    tree.give_back(port.id, port.lease.saturating_sub(port.waiting_bytes));
    port.lease = port.lease.min(port.waiting_bytes);
    let head = quantum.saturating_sub(port.lease).max(1);
    // A millisecond ahead, whatever waits: replies to come need no trade of their own.
    let millisecond = ((port.share / 1_000.0) as u64).saturating_sub(port.lease);
    let wanted = head.max(millisecond).max(port.waiting_bytes - port.lease);
    tree.demand(port.id, Demand { wanted, head, weight });
    true
}

/// Enters a port in the list of those whose demand is not met.
fn note_hungry(hungry: &mut Vec<u32>, ports: &mut Slab<Port>, id: u32) {
    let asked = &mut ports[id as usize].asked;
    if asked.is_none() {
        *asked = Some(hungry.len() as u32);
        hungry.push(id);
    }
}

/// Takes it out again.
fn note_fed(hungry: &mut Vec<u32>, ports: &mut Slab<Port>, id: u32) {
    if let Some(at) = ports[id as usize].asked.take() {
        hungry.swap_remove(at as usize);
        if let Some(moved) = hungry.get(at as usize) {
            ports[*moved as usize].asked = Some(at);
        }
    }
}

/// Queues a place at its port, fresh before seasoned.
fn wait(place: &mut Place, port: &mut Port, entry: Waiter, wanted: u64) {
    if !place.in_queue {
        place.in_queue = true;
        place.fresh = !place.seasoned;
        if place.fresh { &mut port.fresh } else { &mut port.seasoned }.push_back(entry);
        place.seasoned = true;
    }
    if place.waits {
        port.waiting_bytes = port.waiting_bytes.saturating_sub(place.wanted);
    } else {
        let weight = u64::from(place.weight);
        place.waits = true;
        port.waiting_weight += weight;
        port.fresh_weight += if place.fresh { weight } else { 0 };
    }
    port.waiting_bytes = port.waiting_bytes.saturating_add(wanted);
    place.wanted = wanted;
}
