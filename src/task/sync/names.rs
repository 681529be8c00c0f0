//! What goes by a name within a runtime.
//!
//! A name points at what it names and does not own it: it goes when that goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::waiters::{Keep, Place, Waiters, lock};

/// The names of one kind of thing. One for each runtime: see
/// [`RuntimeHandle::extension`](crate::runtime::RuntimeHandle::extension).
pub(super) struct Names<S> {
    known: Mutex<HashMap<Arc<str>, Weak<S>>>,
}

/// Belongs to what is named. Dropped with it, it frees the name.
pub(super) struct Name<S> {
    names: Weak<Names<S>>,
    name: Arc<str>,
}

impl<S> Names<S> {
    /// What has the name; made with `make` if nothing has.
    pub(super) fn share(self: &Arc<Self>, name: &str, make: impl FnOnce(Name<S>) -> S) -> Arc<S> {
        let mut known = lock(&self.known);
        if let Some(found) = known.get(name).and_then(Weak::upgrade) {
            return found;
        }
        let name: Arc<str> = Arc::from(name);
        let made = Arc::new(make(Name { names: Arc::downgrade(self), name: name.clone() }));
        known.insert(name, Arc::downgrade(&made));
        made
    }

    /// What has the name.
    pub(super) fn find(&self, name: &str) -> Option<Arc<S>> {
        lock(&self.known).get(name).and_then(Weak::upgrade)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.known).len()
    }
}

impl<S> Default for Names<S> {
    fn default() -> Names<S> {
        Names { known: Mutex::default() }
    }
}

impl<S> Drop for Name<S> {
    fn drop(&mut self) {
        let Some(names) = self.names.upgrade() else { return };
        let mut known = lock(&names.known);
        // Somebody may have given the name to something new already.
        if known.get(&self.name).is_some_and(|named| named.strong_count() == 0) {
            known.remove(&self.name);
        }
    }
}

/// Those who wait under one name.
pub(super) struct Group<O, X = ()> {
    waiters: Mutex<Waiters<O, X>>,
    _name: Name<Group<O, X>>,
}

impl<O: Send + 'static, X: Send + 'static> Group<O, X> {
    pub(super) fn new(name: Name<Group<O, X>>) -> Group<O, X> {
        Group { waiters: Mutex::default(), _name: name }
    }

    /// Has the name live while somebody waits under it.
    pub(super) fn keep(self: &Arc<Self>) -> Option<Keep> {
        Some(self.clone())
    }
}

impl<O: Send + 'static, X: Send + 'static> Place<O, X> for Group<O, X> {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<O, X>) -> R) -> R {
        call(&mut lock(&self.waiters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(#[expect(dead_code, reason = "dropped with it")] Name<Thing>);

    #[test]
    fn a_name_goes_with_its_last_user() {
        let names = Arc::<Names<Thing>>::default();
        let one = names.share("a", Thing);
        let other = names.share("a", Thing);
        assert!(Arc::ptr_eq(&one, &other));
        drop(one);
        assert!(names.find("a").is_some());
        drop(other);
        assert!(names.find("a").is_none());
        assert_eq!(names.len(), 0);
    }

    #[test]
    fn a_name_that_was_taken_again_stays() {
        let names = Arc::<Names<Thing>>::default();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let names = names.clone();
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        let held = names.share("a", Thing);
                        let found = names.find("a").expect("it is held");
                        assert!(Arc::ptr_eq(&held, &found));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(names.len(), 0);
    }
}
