//! What one client is to be sent, and when. Pure: it is pulled, and told what time it is.
//!
//! Its shell is the module `source`, which lies between this and the session. Who fills it holds it in an [`Outlet`].

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tidegate_poller::{Moment, Pauses, Pull};

use crate::http::body::BodyWaker;
use crate::record::EventFacts;
use crate::sse::delivery::Delivery;
use crate::sse::encoded::Encoded;
use crate::sse::queue::{Next, Policy, Pushed, Queue};
use crate::sse::rate::Pace;

/// What one client is to be sent, behind a lock that its poller and whoever fills it take for moments.
pub(super) struct Outlet {
    pub(super) delivery: Arc<Delivery>,
    state: Mutex<State>,
    /// Once a session has it.
    pub(super) waker: OnceLock<BodyWaker>,
}

impl Outlet {
    pub(super) fn new(delivery: Arc<Delivery>) -> Arc<Outlet> {
        let state = Mutex::new(State::new(&delivery));
        Arc::new(Outlet { delivery, state, waker: OnceLock::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the session pull, from any thread, if it waits for that.
    pub(super) fn wake(&self) {
        let waits = std::mem::take(&mut self.lock().waiting);
        if let Some(waker) = self.waker.get().filter(|_| waits) {
            waker.wake();
        }
    }

    /// That was all: what waits still goes.
    pub(super) fn finish(&self, last: Option<Arc<Encoded>>) {
        let mut state = self.lock();
        if state.finish.is_none() {
            state.finish = Some(Pull::End);
            if let Some(last) = last {
                state.queue.add(last);
            }
        }
        drop(state);
        self.wake();
    }
}

/// What one client is to be sent.
#[derive(Debug)]
pub(super) struct State {
    /// What the client missed while it was away. Goes first, and is not counted against the bound.
    replay: Option<Box<Queue>>,
    queue: Queue,
    /// Bytes that are no events of anybody's: heartbeats, notices. They go before the next event.
    notes: Box<[u8]>,
    notes_sent: u32,
    pace: Option<Box<Pace>>,
    /// Events that the shared budgets have let go already.
    credit: u32,
    /// The budgets have been asked.
    asking: bool,
    /// The session pulls again only when it is woken.
    pub(super) waiting: bool,
    /// Told when nothing waits any more.
    pub(super) finish: Option<Pull>,
    heartbeat_due: bool,
    pub(super) last_sent: Moment,
    /// Whoever fills it waits.
    pub(super) is_full: bool,
    /// Since when a rate or budget of events holds it back.
    held_since: Option<Moment>,
    /// Until when, where that is known.
    held_until: Option<Moment>,
    /// It will be woken then.
    wakes_at: Option<Moment>,
    pub(super) backlog: Option<Box<Backlog>>,
    pub(super) counts: Counts,
}

/// How things stood when events began to wait for more than the poller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) since: Moment,
    /// Of the socket, at that time.
    pauses: Pauses,
    /// A budget of bytes is what holds it back.
    pub(super) throttled: bool,
}

/// What became of a client's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) dropped: u64,
    pub(super) conflated: u64,
}

/// What the shell has to do after a pull.
#[derive(Debug, Default, PartialEq)]
pub(super) struct After {
    /// Events that went.
    pub(super) sent: u64,
    pub(super) heartbeats: u64,
    /// There is room again for whoever waits.
    pub(super) roomy: bool,
    /// Wake it then.
    pub(super) wake_at: Option<Moment>,
    /// Ask the budgets of events for one.
    pub(super) acquire: bool,
}

/// What a push found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// The session has to be woken.
    pub(super) wake: bool,
    /// Events begin to wait, or may wait because of a budget: the socket's pauses are wanted.
    pub(super) look: bool,
    /// It has just become full.
    pub(super) filled: bool,
    /// It is beyond remedy.
    pub(super) overflow: bool,
    pub(super) dropped: u64,
    pub(super) conflated: bool,
}

