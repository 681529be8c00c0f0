//! Signals.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use super::names::{Name, Names};
use super::waiters::{Keep, Place, Waiters, lock};
use crate::runtime::RuntimeHandle;
use crate::task::token::Token;
use crate::task::{Continuation, Task};

/// Signals kept under names that nobody uses, in one runtime. At some 200 bytes each: less than a megabyte.
const KEPT_MAX: usize = 4_096;

/// Something that happens, and can be waited for.
///
/// [`signal`](Condition::signal) goes on with the one that has waited longest. A signal given while nobody waits is kept for
/// the next one to come; further ones meanwhile come to the same one signal. So a condition says *that* something happened,
/// not how often: for that take a [`Counter`](super::Counter), a [`Pool`](super::Pool) or a
/// [`MessageQueue`](super::MessageQueue).
///
/// A signal that reaches a series which is cancelled before its callback has run goes on to the next one that waits.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Condition, Series};
///
/// let runtime = Runtime::new()?;
/// let ready = Condition::new();
/// ready.signal();
/// let series = Series::new(0).then(ready.wait(), |_, series| {
///     series.context += 1;
///     Ok(())
/// });
/// assert_eq!(runtime.run(series)?.context, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Condition {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    named: Option<Named>,
}

struct Named {
    _name: Name<Shared>,
    kept: Weak<Kept>,
}

#[derive(Default)]
struct State {
    signal: Option<Stored>,
    waiters: Waiters<Signal>,
}

/// A signal that nobody waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stored {
    Here,
    /// It also keeps the name, under this key.
    Kept(u64),
}

impl Condition {
    /// One that is reached through its clones only.
    pub fn new() -> Condition {
        Condition { shared: Arc::new(Shared { state: Mutex::default(), named: None }) }
    }

    /// The one that has this name in a runtime. The name lives while somebody has a clone, waits, or has yet to wait for
    /// a signal that is kept. Of those that are kept for nobody, a runtime holds 4,096: the oldest are lost, and
    /// [counted](Condition::lost).
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::Condition;
    ///
    /// let runtime = Runtime::new()?;
    /// Condition::named(&runtime.handle(), "loaded").signal();
    /// runtime.run(Condition::named(&runtime.handle(), "loaded").wait())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn named(runtime: &RuntimeHandle, name: &str) -> Condition {
        let kept = Arc::downgrade(&runtime.extension::<Kept>());
        let shared = runtime
            .extension::<Names<Shared>>()
            .share(name, |name| Shared { state: Mutex::default(), named: Some(Named { _name: name, kept }) });
        Condition { shared }
    }

    /// Signals of names that nobody used, lost because too many were kept.
    pub fn lost(runtime: &RuntimeHandle) -> u64 {
        lock(&runtime.extension::<Kept>().state).lost
    }

    /// Waits for a signal.
    pub fn wait(&self) -> WaitSignal {
        WaitSignal { shared: self.shared.clone() }
    }

    /// Goes on with the one that has waited longest; keeps the signal if nobody waits.
    pub fn signal(&self) {
        self.shared.signal();
    }

    /// Goes on with all who wait, and says how many; keeps one signal if nobody waits.
    pub fn signal_all(&self) -> usize {
        let (waiters, evicted) = {
            let mut state = lock(&self.shared.state);
            let waiters = state.waiters.take_all();
            let evicted = match waiters.is_empty() {
                true => self.shared.store(&mut state),
                false => None,
            };
            (waiters, evicted)
        };
        forget(evicted);
        let count = waiters.len();
        for waiter in waiters {
            waiter.complete(Signal { passed_on: None });
        }
        count
    }
}

impl Default for Condition {
    fn default() -> Condition {
        Condition::new()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("Condition")
            .field("signalled", &state.signal.is_some())
            .field("waiting", &state.waiters.len())
            .finish()
    }
}

/// See [`Condition::wait`].
#[must_use = "a task does nothing until it is started"]
pub struct WaitSignal {
    shared: Arc<Shared>,
}

/// A signal that was received. There is nothing to be done with it.
pub struct Signal {
    /// Where it goes if whoever received it is cancelled.
    passed_on: Option<(Arc<Shared>, Arc<Token>)>,
}

impl Task for WaitSignal {
    type Output = Signal;

    fn dispatch(self, done: Continuation<Signal>) {
        let mut state = lock(&self.shared.state);
        if let Some(stored) = state.signal.take() {
            drop(state);
            self.shared.release(stored);
            let signal = Signal::new(&self.shared, done.token());
            return done.complete(signal);
        }
        let joined = state.waiters.join(done, (), self.shared.keep());
        drop(state);
        joined.watch(&self.shared);
    }
}

impl fmt::Debug for WaitSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSignal").finish_non_exhaustive()
    }
}

impl Signal {
    fn new(shared: &Arc<Shared>, token: Option<&Arc<Token>>) -> Signal {
        Signal { passed_on: token.map(|token| (shared.clone(), token.clone())) }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if let Some((shared, token)) = self.passed_on.take()
            && token.is_cancelled()
        {
            shared.signal();
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").finish_non_exhaustive()
    }
}

impl Shared {
    fn signal(self: &Arc<Self>) {
        let (waiter, evicted) = {
            let mut state = lock(&self.state);
            match state.waiters.next() {
                Some(waiter) => (Some(waiter), None),
                None => (None, self.store(&mut state)),
            }
        };
        forget(evicted);
        if let Some(waiter) = waiter {
            let signal = Signal::new(self, waiter.token());
            waiter.complete(signal);
        }
    }

