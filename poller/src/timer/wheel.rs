//! The hierarchical timer wheel.
//!
//! Time is cut into ticks of 65,536 ns, and the 48 bits of a tick number into eight groups of six. A timer lives
//! at the level of the highest group in which its tick differs from the wheel's own tick, in the slot its digit
//! there names. From this follow the two facts all else rests on:
//!
//! - everything on a lower level is due before anything on a higher one, and within a level the slots are in
//!   order, so the earliest timer is in the first occupied slot of the first occupied level;
//! - when the wheel's tick moves to one that no timer precedes, exactly one slot can need spreading over the levels
//!   below: the one of the new tick, at the highest group that changed.
//!
//! Eight levels hold every deadline there is, so there is no list for what is too far away. Each slot knows its
//! earliest deadline to the nanosecond; that is what the loop sleeps on, so nothing wakes just to spread a slot.

use std::num::NonZeroU32;

use super::slot::{DEAD, Entry, Slot};
use crate::moment::Moment;

/// Nanoseconds in a tick, as a power of two: 65.5 µs, well below the loop's own lateness. It decides only how
/// timers are grouped, never when they fire.
const TICK_BITS: u32 = 16;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 16 + 8 × 6 = 64: every deadline has a place.
const LEVELS: usize = 8;
/// Timers found due and not yet taken wait in one more slot, kept as the first of one more level.
const DUE: usize = LEVELS * SLOTS;
/// Room of emptied slots that is kept for the next ones: so many, for at most so many entries in all (a megabyte). So a
/// wheel whose timers come and go allocates nothing; and large pieces freed again and again have the allocator tidy up.
const SPARE_MAX: usize = 64;
const SPARE_ENTRIES_MAX: usize = 65_536;
/// No node.
const NIL: u32 = DEAD;

/// Names one timer. It stays unique after the timer fired or was cancelled: the wheel then does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

/// The deadlines of one poller, each with an item that tells what it is for.
///
/// Insert, cancel and fire cost a constant; a timer is moved at most once a level. Memory grows with the largest
/// number of timers at once and is kept.
pub struct Wheel<T> {
    nodes: Vec<Node<T>>,
    /// Head of the list of free nodes, through `position`.
    free: u32,
    len: usize,
    /// The wheel's own tick. No timer outside the due slot has an earlier one, except those that were already
    /// late when they were inserted: they sit in this tick's slot.
    tick: u64,
    slots: Box<[Slot; DUE + 1]>,
    /// A bit for each level that has an occupied slot.
    levels: u32,
    /// A bit for each slot that has a timer.
    occupied: [u64; LEVELS + 1],
    /// Room for slots to come.
    spare: Vec<Vec<Entry>>,
    /// For how many entries that is.
    spare_entries: usize,
    /// What was found due, on its way.
    due: Vec<Entry>,
}

impl<T> Wheel<T> {
    /// An empty wheel.
    pub fn new(now: Moment) -> Wheel<T> {
        Wheel {
            nodes: Vec::new(),
            free: NIL,
            len: 0,
            tick: tick_of(now.as_nanos()),
            slots: Box::new([Slot::EMPTY; DUE + 1]),
            levels: 0,
            occupied: [0; LEVELS + 1],
            spare: Vec::new(),
            spare_entries: 0,
            due: Vec::new(),
        }
    }

    /// Starts a timer. One whose moment has passed is due at once.
    pub fn insert(&mut self, at: Moment, item: T) -> TimerId {
        let at = at.as_nanos();
        let index = if self.free == NIL {
            let index = self.nodes.len() as u32;
            assert!(index < NIL, "too many timers");
            let generation = NonZeroU32::MIN;
            self.nodes.push(Node { item: Some(item), position: 0, generation, list: 0 });
            index
        } else {
            let index = self.free;
            let node = &mut self.nodes[index as usize];
            self.free = node.position;
            node.item = Some(item);
            index
        };
        self.len += 1;
        self.append(self.list_for(at), Entry { at, node: index, order: 0 });
        TimerId { index, generation: self.nodes[index as usize].generation }
    }

