//! A poller's part of a hub: the subscribers on it, and the walk that brings them what was published.
//!
//! Driven by one job at a time on the poller's thread. The job takes what is in line, goes from subscriber to subscriber,
//! and has those sessions pull that wait. After a bounded number of them it gives way, and goes on in the next turn.
//! Subscribers come and go on the same thread, between jobs.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use slab::Slab;
use tidegate_poller::record::{End, Reason};
use tidegate_poller::{Moment, Pauses, Poller};

use super::Shared;
use super::figures::add;
use super::state::{Command, LINE_KEPT, TopicKey};
use crate::runtime::RuntimeHandle;
use crate::sse::encoded::Encoded;
use crate::sse::outlet::{Outlet, Reached};

/// Sessions woken in one turn: each then writes, which takes some 10 µs. Other sockets wait for no more than that.
const WAKES_MAX: usize = 256;
/// Subscribers looked at in one turn, woken or not; 100 ns each.
const LOOKS_MAX: usize = 8_192;
/// Events brought to a subscriber at a time.
const RUN_MAX: usize = 64;

/// A poller's part of a hub.
pub(super) struct Registry {
    hub: Weak<Shared>,
    runtime: RuntimeHandle,
    poller: usize,
    /// Its key with the hub.
    key: usize,
    walk: Mutex<Walk>,
}

#[derive(Default)]
struct Walk {
    members: HashMap<TopicKey, Slab<Member>>,
    line: VecDeque<Command>,
    /// What is being brought to the subscribers of one topic, from the member at this place on.
    run: Option<(TopicKey, Vec<Arc<Encoded>>, usize)>,
    /// Events that all have, to be told to the hub.
    walked: Vec<(TopicKey, u32)>,
}

/// Where a subscriber is among those of each of its topics; most have one.
pub(super) enum Places {
    One([usize; 1]),
    Many(Box<[usize]>),
}

struct Member {
    outlet: Arc<Outlet>,
    topics: Arc<[TopicKey]>,
    /// The last event that it has, or had before it came.
    seq: u64,
}

/// Something to be done with a subscriber's socket, once nothing is locked.
struct Errand {
    outlet: Arc<Outlet>,
    reached: Reached,
}

impl Registry {
    pub(super) fn new(hub: Weak<Shared>, runtime: &RuntimeHandle, key: usize) -> Registry {
        let poller = runtime.poller_here_or_next();
        Registry { hub, runtime: runtime.clone(), poller, key, walk: Mutex::default() }
    }

    pub(super) fn is_of(&self, runtime: &RuntimeHandle, poller: usize) -> bool {
        self.poller == poller && self.runtime.is(runtime)
    }

    pub(super) fn key(&self) -> usize {
        self.key
    }

    /// Something is in line: has the poller look.
    pub(super) fn tell(self: Arc<Registry>) {
        let runtime = self.runtime.clone();
        runtime.submit_to(self.poller, Box::new(move |poller| self.turn(poller)));
    }

    /// Takes in a subscriber. Gives back its place in each of its topics.
    pub(super) fn add(&self, outlet: &Arc<Outlet>, topics: &Arc<[TopicKey]>, seq: u64) -> Places {
        let mut walk = self.lock();
        let mut place = |topic: &TopicKey| {
            let member = Member { outlet: outlet.clone(), topics: topics.clone(), seq };
            walk.members.entry(*topic).or_default().insert(member)
        };
        match &topics[..] {
            [topic] => Places::One([place(topic)]),
            _ => Places::Many(topics.iter().map(place).collect()),
        }
    }

    pub(super) fn remove(&self, topics: &[TopicKey], places: &Places) {
        let places = match places {
            Places::One(place) => &place[..],
            Places::Many(places) => places,
        };
        let mut walk = self.lock();
        for (topic, place) in topics.iter().zip(places) {
            if let Some(members) = walk.members.get_mut(topic) {
                members.try_remove(*place);
                if members.is_empty() {
                    walk.members.remove(topic);
                }
            }
        }
    }

    fn turn(self: Arc<Registry>, poller: &mut Poller) {
        let Some(hub) = self.hub.upgrade() else { return };
        let now = poller.now();
        let mut errands = Vec::new();
        let goes_on = self.lock().go_on(&hub, self.key, now, &mut errands);
        for errand in errands {
            errand.run(poller, &hub, now);
        }
        if goes_on {
            self.tell();
        }
        hub.pump_all();
    }