    /// Keeps a signal, and with it the name. What is returned is to be [forgotten](forget) once the lock is released.
    fn store(self: &Arc<Self>, state: &mut State) -> Option<Evicted> {
        if state.signal.is_some() {
            return None;
        }
        let kept = self.named.as_ref().and_then(|named| named.kept.upgrade());
        let Some(kept) = kept else {
            state.signal = Some(Stored::Here);
            return None;
        };
        let (key, evicted) = kept.keep(self.clone());
        state.signal = Some(Stored::Kept(key));
        evicted.map(|(shared, signal)| Evicted { shared, signal, kept })
    }

    /// A signal that was kept has been taken.
    fn release(&self, stored: Stored) {
        if let Stored::Kept(key) = stored
            && let Some(kept) = self.named.as_ref().and_then(|named| named.kept.upgrade())
        {
            let released = lock(&kept.state).signals.remove(&key);
            drop(released);
        }
    }

    fn keep(self: &Arc<Self>) -> Option<Keep> {
        self.named.is_some().then(|| self.clone() as Keep)
    }
}

impl Place<Signal, ()> for Shared {
    fn with_waiters<R>(&self, call: impl FnOnce(&mut Waiters<Signal>) -> R) -> R {
        call(&mut lock(&self.state).waiters)
    }
}

/// The named conditions of a runtime that have a signal for whoever comes.
#[derive(Default)]
struct Kept {
    state: Mutex<KeptState>,
}

#[derive(Default)]
struct KeptState {
    next: u64,
    signals: BTreeMap<u64, Arc<Shared>>,
    lost: u64,
}

impl Kept {
    /// Also returns the oldest, if there are too many.
    fn keep(&self, shared: Arc<Shared>) -> (u64, Option<(Arc<Shared>, Stored)>) {
        let mut state = lock(&self.state);
        let key = state.next;
        state.next += 1;
        state.signals.insert(key, shared);
        let oldest = if state.signals.len() > KEPT_MAX { state.signals.pop_first() } else { None };
        (key, oldest.map(|(key, shared)| (shared, Stored::Kept(key))))
    }
}

/// A signal that must make room.
struct Evicted {
    shared: Arc<Shared>,
    signal: Stored,
    kept: Arc<Kept>,
}

fn forget(evicted: Option<Evicted>) {
    let Some(Evicted { shared, signal, kept }) = evicted else { return };
    let lost = {
        let mut state = lock(&shared.state);
        // Somebody may have received it just now.
        let lost = state.signal == Some(signal);
        if lost {
            state.signal = None;
        }
        lost
    };
    if lost {
        lock(&kept.state).lost += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;
    use crate::task::WaitError;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn signals_reach_who_waited_longest_and_one_is_kept() {
        let runtime = Runtime::new().unwrap();
        let condition = Condition::new();
        let (one, two) = (runtime.spawn(condition.wait()), runtime.spawn(condition.wait()));
        condition.signal();
        one.wait_for(LONG).unwrap().unwrap();
        assert!(!two.is_done());
        condition.signal();
        two.wait_for(LONG).unwrap().unwrap();
        condition.signal();
        condition.signal();
        runtime.run(condition.wait()).unwrap();
        let three = runtime.spawn(condition.wait());
        assert!(!three.is_done(), "two signals that nobody waited for are one");
        assert_eq!(condition.signal_all(), 1);
        three.wait_for(LONG).unwrap().unwrap();
    }

    #[test]
    fn a_signal_passes_over_the_cancelled_and_on_from_them() {
        let runtime = Runtime::new().unwrap();
        let condition = Condition::new();
        let (one, two) = (runtime.spawn(condition.wait()), runtime.spawn(condition.wait()));
        one.cancel();
        condition.signal();
        assert!(two.is_done());
        // It has the signal, but nobody has seen that.
        two.cancel();
        drop(two);
        runtime.spawn(condition.wait()).wait_for(LONG).unwrap().unwrap();
        assert_eq!(one.wait_for(LONG).unwrap().unwrap_err(), WaitError::Dropped);
        let cut = runtime.spawn(condition.wait());
        drop(runtime);
        assert!(cut.is_done());
    }

    #[test]
    fn a_name_lives_while_it_is_of_use() {
        let runtime = Runtime::new().unwrap();
        let core = runtime.handle();
        let names = core.extension::<Names<Shared>>();
        let waits = runtime.spawn(Condition::named(&core, "a").wait());
        Condition::named(&core, "a").signal();
        waits.wait_for(LONG).unwrap().unwrap();
        assert_eq!(names.len(), 0);
        Condition::named(&core, "a").signal();
        assert_eq!(names.len(), 1, "the signal keeps it");
        runtime.run(Condition::named(&core, "a").wait()).unwrap();
        let waits = runtime.spawn(Condition::named(&core, "a").wait());
        assert_eq!(names.len(), 1, "who waits keeps it");
        waits.cancel();
        assert_eq!(names.len(), 0);
    }

    #[test]
    fn signals_for_nobody_are_bounded_and_counted() {
        let runtime = Runtime::new().unwrap();
        let core = runtime.handle();
        for n in 0..KEPT_MAX + 10 {
            Condition::named(&core, &n.to_string()).signal();
        }
        assert_eq!(core.extension::<Names<Shared>>().len(), KEPT_MAX);
        assert_eq!(Condition::lost(&core), 10);
        assert!(runtime.spawn(Condition::named(&core, "10").wait()).is_done());
        let lost = runtime.spawn(Condition::named(&core, "9").wait());
        assert!(!lost.is_done());
    }
}
