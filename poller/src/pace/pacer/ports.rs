//! Ports and seats: opened for the first flow that spends there, closed behind the last.
//!
//! Takes the tree's lock, as coming and going may; what happens on a write must not.

use std::sync::Arc;

use super::Pacer;
use super::seat::{Seat, note_fed};
use crate::budget::Budget;
use crate::pace::port::Port;

impl Pacer {
    /// This pacer's port to `budget`, opened if there is none.
    pub(super) fn port_at(&mut self, budget: &Budget, stop: Option<Budget>) -> u32 {
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

    pub(super) fn close_port(&mut self, id: u32) {
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
