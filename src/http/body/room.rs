//! The memory that request bodies taken whole may take together, on all connections of a server.
//!
//! A [`Room`] is a bound and a count, shared by the server's pollers and by whoever collects a body elsewhere. What is
//! counted is counted by a [`Held`], which lies beside the bytes and goes with them: so whatever ends an exchange gives
//! back what its body took. There is no lock. It knows no body and no connection.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes are held, and how many may be.
///
/// Nothing else is read or written by what is counted here, so every access may be relaxed.
pub(in crate::http) struct Room {
    max: u64,
    held: AtomicU64,
    /// The most that was ever held.
    peak: AtomicU64,
    /// Bodies that there was no room for.
    refused: AtomicU64,
}

impl Room {
    /// Room for so many bytes; `None`: for all that come.
    pub(in crate::http) fn new(max: Option<u64>) -> Arc<Room> {
        let (held, peak, refused) = Default::default();
        Arc::new(Room { max: max.unwrap_or(u64::MAX), held, peak, refused })
    }

    /// How many bytes may be held.
    pub(in crate::http) fn max(&self) -> u64 {
        self.max
    }

    /// How many bytes are held.
    pub(in crate::http) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The most that was ever held.
    pub(in crate::http) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// How many bodies were refused.
    pub(in crate::http) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether a body of this length, if that is known, could be held as things stand. Where it could not, that is counted,
    /// and it is to be refused before it is sent.
    pub(in crate::http) fn is_there_for(&self, length: Option<u64>) -> bool {
        // Of what is not known, a byte at least.
        let found = length.unwrap_or(1) <= self.max - self.held();
        if !found {
            self.refuse();
        }
        found
    }

    /// A body is refused; said once for each.
    pub(in crate::http) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Not by adding and looking afterwards: for a moment the sum would be beyond the bound, and others be refused for
    /// bytes that nobody has.
    fn take(&self, bytes: u64) -> bool {
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.max);
        let Ok(before) = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) else {
            return false;
        };
        if before + bytes > self.peak() {
            self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        }
        true
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are counted in a room, until this is dropped. By default they are counted nowhere.
#[derive(Default)]
pub(in crate::http) struct Held {
    room: Option<Arc<Room>>,
    bytes: u64,
}

impl Held {
    /// Nothing yet.
    pub(in crate::http) fn none_of(room: Option<Arc<Room>>) -> Held {
        Held { room, bytes: 0 }
    }

    /// Where they are counted.
    pub(in crate::http) fn room(&self) -> Option<&Arc<Room>> {
        self.room.as_ref()
    }

