//! What the loop asks of the pacer once a turn: to trade where there is a reason to, and whose gate is to run.
//!
//! Keeps the lists of ports that have something to say to their tree, that have a lease to share out, and whose unused
//! lease is to go back. How much is done in one turn is bounded.

use super::Pacer;
use crate::moment::Moment;

/// Most trades with the shared budgets in one turn. A loop that comes late finds several leases ready, one after
/// another; the rest waits for the next turn, so that other sockets are not kept waiting.
const SETTLES_PER_TURN: u32 = 32;

impl Pacer {
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

    /// Puts a port on the list for the next settle.
    pub(super) fn list(&mut self, port: u32) {
        let entry = &mut self.ports[port as usize];
        if !entry.listed {
            entry.listed = true;
            self.seats[entry.seat as usize].concerned = true;
            self.to_settle.push(port);
        }
    }

    /// Keeps what is left of a lease for the flows to come, for one interval.
    pub(super) fn keep_lease(&mut self, port: u32, now: Moment) {
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
}