impl Reached {
    /// What several pushes found together.
    pub(super) fn merge(&mut self, other: Reached) {
        self.wake |= other.wake;
        self.look |= other.look;
        self.filled |= other.filled;
        self.overflow |= other.overflow;
        self.dropped += other.dropped;
        self.conflated |= other.conflated;
    }

    /// Whether something has to be done with the socket.
    pub(super) fn is_errand(&self) -> bool {
        self.wake || self.look || self.overflow
    }
}

impl State {
    fn new(delivery: &Delivery) -> State {
        State {
            replay: None,
            queue: Queue::default(),
            notes: delivery.preamble().into(),
            notes_sent: 0,
            pace: delivery.rate.clone().map(|rate| Box::new(Pace::new(rate))),
            credit: 0,
            asking: false,
            waiting: false,
            finish: None,
            heartbeat_due: false,
            last_sent: Moment::FIRST,
            is_full: false,
            held_since: None,
            held_until: None,
            wakes_at: None,
            backlog: None,
            counts: Counts::default(),
        }
    }

    /// Has these go before all else.
    pub(super) fn replay(&mut self, events: impl IntoIterator<Item = Arc<Encoded>>) {
        let mut replay = self.replay.take().unwrap_or_default();
        events.into_iter().for_each(|event| replay.add(event));
        self.replay = Some(replay).filter(|replay| !replay.is_empty());
    }

    /// Adds an event, by the policy.
    pub(super) fn push(&mut self, event: &Arc<Encoded>, delivery: &Delivery, now: Moment) -> Reached {
        let mut reached = Reached::default();
        if self.finish.is_some() {
            return reached;
        }
        let policy = match delivery.conflate_after {
            Some(after) if self.is_throttled_for(after, now) => Policy::Conflate,
            _ => delivery.policy,
        };
        match self.queue.push(event, policy, delivery.bound) {
            Pushed::Queued => {}
            Pushed::Conflated => reached.conflated = true,
            Pushed::DroppedOldest(n) => reached.dropped = n,
            Pushed::DroppedNewest => reached.dropped = 1,
            // What was on its way when it filled up.
            Pushed::Overflow if policy == Policy::Block => self.queue.add(event.clone()),
            Pushed::Overflow => reached.overflow = true,
        }
        self.counts.dropped += reached.dropped;
        self.counts.conflated += u64::from(reached.conflated);
        reached.filled =
            policy == Policy::Block && !self.is_full && !self.queue.has_room(event.len(), delivery.bound);
        self.is_full |= reached.filled;
        // One that a rate holds back is woken when its time has come.
        reached.wake = self.waiting && self.held_since.is_none();
        self.waiting &= !reached.wake;
        reached.look = !reached.wake && self.wants_a_look(delivery, now);
        reached
    }

    fn wants_a_look(&self, delivery: &Delivery, now: Moment) -> bool {
        match (&self.backlog, delivery.conflate_after) {
            _ if self.held_since.is_some() => false,
            (None, _) => self.queue.len() > 1,
            (Some(backlog), Some(after)) => !backlog.throttled && now - backlog.since > after,
            (Some(_), None) => false,
        }
    }

    fn is_throttled_for(&self, time: Duration, now: Moment) -> bool {
        self.held_since.is_some_and(|since| now - since > time)
            || self.backlog.as_ref().is_some_and(|backlog| backlog.throttled && now - backlog.since > time)
    }

    /// The pauses of the socket, for [`Reached::look`].
    pub(super) fn note_pauses(&mut self, pauses: Pauses, now: Moment) {
        match &mut self.backlog {
            None if self.queue.is_empty() => {}
            None => self.backlog = Some(Box::new(Backlog { since: now, pauses, throttled: false })),
            Some(backlog) => backlog.throttled = backlog.is_throttled(&pauses),
        }
    }

    /// Whether what waits does so because of us, rather than because the client is slow.
    pub(super) fn is_throttled(&self, pauses: &Pauses) -> bool {
        self.held_since.is_some() || self.backlog.as_ref().is_some_and(|backlog| backlog.is_throttled(pauses))
    }