    /// Stops a timer and gives its item back; `None` when it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let node = self.nodes.get(id.index as usize).filter(|node| node.generation == id.generation)?;
        let (list, position) = (usize::from(node.list), node.position);
        let slot = &mut self.slots[list];
        slot.kill(position);
        if slot.is_empty() {
            self.clear(list);
        } else if slot.is_mostly_dead() {
            slot.compact(|node, position| self.nodes[node as usize].position = position);
        }
        self.release(id.index)
    }

    /// The earliest deadline: the moment until which the loop may sleep.
    ///
    /// After the cancelling of a slot's earliest timer it can be too early, never too late. The
    /// [`pop_due`](Wheel::pop_due) that is then called for nothing puts it right.
    pub fn next_deadline(&self) -> Option<Moment> {
        let due = self.slots[DUE].first().map(|entry| entry.at);
        let ahead = self.first_list().map(|list| self.slots[list].min());
        [due, ahead].into_iter().flatten().min().map(Moment::from_nanos)
    }

    /// Takes the next timer that is due at `now`, with its deadline. To be called until it says `None`; a timer
    /// inserted meanwhile for a moment that has passed is handed out too, so the caller bounds its own work.
    pub fn pop_due(&mut self, now: Moment) -> Option<(Moment, T)> {
        let now = now.as_nanos();
        loop {
            if let Some(first) = self.slots[DUE].first() {
                let position = self.nodes[first.node as usize].position;
                self.slots[DUE].kill(position);
                if self.slots[DUE].is_empty() {
                    self.clear(DUE);
                }
                return self.release(first.node).map(|item| (Moment::from_nanos(first.at), item));
            }
            let min = self.first_list().map(|list| (list, self.slots[list].min()));
            match min {
                Some((list, min)) if min <= now && list < SLOTS => self.gather(list, now),
                Some((_, min)) if min <= now => self.advance(tick_of(min)),
                _ => {
                    // Nothing is due, so no timer precedes this tick. Going along with the clock keeps the slots
                    // of what is inserted next narrow.
                    self.advance(tick_of(now));
                    return None;
                }
            }
        }
    }

    /// What the timers were for, when none is to fire any more; in no order.
    pub fn into_items(self) -> impl Iterator<Item = T> {
        self.nodes.into_iter().filter_map(|node| node.item)
    }

    /// How many timers run.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot a deadline belongs to, seen from the wheel's tick.
    fn list_for(&self, at: u64) -> usize {
        let tick = tick_of(at).max(self.tick);
        list_at(level_of(tick ^ self.tick), tick)
    }

    /// The slot with the earliest timers, the due ones aside.
    fn first_list(&self) -> Option<usize> {
        let level = self.levels.trailing_zeros() as usize;
        (level < LEVELS).then(|| level * SLOTS + self.occupied[level].trailing_zeros() as usize)
    }

    /// Moves the wheel's tick, which no timer may precede.
    fn advance(&mut self, to: u64) {
        if to <= self.tick {
            return;
        }
        let level = level_of(to ^ self.tick);
        self.tick = to;
        let list = list_at(level, to);
        if level == 0 || !self.is_occupied(list) {
            return;
        }
        let entries = self.take(list);
        for entry in entries.iter().filter(|entry| entry.node != DEAD) {
            self.append(self.list_for(entry.at), *entry);
        }
        self.keep(entries);
    }

    /// Moves what is due from a slot of the lowest level to the due slot, which is empty.
    fn gather(&mut self, list: usize, now: u64) {
        let mut due = std::mem::take(&mut self.due);
        self.slots[list].gather(now, &mut due);
        if self.slots[list].is_empty() {
            self.clear(list);
        }
        for entry in due.drain(..) {
            self.append(DUE, entry);
        }
        // A crowd that came due together is no reason to keep room for the next one.
        due.shrink_to(SPARE_ENTRIES_MAX / SPARE_MAX);
        self.due = due;
    }

    fn append(&mut self, list: usize, entry: Entry) {
        let slot = &mut self.slots[list];
        if slot.is_empty() {
            let room = self.spare.pop().unwrap_or_default();
            self.spare_entries -= room.capacity();
            slot.adopt(room);
            self.levels |= 1 << (list / SLOTS);
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
        }
        let position = slot.push(entry);
        let node = &mut self.nodes[entry.node as usize];
        node.position = position;
        node.list = list as u16;
    }

    /// Frees a node and gives its item; ids of it are stale from here on.
    fn release(&mut self, index: u32) -> Option<T> {
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        node.position = self.free;
        self.free = index;
        self.len -= 1;
        node.item.take()
    }

    /// Marks a slot as empty, and keeps its room.
    fn clear(&mut self, list: usize) {
        let room = self.take(list);
        self.keep(room);
    }

    /// Empties a slot.
    fn take(&mut self, list: usize) -> Vec<Entry> {
        let level = list / SLOTS;
        self.occupied[level] &= !(1u64 << (list % SLOTS));
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
        self.slots[list].take()
    }

    fn keep(&mut self, mut room: Vec<Entry>) {
        let entries = self.spare_entries + room.capacity();
        if self.spare.len() < SPARE_MAX && entries <= SPARE_ENTRIES_MAX {
            room.clear();
            self.spare_entries = entries;
            self.spare.push(room);
        }
    }

    fn is_occupied(&self, list: usize) -> bool {
        self.occupied[list / SLOTS] >> (list % SLOTS) & 1 == 1
    }
}

