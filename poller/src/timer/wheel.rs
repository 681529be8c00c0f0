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

use crate::moment::Moment;

/// Nanoseconds in a tick, as a power of two: 65.5 µs, well below the loop's own lateness. It decides only how
/// timers are grouped, never when they fire.
const TICK_BITS: u32 = 16;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 16 + 8 × 6 = 64: every deadline has a place.
const LEVELS: usize = 8;
/// Timers found due and not yet taken wait in one more list, kept as the first slot of one more level.
const DUE: usize = LEVELS * SLOTS;
/// How many timers a cancel may look at to find its slot's new minimum: about as many cache misses as a spurious
/// wake-up of the loop costs. A longer slot keeps a minimum that is too low, until it is found out once.
const RESCAN_MAX: usize = 32;
/// No node.
const NIL: u32 = u32::MAX;

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
    /// Head of the list of free nodes, through `next`.
    free: u32,
    len: usize,
    /// The wheel's own tick. No timer outside the due list has an earlier one, except those that were already
    /// late when they were inserted: they sit in this tick's slot.
    tick: u64,
    lists: Box<[List; DUE + 1]>,
    /// A bit for each level that has an occupied slot.
    levels: u32,
    /// A bit for each list that has a timer.
    occupied: [u64; LEVELS + 1],
    /// A bit for each list whose deadlines may not be in order. Timers of one kind mostly come in order, and then
    /// the minimum is at the head.
    disordered: [u64; LEVELS + 1],
    /// Room to sort the due list in, kept from one time to the next.
    sorting: Vec<(u64, u32, u32)>,
}

impl<T: Copy> Wheel<T> {
    /// An empty wheel.
    pub fn new(now: Moment) -> Wheel<T> {
        Wheel {
            nodes: Vec::new(),
            free: NIL,
            len: 0,
            tick: tick_of(now.as_nanos()),
            lists: Box::new([List::EMPTY; DUE + 1]),
            levels: 0,
            occupied: [0; LEVELS + 1],
            disordered: [0; LEVELS + 1],
            sorting: Vec::new(),
        }
    }

    /// Starts a timer. One whose moment has passed is due at once.
    pub fn insert(&mut self, at: Moment, item: T) -> TimerId {
        let at = at.as_nanos();
        let index = if self.free == NIL {
            let index = self.nodes.len() as u32;
            assert!(index < NIL, "too many timers");
            let generation = NonZeroU32::MIN;
            self.nodes.push(Node { at, item, next: NIL, prev: NIL, generation, list: 0 });
            index
        } else {
            let index = self.free;
            let node = &mut self.nodes[index as usize];
            self.free = node.next;
            node.at = at;
            node.item = item;
            index
        };
        self.len += 1;
        self.append(self.list_for(at), index);
        TimerId { index, generation: self.nodes[index as usize].generation }
    }

