//! Where a runtime's tasks stand in line for units of budgets.
//!
//! A [`Desk`] owns a [`Pacer`], as each poller does: a flow for each line, and its own seat at the trees of budgets. So
//! lines and sockets get their parts by the same rules. The desk has no thread: whoever comes to it, a timer on a
//! poller's thread and a change of a rate each drive one turn. It completes and drops nothing under its lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tidegate_poller::budget::Signal;
use tidegate_poller::moment::NANOS_PER_SEC;
use tidegate_poller::pace::{Allowance, FlowId, Pacer};
use tidegate_poller::{Budget, Moment, sys};

use super::Line;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{self, Ready, Receive};
use crate::task::continuation::Continuation;

/// A line that nobody stood in for so long is forgotten, and with it its hold on its budgets. Until then it keeps its
/// standing among those who spend: longer than an interval, or coming back would bring credit.
const IDLE: Duration = Duration::from_secs(1);
/// While somebody waits, a turn is due at least so often. At rate 0 no other is; when the poller ends, the turn that is
/// dropped takes along who waits.
const TURN_MAX: Duration = Duration::from_secs(1);

/// What of a runtime waits for units.
#[derive(Default)]
pub(super) struct Desk {
    /// Made when the first one comes.
    state: Mutex<Option<State>>,
}

struct State {
    pacer: Pacer,
    lines: Slab<Waiters>,
    by_key: HashMap<usize, usize>,
    /// Lines that had nobody when they were put here, oldest first; one entry each. First they keep what they have drawn
    /// for an interval, then they rest.
    lately: VecDeque<(Moment, usize)>,
    idle: VecDeque<(Moment, usize)>,
    /// Lines with somebody in them.
    waiting: usize,
    next_ticket: u64,
    /// The next turn, and its number: a turn with another number was overtaken.
    armed: Option<Moment>,
    number: u64,
}

/// Those who stand in one line.
struct Waiters {
    line: Line,
    flow: FlowId,
    /// By ticket: first come, first served.
    queue: BTreeMap<u64, Waiter>,
    /// Sum of what they lack.
    lacking: u128,
    /// Counted among the lines with somebody in them.
    waits: bool,
    idle_since: Moment,
    /// It is in the lists of lines that had nobody.
    in_lately: bool,
    in_idle: bool,
    /// Units that it draws at a time, if it lacks less: an interval's worth of the least rate above it. Who asks again
    /// and again for little gets as much as who asks for much, and wakes nobody in between.
    ahead: u64,
}

struct Waiter {
    lacks: u64,
    done: Continuation<()>,
}

/// What is to be done when the lock is released.
#[derive(Default)]
struct After {
    granted: Vec<Continuation<()>>,
    arm: Option<(Moment, u64)>,
}

impl Desk {
    /// Puts somebody in line.
    pub(super) fn acquire(self: &Arc<Desk>, line: Line, units: u64, mut done: Continuation<()>) {
        let runtime = done.runtime().clone();
        let cancellation = done.cancellation();
        let (key, now) = (line.key(), sys::now());
        let mut locked = self.lock();
        let state = locked.get_or_insert_with(|| State::new(self, &runtime));
        let (ticket, after) = state.enter(line, units, done, now);
        drop(locked);
        self.finish(after, &runtime);
        let (desk, runtime) = (Arc::downgrade(self), runtime.downgrade());
        cancellation.on_cancel(move || {
            if let (Some(desk), Some(runtime)) = (desk.upgrade(), runtime.upgrade()) {
                desk.leave(key, ticket, &runtime);
            }
        });
    }

    /// Somebody leaves the line.
    fn leave(self: &Arc<Desk>, key: usize, ticket: u64, runtime: &RuntimeHandle) {
        let mut locked = self.lock();
        let Some(state) = locked.as_mut() else { return };
        let Some((gone, after)) = state.leave(key, ticket, sys::now()) else { return };
        drop(locked);
        drop(gone);
        self.finish(after, runtime);
    }

    fn turn(self: &Arc<Desk>, number: Option<u64>, runtime: &RuntimeHandle) {
        let mut locked = self.lock();
        let Some(state) = locked.as_mut() else { return };
        if number.is_some_and(|number| number != state.number) {
            return;
        }
        if number.is_some() {
            state.armed = None;
        }
        let after = state.turn(None, sys::now());
        drop(locked);
        self.finish(after, runtime);
    }

