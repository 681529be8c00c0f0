//! Sockets and their rates: flows at the pacer, and limits the kernel keeps.

use super::{Direction, Poller};
use crate::budget::Limit;
use crate::pace::FlowId;
use crate::sys;

impl Poller {
    /// The flow of a direction, made at the first need.
    pub(super) fn join(&mut self, index: usize, direction: Direction) -> FlowId {
        let socket = &mut self.sockets[index];
        let place = match direction {
            Direction::Egress => &mut socket.gate.flow,
            Direction::Ingress => &mut socket.rare().ingress,
        };
        let owner = index * 2 + usize::from(direction == Direction::Ingress);
        *place.get_or_insert_with(|| self.pacer.join(owner))
    }

    /// It is this owner's turn at a shared budget.
    pub(super) fn take_turn(&mut self, owner: usize) {
        let index = owner / 2;
        self.current = Some(index);
        if let Some((socket, env)) = self.gate_parts(index) {
            if owner.is_multiple_of(2) {
                socket.gate.resume(env.wheel, env.now);
            } else {
                socket.ingress_paused = false;
                socket.gate.ledger.set_ingress_paused(false, env.now);
                self.read(index);
            }
            self.run_gate(index);
        }
        self.current = None;
    }

    /// A limit or a budget was changed from outside: whoever is paused asks again.
    pub(super) fn ask_again(&mut self) {
        for index in self.indices() {
            let kernel_limit = self.sockets[index].rare.as_ref().and_then(|rare| rare.kernel_limit.clone());
            if kernel_limit.is_some() {
                let limit = self.hand_to_kernel(index, kernel_limit.as_ref());
                if limit.is_some() || self.sockets[index].gate.flow.is_some() {
                    let flow = self.join(index, Direction::Egress);
                    self.pacer.set_limit(flow, limit, self.now);
                }
            }
            let Some((socket, env)) = self.gate_parts(index) else { continue };
            let (egress, ingress) = (socket.gate.is_paused(), socket.ingress_paused);
            if egress {
                socket.gate.resume(env.wheel, env.now);
                self.schedule(index);
            }
            if ingress {
                self.resume_reading(index);
            }
        }
    }

    /// Has the kernel keep an egress limit that asks for it. Returns the limit that is left to the pacer: any other,
    /// and a rate of zero, which the kernel does not know.
    pub(super) fn hand_to_kernel<'a>(&mut self, index: usize, limit: Option<&'a Limit>) -> Option<&'a Limit> {
        let socket = &mut self.sockets[index];
        let by_kernel = limit.filter(|limit| limit.is_by_kernel() && socket.gate.wire.plain().is_tcp());
        let had = socket.rare.as_mut().and_then(|rare| rare.kernel_limit.take());
        if had.is_none() && by_kernel.is_none() {
            return limit;
        }
        let rate = by_kernel.and_then(Limit::rate);
        if rate != Some(0)
            && let Err(error) = sys::set_max_pacing_rate(socket.gate.wire.plain(), rate)
        {
            log::warn!("{}: the kernel does not pace, so the poller does: {error}", self.settings.name);
            return limit;
        }
        let Some(by_kernel) = by_kernel else { return limit };
        if had.is_none_or(|had| !had.is(by_kernel)) {
            self.pacer.watch(by_kernel);
        }
        socket.rare().kernel_limit = Some(by_kernel.clone());
        limit.filter(|_| rate == Some(0))
    }
}
