//! The runtime and the handle to it.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tidegate_poller::offload::Offload;
use tidegate_poller::{Moment, Poller, PollerFigures, PollerSettings};

use super::builder::RuntimeBuilder;
use super::compute::{self, Compute};
use super::local::{self, Inbox, Job, Timer, TimerKey};
use super::pollers::{PollerHandles, Pollers, Setup};
use super::under_way::{Cut, Running, UnderWay};
use super::work::{self, Ready, Work};

/// Threads to run tasks and sockets on. Dropped, it ends at once: what runs is cut; [`Runtime::shutdown`] gives it
/// time.
///
/// ```
/// use std::time::Duration;
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Series, go, sleep};
///
/// let runtime = Runtime::builder().name("app").pollers(1).compute_threads(2).build()?;
/// let series = Series::new(())
///     .then(sleep(Duration::from_millis(5)), |(), _| Ok(()))
///     .then(go(|| "done"), |word, _| Ok(println!("{word}")));
/// runtime.start(series).detach();
/// // It has a minute to end, and needs a moment.
/// runtime.shutdown(Duration::from_secs(60))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Runtime {
    core: RuntimeHandle,
    pollers: Option<Pollers>,
}

/// Reaches a runtime, from any thread; cheap to clone. It does not keep the threads alive.
#[derive(Clone)]
pub struct RuntimeHandle(Arc<Core>);

/// Reaches a runtime as long as there is one. For what the runtime keeps itself, which would else keep the runtime.
#[derive(Clone)]
pub(crate) struct WeakRuntime(Weak<Core>);

/// What was asked for would have the calling thread, one of the runtime's own or one that goes on with a series, wait for
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnThread;

/// How a runtime is doing.
#[derive(Clone, Debug)]
pub struct RuntimeFigures {
    /// Of each poller.
    pub pollers: Vec<PollerFigures>,
    /// Series and tasks that were started and have not ended.
    pub running: usize,
    /// Computations that wait for a thread.
    pub compute_queued: usize,
    /// Computations that were dropped because the queue was full.
    pub compute_refused: u64,
    /// How often callbacks held a poller for more than 50 ms.
    pub slow_callbacks: u64,
}

struct Core {
    /// Tells this runtime's threads from those of others.
    id: u64,
    inboxes: Box<[Arc<Inbox>]>,
    /// Once all have started.
    started: std::sync::OnceLock<PollerHandles>,
    next_poller: AtomicUsize,
    next_key: AtomicU64,
    compute: Compute,
    offload: Offload,
    /// As the pollers were told.
    pace_interval: Option<Duration>,
    stopping: AtomicBool,
    under_way: Arc<UnderWay>,
    extensions: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// Names a timer of a runtime, to cancel it by.
pub(crate) type RuntimeTimer = (usize, TimerKey);

thread_local! {
    /// The runtime that the thread belongs to; zero for none.
    static RUNTIME: Cell<u64> = const { Cell::new(0) };
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Runtime {
    /// A runtime with one poller and a computing thread for each CPU.
    ///
    /// # Errors
    /// When a thread cannot be started or a poller not be made: no descriptor or no memory is left.
    pub fn new() -> io::Result<Runtime> {
        Runtime::builder().build()
    }

    /// A runtime to be described.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::new()
    }

    pub(super) fn launch(builder: RuntimeBuilder) -> io::Result<Runtime> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let enter = move || RUNTIME.set(id);
        let mut setups = builder.setups;
        while setups.len() < builder.pollers.max(1) {
            setups.push(Box::new(|_| Ok(())));
        }
        let inboxes: Box<[_]> = setups.iter().map(|_| Inbox::new()).collect();
        let compute = Compute::start(&builder.name, builder.compute_threads, builder.compute_queue, enter)?;
        let core = Core::new(id, inboxes, compute, builder.poller_settings.pace_interval);
        let core = RuntimeHandle(Arc::new(core));
        let mut runtime = Runtime { core: core.clone(), pollers: None };
        let setups = setups.into_iter().enumerate().map(|(index, setup)| {
            let (core, inbox) = (core.clone(), core.0.inboxes[index].clone());
            let wrapped = move |poller: &mut Poller| {
                enter();
                local::enter(poller, inbox, core);
                setup(poller)
            };
            Box::new(wrapped) as Setup
        });
        let settings = PollerSettings { name: builder.name, ..builder.poller_settings };
        let pollers = Pollers::start(&settings, setups.collect())?;
        let _ = core.0.started.set(pollers.handles());
        runtime.pollers = Some(pollers);
        Ok(runtime)
    }

