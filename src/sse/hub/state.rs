//! What all of a hub share, behind its lock: topics, their rings, and which pollers have subscribers.
//!
//! Nothing is called back, completed or dropped for good under the lock: what is to be done afterwards is handed out. It
//! gives every event its number and puts it in line for the pollers in one go, so that all subscribers get all events in
//! the same order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::kept::Kept;
use super::publish::Sent;
use super::registry::Registry;
use crate::runtime::RuntimeHandle;
use crate::sse::Event;
use crate::sse::encoded::Encoded;
use crate::sse::outlet::Outlet;
use crate::sse::ring::Ring;
use crate::sse::waiting::Waiting;
use crate::task::Parked;

/// Names a topic as long as it is there.
pub(super) type TopicKey = usize;

/// An event of a topic that has not come to the subscribers of a poller with one that waits for room yet: as many at
/// most, so that its queue grows by no more beyond its bound.
const ON_THE_WAY_MAX: u32 = 64;
/// What may be in line for a poller before publishing to its subscribers has to wait: as much as comes while it is held up
/// for a while, or is busy with many subscribers, and not more.
const LINE_MAX: usize = 65_536;
const LINE_BYTES_MAX: usize = 64 << 20;
/// A line that has been longer gives its memory back: 24 KiB.
pub(super) const LINE_KEPT: usize = 1_024;

pub(super) struct State {
    names: HashMap<Arc<str>, TopicKey>,
    topics: Slab<Topic>,
    pollers: Slab<Port>,
    last_seq: u64,
    first_seq: u64,
    /// The last event of a topic that was forgotten, because it kept none.
    forgotten: u64,
    ring_events: usize,
    ring_bytes: usize,
    kept: Kept,
    max_topics: usize,
    /// Publishers that wait, at all topics.
    waiting: usize,
    pub(super) closed: Option<Option<Arc<Encoded>>>,
}

struct Topic {
    name: Arc<str>,
    /// What a subscriber of this topic alone holds: all of them the same.
    alone: Arc<[TopicKey]>,
    ring: Ring,
    /// Those that have subscribers.
    pollers: Vec<Branch>,
    /// Subscribers that have no room and for whom publishers wait.
    full: u32,
    /// Publishers that wait.
    waiting: Waiting<Sent, Box<Event>>,
}

/// A publisher that waits.
pub(super) type Waits = (Parked<Sent>, Box<Event>);

/// A topic's part on one poller.
struct Branch {
    poller: usize,
    subscribers: u32,
    /// Subscribers for whom publishers wait.
    blocking: u32,
    on_the_way: u32,
}

/// A poller's part of the hub.
struct Port {
    registry: Arc<Registry>,
    line: Vec<Command>,
    /// Of the events in it.
    line_bytes: usize,
    /// It knows that there is something in line.
    is_told: bool,
    /// Subscriptions, one for each topic of a subscriber.
    subscriptions: u32,
}

/// What a poller is told.
pub(super) enum Command {
    Event(TopicKey, Arc<Encoded>),
    /// No more will come, but this.
    Close(Option<Arc<Encoded>>),
    /// No more will come for this one.
    Finish(Arc<Outlet>),
}

/// What a subscriber finds when it joins.
pub(super) struct Joined {
    pub(super) registry: Arc<Registry>,
    pub(super) topics: Arc<[TopicKey]>,
    /// The last event that it will not be told of.
    pub(super) seq: u64,
    pub(super) replay: Vec<Arc<Encoded>>,
    /// It came too late for some.
    pub(super) gap: Option<Gap>,
}

/// What is known of events that a subscriber missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// The number of the last event before those that are replayed.
    pub(super) resumes_after: u64,
}

/// Why a subscriber cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Closed,
    TooManyTopics,
}

/// Who is to be told that there is something in line; to be called without the lock.
pub(super) type ToTell = Vec<Arc<Registry>>;

impl State {
    /// Of at most so many topics, each of which keeps so many events and bytes, and all together so many bytes.
    pub(super) fn new(
        ring: (usize, usize),
        max_kept_bytes: usize,
        max_topics: usize,
        first_seq: u64,
    ) -> State {
        State {
            names: HashMap::new(),
            topics: Slab::new(),
            pollers: Slab::new(),
            last_seq: first_seq.saturating_sub(1),
            first_seq,
            forgotten: 0,
            ring_events: ring.0,
            ring_bytes: ring.1,
            kept: Kept::new(max_kept_bytes),
            max_topics,
            waiting: 0,
            closed: None,
        }
    }

    pub(super) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Whether there are these topics, or may be.
    pub(super) fn has_room_for(&self, names: &[Arc<str>]) -> bool {
        let new = names.iter().filter(|name| !self.names.contains_key(*name)).count();
        self.topics.len() + new <= self.max_topics
    }