impl<T> std::fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel").field("len", &self.len).field("tick", &self.tick).finish_non_exhaustive()
    }
}

/// A timer, apart from its deadline.
struct Node<T> {
    /// Absent in a free node.
    item: Option<T>,
    /// Where its entry is in the slot.
    position: u32,
    generation: NonZeroU32,
    /// The slot it is in. Not derived from the deadline: a late timer, or a due one, is elsewhere.
    list: u16,
}

fn tick_of(nanos: u64) -> u64 {
    nanos >> TICK_BITS
}

/// The level of the highest six-bit group that is not zero.
fn level_of(difference: u64) -> usize {
    (difference.checked_ilog2().unwrap_or(0) / SLOT_BITS) as usize
}

fn list_at(level: usize, tick: u64) -> usize {
    let digit = tick >> (level as u32 * SLOT_BITS) & (SLOTS as u64 - 1);
    level * SLOTS + digit as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(size_of::<Node<Box<dyn Send>>>() <= 32);
    const _: () = assert!(size_of::<Option<TimerId>>() == 8);

    impl<T> Wheel<T> {
        /// What must hold between any two calls.
        pub(crate) fn check(&self) {
            let mut seen = 0;
            for (list, slot) in self.slots.iter().enumerate() {
                assert_eq!(self.is_occupied(list), !slot.is_empty());
                slot.check(|position, entry| {
                    let node = &self.nodes[entry.node as usize];
                    assert_eq!((node.position, usize::from(node.list)), (position, list));
                    assert!(node.item.is_some());
                    assert!(list == DUE || self.list_for(entry.at) == list, "in the wrong slot");
                    seen += 1;
                });
            }
            for level in 0..=LEVELS {
                assert_eq!(self.levels >> level & 1 == 1, self.occupied[level] != 0);
            }
            assert_eq!(seen, self.len);
        }
    }

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    fn drain(wheel: &mut Wheel<u64>, now: u64) -> Vec<(u64, u64)> {
        let due =
            std::iter::from_fn(|| wheel.pop_due(at(now))).map(|(at, item)| (at.as_nanos(), item)).collect();
        wheel.check();
        due
    }

    #[test]
    fn fires_at_its_nanosecond_and_not_before() {
        let mut wheel = Wheel::new(at(1_000));
        for deadline in [1_500, 70_000, 5_000_000, 86_400_000_000_007] {
            wheel.insert(at(deadline), deadline);
            assert_eq!(wheel.next_deadline(), Some(at(deadline)));
            assert_eq!(drain(&mut wheel, deadline - 1), []);
            assert_eq!(drain(&mut wheel, deadline), [(deadline, deadline)]);
            assert_eq!(wheel.next_deadline(), None);
        }
    }

    #[test]
    fn what_is_late_already_is_due_at_once_with_its_own_deadline() {
        let mut wheel = Wheel::new(at(1 << 40));
        wheel.insert(at((1 << 40) + 9), 2);
        wheel.insert(at(7), 1);
        assert_eq!(wheel.next_deadline(), Some(at(7)));
        assert_eq!(drain(&mut wheel, 1 << 40), [(7, 1)]);
        assert_eq!(wheel.next_deadline(), Some(at((1 << 40) + 9)));
    }

    #[test]
    fn within_a_tick_the_order_is_by_deadline_then_by_insertion() {
        let mut wheel = Wheel::new(at(1));
        for (item, deadline) in [900, 300, 900, 100, 300, 70_000].into_iter().enumerate() {
            wheel.insert(at(deadline), item as u64);
        }
        assert_eq!(drain(&mut wheel, 500), [(100, 3), (300, 1), (300, 4)]);
        assert_eq!(drain(&mut wheel, 1 << 30), [(900, 0), (900, 2), (70_000, 5)]);
    }

    #[test]
    fn a_stale_id_cancels_nothing() {
        let mut wheel = Wheel::new(at(1));
        let first = wheel.insert(at(10), 1);
        assert_eq!(wheel.cancel(first), Some(1));
        let second = wheel.insert(at(20), 2);
        assert_eq!(second.index, first.index, "the node is used again");
        assert_eq!(wheel.cancel(first), None);
        assert_eq!(wheel.pop_due(at(20)), Some((at(20), 2)));
        assert_eq!(wheel.cancel(second), None);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_due_timer_can_still_be_cancelled() {
        let mut wheel = Wheel::new(at(1));
        wheel.insert(at(10), 1);
        let second = wheel.insert(at(11), 2);
        assert_eq!(wheel.pop_due(at(100)), Some((at(10), 1)));
        assert_eq!(wheel.next_deadline(), Some(at(11)));
        assert_eq!(wheel.cancel(second), Some(2));
        assert_eq!(wheel.next_deadline(), None);
        assert_eq!(drain(&mut wheel, 100), []);
    }

    #[test]
    fn the_deadline_follows_the_cancelled_timers_of_a_list_in_order() {
        let mut wheel = Wheel::new(at(1));
        let deadline = |n| at(60_000_000_000 + n * 1_000);
        let ids: Vec<TimerId> = (0..1_000).map(|n| wheel.insert(deadline(n), n)).collect();
        for (n, id) in ids.into_iter().enumerate() {
            assert_eq!(wheel.next_deadline(), Some(deadline(n as u64)));
            wheel.cancel(id);
        }
        wheel.check();
    }

    #[test]
    fn a_deadline_too_early_is_told_once() {
        let mut wheel = Wheel::new(at(1));
        let earliest = 60_000_000_000;
        // A long list out of order: the cancel does not look for the new minimum.
        for n in (1..=200).rev() {
            wheel.insert(at(earliest + n * 1_000), n);
        }
        let first = wheel.insert(at(earliest), 0);
        wheel.cancel(first);
        assert_eq!(wheel.next_deadline(), Some(at(earliest)));
        assert_eq!(drain(&mut wheel, earliest), []);
        assert_eq!(wheel.next_deadline(), Some(at(earliest + 1_000)));
    }

    #[test]
    fn what_has_fired_does_not_come_back_when_a_slot_is_tidied() {
        let mut wheel = Wheel::new(at(1));
        let ids: Vec<TimerId> = (0..200).map(|n| wheel.insert(at(100 + n), n)).collect();
        assert_eq!(drain(&mut wheel, 149).len(), 50);
        for (n, id) in ids.into_iter().enumerate().rev().take(140) {
            assert_eq!(wheel.cancel(id), Some(n as u64));
        }
        wheel.check();
        let left: Vec<_> = (50..60).map(|n| (100 + n, n)).collect();
        assert_eq!(drain(&mut wheel, 1_000), left);
        assert!(wheel.is_empty());
    }

    #[test]
    fn the_end_of_time_has_a_place() {
        let mut wheel = Wheel::new(at(1));
        wheel.insert(at(u64::MAX), 1);
        wheel.insert(at(5), 0);
        assert_eq!(drain(&mut wheel, u64::MAX - 1), [(5, 0)]);
        assert_eq!(wheel.next_deadline(), Some(at(u64::MAX)));
        assert_eq!(drain(&mut wheel, u64::MAX), [(u64::MAX, 1)]);
    }

    #[test]
    fn a_clock_that_steps_back_loses_nothing() {
        let mut wheel = Wheel::new(at(1 << 32));
        assert_eq!(drain(&mut wheel, 1 << 33), []);
        wheel.insert(at((1 << 32) + 5), 1);
        assert_eq!(drain(&mut wheel, 1 << 32), []);
        assert_eq!(drain(&mut wheel, (1 << 32) + 5), [(4_294_967_301, 1)]);
    }
}