    fn lock(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Walk {
    /// Goes from subscriber to subscriber. Says whether it has to go on in the next turn.
    fn go_on(&mut self, hub: &Shared, key: usize, now: Moment, errands: &mut Vec<Errand>) -> bool {
        let mut looks = 0;
        loop {
            if self.run.is_none() && !self.next_run() && {
                let walked = &mut self.walked;
                !hub.lock().take_line(key, &mut self.line, walked)
            } {
                self.line.shrink_to(LINE_KEPT);
                return false;
            }
            let Some((topic, events, at)) = &mut self.run else { continue };
            let members = self.members.get_mut(topic);
            let end = members.as_ref().map_or(0, |members| members.capacity());
            if let Some(members) = members {
                while *at < end {
                    if looks >= LOOKS_MAX || errands.len() >= WAKES_MAX {
                        return true;
                    }
                    if let Some(member) = members.get_mut(*at) {
                        looks += 1;
                        member.bring(events, hub, now, errands);
                    }
                    *at += 1;
                }
            }
            looks += 1;
            self.walked.push((*topic, events.len() as u32));
            self.run = None;
            if looks >= LOOKS_MAX || errands.len() >= WAKES_MAX {
                return true;
            }
        }
    }

    /// Begins with what is in line: events of one topic that lie side by side.
    fn next_run(&mut self) -> bool {
        match self.line.pop_front() {
            None => false,
            Some(Command::Close(last)) => {
                for (_, member) in self.members.values().flatten() {
                    member.outlet.finish(last.clone());
                }
                true
            }
            Some(Command::Finish(outlet)) => {
                outlet.finish(None);
                true
            }
            Some(Command::Event(topic, first)) => {
                let mut events = vec![first];
                while events.len() < RUN_MAX
                    && matches!(self.line.front(), Some(Command::Event(other, _)) if *other == topic)
                    && let Some(Command::Event(_, event)) = self.line.pop_front()
                {
                    events.push(event);
                }
                self.run = Some((topic, events, 0));
                true
            }
        }
    }
}

impl Member {
    fn bring(&mut self, events: &[Arc<Encoded>], hub: &Shared, now: Moment, errands: &mut Vec<Errand>) {
        let mut all = Reached::default();
        let delivery = &self.outlet.delivery;
        {
            let mut state = self.outlet.lock();
            for event in events.iter().filter(|event| event.seq > self.seq) {
                let reached = state.push(event, delivery, now);
                add(&hub.counters.dropped, reached.dropped);
                add(&hub.counters.conflated, u64::from(reached.conflated));
                all.merge(reached);
            }
        }
        if all.filled {
            // Before the hub hears that these events have come: no publisher may slip through between.
            hub.lock().set_full(&self.topics, true);
        }
        self.seq = self.seq.max(events.last().map_or(0, |event| event.seq));
        if all.is_errand() {
            errands.push(Errand { outlet: self.outlet.clone(), reached: all });
        }
    }
}

impl Errand {
    fn run(self, poller: &mut Poller, hub: &Shared, now: Moment) {
        let Some(socket) = self.outlet.waker.get().map(|waker| waker.socket()) else { return };
        if self.reached.wake {
            poller.call(socket, |_, io| io.wake_source());
        }
        if self.reached.look || self.reached.overflow {
            let mut pauses = Pauses::default();
            poller.call(socket, |_, io| pauses = io.sums().pauses);
            let mut state = self.outlet.lock();
            if self.reached.look {
                state.note_pauses(pauses, now);
            }
            if self.reached.overflow && state.finish.is_none() {
                let throttled = state.is_throttled(&pauses);
                state.cut();
                drop(state);
                let (counter, reason) = match throttled {
                    true => (&hub.counters.cut_throttled, Reason::Throttled),
                    false => (&hub.counters.cut_slow, Reason::SlowConsumer),
                };
                counter.fetch_add(1, Relaxed);
                // At once: it takes nothing, and what waits is for it to ask for again.
                poller.call(socket, |_, io| io.abort(End::local(reason)));
            }
        }
    }
}