    /// The topic of a name, made if need be. `None`: there are too many.
    pub(super) fn topic(&mut self, name: &str) -> Option<TopicKey> {
        if let Some(key) = self.names.get(name) {
            return Some(*key);
        }
        if self.topics.len() >= self.max_topics {
            return None;
        }
        let name: Arc<str> = name.into();
        // It may be one that was forgotten.
        let ring = Ring::new(self.ring_events, self.ring_bytes, self.forgotten);
        let key = self.topics.vacant_key();
        self.topics.insert(Topic {
            name: name.clone(),
            alone: [key].into(),
            ring,
            pollers: Vec::new(),
            full: 0,
            waiting: Waiting::default(),
        });
        self.names.insert(name, key);
        Some(key)
    }

    /// Whether publishing to a topic has to wait.
    pub(super) fn is_congested(&self, topic: TopicKey) -> bool {
        let topic = &self.topics[topic];
        let is_behind = |branch: &Branch| {
            branch.blocking > 0 && branch.on_the_way >= ON_THE_WAY_MAX
                || branch.subscribers > 0 && self.pollers[branch.poller].is_full()
        };
        topic.full > 0 || topic.pollers.iter().any(is_behind)
    }

    /// Publishes, whether or not there is room.
    pub(super) fn publish(&mut self, topic: TopicKey, mut event: Encoded, to_tell: &mut ToTell) -> u64 {
        self.last_seq += 1;
        event.number(self.last_seq);
        let event = Arc::new(event);
        let topic_key = topic;
        let topic = &mut self.topics[topic_key];
        for branch in topic.pollers.iter_mut().filter(|branch| branch.subscribers > 0) {
            branch.on_the_way += 1;
            self.pollers[branch.poller].add(Command::Event(topic_key, event.clone()), to_tell);
        }
        let before = topic.ring.size();
        topic.ring.push(event);
        self.kept.changed(before, topic.ring.size());
        self.keep(topic_key);
        self.last_seq
    }

    /// The latest event was added to a topic's ring: has the oldest of all go where they are too many.
    fn keep(&mut self, topic: TopicKey) {
        let topics = &self.topics;
        let is_there = |topic, seq| topics.get(topic).is_some_and(|topic: &Topic| topic.ring.has(seq));
        self.kept.added(topic, self.last_seq, is_there);
        while let Some((oldest, seq)) = self.kept.next_beyond() {
            self.evict(oldest, seq);
        }
        // One that keeps nothing, and that nobody is subscribed to, was of no use.
        if self.topics.contains(topic) {
            self.forget_if_unused(topic);
        }
    }

    /// A topic gives up what it keeps up to a number.
    fn evict(&mut self, key: TopicKey, seq: u64) {
        let Some(topic) = self.topics.get_mut(key) else { return };
        let before = topic.ring.size();
        topic.ring.evict(seq);
        self.kept.changed(before, topic.ring.size());
        self.forget_if_unused(key);
    }

