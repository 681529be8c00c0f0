//! The trade with one tree: what its ports want and give back, and the leases they get.
//!
//! Driven by the turn. While flows neither come nor go, this is the one place where a pacer takes a tree's lock. It must
//! not wait for another poller that trades, unless it found the tree locked several times in a row.

use slab::Slab;

use super::Pacer;
use super::seat::{note_fed, note_hungry};
use crate::budget::tree::{Demand, Tree};
use crate::moment::{Moment, NANOS_PER_MS};
use crate::pace::flow::Flow;
use crate::pace::port::Port;

/// How long to leave a tree that another poller is trading with.
const LOCKOUT_NS: u64 = NANOS_PER_MS / 10;
/// After so many of those in a row, wait for the lock: it is held for a microsecond at a time.
const LOCKOUTS_MAX: u32 = 8;
/// Up to so many hungry ports, the turn of each is foreseen.
const TURNS_FORESEEN: usize = 4;

impl Pacer {
    /// Tells a tree what its listed ports want and what they give back, lets it hand out what it has, and collects.
    pub(super) fn trade(&mut self, at: usize, listed: &[u32], now: Moment) {
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