    /// Nothing has gone for long enough at `now`, perhaps. Says when to ask again.
    pub(super) fn heartbeat(&mut self, every: Duration, now: Moment) -> Moment {
        let due = self.last_sent + every;
        if due > now {
            return due;
        }
        self.heartbeat_due = true;
        now + every
    }

    /// The budgets have let an event go.
    pub(super) fn add_credit(&mut self) {
        self.asking = false;
        self.credit += 1;
    }

    /// The moment that [`After::wake_at`] asked for has come.
    pub(super) fn release(&mut self, at: Moment) {
        self.wakes_at = self.wakes_at.filter(|other| *other != at);
    }

    /// Appends at most `max` bytes.
    pub(super) fn pull(
        &mut self,
        max: usize,
        out: &mut Vec<u8>,
        delivery: &Delivery,
        now: Moment,
    ) -> (Pull, After) {
        let mut after = After::default();
        let end = out.len() + max;
        let before = out.len();
        self.held_until = None;
        while out.len() < end && self.append_some(end, out.len() > before, out, delivery, now, &mut after) {}
        if self.is_full && self.queue.is_half_empty(delivery.bound) {
            self.is_full = false;
            after.roomy = true;
        }
        if self.queue.is_empty() {
            self.backlog = None;
        }
        self.counts.sent += after.sent;
        if out.len() == before {
            self.append_when_quiet(end, out, delivery, &mut after);
        }
        if out.len() > before {
            self.last_sent = now;
            self.heartbeat_due = false;
            return (Pull::More, after);
        }
        if let Some(finish) = self.finish.filter(|_| self.is_empty()) {
            return (finish, after);
        }
        self.waiting = true;
        // One timer, however often it is pulled meanwhile.
        if self.held_until.is_some() && self.wakes_at.is_none_or(|at| self.held_until < Some(at)) {
            self.wakes_at = self.held_until;
            after.wake_at = self.held_until;
        }
        (Pull::Starved, after)
    }

    /// Appends a note, an event or a part of one. False: there is nothing, or nothing may go now.
    fn append_some(
        &mut self,
        end: usize,
        is_after_others: bool,
        out: &mut Vec<u8>,
        delivery: &Delivery,
        now: Moment,
        after: &mut After,
    ) -> bool {
        let queue = self.replay.as_deref_mut().unwrap_or(&mut self.queue);
        // One that has begun is not to be cut in two by a note.
        if !queue.is_begun() {
            if (self.notes_sent as usize) < self.notes.len() {
                return self.append_notes(end, out);
            }
            let whole = match queue.next() {
                Next::Nothing => return false,
                Next::Lagged(lost) => {
                    queue.told_lag();
                    self.notes = delivery.lagged(lost).into();
                    return true;
                }
                Next::Event(bytes) => bytes.len(),
            };
            // Whole events, unless one is larger than what may go at a time.
            if (is_after_others && whole > end - out.len()) || !self.may_begin(delivery, now, after) {
                return false;
            }
        }
        let queue = self.replay.as_deref_mut().unwrap_or(&mut self.queue);
        if let Next::Event(bytes) = queue.next() {
            let part = bytes.len().min(end - out.len());
            out.extend_from_slice(&bytes[..part]);
            after.sent += u64::from(queue.advance(part));
        }
        if self.replay.as_ref().is_some_and(|replay| replay.is_empty()) {
            self.replay = None;
        }
        true
    }

    fn append_notes(&mut self, end: usize, out: &mut Vec<u8>) -> bool {
        let rest = &self.notes[self.notes_sent as usize..];
        let part = rest.len().min(end - out.len());
        out.extend_from_slice(&rest[..part]);
        self.notes_sent += part as u32;
        if part == rest.len() {
            (self.notes, self.notes_sent) = (Box::default(), 0);
        }
        true
    }

