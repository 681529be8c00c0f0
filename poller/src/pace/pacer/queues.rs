//! The queues of flows at the ports: who draws from a lease, who waits, whose turn it is.
//!
//! `draw` is on the way of every write: it must take no lock, nor make a system call.

use super::Pacer;
use crate::pace::flow::{FlowId, Place};
use crate::pace::port::{Port, Waiter};

impl Pacer {
    /// Bytes the flow may spend through one of its places: what it has drawn, or may draw now. `None` queues it there.
    pub(super) fn draw(&mut self, id: FlowId, at: usize, bytes: u64) -> Option<u64> {
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
    pub(super) fn serve_head(&mut self, port_id: u32) -> Option<usize> {
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
