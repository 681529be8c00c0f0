//! Threads that compute.
//!
//! One queue, first in, first out, under one short lock. A thread takes a few jobs at a time while many wait, and one
//! at a time when few do, so that the last ones are spread; a thread with nothing to do takes what another has taken
//! and not begun. A job that comes from a series on one of these threads, as the last thing the thread does, stays on
//! it: a series of computations pays for no wake-up.
//!
//! Knows nothing of tasks: a job is [`Work`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

use super::work::{self, Work, panic_message};

/// Most jobs a thread takes at a time. At 32, the lock is a few nanoseconds a job.
const BATCH_MAX: usize = 32;

/// How often a thread with nothing to do looks again before it sleeps. Whoever makes short jobs makes the next ones in a
/// few microseconds; to fall asleep and be woken costs both sides as much.
const LOOKS: u32 = 8;

/// The threads and their queue.
pub(crate) struct Compute {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// What each thread has taken and not begun.
    taken: Box<[Mutex<VecDeque<Box<Work>>>]>,
    closed: AtomicBool,
    queue_max: usize,
    /// As in `State`, to be read without the lock.
    queued: AtomicUsize,
    refused: super::Counter,
}

struct State {
    queue: VecDeque<Box<Work>>,
    /// Threads asleep that nobody has woken yet.
    asleep: usize,
}

thread_local! {
    static WORKER: Worker =
        const { Worker { pool: Cell::new(0), in_job: Cell::new(false), next: RefCell::new(None), outgoing: RefCell::new(Outgoing { pool: None, jobs: Vec::new() }) } };
}

/// What a thread of a pool knows of itself.
struct Worker {
    /// Which pool it belongs to; zero for other threads.
    pool: Cell<usize>,
    /// User code runs: who knows for how long.
    in_job: Cell<bool>,
    /// A job left by the series that the thread has just helped on; it comes next.
    next: RefCell<Option<Box<Work>>>,
    /// Jobs for a pool, given when what runs on this thread has run: a crowd that is started together takes the lock, and
    /// wakes threads, once for many.
    outgoing: RefCell<Outgoing>,
}

struct Outgoing {
    pool: Option<Arc<Shared>>,
    jobs: Vec<Box<Work>>,
}

impl Compute {
    /// Starts `threads` threads called `NAME-compute-N`, each running `prepare` first.
    pub(crate) fn start(
        name: &str,
        threads: usize,
        queue_max: usize,
        prepare: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Compute> {
        let state = State { queue: VecDeque::new(), asleep: 0 };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            taken: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
            closed: AtomicBool::new(false),
            queue_max,
            queued: AtomicUsize::new(0),
            refused: super::Counter::default(),
        });
        let compute = Compute { shared: shared.clone(), threads: Mutex::default() };
        for index in 0..threads.max(1) {
            let (shared, prepare) = (shared.clone(), prepare.clone());
            let spawned = thread::Builder::new().name(format!("{name}-compute-{index}")).spawn(move || {
                prepare();
                shared.live(index);
            });
            match spawned {
                Ok(thread) => compute.lock_threads().push(thread),
                Err(error) => {
                    compute.close();
                    compute.join();
                    return Err(error);
                }
            }
        }
        Ok(compute)
    }

    /// Has a thread run `job`. One that finds the queue full, or the pool closed, is dropped and counted.
    pub(crate) fn submit(&self, job: Box<Work>) {
        if let Some(job) = self.shared.keep(job) {
            Shared::collect(&self.shared, job);
        }
    }

    /// Jobs that were dropped for lack of room, or because the pool was closed.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.get()
    }

    /// Jobs that wait.
    pub(crate) fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// Has the threads end when they are done with what they run. What waits is dropped.
    pub(crate) fn close(&self) {
        let mut state = self.shared.lock();
        self.shared.closed.store(true, Ordering::Relaxed);
        let mut dropped = std::mem::take(&mut state.queue);
        self.shared.queued.store(0, Ordering::Relaxed);
        drop(state);
        self.shared.wake.notify_all();
        for taken in &self.shared.taken {
            dropped.append(&mut lock(taken));
        }
        for job in dropped {
            work::contain(|| drop(job));
        }
    }

    /// Waits for the threads to end. Not to be called on one of them.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.lock_threads());
        for thread in threads {
            // Jobs are run where panics are caught.
            let _ = thread.join();
        }
    }

    fn lock_threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        lock(&self.threads)
    }
}

/// Gives this thread's outgoing jobs to their pool.
fn flush() {
    let taken = WORKER.try_with(|worker| {
        let mut outgoing = worker.outgoing.borrow_mut();
        (outgoing.pool.take(), std::mem::take(&mut outgoing.jobs))
    });
    let Ok((Some(pool), mut jobs)) = taken else { return };
    // With nothing borrowed: jobs that find no room are dropped.
    pool.push_all(&mut jobs);
    // The room is kept for the next ones.
    let _ = WORKER.try_with(|worker| {
        let mut outgoing = worker.outgoing.borrow_mut();
        if outgoing.jobs.capacity() == 0 {
            outgoing.jobs = jobs;
        }
    });
}

/// Runs user code that may take long: what it makes ready meanwhile does not wait for it.
pub(crate) fn in_job<R>(call: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = WORKER.try_with(|worker| worker.in_job.set(self.0));
        }
    }
    let _reset = Reset(WORKER.with(|worker| worker.in_job.replace(true)));
    call()
}