    /// What goes when no event does.
    fn append_when_quiet(&mut self, end: usize, out: &mut Vec<u8>, delivery: &Delivery, after: &mut After) {
        if self.heartbeat_due && out.len() < end {
            after.heartbeats += 1;
            self.notes = delivery.heartbeat().into();
            self.append_notes(end, out);
        }
    }

    /// Whether rate and budgets let an event begin; if so, it has.
    fn may_begin(&mut self, delivery: &Delivery, now: Moment, after: &mut After) -> bool {
        if let Some(pace) = &mut self.pace
            && let Err(until) = pace.allow(now)
        {
            self.held_since.get_or_insert(now);
            self.held_until = Some(until);
            return false;
        }
        if delivery.event_budgets.is_some() && self.credit == 0 {
            self.held_since.get_or_insert(now);
            after.acquire = !std::mem::replace(&mut self.asking, true);
            return false;
        }
        self.credit = self.credit.saturating_sub(1);
        if let Some(pace) = &mut self.pace {
            pace.spend();
        }
        self.held_since = None;
        true
    }

    /// Whether an event has room, by the bound.
    pub(super) fn has_room(&self, event: &Encoded, delivery: &Delivery) -> bool {
        self.queue.has_room(event.len(), delivery.bound)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replay.is_none() && self.queue.is_empty() && self.notes.is_empty()
    }

    /// For the exchange's record.
    pub(super) fn facts(&self) -> EventFacts {
        let Counts { sent, dropped, conflated } = self.counts;
        EventFacts { sent, dropped, conflated, queue_peak: self.queue_peak() as u64 }
    }

    /// Most events that waited at once.
    pub(super) fn queue_peak(&self) -> usize {
        self.queue.peak()
    }

    /// Drops what waits.
    pub(super) fn cut(&mut self) -> u64 {
        self.finish = Some(Pull::Failed);
        let replayed = self.replay.take().map_or(0, |mut replay| replay.clear());
        replayed + self.queue.clear()
    }
}

impl Backlog {
    fn is_throttled(&self, pauses: &Pauses) -> bool {
        let throttled = pauses.throttled_ns.saturating_sub(self.pauses.throttled_ns);
        let blocked = pauses.blocked_ns.saturating_sub(self.pauses.blocked_ns);
        throttled > blocked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::encoded::numbered;
    use crate::sse::queue::Bound;
    use crate::sse::{Event, EventRate};

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(1_000_000_000 + ms * 1_000_000)
    }

    /// An outlet whose preamble has gone.
    fn begun(delivery: &Delivery) -> State {
        let mut state = State::new(delivery);
        let (pull, _) = state.pull(1_000, &mut Vec::new(), delivery, at(0));
        assert_eq!(pull, Pull::More);
        state
    }

    fn push(state: &mut State, delivery: &Delivery, seq: u64, data: &str) -> Reached {
        state.push(&numbered(&Event::data(data), seq), delivery, at(0))
    }

    fn pull(state: &mut State, delivery: &Delivery, max: usize, now: Moment) -> (String, Pull, After) {
        let mut out = Vec::new();
        let (pull, after) = state.pull(max, &mut out, delivery, now);
        assert!(out.len() <= max);
        (String::from_utf8(out).unwrap(), pull, after)
    }

    #[test]
    fn events_go_whole_unless_one_is_larger_than_what_may_go() {
        let delivery = Delivery::default();
        let mut state = begun(&delivery);
        for seq in 1..=3 {
            push(&mut state, &delivery, seq, "0123456789");
        }
        let one = "id: 1\ndata: 0123456789\n\n".len();
        assert_eq!(pull(&mut state, &delivery, 2 * one - 1, at(1)).0, "id: 1\ndata: 0123456789\n\n");
        // Cut only where there is no other way; its rest goes on first.
        let (text, _, after) = pull(&mut state, &delivery, one - 4, at(2));
        assert_eq!((text.as_str(), after.sent), ("id: 2\ndata: 01234567", 0));
        assert_eq!(pull(&mut state, &delivery, 5 + one, at(3)).0, "89\n\nid: 3\ndata: 0123456789\n\n");
        assert_eq!(pull(&mut state, &delivery, 100, at(4)).1, Pull::Starved);
    }