    /// Stops a timer and gives its item back; `None` when it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let node = self.nodes.get(id.index as usize).filter(|node| node.generation == id.generation)?;
        let (at, item, list) = (node.at, node.item, usize::from(node.list));
        self.remove(id.index);
        if at <= self.lists[list].min && self.is_occupied(list) {
            self.find_min(list);
        }
        Some(item)
    }

    /// The earliest deadline: the moment until which the loop may sleep.
    ///
    /// After the cancelling of a slot's earliest timer it can be too early, never too late. The
    /// [`pop_due`](Wheel::pop_due) that is then called for nothing puts it right.
    pub fn next_deadline(&self) -> Option<Moment> {
        let due = self.node(self.lists[DUE].head).map(|node| node.at);
        let ahead = self.first_list().map(|list| self.lists[list].min);
        [due, ahead].into_iter().flatten().min().map(Moment::from_nanos)
    }

    /// Takes the next timer that is due at `now`, with its deadline. To be called until it says `None`; a timer
    /// inserted meanwhile for a moment that has passed is handed out too, so the caller bounds its own work.
    pub fn pop_due(&mut self, now: Moment) -> Option<(Moment, T)> {
        let now = now.as_nanos();
        loop {
            let head = self.lists[DUE].head;
            if let Some(node) = self.node(head) {
                let fired = (Moment::from_nanos(node.at), node.item);
                self.remove(head);
                return Some(fired);
            }
            let min = self.first_list().map(|list| (list, self.lists[list].min));
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

    /// How many timers run.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The list a deadline belongs to, seen from the wheel's tick.
    fn list_for(&self, at: u64) -> usize {
        let tick = tick_of(at).max(self.tick);
        list_at(level_of(tick ^ self.tick), tick)
    }

    /// The list with the earliest timers, the due ones aside.
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
        let mut index = self.clear(list);
        while index != NIL {
            let Node { at, next, .. } = self.nodes[index as usize];
            self.append(self.list_for(at), index);
            index = next;
        }
    }

    /// Moves what is due from a slot of the lowest level to the due list, which is empty.
    fn gather(&mut self, list: usize, now: u64) {
        let ordered = !self.is_disordered(list);
        let mut min_left = u64::MAX;
        let mut index = self.lists[list].head;
        while index != NIL {
            let Node { at, next, .. } = self.nodes[index as usize];
            if at <= now {
                self.unlink(index);
                self.append(DUE, index);
            } else {
                min_left = min_left.min(at);
                if ordered {
                    break;
                }
            }
            index = next;
        }
        self.lists[list].min = min_left;
        if self.is_disordered(DUE) {
            self.sort_due();
        }
    }

    /// Puts the due list in order, keeping the order of equal deadlines.
    fn sort_due(&mut self) {
        let mut index = self.clear(DUE);
        self.sorting.clear();
        while index != NIL {
            let Node { at, next, .. } = self.nodes[index as usize];
            self.sorting.push((at, self.sorting.len() as u32, index));
            index = next;
        }
        self.sorting.sort_unstable();
        for position in 0..self.sorting.len() {
            self.append(DUE, self.sorting[position].2);
        }
    }

    /// Corrects a list's minimum after its earliest timer left.
    fn find_min(&mut self, list: usize) {
        let head = self.lists[list].head;
        if !self.is_disordered(list) {
            self.lists[list].min = self.nodes[head as usize].at;
            return;
        }
        let mut min = u64::MAX;
        let mut index = head;
        for _ in 0..RESCAN_MAX {
            let node = &self.nodes[index as usize];
            min = min.min(node.at);
            index = node.next;
            if index == NIL {
                self.lists[list].min = min;
                return;
            }
        }
    }

    /// Unlinks a node and frees it; ids of it are stale from here on.
    fn remove(&mut self, index: u32) {
        self.unlink(index);
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        node.next = self.free;
        self.free = index;
        self.len -= 1;
    }

    fn append(&mut self, list: usize, index: u32) {
        let tail = self.lists[list].tail;
        let node = &mut self.nodes[index as usize];
        let at = node.at;
        node.next = NIL;
        node.prev = tail;
        node.list = list as u16;
        self.lists[list].tail = index;
        if tail == NIL {
            self.lists[list].head = index;
            self.lists[list].min = at;
            self.levels |= 1 << (list / SLOTS);
            self.occupied[list / SLOTS] |= 1 << (list % SLOTS);
        } else {
            let before = &mut self.nodes[tail as usize];
            before.next = index;
            if before.at > at {
                self.disordered[list / SLOTS] |= 1 << (list % SLOTS);
            }
            let min = &mut self.lists[list].min;
            *min = at.min(*min);
        }
    }

    /// Takes a node out of its list. The list's minimum is left for the caller to correct.
    fn unlink(&mut self, index: u32) {
        let Node { next, prev, list, .. } = self.nodes[index as usize];
        let list = usize::from(list);
        match prev {
            NIL => self.lists[list].head = next,
            _ => self.nodes[prev as usize].next = next,
        }
        match next {
            NIL => self.lists[list].tail = prev,
            _ => self.nodes[next as usize].prev = prev,
        }
        if self.lists[list].head == NIL {
            self.clear(list);
        }
    }

    /// Empties a list and gives its first node, from which the others can still be reached.
    fn clear(&mut self, list: usize) -> u32 {
        let level = list / SLOTS;
        let keep = !(1u64 << (list % SLOTS));
        self.occupied[level] &= keep;
        self.disordered[level] &= keep;
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
        std::mem::replace(&mut self.lists[list], List::EMPTY).head
    }

    fn node(&self, index: u32) -> Option<&Node<T>> {
        self.nodes.get(index as usize)
    }

    fn is_occupied(&self, list: usize) -> bool {
        self.occupied[list / SLOTS] >> (list % SLOTS) & 1 == 1
    }

    fn is_disordered(&self, list: usize) -> bool {
        self.disordered[list / SLOTS] >> (list % SLOTS) & 1 == 1
    }
}

impl<T> std::fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wheel").field("len", &self.len).field("tick", &self.tick).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Node<T> {
    /// Nanoseconds of the deadline.
    at: u64,
    item: T,
    next: u32,
    prev: u32,
    generation: NonZeroU32,
    /// The list it is in. Not derived from `at`: a late timer, or a due one, is elsewhere.
    list: u16,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    /// The earliest deadline. Exact in a list in order; in another it can be too low after a cancel.
    min: u64,
}

impl List {
    const EMPTY: List = List { head: NIL, tail: NIL, min: u64::MAX };
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

    const _: () = assert!(size_of::<Node<u64>>() <= 32);
    const _: () = assert!(size_of::<Option<TimerId>>() == 8);

    impl<T: Copy> Wheel<T> {
        /// What must hold between any two calls.
        pub(crate) fn check(&self) {
            let mut seen = 0;
            for list in 0..=DUE {
                let List { head, tail, min } = self.lists[list];
                assert_eq!(self.is_occupied(list), head != NIL);
                assert!(self.is_occupied(list) || !self.is_disordered(list));
                let (mut index, mut prev, mut last, mut least) = (head, NIL, 0, u64::MAX);
                while let Some(node) = self.node(index) {
                    assert_eq!((node.prev, usize::from(node.list)), (prev, list));
                    assert!(node.at >= last || self.is_disordered(list), "out of order unnoticed");
                    assert!(list == DUE || self.list_for(node.at) == list, "in the wrong slot");
                    (prev, index, last, least) = (index, node.next, node.at, least.min(node.at));
                    seen += 1;
                }
                assert_eq!(tail, prev);
                assert!(min <= least, "a minimum too high loses a wake-up");
                assert!(list == DUE || min == least || self.is_disordered(list));
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
