//! The wheel against an ordered map: random inserts, cancels and steps of the clock.

use std::collections::BTreeMap;

use super::{TimerId, Wheel};
use crate::moment::Moment;

const SEEDS: u64 = 60;
const STEPS: u64 = 1_500;
const YEAR_NS: u64 = 365 * 24 * 3_600 * 1_000_000_000;

/// `TIDEGATE_SEED` replays one seed.
#[test]
fn agrees_with_an_ordered_map() {
    match std::env::var("TIDEGATE_SEED") {
        Ok(seed) => Model::new(seed.parse().expect("TIDEGATE_SEED is a number")).run(),
        Err(_) => (0..SEEDS).for_each(|seed| Model::new(seed).run()),
    }
}

struct Model {
    seed: u64,
    random: fastrand::Rng,
    now: u64,
    wheel: Wheel<u64>,
    /// By deadline, then by order of insertion, which is also the item.
    expected: BTreeMap<(u64, u64), TimerId>,
    gone: Vec<TimerId>,
    inserted: u64,
    cancelled: u64,
    spurious: u64,
}

impl Model {
    fn new(seed: u64) -> Model {
        let mut random = fastrand::Rng::with_seed(seed);
        let bits = random.u32(1..60);
        let now = random.u64(1..1 << bits);
        let wheel = Wheel::new(Moment::from_nanos(now));
        let (expected, gone) = (BTreeMap::new(), Vec::new());
        Model { seed, random, now, wheel, expected, gone, inserted: 0, cancelled: 0, spurious: 0 }
    }

    fn run(mut self) {
        // A seed favours inserting (long lists), cancelling (most timers never fire) or neither.
        let (insert, cancel) = [(70, 90), (48, 95), (40, 60)][self.random.usize(..3)];
        for _ in 0..STEPS {
            match self.random.u64(..100) {
                choice if choice < insert => self.insert(),
                choice if choice < cancel => self.cancel(),
                _ => self.step(),
            }
            self.check();
        }
        self.now = u64::MAX;
        self.drain();
        assert!(self.wheel.is_empty());
        assert!(self.spurious <= self.cancelled, "each wake-up for nothing has a cancel of its own");
    }

    fn distance(&mut self) -> u64 {
        match self.random.u64(..12) {
            0 => 0,
            1..=3 => self.random.u64(..70_000),
            4..=6 => self.random.u64(..50) * 1_000_000,
            7 | 8 => self.random.u64(..60_000_000_000),
            9 => self.random.u64(..100) * 3_600_000_000_000,
            10 => self.random.u64(..3 * YEAR_NS),
            _ => 40_000_000,
        }
    }

    fn insert(&mut self) {
        // One value an insert of a burst, and equal deadlines among them.
        let distance = self.distance();
        for _ in 0..self.random.u64(1..8) {
            let deadline = match self.random.u64(..10) {
                0 => self.now.saturating_sub(distance).max(1),
                1..=3 => self.now.saturating_add(distance),
                _ => self.now.saturating_add(distance).saturating_add(self.random.u64(..200_000)),
            };
            let id = self.wheel.insert(Moment::from_nanos(deadline), self.inserted);
            self.expected.insert((deadline, self.inserted), id);
            self.inserted += 1;
        }
    }

    fn cancel(&mut self) {
        if let Some(stale) = self.gone.pop() {
            assert_eq!(self.wheel.cancel(stale), None);
        }
        let chosen = if self.random.bool() {
            self.expected.first_key_value()
        } else {
            let from = (self.now.saturating_add(self.random.u64(..100_000_000)), 0);
            self.expected.range(from..).next()
        };
        if let Some((&key, &id)) = chosen {
            self.expected.remove(&key);
            assert_eq!(self.wheel.cancel(id), Some(key.1));
            self.gone.push(id);
            self.cancelled += 1;
        }
    }

    fn step(&mut self) {
        if let (true, Some(next)) = (self.random.u8(..3) > 0, self.wheel.next_deadline()) {
            // As the loop does: sleep until the next deadline, sometimes waking a little before or after.
            let late = [0, 0, 1, 90_000][self.random.usize(..4)];
            let early = u64::from(self.random.u8(..8) == 0);
            self.now = self.now.max(next.as_nanos().saturating_add(late) - early);
        } else {
            self.now = self.now.saturating_add(self.distance());
        }
        if self.random.u8(..8) == 0 {
            // The loop took one and came back to the rest after other work.
            self.pop();
            self.insert();
            // What was found due goes out before what was inserted late: only the set of items is the model's.
            while let Some((at, item)) = self.wheel.pop_due(Moment::from_nanos(self.now)) {
                assert!(at.as_nanos() <= self.now);
                assert!(self.expected.remove(&(at.as_nanos(), item)).is_some());
            }
        }
        self.drain();
    }

    fn pop(&mut self) -> bool {
        let due = self.expected.first_key_value().map(|(&key, _)| key).filter(|&(at, _)| at <= self.now);
        let fired = self.wheel.pop_due(Moment::from_nanos(self.now));
        assert_eq!(fired.map(|(at, item)| (at.as_nanos(), item)), due);
        let Some(id) = due.and_then(|key| self.expected.remove(&key)) else { return false };
        if self.random.u8(..4) == 0 {
            self.gone.push(id);
        }
        true
    }

    fn drain(&mut self) {
        let told = self.wheel.next_deadline().is_some_and(|at| at.as_nanos() <= self.now);
        let mut fired = false;
        while self.pop() {
            fired = true;
        }
        self.spurious += u64::from(told && !fired);
        let next = self.wheel.next_deadline().map(Moment::as_nanos);
        assert!(next.is_none_or(|next| next > self.now), "a deadline in the past would spin the loop");
    }

    fn check(&mut self) {
        // Walking the whole wheel takes longer than the step.
        if self.random.u8(..8) == 0 {
            self.wheel.check();
        }
        assert_eq!(self.wheel.len(), self.expected.len());
        let earliest = self.expected.first_key_value().map(|(&(at, _), _)| at);
        let next = self.wheel.next_deadline().map(Moment::as_nanos);
        assert_eq!(next.is_some(), earliest.is_some());
        assert!(next <= earliest, "sleeping past a deadline");
        assert!(next == earliest || self.cancelled > 0);
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with TIDEGATE_SEED={}", self.seed);
        }
    }
}
