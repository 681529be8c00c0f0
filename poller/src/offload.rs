//! A few threads for what may block: a cold file, a look at the disk, a name to resolve.
//!
//! This module owns a bounded queue and the threads that empty it. It knows nothing of sockets: a job carries its
//! own way back, normally a message to the poller that sent it. Threads start when a job finds none free, and end
//! after a while without one, so a program that never blocks has none.
//!
//! Submitting waits for nothing but a short lock, and may be done from the poller's thread.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What to run.
pub type Job = Box<dyn FnOnce() + Send>;

/// Jobs that wait, at most. More than that means that the disk does not keep up, and that the caller should know.
const QUEUE_MAX: usize = 1_024;
/// Threads, at most. They wait for the disk rather than compute; four keep a disk's queue busy.
const THREADS_MAX: usize = 4;
/// How long a thread waits for the next job before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// A handle to the threads. When the last one is dropped, the threads finish what is queued and end.
#[derive(Clone)]
pub struct Offload(Arc<Owner>);

/// The queue has no room, or no thread could be started: the job was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Offload {
    /// No thread runs yet.
    pub fn new() -> Offload {
        Offload::with_limits(Limits { queue: QUEUE_MAX, threads: THREADS_MAX, idle: IDLE })
    }

    /// Queues a job. One that panics is logged, and takes nothing with it.
    ///
    /// # Errors
    /// As many jobs wait as may (1,024).
    pub fn submit(&self, job: Job) -> Result<(), Full> {
        self.0.0.submit(job)
    }

    fn with_limits(limits: Limits) -> Offload {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0, started: 0, closed: false };
        Offload(Arc::new(Owner(Arc::new(Shared { limits, state: Mutex::new(state), wake: Condvar::new() }))))
    }
}

impl Default for Offload {
    fn default() -> Offload {
        Offload::new()
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.0.lock();
        f.debug_struct("Offload")
            .field("queued", &state.queue.len())
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many jobs wait for a thread")
    }
}

impl std::error::Error for Full {}

/// What the handles share. The threads hold only [`Shared`], so that this is dropped with the last handle.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_all();
    }
}

struct Limits {
    queue: usize,
    threads: usize,
    idle: Duration,
}

struct Shared {
    limits: Limits,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    queue: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job, those just woken for one included.
    idle: usize,
    /// Threads started so far, for their names.
    started: u64,
    closed: bool,
}

impl Shared {
    fn submit(self: &Arc<Shared>, job: Job) -> Result<(), Full> {
        let mut state = self.lock();
        if state.queue.len() >= self.limits.queue {
            return Err(Full);
        }
        state.queue.push_back(job);
        // A woken thread counts as idle until it has the lock, and then takes a job: each idle thread is good for
        // one that waits.
        if state.queue.len() <= state.idle {
            self.wake.notify_one();
        } else if state.threads < self.limits.threads && !self.start_thread(&mut state) && state.threads == 0
        {
            // Nobody would ever run it. It is the only one: with no thread, nothing waits.
            let refused = state.queue.pop_back();
            drop(state);
            drop(refused);
            return Err(Full);
        }
        Ok(())
    }

    fn start_thread(self: &Arc<Shared>, state: &mut State) -> bool {
        let shared = Arc::clone(self);
        let name = format!("tidegate-offload-{}", state.started);
        match thread::Builder::new().name(name).spawn(move || shared.work()) {
            Ok(_detached) => {
                state.threads += 1;
                state.started += 1;
                true
            }
            Err(error) => {
                log::warn!("cannot start an offload thread: {error}");
                false
            }
        }
    }

    /// The life of a thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                run(job);
                state = self.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (guard, wait) =
                self.wake.wait_timeout(state, self.limits.idle).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            // A job may have come at the last moment, and its wake-up may have been meant for this thread.
            if wait.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    /// Jobs run and are dropped outside the lock, so a panic cannot leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(job: Job) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(job)) {
        log::error!("an offloaded job panicked: {}", message(&*payload));
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Barrier;
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_secs(3_600);

    fn pool(queue: usize, threads: usize, idle: Duration) -> Offload {
        Offload::with_limits(Limits { queue, threads, idle })
    }

    /// Keeps a thread busy until the sender it returns is dropped; comes back when the job runs.
    fn occupy(pool: &Offload) -> Sender<()> {
        let (release, wait) = mpsc::channel::<()>();
        let (running, ran) = mpsc::channel();
        let job = move || {
            running.send(()).unwrap();
            let _ = wait.recv();
        };
        pool.submit(Box::new(job)).unwrap();
        ran.recv_timeout(PATIENCE).unwrap();
        release
    }

    fn thread_name() -> String {
        thread::current().name().unwrap_or_default().to_owned()
    }