impl Shared {
    /// Keeps a job for the calling thread, if that is one of the pool's and about to look for one; else gives it back.
    fn keep(&self, job: Box<Work>) -> Option<Box<Work>> {
        let here = WORKER.try_with(|worker| {
            worker.pool.get() == self.id() && !worker.in_job.get() && worker.next.borrow().is_none()
        });
        if here != Ok(true) || !work::is_line_empty() {
            return Some(job);
        }
        WORKER.with(|worker| worker.next.replace(Some(job)))
    }

    /// Gives a job to the pool soon, with others.
    fn collect(pool: &Arc<Shared>, job: Box<Work>) {
        let flush_now = WORKER.with(|worker| {
            let mut outgoing = worker.outgoing.borrow_mut();
            let another = outgoing.pool.as_ref().is_some_and(|other| !Arc::ptr_eq(other, pool));
            if another {
                drop(outgoing);
                flush();
                outgoing = worker.outgoing.borrow_mut();
            }
            if outgoing.pool.is_none() {
                outgoing.pool = Some(pool.clone());
            }
            outgoing.jobs.push(job);
            outgoing.jobs.len() >= BATCH_MAX
        });
        if flush_now || !work::when_done(flush) {
            flush();
        }
    }

    fn push_all(&self, jobs: &mut Vec<Box<Work>>) {
        let mut state = self.lock();
        let room = if self.is_closed() { 0 } else { self.queue_max.saturating_sub(state.queue.len()) };
        let refused = jobs.split_off(room.min(jobs.len()));
        let wake = state.asleep.min(jobs.len());
        state.asleep -= wake;
        state.queue.extend(jobs.drain(..));
        self.queued.store(state.queue.len(), Ordering::Relaxed);
        drop(state);
        for _ in 0..wake {
            self.wake.notify_one();
        }
        self.refused.add(refused.len() as u64);
        drop(refused);
    }

    fn push(&self, job: Box<Work>) {
        let mut state = self.lock();
        if self.is_closed() || state.queue.len() >= self.queue_max {
            drop(state);
            self.refused.add(1);
            return drop(job);
        }
        state.queue.push_back(job);
        self.queued.store(state.queue.len(), Ordering::Relaxed);
        let wake = state.asleep > 0;
        if wake {
            state.asleep -= 1;
        }
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// The life of a thread.
    fn live(&self, index: usize) {
        WORKER.with(|worker| worker.pool.set(self.id()));
        while let Some(job) = self.take(index) {
            run(job);
            // A series that computes on and on takes turns with what waits.
            for turn in 1_usize.. {
                let Some(next) = WORKER.with(|worker| worker.next.take()) else { break };
                let others = turn > BATCH_MAX && self.queued.load(Ordering::Relaxed) > 0
                    || turn % BATCH_MAX == 0 && !lock(&self.taken[index]).is_empty();
                if others || self.is_closed() {
                    work::contain(|| self.push(next));
                    break;
                }
                run(next);
            }
        }
    }

    /// What comes next for a thread; waits for it. `None`: the pool is closed.
    fn take(&self, index: usize) -> Option<Box<Work>> {
        let own = lock(&self.taken[index]).pop_front();
        if own.is_some() {
            return own;
        }
        let mut state = self.lock();
        // How often it has looked for what it can steal, and let others run.
        let mut looked = 0;
        loop {
            if let Some(job) = state.queue.pop_front() {
                // Never empties the queue: who finds that empty has nothing to miss but what it can steal.
                let more = (state.queue.len() / (4 * self.taken.len())).min(BATCH_MAX);
                lock(&self.taken[index]).extend(state.queue.drain(..more));
                self.queued.store(state.queue.len(), Ordering::Relaxed);
                return Some(job);
            }
            if self.is_closed() {
                return None;
            }
            if looked < LOOKS {
                drop(state);
                if let Some(job) = self.steal(index) {
                    return Some(job);
                }
                looked += 1;
                if looked < LOOKS {
                    thread::yield_now();
                }
                state = self.lock();
                continue;
            }
            // Whoever wakes a thread takes it off the sleepers. One that woke by itself counts twice: then a later
            // notice may reach nobody, while no thread sleeps.
            state.asleep += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            looked = 0;
        }
    }

    /// Takes half of what another thread has taken and not begun.
    fn steal(&self, index: usize) -> Option<Box<Work>> {
        let count = self.taken.len();
        for other in (1..count).map(|step| (index + step) % count) {
            let mut theirs = lock(&self.taken[other]);
            let keep = theirs.len() / 2;
            let mut stolen = theirs.split_off(keep);
            drop(theirs);
            if let Some(job) = stolen.pop_front() {
                if !stolen.is_empty() {
                    lock(&self.taken[index]).append(&mut stolen);
                    self.wake_one();
                }
                return Some(job);
            }
        }
        None
    }

    /// Has a thread that sleeps look for what it can steal: who looked while jobs were on their way from one thread to
    /// another found none.
    fn wake_one(&self) {
        let mut state = self.lock();
        if state.asleep > 0 {
            state.asleep -= 1;
            drop(state);
            self.wake.notify_one();
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Jobs run and are dropped outside the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(job: Box<Work>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job.receive(()))) {
        log::error!("a computation panicked: {}", panic_message(&*payload));
    }
}
