//! One slot of the wheel: deadlines in the order they came.
//!
//! Entries lie one after another in memory, so that spreading a slot or firing it reads them at the speed of memory
//! rather than one cache miss after another. A cancelled entry stays as a dead one until its turn, or until the dead
//! are the greater part. Knows nothing of what the timers are for.

/// The node of a dead entry.
pub(super) const DEAD: u32 = u32::MAX;
/// How many entries a cancel may look at to find the new minimum: about as many cache misses as a spurious wake-up of
/// the loop costs. A longer slot keeps a minimum that is too low, until it is found out once.
const RESCAN_MAX: usize = 32;
/// So many dead entries are not worth moving the others.
const DEAD_KEPT: usize = 32;

/// A deadline, and the node of its timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) at: u64,
    pub(super) node: u32,
    /// Where it stood among those that are due together; of no meaning in a slot.
    pub(super) order: u32,
}

/// The timers of one slot.
#[derive(Debug)]
pub(super) struct Slot {
    entries: Vec<Entry>,
    /// Where the first live entry is.
    start: usize,
    live: usize,
    /// The earliest deadline. Exact in a slot in order; in another it can be too low after a cancel.
    min: u64,
    /// Whether deadlines rise from entry to entry. Timers of one kind mostly come in order, and then the minimum is that
    /// of the first.
    ordered: bool,
}

impl Slot {
    pub(super) const EMPTY: Slot =
        Slot { entries: Vec::new(), start: 0, live: 0, min: u64::MAX, ordered: true };

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(super) fn min(&self) -> u64 {
        self.min
    }

    /// Gives an empty slot room for its entries.
    pub(super) fn adopt(&mut self, room: Vec<Entry>) {
        debug_assert!(self.live == 0 && room.is_empty());
        *self = Slot { entries: room, ..Slot::EMPTY };
    }

    /// Adds an entry, and says at which position.
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        self.ordered &= self.entries.last().is_none_or(|last| last.at <= entry.at);
        self.min = self.min.min(entry.at);
        self.live += 1;
        self.entries.push(entry);
        (self.entries.len() - 1) as u32
    }

    /// The first live entry.
    pub(super) fn first(&self) -> Option<Entry> {
        self.entries.get(self.start).copied()
    }

    /// Takes an entry out. What is left of an emptied slot is to be [taken](Slot::take).
    pub(super) fn kill(&mut self, position: u32) {
        let at = self.entries[position as usize].at;
        self.entries[position as usize].node = DEAD;
        self.live -= 1;
        if self.live > 0 {
            self.skip_dead();
            if at <= self.min {
                self.find_min();
            }
        }
    }

    /// Whether moving the live entries together is worth it.
    pub(super) fn is_mostly_dead(&self) -> bool {
        self.entries.len() - self.start > 2 * self.live + DEAD_KEPT
    }

    /// Moves the live entries together; tells each one's node its new position.
    pub(super) fn compact(&mut self, mut moved: impl FnMut(u32, u32)) {
        // What lies before the first live one has fired, and is not marked.
        self.entries.drain(..self.start);
        self.entries.retain(|entry| entry.node != DEAD);
        self.start = 0;
        for (position, entry) in self.entries.iter().enumerate() {
            moved(entry.node, position as u32);
        }
    }

    /// Moves what is due at `now` to `due`, in order of deadline, equal ones in the order they came.
    pub(super) fn gather(&mut self, now: u64, due: &mut Vec<Entry>) {
        if self.ordered {
            let live = &self.entries[self.start..];
            let count = live.partition_point(|entry| entry.at <= now);
            due.extend(live[..count].iter().filter(|entry| entry.node != DEAD));
            self.start += count;
            self.live -= due.len();
        } else {
            for entry in &mut self.entries[self.start..] {
                if entry.node != DEAD && entry.at <= now {
                    due.push(Entry { order: due.len() as u32, ..*entry });
                    entry.node = DEAD;
                    self.live -= 1;
                }
            }
            // In place: a sort that is stable by itself asks for memory, and has the allocator tidy up.
            due.sort_unstable_by_key(|entry| (entry.at, entry.order));
        }
        if self.live > 0 {
            self.skip_dead();
            self.min = match self.ordered {
                true => self.entries[self.start].at,
                false => self.live_entries().map(|entry| entry.at).min().unwrap_or(u64::MAX),
            };
        }
    }

    /// Takes all entries, dead ones among them, and leaves the slot empty.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        let mut taken = std::mem::replace(self, Slot::EMPTY);
        if taken.start > 0 {
            taken.entries.drain(..taken.start);
        }
        taken.entries
    }

    fn live_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries[self.start..].iter().filter(|entry| entry.node != DEAD)
    }

    fn skip_dead(&mut self) {
        while self.entries[self.start].node == DEAD {
            self.start += 1;
        }
    }

    /// Corrects the minimum after the earliest entry left.
    fn find_min(&mut self) {
        if self.ordered {
            self.min = self.entries[self.start].at;
        } else if self.entries.len() - self.start <= RESCAN_MAX {
            self.min = self.live_entries().map(|entry| entry.at).min().unwrap_or(u64::MAX);
        }
    }
}

#[cfg(test)]
impl Slot {
    /// What must hold between any two calls; hands on the live entries with their positions.
    pub(super) fn check(&self, mut live: impl FnMut(u32, Entry)) {
        let mut last = 0;
        let mut count = 0;
        for (position, entry) in self.entries.iter().enumerate() {
            if position < self.start || entry.node == DEAD {
                continue;
            }
            assert!(entry.at >= last || !self.ordered, "out of order unnoticed");
            assert!(self.min <= entry.at, "a minimum too high loses a wake-up");
            last = entry.at;
            count += 1;
            live(position as u32, *entry);
        }
        assert_eq!(count, self.live);
        assert!(!self.ordered || self.first().is_none_or(|first| first.at == self.min) || self.live == 0);
        assert!(self.live > 0 || self.entries.capacity() == 0, "an empty slot keeps no room");
    }
}
