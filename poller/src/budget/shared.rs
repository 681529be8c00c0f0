//! Budgets as handles: cheap to clone, usable from any thread, one lock a tree.
//!
//! The lock is never on the way of a write: a poller spends from leases it already holds, and trades with the tree
//! once a turn, in a few hundred nanoseconds. Nobody calls back while holding it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::tree::{NodeId, NodeSpec, Tree};
use crate::moment::Moment;

/// A tree of budgets, shared between threads.
pub(crate) struct Shared {
    tree: Mutex<Tree>,
    watchers: Watchers,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tree> {
        // A panic while the lock was held is a bug in the arithmetic; the numbers are still the best there are.
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Tree>> {
        match self.tree.try_lock() {
            Ok(tree) => Some(tree),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn watch(&self, signal: &Arc<Signal>) {
        self.watchers.add(signal);
    }
}

/// Tells one poller that a rate changed: a flag it reads once a turn, and a call that ends its sleep.
pub struct Signal {
    changed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Signal {
    /// A signal that calls `wake` after raising its flag. `wake` must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Signal> {
        Arc::new(Signal { changed: AtomicBool::new(false), wake: Box::new(wake) })
    }

    /// Whether it was raised since the last call.
    pub(crate) fn take(&self) -> bool {
        self.changed.load(Relaxed) && self.changed.swap(false, std::sync::atomic::Ordering::Acquire)
    }

    fn raise(&self) {
        if !self.changed.swap(true, std::sync::atomic::Ordering::Release) {
            (self.wake)();
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("changed", &self.changed).finish_non_exhaustive()
    }
}

/// The pollers that must hear of a change.
#[derive(Default)]
struct Watchers(Mutex<Vec<Weak<Signal>>>);

impl Watchers {
    fn add(&self, signal: &Arc<Signal>) {
        let mut signals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        signals.retain(|other| other.strong_count() > 0);
        if !signals.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(signal))) {
            signals.push(Arc::downgrade(signal));
        }
    }

    /// Raises the signals, after letting go of the list.
    fn raise(&self) {
        let signals = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for signal in signals.iter().filter_map(Weak::upgrade) {
            signal.raise();
        }
    }
}

/// A byte rate with a burst, shared by all who spend through it, possibly with a parent.
///
/// Bytes are charged to the budget and to every ancestor. Children and the sockets of each poller share in proportion
/// to their weights; what one cannot use goes to the others. Rates, bursts and weights can be changed from any thread
/// while bytes flow, and hold within one pacing interval. Rate 0 pauses; no rate does not limit.
///
/// What may pass in any window w is at most rate·w + depth, plus one lease for each further poller. The depth is the
/// larger of the burst and one and a half quanta; a quantum is a pacing interval of the rate, but at least 2,048 bytes, or
/// 200 ms of the rate where that is less. While lateness is made up for, a window can hold a fifteenth more.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    node: NodeId,
    name: Arc<str>,
    /// Keeps the ancestors in the tree.
    parent: Option<Budget>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.lock().remove_node(self.node);
    }
}

impl Budget {
    /// Starts a budget called `name`, the name in logs and metrics. Without a rate it does not limit.
    pub fn builder(name: impl Into<Arc<str>>) -> BudgetBuilder {
        let spec = NodeSpec { name: name.into(), rate: None, burst: 0, weight: 1 };
        BudgetBuilder { spec, parent: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its parent.
    pub fn parent(&self) -> Option<&Budget> {
        self.0.parent.as_ref()
    }

    /// Bytes per second; `None` does not limit.
    pub fn rate(&self) -> Option<u64> {
        self.0.shared.lock().spec(self.0.node).rate
    }

    /// Changes the rate, in bytes per second. Holds within one pacing interval, upward and downward: a transfer never
    /// freezes, the past is never paid back. 0 pauses all who spend through it, `None` lifts the limit.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.set_rate_at(rate, crate::sys::now());
    }

    /// [`Budget::set_rate`] with the time as an argument.
    pub(crate) fn set_rate_at(&self, rate: Option<u64>, now: Moment) {
        self.0.shared.lock().set_rate(self.0.node, rate, now);
        self.0.shared.watchers.raise();
    }

    /// Changes the burst: bytes that may pass at once after idleness, where more than the default depth.
    pub fn set_burst(&self, burst: u64) {
        self.0.shared.lock().set_burst(self.0.node, burst);
    }

    /// Changes the weight among its parent's children; 0 counts as 1.
    pub fn set_weight(&self, weight: u32) {
        self.0.shared.lock().set_weight(self.0.node, weight);
    }

    /// Bytes charged so far. Leases on their way are included.
    pub fn spent(&self) -> u64 {
        self.0.shared.lock().spent(self.0.node)
    }

    /// Bytes of the rate that nobody asked for, or that a late loop came too late for.
    pub fn lost(&self) -> u64 {
        self.0.shared.lock().lost(self.0.node)
    }

    /// Name, rate and bytes spent of every budget in the tree, this one's relatives included.
    pub fn relatives(&self) -> Vec<(Arc<str>, Option<u64>, u64)> {
        let tree = self.0.shared.lock();
        tree.each_node().map(|(_, spec, spent)| (spec.name.clone(), spec.rate, spent)).collect()
    }

    /// A number that no other budget has as long as a handle to this one is kept. For tables by budget.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn node(&self) -> NodeId {
        self.0.node
    }