    /// For models of threads: without pollers, whose threads would be real ones.
    #[cfg(all(test, tidegate_shuttle))]
    pub(crate) fn without_pollers() -> io::Result<Runtime> {
        let compute = Compute::start("model", 1, 1, || ())?;
        let core = Core::new(u64::MAX, Box::default(), compute, None);
        Ok(Runtime { core: RuntimeHandle(Arc::new(core)), pollers: None })
    }

    /// Reaches its pollers.
    pub fn pollers(&self) -> PollerHandles {
        self.core.pollers().cloned().unwrap_or_default()
    }

    /// A handle to it.
    pub fn handle(&self) -> RuntimeHandle {
        self.core.clone()
    }

    /// Shuts down: the pollers close their listeners at once, and nothing more is started. What runs, and the exchanges of
    /// callers that are in, have until `grace` is over to end, and are cut then, their `finally` included. Returns when all
    /// threads have ended.
    ///
    /// # Errors
    /// On one of its own threads, and within a callback of a series, at once: it would wait for itself.
    pub fn shutdown(mut self, grace: Duration) -> Result<(), OwnThread> {
        self.core.check_wait()?;
        self.end(grace);
        Ok(())
    }

    /// Waits until the pollers have ended, which others asked of them by [`RuntimeHandle::pollers`]; then stops the rest. On
    /// one of its own threads, and within a callback of a series, this is an error ([`OwnThread`]) at once.
    pub fn join(mut self) -> io::Result<()> {
        self.core.check_wait().map_err(io::Error::other)?;
        let ended = self.pollers.take().map_or(Ok(()), Pollers::join);
        self.end(Duration::ZERO);
        ended
    }