    /// The topic of this name, if there is one, gives up all that it keeps.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some(key) = self.names.get(name) {
            self.evict(*key, self.last_seq);
        }
    }

    /// Has a publisher wait.
    pub(super) fn wait(&mut self, topic: TopicKey, (done, event): Waits) {
        let waiting = &mut self.topics[topic].waiting;
        let before = waiting.len();
        waiting.push(done, event);
        self.waiting = self.waiting + waiting.len() - before;
    }

    /// The publisher whose turn it is, if any.
    pub(super) fn next_waiting(&mut self, topic: TopicKey) -> Option<Waits> {
        if !self.topics.contains(topic) || self.is_congested(topic) {
            return None;
        }
        let next = self.topics[topic].waiting.pop();
        match next {
            Some(_) => self.waiting -= 1,
            // Made for one that was cancelled, perhaps.
            None => self.forget_if_unused(topic),
        }
        next
    }

    pub(super) fn has_waiting(&self, topic: TopicKey) -> bool {
        !self.topics[topic].waiting.is_empty()
    }

    /// The topics for which publishers wait.
    pub(super) fn topics_with_waiting(&self) -> Vec<TopicKey> {
        if self.waiting == 0 {
            return Vec::new();
        }
        self.topics.iter().filter(|(_, topic)| !topic.waiting.is_empty()).map(|(key, _)| key).collect()
    }

    /// All that wait.
    pub(super) fn take_waiting(&mut self) -> Vec<Waits> {
        self.waiting = 0;
        self.topics.iter_mut().flat_map(|(_, topic)| std::mem::take(&mut topic.waiting)).collect()
    }

    /// Takes in a subscriber on a poller of `runtime`.
    pub(super) fn join(
        &mut self,
        names: &[Arc<str>],
        after: Option<&str>,
        blocking: bool,
        runtime: &RuntimeHandle,
        make: impl FnOnce(usize) -> Registry,
    ) -> Result<Joined, Refused> {
        if self.closed.is_some() {
            return Err(Refused::Closed);
        }
        let mut topics = Vec::with_capacity(names.len());
        for name in names {
            let Some(topic) = self.topic(name) else {
                topics.into_iter().for_each(|topic| self.forget_if_unused(topic));
                return Err(Refused::TooManyTopics);
            };
            if !topics.contains(&topic) {
                topics.push(topic);
            }
        }
        let here = runtime.poller_here_or_next();
        let found = self.pollers.iter().find(|(_, port)| port.registry.is_of(runtime, here));
        let poller = found.map(|(poller, _)| poller);
        let poller = poller.unwrap_or_else(|| {
            let entry = self.pollers.vacant_entry();
            let key = entry.key();
            entry.insert(Port::new(Arc::new(make(key))));
            key
        });
        for topic in &topics {
            self.topics[*topic].branch(poller).join(blocking);
        }
        let port = &mut self.pollers[poller];
        port.subscriptions += topics.len() as u32;
        let registry = port.registry.clone();
        let (replay, gap) = after.map(|id| self.missed(&topics, id)).unwrap_or_default();
        let topics = match topics[..] {
            [topic] => self.topics[topic].alone.clone(),
            _ => topics.into(),
        };
        Ok(Joined { registry, topics, seq: self.last_seq, replay, gap })
    }

    /// Their names.
    pub(super) fn names(&self, topics: &[TopicKey]) -> Vec<Arc<str>> {
        topics.iter().map(|topic| self.topics[*topic].name.clone()).collect()
    }

    /// What was published since an id, and whether that is all.
    fn missed(&self, topics: &[TopicKey], id: &str) -> (Vec<Arc<Encoded>>, Option<Gap>) {
        let rings = || topics.iter().map(|topic| &self.topics[*topic].ring);
        let given = rings().find_map(|ring| ring.find(id));
        let known = given.or_else(|| self.number(id));
        let from = known.unwrap_or(0);
        let is_whole = known.is_some() && rings().all(|ring| ring.reaches_back_to(from));
        let mut events: Vec<Arc<Encoded>> = rings().flat_map(|ring| ring.after(from).cloned()).collect();
        if topics.len() > 1 {
            events.sort_unstable_by_key(|event| event.seq);
        }
        let first = events.first().map_or(self.last_seq, |event| event.seq - 1);
        (events, (!is_whole).then_some(Gap { resumes_after: first }))
    }

    /// The number that an id is, if it can be one of ours.
    fn number(&self, id: &str) -> Option<u64> {
        let number: u64 = id.parse().ok().filter(|_| id.bytes().all(|b| b.is_ascii_digit()))?;
        // One less than the first is what a client gets that came before it.
        (number <= self.last_seq && number.saturating_add(1) >= self.first_seq).then_some(number)
    }

    /// A subscriber has gone.
    pub(super) fn leave(&mut self, poller: usize, topics: &[TopicKey], blocking: bool, was_full: bool) {
        for key in topics {
            let topic = &mut self.topics[*key];
            topic.full -= u32::from(was_full);
            topic.branch(poller).leave(blocking);
            self.forget_if_unused(*key);
        }
        self.pollers[poller].subscriptions -= topics.len() as u32;
        self.forget_poller_if_unused(poller);
    }

    /// One that was told of something looks first; then it is forgotten.
    fn forget_poller_if_unused(&mut self, poller: usize) {
        let port = &self.pollers[poller];
        if port.subscriptions == 0 && !port.is_told {
            self.pollers.remove(poller);
            for (_, topic) in &mut self.topics {
                topic.pollers.retain(|branch| branch.poller != poller);
            }
        }
    }

    /// A subscriber has no room, or has some again.
    pub(super) fn set_full(&mut self, topics: &[TopicKey], full: bool) {
        for topic in topics {
            let count = &mut self.topics[*topic].full;
            *count = if full { *count + 1 } else { *count - 1 };
        }
    }

    /// Gives a poller what is in line for it, and hears what it has done. False: nothing is; it has to be told of the next.
    pub(super) fn take_line(
        &mut self,
        poller: usize,
        line: &mut VecDeque<Command>,
        walked: &mut Vec<(TopicKey, u32)>,
    ) -> bool {
        for (topic, events) in walked.drain(..) {
            if let Some(topic) = self.topics.get_mut(topic)
                && let Some(branch) = topic.pollers.iter_mut().find(|branch| branch.poller == poller)
            {
                branch.on_the_way = branch.on_the_way.saturating_sub(events);
            }
        }
        let Some(port) = self.pollers.get_mut(poller) else { return false };
        line.extend(port.line.drain(..));
        port.line.shrink_to(LINE_KEPT);
        port.line_bytes = 0;
        port.is_told = !line.is_empty();
        let has_more = port.is_told;
        self.forget_poller_if_unused(poller);
        has_more
    }

    /// No more is published.
    pub(super) fn close(&mut self, last: Option<Arc<Encoded>>, to_tell: &mut ToTell) {
        if self.closed.is_none() {
            for (_, port) in &mut self.pollers {
                port.add(Command::Close(last.clone()), to_tell);
            }
            self.closed = Some(last);
        }
    }

    /// Ends a subscriber's stream after what is in line.
    pub(super) fn finish(&mut self, poller: usize, outlet: &Arc<Outlet>, to_tell: &mut ToTell) {
        if let Some(port) = self.pollers.get_mut(poller) {
            port.add(Command::Finish(outlet.clone()), to_tell);
        }
    }

    fn forget_if_unused(&mut self, key: TopicKey) {
        let topic = &self.topics[key];
        let is_used = topic.pollers.iter().any(|branch| branch.subscribers > 0)
            || !topic.ring.is_empty()
            || !topic.waiting.is_empty();
        if !is_used {
            let topic = self.topics.remove(key);
            self.names.remove(&topic.name);
            self.forgotten = self.forgotten.max(topic.ring.evicted());
        }
    }
}