    /// How many handles there are, children and ports included.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Whether `other` is this budget or one of its ancestors.
    pub(crate) fn is_below(&self, other: &Budget) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.parent().is_some_and(|parent| parent.is_below(other))
    }

    /// Whether both are the same budget.
    pub fn is(&self, other: &Budget) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("name", &self.name())
            .field("rate", &self.rate())
            .finish_non_exhaustive()
    }
}

/// Makes a [`Budget`].
#[derive(Clone, Debug)]
pub struct BudgetBuilder {
    spec: NodeSpec,
    parent: Option<Budget>,
}

impl BudgetBuilder {
    /// Bytes per second; `None` (the default) does not limit, 0 pauses.
    pub fn rate(mut self, rate: impl Into<Option<u64>>) -> BudgetBuilder {
        self.spec.rate = rate.into();
        self
    }

    /// Bytes that may pass at once after idleness, where more than the default depth.
    pub fn burst(mut self, burst: u64) -> BudgetBuilder {
        self.spec.burst = burst;
        self
    }

    /// Part of the parent's bytes relative to its other children; 1 by default.
    pub fn weight(mut self, weight: u32) -> BudgetBuilder {
        self.spec.weight = weight;
        self
    }

    /// The budget above it, to which every byte is charged too.
    pub fn parent(mut self, parent: &Budget) -> BudgetBuilder {
        self.parent = Some(parent.clone());
        self
    }

    /// Makes it.
    pub fn build(self) -> Budget {
        self.build_at(crate::sys::now())
    }

    /// [`BudgetBuilder::build`] with the time as an argument.
    pub(crate) fn build_at(self, now: Moment) -> Budget {
        let shared = match &self.parent {
            Some(parent) => parent.0.shared.clone(),
            None => Arc::new(Shared { tree: Mutex::new(Tree::new()), watchers: Watchers::default() }),
        };
        let name = self.spec.name.clone();
        let above = self.parent.as_ref().map(Budget::node);
        let node = shared.lock().add_node(self.spec, above, now);
        Budget(Arc::new(Inner { shared, node, name, parent: self.parent }))
    }
}

/// A byte rate that *each* socket it is given to has for itself: the limit of a connection.
///
/// All sockets follow when the rate is changed, from any thread, within one pacing interval.
#[derive(Clone)]
pub struct Limit(Arc<LimitInner>);

struct LimitInner {
    name: Arc<str>,
    /// Bytes per second; [`UNLIMITED`] for none.
    rate: AtomicU64,
    burst: AtomicU64,
    by_kernel: bool,
    watchers: Watchers,
}

/// Stands for "no rate" in an atomic.
const UNLIMITED: u64 = u64::MAX;

impl Limit {
    /// A limit of `rate` bytes per second for each socket; `None` does not limit, 0 pauses.
    pub fn new(name: impl Into<Arc<str>>, rate: Option<u64>) -> Limit {
        Limit::make(name.into(), rate, false)
    }

    /// As [`Limit::new`], but the kernel paces (`SO_MAX_PACING_RATE`): smoother within a millisecond, dearer with many
    /// slow sockets, and only for TCP egress; the bytes are accounted for in the same way. Pauses do not show in the
    /// ledger as throttled: they are the kernel's.
    pub fn by_kernel(name: impl Into<Arc<str>>, rate: Option<u64>) -> Limit {
        Limit::make(name.into(), rate, true)
    }

    fn make(name: Arc<str>, rate: Option<u64>, by_kernel: bool) -> Limit {
        let rate = AtomicU64::new(rate.unwrap_or(UNLIMITED));
        let watchers = Watchers::default();
        Limit(Arc::new(LimitInner { name, rate, burst: AtomicU64::new(0), by_kernel, watchers }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes per second; `None` does not limit.
    pub fn rate(&self) -> Option<u64> {
        Some(self.0.rate.load(Relaxed)).filter(|rate| *rate != UNLIMITED)
    }

    /// Changes the rate of every socket that has this limit. See [`Budget::set_rate`].
    pub fn set_rate(&self, rate: Option<u64>) {
        self.0.rate.store(rate.unwrap_or(UNLIMITED), Relaxed);
        self.0.watchers.raise();
    }

    /// Bytes that may pass at once after idleness, where more than the default depth.
    pub fn burst(&self) -> u64 {
        self.0.burst.load(Relaxed)
    }

    /// Changes the burst.
    pub fn set_burst(&self, burst: u64) {
        self.0.burst.store(burst, Relaxed);
    }

    /// Whether the kernel paces.
    pub fn is_by_kernel(&self) -> bool {
        self.0.by_kernel
    }

    /// Whether both are the same limit.
    pub fn is(&self, other: &Limit) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn watch(&self, signal: &Arc<Signal>) {
        self.0.watchers.add(signal);
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("name", &self.name())
            .field("rate", &self.rate())
            .finish_non_exhaustive()
    }
}