    fn end(&mut self, grace: Duration) {
        let core = &self.core.0;
        // One that is too far away never comes.
        let deadline = Instant::now().checked_add(grace);
        core.stopping.store(true, Ordering::SeqCst);
        if let Some(pollers) = &self.pollers {
            for poller in pollers.handles().iter() {
                let serving = core.under_way.serve();
                poller.close_to_callers(move || drop(serving));
            }
        }
        core.under_way.wait(deadline);
        core.under_way.cut();
        // Sockets have what is left of the time, and may need computations until then.
        if let Some(pollers) = self.pollers.take() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            pollers.handles().shutdown(left.unwrap_or(Duration::MAX));
            if let Err(error) = pollers.join() {
                log::error!("a poller ended with an error: {error}");
            }
        }
        core.compute.close();
        core.compute.join();
        // What is kept for a type may hold a handle, which keeps it.
        let kept = std::mem::take(&mut *core.extensions.lock().unwrap_or_else(PoisonError::into_inner));
        drop(kept);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        match self.core.check_thread() {
            Ok(()) => self.end(Duration::ZERO),
            Err(OwnThread) => {
                log::error!(
                    "a runtime was dropped on one of its own threads, which cannot wait for itself: its threads are told to end, and left alone"
                );
                self.core.0.stopping.store(true, Ordering::SeqCst);
                self.core.0.under_way.cut();
                self.core.0.compute.close();
                if let Some(pollers) = &self.pollers {
                    pollers.handles().shutdown(Duration::ZERO);
                }
            }
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl RuntimeHandle {
    /// The runtime of the calling thread, where that is a poller's.
    pub fn of_poller() -> Option<RuntimeHandle> {
        local::runtime()
    }

    /// Reaches its pollers.
    pub fn pollers(&self) -> Option<&PollerHandles> {
        self.0.started.get()
    }

    /// How it is doing.
    pub fn figures(&self) -> RuntimeFigures {
        RuntimeFigures {
            pollers: self.pollers().map(PollerHandles::figures).unwrap_or_default(),
            running: self.0.under_way.started(),
            compute_queued: self.0.compute.queued(),
            compute_refused: self.0.compute.refused(),
            slow_callbacks: self.0.inboxes.iter().map(|inbox| inbox.held.get()).sum(),
        }
    }

    /// Whether it is shutting down, and starts nothing more.
    pub fn is_shutting_down(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// Whether the calling thread is none of this runtime's, and so may wait for what they do.
    ///
    /// # Errors
    /// It is one of them, or within a callback of a series.
    pub fn check_thread(&self) -> Result<(), OwnThread> {
        match RUNTIME.try_with(Cell::get) {
            Ok(id) if id == self.0.id => Err(OwnThread),
            _ => Ok(()),
        }
    }

    /// Whether the calling thread may wait for a task: it is none of this runtime's, and goes on with nothing that might
    /// have to go on first. The callbacks of a series run on whatever thread completed its task.
    pub(crate) fn check_wait(&self) -> Result<(), OwnThread> {
        match work::is_running() {
            true => Err(OwnThread),
            false => self.check_thread(),
        }
    }

    /// What this runtime keeps of a type, made when first asked for. For what would otherwise be global: named
    /// counters, pools of connections.
    pub fn extension<T: Any + Send + Sync + Default>(&self) -> Arc<T> {
        let lock = || self.0.extensions.lock().unwrap_or_else(PoisonError::into_inner);
        let found = lock().get(&TypeId::of::<T>()).cloned();
        let found = found.unwrap_or_else(|| {
            // Made outside the lock: it may ask for another. If somebody else was quicker, theirs counts.
            let made: Arc<dyn Any + Send + Sync> = Arc::new(T::default());
            lock().entry(TypeId::of::<T>()).or_insert(made).clone()
        });
        // Under its own type's key there is nothing else.
        found.downcast().unwrap_or_default()
    }

    /// Threads for what blocks.
    pub fn offload(&self) -> &Offload {
        &self.0.offload
    }

    /// The pacing interval that its pollers were told, if any.
    pub(crate) fn pace_interval(&self) -> Option<Duration> {
        self.0.pace_interval
    }

    /// Whether both reach the same runtime.
    #[cfg(feature = "sse")]
    pub(crate) fn is(&self, other: &RuntimeHandle) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn downgrade(&self) -> WeakRuntime {
        WeakRuntime(Arc::downgrade(&self.0))
    }

    /// Runs `job` on a poller's thread. Jobs from one thread are run in their order.
    pub(crate) fn submit_to(&self, poller: usize, job: Job) {
        self.0.inboxes[poller].submit(job);
    }

    /// How many pollers it has.
    pub(crate) fn poller_count(&self) -> usize {
        self.0.inboxes.len()
    }

    /// Has a computing thread run `job`.
    pub(crate) fn compute(&self, job: impl compute::Job) {
        self.0.compute.submit(job);
    }

    /// Has `work` get ready at `at`, on a poller's thread: the calling one where that is a poller, else one after the other.
    pub(crate) fn start_timer(&self, at: Moment, work: Ready) {
        let index = self.poller_here_or_next();
        self.0.inboxes[index].start_timer(Timer::Plain(at, work));
    }

    /// The same, with a key to [cancel](RuntimeHandle::cancel_timer) it by.
    pub(crate) fn start_keyed_timer(&self, at: Moment, work: Box<Work>) -> RuntimeTimer {
        let index = self.poller_here_or_next();
        let key = self.0.next_key.fetch_add(1, Ordering::Relaxed);
        self.0.inboxes[index].start_timer(Timer::Keyed(at, key, work));
        (index, key)
    }

    /// Drops a timer's work, unless it got ready.
    pub(crate) fn cancel_timer(&self, (index, key): RuntimeTimer) {
        self.0.inboxes[index].cancel_timer(key);
    }

    /// Counts something that runs, until what is returned is dropped. `cut` ends it when the runtime shuts down. `None`:
    /// it does already.
    pub(crate) fn begin(&self, cut: Cut) -> Option<Running> {
        self.0.under_way.begin(cut, || self.is_shutting_down())
    }

    /// The same, for what a caller who is in has asked for: he is served while the runtime shuts down, until all is cut.
    pub(crate) fn begin_for_caller(&self, cut: Cut) -> Option<Running> {
        self.0.under_way.begin(cut, || false)
    }

    /// Has `work` go on on a poller's thread.
    pub(crate) fn ready_on_poller(&self, index: usize, work: Box<Work>) {
        self.0.inboxes[index].ready(work);
    }

    /// The calling thread's poller, if it is one, else one after the other.
    pub(crate) fn poller_here_or_next(&self) -> usize {
        let inboxes = &self.0.inboxes;
        if inboxes.len() == 1 {
            return 0;
        }
        if self.check_thread().is_err()
            && let Some(here) = inboxes.iter().position(Inbox::is_here)
        {
            return here;
        }
        self.0.next_poller.fetch_add(1, Ordering::Relaxed) % inboxes.len()
    }
}

impl WeakRuntime {
    pub(crate) fn upgrade(&self) -> Option<RuntimeHandle> {
        self.0.upgrade().map(RuntimeHandle)
    }
}

impl fmt::Debug for RuntimeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("id", &self.0.id).field("figures", &self.figures()).finish()
    }
}

impl Core {
    fn new(id: u64, inboxes: Box<[Arc<Inbox>]>, compute: Compute, pace_interval: Option<Duration>) -> Core {
        Core {
            id,
            inboxes,
            started: std::sync::OnceLock::new(),
            next_poller: AtomicUsize::new(0),
            next_key: AtomicU64::new(1),
            compute,
            offload: Offload::new(),
            pace_interval,
            stopping: AtomicBool::new(false),
            under_way: Arc::default(),
            extensions: Mutex::default(),
        }
    }
}

impl fmt::Display for OwnThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "one of the runtime's own threads, or one that goes on with a series, would wait for itself",
        )
    }
}

impl std::error::Error for OwnThread {}