    #[test]
    fn a_session_is_woken_once_for_what_comes_while_it_waits() {
        let delivery = Delivery::default();
        let mut state = begun(&delivery);
        assert!(!push(&mut state, &delivery, 1, "x").wake, "it has not said that it waits");
        pull(&mut state, &delivery, 100, at(1));
        assert_eq!(pull(&mut state, &delivery, 100, at(1)).1, Pull::Starved);
        assert!(push(&mut state, &delivery, 2, "x").wake && !push(&mut state, &delivery, 3, "x").wake);
    }

    #[test]
    fn a_heartbeat_passes_what_a_rate_holds_back_but_never_cuts_an_event_in_two() {
        let delivery = Delivery { rate: Some(EventRate::new(1.0)), ..Delivery::default() };
        let every = Duration::from_millis(100);
        let mut state = begun(&delivery);
        push(&mut state, &delivery, 1, "a");
        push(&mut state, &delivery, 2, "b");
        assert_eq!(pull(&mut state, &delivery, 9, at(0)).0, "id: 1\ndat");
        assert_eq!(state.heartbeat(every, at(100)), at(200));
        assert_eq!(pull(&mut state, &delivery, 100, at(100)).0, "a: a\n\n");
        // The second has to wait, and asks for a timer once.
        let (_, held, after) = pull(&mut state, &delivery, 100, at(150));
        assert_eq!((held, after.wake_at.is_some()), (Pull::Starved, true));
        assert_eq!(state.heartbeat(every, at(150)), at(200), "something went 50 ms ago");
        assert_eq!(state.heartbeat(every, at(200)), at(300));
        assert_eq!(pull(&mut state, &delivery, 100, at(200)).0, ": \n\n");
        let (_, _, after) = pull(&mut state, &delivery, 100, at(200));
        assert_eq!(after.wake_at, None, "it is armed already");
    }

    #[test]
    fn what_is_finished_ends_after_what_waits() {
        let delivery = Delivery::default();
        let mut state = begun(&delivery);
        push(&mut state, &delivery, 1, "a");
        state.finish = Some(Pull::End);
        assert!(!push(&mut state, &delivery, 2, "too late").wake);
        assert_eq!(pull(&mut state, &delivery, 100, at(1)).0, "id: 1\ndata: a\n\n");
        assert_eq!(pull(&mut state, &delivery, 100, at(1)).1, Pull::End);
    }

    #[test]
    fn replayed_events_go_first_and_do_not_count_against_the_bound() {
        let bound = Bound { events: 2, bytes: 1_000 };
        let delivery = Delivery { bound, ..Delivery::default() };
        let mut state = begun(&delivery);
        state.replay((1..=5).map(|seq| numbered(&Event::data("r"), seq)));
        (6..=7).for_each(|seq| assert_eq!(push(&mut state, &delivery, seq, "l").dropped, 0));
        let (text, _, after) = pull(&mut state, &delivery, 1_000, at(1));
        assert_eq!((text.matches('r').count(), after.sent), (5, 7));
        assert!(text.ends_with("id: 6\ndata: l\n\nid: 7\ndata: l\n\n"));
    }

    #[test]
    fn a_rate_is_told_apart_from_a_slow_client() {
        let delivery = Delivery::default();
        let mut state = begun(&delivery);
        for seq in 1..=2 {
            push(&mut state, &delivery, seq, "x");
        }
        let pauses = |throttled_ns, blocked_ns| Pauses { throttled_ns, blocked_ns, ..Pauses::default() };
        // What was before the backlog does not matter.
        state.note_pauses(pauses(1_000, 50), at(0));
        assert!(!state.is_throttled(&pauses(1_010, 90)));
        assert!(state.is_throttled(&pauses(1_090, 60)));
    }
}