    /// The runtime's threads have ended: nobody will get anything any more.
    fn abandon(&self, number: u64) {
        let mut locked = self.lock();
        let Some(state) = locked.as_mut().filter(|state| state.number == number) else { return };
        state.armed = None;
        let now = sys::now();
        let mut dropped = Vec::new();
        for (_, waiters) in &mut state.lines {
            dropped.extend(std::mem::take(&mut waiters.queue));
            waiters.lacking = 0;
            waiters.waits = false;
            state.pacer.rest(waiters.flow, now);
        }
        state.waiting = 0;
        drop(locked);
        drop(dropped);
    }

    fn finish(self: &Arc<Desk>, after: After, runtime: &RuntimeHandle) {
        if let Some((at, number)) = after.arm {
            let turn = Turn { desk: Some(self.clone()), runtime: runtime.clone(), number: Some(number) };
            runtime.start_timer(at, Ready::Work(Box::new(turn)));
        }
        if after.granted.len() > 1 {
            work::give_none_directly();
        }
        for done in after.granted {
            done.complete(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(desk: &Arc<Desk>, runtime: &RuntimeHandle) -> State {
        let (desk, weak) = (Arc::downgrade(desk), runtime.downgrade());
        // Called by whoever changes a rate: it only has a poller's thread look.
        let signal = Signal::new(move || {
            if let (Some(desk), Some(runtime)) = (desk.upgrade(), weak.upgrade()) {
                let turn = Turn { desk: Some(desk), runtime: runtime.clone(), number: None };
                runtime.ready_on_poller(runtime.poller_here_or_next(), Box::new(turn));
            }
        });
        State {
            pacer: Pacer::new(runtime.pace_interval(), signal),
            lines: Slab::new(),
            by_key: HashMap::new(),
            lately: VecDeque::new(),
            idle: VecDeque::new(),
            waiting: 0,
            next_ticket: 0,
            armed: None,
            number: 0,
        }
    }

    fn enter(&mut self, line: Line, units: u64, done: Continuation<()>, now: Moment) -> (u64, After) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let at = self.line(line, now);
        let waiters = &mut self.lines[at];
        waiters.queue.insert(ticket, Waiter { lacks: units, done });
        waiters.lacking += u128::from(units);
        if !std::mem::replace(&mut waiters.waits, true) {
            self.waiting += 1;
        }
        (ticket, self.turn(Some(at), now))
    }

    fn leave(&mut self, key: usize, ticket: u64, now: Moment) -> Option<(Waiter, After)> {
        let at = *self.by_key.get(&key)?;
        let waiters = &mut self.lines[at];
        let gone = waiters.queue.remove(&ticket)?;
        waiters.lacking -= u128::from(gone.lacks);
        Some((gone, self.turn(Some(at), now)))
    }

    /// The place of a line, made if there is none.
    fn line(&mut self, line: Line, now: Moment) -> usize {
        if let Some(at) = self.by_key.get(&line.key()) {
            return *at;
        }
        let entry = self.lines.vacant_entry();
        let at = entry.key();
        let flow = self.pacer.join(at);
        for budget in line.budgets() {
            self.pacer.spend_through(flow, budget, line.weight());
        }
        self.by_key.insert(line.key(), at);
        let waiters = entry.insert(Waiters {
            line,
            flow,
            queue: BTreeMap::new(),
            lacking: 0,
            waits: false,
            idle_since: now,
            in_lately: false,
            in_idle: false,
            ahead: 0,
        });
        waiters.look_ahead(self.pacer.interval_nanos());
        at
    }

    /// One turn, as a poller's: hears of changes, looks at the line that `changed`, trades, and gives out.
    fn turn(&mut self, changed: Option<usize>, now: Moment) -> After {
        let mut after = After::default();
        if self.pacer.begin_turn() {
            for at in self.lines.iter().map(|(at, _)| at).collect::<Vec<_>>() {
                self.lines[at].look_ahead(self.pacer.interval_nanos());
                if self.lines[at].waits {
                    self.grant(at, now, &mut after.granted);
                }
            }
        }
        if let Some(at) = changed {
            self.grant(at, now, &mut after.granted);
        }
        self.pacer.settle(now);
        while let Some(at) = self.pacer.next_turn(now) {
            self.grant(at, now, &mut after.granted);
        }
        self.let_rest(now);
        after.arm = self.arm(now);
        after
    }

    /// Gives a line what it may have now.
    fn grant(&mut self, at: usize, now: Moment, granted: &mut Vec<Continuation<()>>) {
        let waiters = &mut self.lines[at];
        while let Some(lacking) = waiters.lacking() {
            let Allowance::Now(units) = self.pacer.allow(waiters.flow, lacking.max(waiters.ahead), now)
            else {
                return;
            };
            let units = units.min(lacking);
            self.pacer.charge(waiters.flow, units);
            waiters.take(units, granted);
        }
        if std::mem::take(&mut waiters.waits) {
            self.waiting -= 1;
        }
        waiters.idle_since = now;
        if !std::mem::replace(&mut waiters.in_lately, true) {
            self.lately.push_back((now, at));
        }
    }

    /// Has lines that nobody came to again give back what they have drawn, and then forgets them.
    fn let_rest(&mut self, now: Moment) {
        let interval = self.interval();
        while let Some((_, at)) = self.lately.front().copied().filter(|(since, _)| *since + interval <= now) {
            self.lately.pop_front();
            let waiters = &mut self.lines[at];
            if !waiters.waits && waiters.idle_since + interval > now {
                self.lately.push_back((now, at));
                continue;
            }
            waiters.in_lately = false;
            if !waiters.waits {
                self.pacer.rest(waiters.flow, now);
                if !std::mem::replace(&mut waiters.in_idle, true) {
                    self.idle.push_back((now, at));
                }
            }
        }
        while let Some((_, at)) = self.idle.front().copied().filter(|(since, _)| *since + IDLE <= now) {
            self.idle.pop_front();
            let waiters = &mut self.lines[at];
            waiters.in_idle = false;
            if waiters.waits || waiters.in_lately {
                continue; // It comes back here when it rests.
            }
            if waiters.idle_since + IDLE > now {
                waiters.in_idle = true;
                self.idle.push_back((now, at));
                continue;
            }
            let gone = self.lines.remove(at);
            self.by_key.remove(&gone.line.key());
            self.pacer.part(gone.flow, now);
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_nanos(self.pacer.interval_nanos())
    }

    /// When the next turn is, if that is not on its way.
    fn arm(&mut self, now: Moment) -> Option<(Moment, u64)> {
        let due = self.pacer.deadline().into_iter();
        let due = due.chain((self.waiting > 0).then(|| now + TURN_MAX));
        let due = due.chain(self.lately.front().map(|(since, _)| *since + self.interval()));
        let at = due.chain(self.idle.front().map(|(since, _)| *since + IDLE)).min()?;
        if self.armed.is_some_and(|armed| armed <= at) {
            return None;
        }
        self.armed = Some(at);
        self.number += 1;
        Some((at, self.number))
    }
}

impl Waiters {
    /// What they lack, if anything.
    fn lacking(&self) -> Option<u64> {
        (self.lacking > 0).then(|| u64::try_from(self.lacking).unwrap_or(u64::MAX))
    }

    /// Reckons `ahead` anew, after a rate was changed.
    fn look_ahead(&mut self, interval_ns: u64) {
        let above = |budget: &Budget| std::iter::successors(Some(budget.clone()), |b| b.parent().cloned());
        let rate = self.line.budgets().iter().flat_map(above).filter_map(|budget| budget.rate()).min();
        let units = u128::from(rate.unwrap_or(0)) * u128::from(interval_ns) / u128::from(NANOS_PER_SEC);
        self.ahead = u64::try_from(units).unwrap_or(u64::MAX);
    }

    /// Shares units out, in the order of the line.
    fn take(&mut self, mut units: u64, granted: &mut Vec<Continuation<()>>) {
        self.lacking -= u128::from(units);
        while units > 0
            && let Some(mut first) = self.queue.first_entry()
        {
            let taken = units.min(first.get().lacks);
            first.get_mut().lacks -= taken;
            units -= taken;
            if first.get().lacks == 0 {
                granted.push(first.remove().done);
            }
        }
    }
}

/// A turn that is on its way, by a timer (then it has a number) or because a rate was changed.
struct Turn {
    desk: Option<Arc<Desk>>,
    runtime: RuntimeHandle,
    number: Option<u64>,
}

impl Receive<()> for Turn {
    fn receive(mut self: Box<Self>, (): ()) {
        if let Some(desk) = self.desk.take() {
            desk.turn(self.number, &self.runtime);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let (Some(desk), Some(number)) = (self.desk.take(), self.number) {
            desk.abandon(number);
        }
    }
}

#[cfg(test)]
mod tests;