    fn ask_name(pool: &Offload) -> Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        pool.submit(Box::new(move || sender.send(thread_name()).unwrap())).unwrap();
        receiver
    }

    /// Tells when the thread it lives on ends.
    struct Last(Sender<()>);

    impl Drop for Last {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    fn watch_end(pool: &Offload) -> Receiver<()> {
        let (sender, ended) = mpsc::channel();
        pool.submit(Box::new(move || LAST.set(Some(Last(sender))))).unwrap();
        ended
    }

    #[test]
    fn jobs_run_at_once_up_to_the_cap_and_not_beyond() {
        let pool = pool(100, 4, LONG);
        // Only if all four run at once does any of them get past the barrier.
        let barrier = Arc::new(Barrier::new(4));
        let (sender, done) = mpsc::channel();
        for _ in 0..4 {
            let (barrier, sender) = (Arc::clone(&barrier), sender.clone());
            let job = move || {
                barrier.wait();
                sender.send(thread_name()).unwrap();
            };
            pool.submit(Box::new(job)).unwrap();
        }
        let mut names: Vec<String> = (0..4).map(|_| done.recv_timeout(PATIENCE).unwrap()).collect();
        names.sort();
        assert_eq!(names, [0, 1, 2, 3].map(|n| format!("tidegate-offload-{n}")));

        let busy: Vec<Sender<()>> = (0..4).map(|_| occupy(&pool)).collect();
        let fifth = ask_name(&pool);
        assert_eq!(pool.0.0.lock().threads, 4);
        assert!(fifth.try_recv().is_err(), "no fifth thread took it");
        drop(busy);
        fifth.recv_timeout(PATIENCE).unwrap();
    }

    #[test]
    fn a_free_thread_is_used_before_a_new_one_starts() {
        let pool = pool(100, 4, LONG);
        for _ in 0..50 {
            let busy = || {
                let state = pool.0.0.lock();
                state.idle < state.threads
            };
            while busy() {
                thread::yield_now();
            }
            assert_eq!(ask_name(&pool).recv_timeout(PATIENCE).unwrap(), "tidegate-offload-0");
        }
    }

    #[test]
    fn the_queue_has_a_bound() {
        let pool = pool(3, 1, LONG);
        let busy = occupy(&pool);
        let waiting: Vec<Receiver<String>> = (0..3).map(|_| ask_name(&pool)).collect();
        assert_eq!(pool.submit(Box::new(|| unreachable!("it was refused"))), Err(Full));
        drop(busy);
        for job in waiting {
            job.recv_timeout(PATIENCE).unwrap();
        }
        ask_name(&pool).recv_timeout(PATIENCE).expect("there is room again");
    }

    #[test]
    fn a_panic_takes_neither_its_thread_nor_the_other_jobs() {
        let pool = pool(100, 1, LONG);
        pool.submit(Box::new(|| panic!("meant to happen in this test"))).unwrap();
        pool.submit(Box::new(|| panic::panic_any(7))).unwrap();
        assert_eq!(ask_name(&pool).recv_timeout(PATIENCE).unwrap(), "tidegate-offload-0");
    }

    #[test]
    fn an_idle_thread_ends_and_another_starts_when_needed() {
        let pool = pool(100, 4, Duration::from_millis(1));
        watch_end(&pool).recv_timeout(PATIENCE).expect("the idle thread ends");
        assert_eq!(pool.0.0.lock().threads, 0);
        assert_eq!(ask_name(&pool).recv_timeout(PATIENCE).unwrap(), "tidegate-offload-1");
    }

    #[test]
    fn when_the_last_handle_is_dropped_what_is_queued_is_done_and_the_threads_end() {
        let pool = pool(100, 1, LONG);
        let ended = watch_end(&pool);
        let busy = occupy(&pool);
        let waiting: Vec<Receiver<String>> = (0..5).map(|_| ask_name(&pool)).collect();
        drop(pool.clone());
        assert!(!pool.0.0.lock().closed, "one handle is left");
        drop(pool);
        drop(busy);
        for job in waiting {
            job.recv_timeout(PATIENCE).unwrap();
        }
        ended.recv_timeout(PATIENCE).expect("the thread ends");
    }

    #[test]
    fn jobs_from_many_threads_are_all_run() {
        let pool = Offload::new();
        let (sender, done) = mpsc::channel();
        thread::scope(|scope| {
            for from in 0..4 {
                let (pool, sender) = (pool.clone(), sender.clone());
                scope.spawn(move || {
                    for n in 0..200 {
                        let sender = sender.clone();
                        pool.submit(Box::new(move || sender.send(from * 200 + n).unwrap())).unwrap();
                    }
                });
            }
        });
        let mut numbers: Vec<i32> = (0..800).map(|_| done.recv_timeout(PATIENCE).unwrap()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..800));
    }
}