impl Topic {
    fn branch(&mut self, poller: usize) -> &mut Branch {
        let found = self.pollers.iter().position(|branch| branch.poller == poller);
        let at = found.unwrap_or_else(|| {
            self.pollers.push(Branch { poller, subscribers: 0, blocking: 0, on_the_way: 0 });
            self.pollers.len() - 1
        });
        &mut self.pollers[at]
    }
}

impl Branch {
    fn join(&mut self, blocking: bool) {
        self.subscribers += 1;
        self.blocking += u32::from(blocking);
    }

    fn leave(&mut self, blocking: bool) {
        self.subscribers -= 1;
        self.blocking -= u32::from(blocking);
    }
}

impl Port {
    fn new(registry: Arc<Registry>) -> Port {
        Port { registry, line: Vec::new(), line_bytes: 0, is_told: false, subscriptions: 0 }
    }

    fn is_full(&self) -> bool {
        self.line.len() >= LINE_MAX || self.line_bytes >= LINE_BYTES_MAX
    }

    fn add(&mut self, command: Command, to_tell: &mut ToTell) {
        if let Command::Event(_, event) = &command {
            self.line_bytes += event.len();
        }
        self.line.push(command);
        if !std::mem::replace(&mut self.is_told, true) {
            to_tell.push(self.registry.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_as_an_id_is_one_that_is_not_known() {
        let mut state = State::new((10, 1_000), 1_000, 10, 5);
        let topic = state.topic("a").unwrap();
        state.publish(topic, Encoded::new(&Event::data("x")), &mut ToTell::new());
        let known = |id: &str| state.number(id);
        assert_eq!((known("4"), known("5"), known("3"), known("6")), (Some(4), Some(5), None, None));
        assert_eq!((known(&u64::MAX.to_string()), known("+5"), known("")), (None, None, None));
    }

    fn publish(state: &mut State, name: &str) {
        let topic = state.topic(name).expect("room for a topic");
        state.publish(topic, Encoded::new(&Event::data("x")), &mut ToTell::new());
    }

    #[test]
    fn a_topic_that_keeps_nothing_and_that_nobody_wants_is_not_there() {
        let mut state = State::new((0, 1_000), 1_000, 2, 1);
        for name in 0..10 {
            publish(&mut state, &name.to_string());
        }
        assert_eq!((state.topic_count(), state.last_seq), (0, 10));
    }

    #[test]
    fn all_topics_together_keep_no_more_than_they_may_and_the_oldest_go_first() {
        let one = Encoded::new(&Event::data("x")).len() + "id: 1\n".len();
        let mut state = State::new((100, 10_000), 4 * one, 100, 1);
        for name in ["a", "b", "a", "c", "c", "c"] {
            publish(&mut state, name);
        }
        // The first of a and the one of b have gone, and with it, b.
        assert_eq!((state.topic_count(), state.names.contains_key("b")), (2, false));
        let a = state.names["a"];
        assert_eq!(state.topics[a].ring.after(0).map(|event| event.seq).collect::<Vec<_>>(), [3]);
        assert!(!state.topics[a].ring.reaches_back_to(0));
        // Who asks for b again is told that there may have been something.
        let b = state.topic("b").unwrap();
        assert!(!state.topics[b].ring.reaches_back_to(1));
        state.forget("c");
        state.forget("unknown");
        assert_eq!(state.kept.next_beyond(), None);
        assert_eq!((state.topic_count(), state.names.contains_key("c")), (2, false));
    }
}
