//! One step of the gate: whether something may go now, and how much.
//!
//! The least of what is queued, what the [pacer](crate::pace) allows and what is left of the visit; the write itself is
//! the business of the module `write`. Driven by the loop, which tells the session what happened between two steps: a
//! step must not loop.

use super::outgoing::{Pause, Starved};
use super::write::PULL_BYTES;
use super::{Env, Gate, Step, outgoing_of};
use crate::due::Due;
use crate::outbox::Front;
use crate::pace::Allowance;
use crate::sys;

/// What one step takes of the visit's share at least: a system call, or a call of the session, costs about as much as
/// copying so many bytes. A megabyte in single bytes would be a second of one socket.
const STEP_COST_BYTES: u64 = 4 * 1024;

impl Gate {
    /// Does at most one write.
    pub(crate) fn step(&mut self, env: &mut Env<'_>, room: &mut u64) -> Step {
        let (own, ready) = (self.wire.wants_write(), self.wire.is_ready());
        if self.out.is_none() && !own {
            return Step::Idle;
        }
        let out = outgoing_of(&mut self.out, &self.ledger, env.pools);
        if out.outbox.at_mark() && ready {
            if *room == 0 {
                return Step::Again;
            }
            self.reach_marks(env);
            if !env.passed.is_empty() {
                *room = room.saturating_sub(STEP_COST_BYTES);
                return Step::Went;
            }
        }
        let Some(out) = &mut self.out else { return Step::Idle };
        if !out.outbox.has_work() && !own {
            self.idle(env);
            return Step::Idle;
        }
        if !ready && !own {
            self.note_states(env.now);
            return Step::Stopped;
        }
        if !self.told_writable {
            self.block(env);
        }
        let Some(out) = &mut self.out else { return Step::Idle };
        if self.held || !self.told_writable || out.pause != Pause::No || out.starved != Starved::No {
            self.note_states(env.now);
            return Step::Stopped;
        }
        // Told here and not at the next stop: a fast socket may not stop again for a long time.
        self.ledger.goes_on(env.now);
        if *room == 0 {
            return Step::Again;
        }
        match self.allowance(ready, env, *room) {
            Some(allowance) => {
                let most = room.saturating_sub(STEP_COST_BYTES);
                let step = self.write(ready, allowance, env, room);
                *room = most.min(*room);
                if matches!(step, Step::Went) && self.is_done(env) {
                    // Most replies go in one write: no further step, to find that nothing is left. What the ledger
                    // is to know of that it was told when the step began and when the write was booked.
                    self.rest(env);
                    self.give_back(env);
                    return Step::Idle;
                }
                step
            }
            None => {
                self.note_states(env.now);
                Step::Stopped
            }
        }
    }

    /// Whether nothing is left to do, and nothing to tell the session.
    fn is_done(&self, env: &Env<'_>) -> bool {
        let empty = self.out.as_ref().is_some_and(|out| out.outbox.is_empty());
        empty && !self.wire.wants_write() && env.passed.is_empty() && !self.drained
    }

    /// How many bytes may go on the wire now; `None` when a budget says none, and the pause is set.
    fn allowance(&mut self, ready: bool, env: &mut Env<'_>, room: u64) -> Option<u64> {
        let out = self.out.as_mut()?;
        let plain = match ready {
            false => 0,
            true => match out.outbox.reachable(room) {
                0 if matches!(out.outbox.front(), Front::Source) => PULL_BYTES,
                reachable => reachable,
            },
        };
        let wanted = self.wire.wire_bytes(plain).clamp(1, room);
        let Some(flow) = self.flow else { return Some(wanted) };
        let pause = match env.pacer.allow(flow, wanted, env.now) {
            Allowance::Now(n) => return Some(n.clamp(1, room)),
            Allowance::Until(until) => {
                out.pause_timer = Some(env.wheel.insert(until, Due::Resume(env.key)));
                Pause::Until(until)
            }
            Allowance::Turn => Pause::Turn,
            Allowance::Never => Pause::Never,
        };
        out.pause = pause;
        out.paused_since = Some(env.now);
        self.ledger.set_paused(true, env.now);
        if !self.lowat_set {
            self.lowat_set = true;
            if let (Some(bytes), true) = (env.notsent_lowat, self.wire.plain().is_tcp()) {
                // Of no consequence if refused: a pause is felt a little later.
                let _ = sys::set_notsent_lowat(self.wire.plain(), bytes);
            }
        }
        None
    }

    fn reach_marks(&mut self, env: &mut Env<'_>) {
        let sums = self.ledger.sums(env.now);
        if let Some(out) = &mut self.out
            && let Some(free) = out.outbox.reach(env.now, &sums, env.passed)
        {
            self.begin(free, env);
        }
    }

    /// The gate reached the beginning of an exchange's bytes.
    pub(super) fn begin(&mut self, free: u64, env: &mut Env<'_>) {
        self.ledger.start_span(env.now);
        if let Some(flow) = self.flow {
            env.pacer.free_bytes(flow, free);
        }
    }

    /// The kernel takes no more: nothing is asked of the pacer until it does.
    pub(super) fn block(&mut self, env: &mut Env<'_>) {
        let Some(out) = &mut self.out else { return };
        if (out.outbox.has_work() || self.wire.wants_write()) && out.blocked_since.is_none() {
            out.blocked_since = Some(env.now);
            out.start_send_timer(self.send_timeout, env.now, env);
            self.rest(env);
        }
    }

    fn idle(&mut self, env: &mut Env<'_>) {
        self.rest(env);
        if let Some(out) = &mut self.out {
            out.blocked_since = None;
            out.starved = Starved::No;
        }
        self.note_states(env.now);
        if self.out.as_ref().is_some_and(|out| out.outbox.is_empty()) {
            self.give_back(env);
        }
    }

    /// Has no more to write.
    fn give_back(&mut self, env: &mut Env<'_>) {
        if let Some(mut out) = self.out.take() {
            out.disarm(env.wheel);
            env.pools.give_outgoing(out);
        }
    }

    pub(super) fn rest(&mut self, env: &mut Env<'_>) {
        if let Some(flow) = self.flow {
            env.pacer.rest(flow, env.now);
        }
    }
}
