//! A budget for each key: every client address its own, made on demand and forgotten when idle.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::shared::Budget;
use crate::moment::Moment;

/// Makes and keeps one [`Budget`] a key.
///
/// The budget belongs to the key, not to a connection: a client that connects again finds the debt it left. A budget
/// that nobody spends through is forgotten after the expiry, which is longer than any debt lasts. At most
/// [`KeyedBudgets::KEYS_MAX`] keys are kept; keys beyond share one budget, named `NAME/others`, so that a flood of
/// addresses cannot grow memory nor escape the limit.
///
/// Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct KeyedBudgets<K>(Arc<Mutex<Keys<K>>>);

struct Keys<K> {
    name: Arc<str>,
    rate: Option<u64>,
    parent: Budget,
    expiry: Duration,
    budgets: HashMap<K, Entry>,
    /// All keys, looked over a few at a time for what has expired.
    round: VecDeque<K>,
    others: Option<Budget>,
}

struct Entry {
    budget: Budget,
    used: Moment,
}

impl<K> fmt::Debug for KeyedBudgets<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("KeyedBudgets")
            .field("name", &keys.name)
            .field("rate", &keys.rate)
            .field("keys", &keys.budgets.len())
            .finish_non_exhaustive()
    }
}

/// Keys looked over at each call; two keep up with one new key a call.
const LOOKED_OVER: usize = 2;

impl<K: Clone + Eq + Hash + ToString> KeyedBudgets<K> {
    /// Most keys that have a budget of their own: about 50 MB of memory.
    pub const KEYS_MAX: usize = 100_000;

    /// Budgets named `name/KEY` of `rate` bytes per second each, under `parent`; forgotten when unused for `expiry`.
    pub fn new(
        name: impl Into<Arc<str>>,
        rate: Option<u64>,
        parent: Option<&Budget>,
        expiry: Duration,
    ) -> KeyedBudgets<K> {
        let name = name.into();
        let (budgets, round) = (HashMap::new(), VecDeque::new());
        // One tree for all keys: each tree costs every poller a trade of its own.
        let parent = parent.cloned().unwrap_or_else(|| Budget::builder(name.clone()).build());
        let keys = Keys { name, rate, parent, expiry, budgets, round, others: None };
        KeyedBudgets(Arc::new(Mutex::new(keys)))
    }

    /// The budget of `key`.
    pub fn get(&self, key: &K, now: Moment) -> Budget {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.expire(now);
        if let Some(entry) = keys.budgets.get_mut(key) {
            entry.used = now;
            return entry.budget.clone();
        }
        if keys.budgets.len() >= Self::KEYS_MAX {
            if keys.others.is_none() {
                keys.others = Some(keys.make("others"));
            }
            return keys.others.clone().expect("made above");
        }
        let budget = keys.make(&key.to_string());
        keys.budgets.insert(key.clone(), Entry { budget: budget.clone(), used: now });
        keys.round.push_back(key.clone());
        budget
    }

    /// Changes the rate of every key, present and future.
    pub fn set_rate(&self, rate: Option<u64>) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.rate = rate;
        for entry in keys.budgets.values() {
            entry.budget.set_rate(rate);
        }
        if let Some(others) = &keys.others {
            others.set_rate(rate);
        }
    }

    /// How many keys have a budget now.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).budgets.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash> Keys<K> {
    fn make(&self, key: &str) -> Budget {
        Budget::builder(format!("{}/{key}", self.name)).rate(self.rate).parent(&self.parent).build()
    }

    fn expire(&mut self, now: Moment) {
        for _ in 0..LOOKED_OVER {
            let Some(key) = self.round.pop_front() else { return };
            let Some(entry) = self.budgets.get_mut(&key) else { continue };
            if entry.budget.holders() > 1 {
                entry.used = now;
            }
            if now - entry.used >= self.expiry {
                self.budgets.remove(&key);
            } else {
                self.round.push_back(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_budget_until_it_has_been_idle_for_the_expiry() {
        let keyed = KeyedBudgets::new("client", Some(1_000), None, Duration::from_secs(10));
        let start = Moment::from_nanos(1);
        let first = keyed.get(&1u32, start);
        assert!(first.is(&keyed.get(&1, start)), "a key has one budget");
        for second in 0..100 {
            keyed.get(&2, start + Duration::from_secs(second));
        }
        assert!(first.is(&keyed.get(&1, start + Duration::from_secs(100))), "a budget in use is kept");
        drop(first);
        for second in 100..200 {
            keyed.get(&2, start + Duration::from_secs(second));
        }
        assert_eq!(keyed.len(), 1, "an idle one is forgotten");
    }

    #[test]
    fn it_can_be_looked_at_without_its_keys_being_shown() {
        let keyed = KeyedBudgets::new("client", Some(1_000), None, Duration::from_secs(10));
        let _budget = keyed.get(&"secret", Moment::FIRST);
        let shown = format!("{keyed:?}");
        assert_eq!(shown, "KeyedBudgets { name: \"client\", rate: Some(1000), keys: 1, .. }");
    }

    #[test]
    fn a_new_rate_reaches_every_key() {
        let keyed = KeyedBudgets::new("client", Some(1_000), None, Duration::from_secs(10));
        let budget = keyed.get(&"a", Moment::FIRST);
        keyed.set_rate(Some(5));
        assert_eq!(budget.rate(), Some(5));
        assert_eq!(keyed.get(&"b", Moment::FIRST).rate(), Some(5));
        assert_eq!(budget.name(), "client/a");
    }
}