    /// Holds as many as this, if there is room; else as many as before.
    #[must_use = "there may be no room"]
    pub(in crate::http) fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = self.room.as_ref().is_none_or(|room| room.take(more));
        if taken {
            self.bytes += more;
        }
        taken
    }

    /// Holds what another, of the same room, has held.
    #[cfg(any(test, feature = "multipart"))]
    pub(in crate::http) fn join(&mut self, mut other: Held) {
        debug_assert_eq!(self.room.as_ref().map(Arc::as_ptr), other.room.as_ref().map(Arc::as_ptr));
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(room) = self.room.as_ref().filter(|_| self.bytes > 0) {
            room.give_back(self.bytes);
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room({} of {})", self.held(), self.max)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is done with guards. Numbers name one of those there are, by their remainder.
    #[derive(Clone, Debug)]
    enum Act {
        Open,
        GrowTo(usize, u64),
        Join(usize, usize),
        Drop(usize),
        /// Whoever has it panics.
        Panic(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        let bytes = prop_oneof![0..50_u64, Just(u64::MAX), Just(u64::MAX - 20)];
        prop_oneof![
            Just(Act::Open),
            (any::<usize>(), bytes).prop_map(|(which, bytes)| Act::GrowTo(which, bytes)),
            (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Act::Join(one, other)),
            any::<usize>().prop_map(Act::Drop),
            any::<usize>().prop_map(Act::Panic),
        ]
    }

    /// Does it; `sums` is what each guard should hold by now.
    fn perform(act: Act, room: &Arc<Room>, guards: &mut Vec<Held>, sums: &mut Vec<u64>) {
        let of = |which: usize| which % sums.len();
        match act {
            Act::Open => {
                guards.push(Held::none_of(Some(room.clone())));
                sums.push(0);
            }
            _ if sums.is_empty() => {}
            Act::GrowTo(which, bytes) => {
                let (which, all) = (of(which), sums.iter().sum::<u64>());
                let wanted = bytes.max(sums[which]);
                let fits = (wanted - sums[which]).checked_add(all).is_some_and(|sum| sum <= room.max());
                assert_eq!(guards[which].grow_to(bytes), fits);
                sums[which] = if fits { wanted } else { sums[which] };
            }
            Act::Join(one, other) if of(one) != of(other) => {
                let (one, other) = (of(one), of(other));
                let moved = std::mem::replace(&mut guards[other], Held::none_of(Some(room.clone())));
                guards[one].join(moved);
                sums[one] += std::mem::take(&mut sums[other]);
            }
            Act::Join(..) => {}
            Act::Drop(which) => {
                let which = of(which);
                drop(guards.swap_remove(which));
                sums.swap_remove(which);
            }
            Act::Panic(which) => {
                let which = of(which);
                let guard = guards.swap_remove(which);
                sums.swap_remove(which);
                let fails = std::panic::AssertUnwindSafe(|| {
                    let _held = guard;
                    std::panic::resume_unwind(Box::new(()));
                });
                assert!(std::panic::catch_unwind(fails).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn the_sum_is_what_the_guards_hold_and_never_beyond_the_bound(
            max in prop_oneof![(0..200_u64).prop_map(Some), Just(None)],
            acts in prop::collection::vec(act(), 0..100),
        ) {
            let room = Room::new(max);
            let (mut guards, mut sums) = (Vec::new(), Vec::new());
            let mut peak = 0;
            for act in acts {
                perform(act, &room, &mut guards, &mut sums);
                let sum = sums.iter().sum::<u64>();
                peak = peak.max(sum);
                prop_assert_eq!((room.held(), room.peak()), (sum, peak));
                prop_assert!(sum <= room.max());
                let left = room.max() - sum;
                prop_assert!(room.is_there_for(Some(left)));
                prop_assert!(left == u64::MAX || !room.is_there_for(Some(left + 1)));
                prop_assert_eq!(room.is_there_for(None), left > 0);
            }
            drop(guards);
            prop_assert_eq!(room.held(), 0);
        }
    }

    #[test]
    fn threads_that_take_and_leave_never_hold_more_together_and_leave_nothing() {
        const MAX: u64 = 1_000;
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let room = Room::new(Some(MAX));
        let run = |thread: u64| {
            let mut random = fastrand::Rng::with_seed(seed + thread);
            let mut guards: Vec<Held> = Vec::new();
            for _ in 0..20_000 {
                if random.bool() && !guards.is_empty() {
                    guards.swap_remove(random.usize(..guards.len()));
                } else {
                    let mut guard = Held::none_of(Some(room.clone()));
                    if guard.grow_to(random.u64(1..300)) {
                        guards.push(guard);
                    } else {
                        room.refuse();
                    }
                }
                assert!(room.held() <= MAX);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || run(thread)))));
        assert_eq!(room.held(), 0);
        assert!(room.peak() <= MAX && room.peak() > MAX / 2, "{}", room.peak());
        assert!(room.refused() > 0);
    }

    #[test]
    fn what_is_counted_nowhere_has_room_without_end() {
        let mut held = Held::default();
        assert!(held.grow_to(u64::MAX) && held.grow_to(u64::MAX));
    }
}
