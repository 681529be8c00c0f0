//! Those who wait at one place, in the order in which they came.
//!
//! Owns their continuations. Knows no lock: the place keeps it under its own, and must complete and drop waiters only
//! after releasing that.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tidegate_poller::Moment;

use crate::runtime::work::Receive;
use crate::runtime::{RuntimeHandle, TimerKey};
use crate::task::token::Token;
use crate::task::{Cancellation, Continuation};

/// Who waits; each with something that the place wants to know of it.
pub(super) struct Waiters<O, X = ()> {
    next: u64,
    waiting: BTreeMap<u64, Waiter<O, X>>,
}

/// One of them.
#[must_use = "dropping it ends its series"]
pub(super) struct Waiter<O, X = ()> {
    done: Continuation<O>,
    with: X,
    timer: Option<Timer>,
    keep: Option<Keep>,
}

/// What must live while somebody waits: a place that is reached by its name. Others live as long as their handles,
/// so that what nobody can give any more is not waited for.
pub(super) type Keep = Arc<dyn Any + Send + Sync>;

/// Reaches the waiters of a place, under its lock.
pub(super) trait Place<O, X>: Send + Sync + 'static {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<O, X>) -> R) -> R;
}

impl<O: Send + 'static, X: Send + 'static> Place<O, X> for Mutex<Waiters<O, X>> {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<O, X>) -> R) -> R {
        call(&mut lock(self))
    }
}

/// Somebody who has just joined, and is not watched yet: to be done as soon as the place's lock is released.
#[must_use = "nothing could cancel the wait"]
pub(super) struct Joined {
    key: u64,
    cancellation: Cancellation,
}

impl<O, X> Default for Waiters<O, X> {
    fn default() -> Waiters<O, X> {
        Waiters { next: 0, waiting: BTreeMap::new() }
    }
}

impl<O: Send + 'static, X: Send + 'static> Waiters<O, X> {
    /// Puts one at the end.
    pub(super) fn join(&mut self, mut done: Continuation<O>, with: X, keep: Option<Keep>) -> Joined {
        // Takes the token's lock under the place's. Nothing is ever called under the token's.
        let cancellation = done.cancellation();
        let key = self.next;
        self.next += 1;
        self.waiting.insert(key, Waiter { done, with, timer: None, keep });
        Joined { key, cancellation }
    }

    /// Takes out the first one that is not cancelled. Those that are take themselves out.
    pub(super) fn next(&mut self) -> Option<Waiter<O, X>> {
        let (&key, _) = self.waiting.iter().find(|(_, waiter)| !waiter.done.is_cancelled())?;
        self.waiting.remove(&key)
    }

    /// Takes out one in particular, if it is still there.
    pub(super) fn remove(&mut self, key: u64) -> Option<Waiter<O, X>> {
        self.waiting.remove(&key)
    }

    /// Whether one in particular is still there.
    pub(super) fn has(&self, key: u64) -> bool {
        self.waiting.contains_key(&key)
    }

    /// Takes out all, in order.
    pub(super) fn take_all(&mut self) -> Vec<Waiter<O, X>> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Takes out those of which `leave` says so. Also says how many it was asked about: all that are not cancelled.
    pub(super) fn take_if(&mut self, mut leave: impl FnMut(&mut X) -> bool) -> (usize, Vec<Waiter<O, X>>) {
        let live = self.waiting.iter_mut().filter(|(_, waiter)| !waiter.done.is_cancelled());
        let asked: Vec<_> = live.map(|(&key, waiter)| (key, leave(&mut waiter.with))).collect();
        let leaving = asked.iter().filter(|(_, leaves)| *leaves);
        let left = leaving.filter_map(|(key, _)| self.waiting.remove(key)).collect();
        (asked.len(), left)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl<O: Send + 'static, X> Waiter<O, X> {
    /// Goes on with it. Its name is free by then, if it was the last to use it.
    pub(super) fn complete(self, output: O) {
        let Waiter { done, timer, keep, .. } = self;
        drop((timer, keep));
        done.complete(output);
    }

    /// The task panicked, with this payload.
    pub(super) fn panicked(self, payload: Box<dyn Any + Send>) {
        let Waiter { done, timer, keep, .. } = self;
        drop((timer, keep));
        done.panicked(payload);
    }

    /// What it came with, to be kept; it goes on without.
    pub(super) fn split(self) -> (Waiter<O>, X) {
        let Waiter { done, with, timer, keep } = self;
        (Waiter { done, with: (), timer, keep }, with)
    }

    pub(super) fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl Joined {
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// Has the waiter leave when it is cancelled.
    pub(super) fn watch<P, O, X>(self, place: &Arc<P>)
    where
        P: Place<O, X>,
        O: Send + 'static,
        X: Send + 'static,
    {
        if self.cancellation.is_possible() {
            let (place, key) = (Arc::downgrade(place), self.key);
            self.cancellation.on_cancel(move || drop(leave(&place, key)));
        }
    }

    /// Also has it leave, with `output`, when it is still there at `at`.
    pub(super) fn watch_until<P, O, X>(
        self,
        place: &Arc<P>,
        runtime: RuntimeHandle,
        at: Moment,
        output: fn() -> O,
    ) where
        P: Place<O, X>,
        O: Send + 'static,
        X: Send + 'static,
    {
        let key = self.key;
        let place_then = Arc::downgrade(place);
        let elapse = Elapse { leave: move || leave(&place_then, key), output };
        let id = runtime.start_keyed_timer(at, Box::new(elapse));
        let mut timer = Some(Timer { runtime, id });
        place.with_waiters(|waiters| {
            if let Some(waiter) = waiters.waiting.get_mut(&key) {
                waiter.timer = timer.take();
            }
        });
        // Still here if it has been given what it waited for meanwhile, or if it was due.
        drop(timer);
        self.watch(place);
    }
}

/// Takes a waiter out, if place and waiter are still there.
fn leave<P: Place<O, X>, O: Send + 'static, X: Send + 'static>(
    place: &Weak<P>,
    key: u64,
) -> Option<Waiter<O, X>> {
    // What this may hold last is dropped here, after the lock.
    let place = place.upgrade()?;
    place.with_waiters(|waiters| waiters.remove(key))
}

/// A timer of the runtime, cancelled when it is dropped.
struct Timer {
    runtime: RuntimeHandle,
    id: (usize, TimerKey),
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.runtime.cancel_timer(self.id);
    }
}

/// A wait that takes too long.
struct Elapse<L, O> {
    leave: L,
    output: fn() -> O,
}

impl<L, O, X> Receive<()> for Elapse<L, O>
where
    L: FnOnce() -> Option<Waiter<O, X>> + Send,
    O: Send + 'static,
{
    fn receive(self: Box<Self>, (): ()) {
        let Elapse { leave, output } = *self;
        if let Some(waiter) = leave() {
            waiter.complete(output());
        }
    }
}

/// What is kept under these locks is whole between any two of its lines, whoever panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
