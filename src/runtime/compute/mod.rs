//! Threads that compute.
//!
//! One queue, first in, first out, under one short lock. What is submitted together stands in it in [rows](row), which
//! a thread takes one at a time; a thread that finds the queue empty helps another with its row. A job that comes from a
//! series on one of these threads, as the last thing the thread does, stays on it: a series of computations pays for no
//! wake-up.
//!
//! Knows nothing of tasks: what runs is a [`Job`].

mod row;
mod worker;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::{io, thread};

use super::work::panic_message;

pub(crate) use row::Job;
use row::Row;
pub(crate) use worker::in_job;

/// Most jobs that are given to the pool at a time, and so most in a row. At 32, the lock is a few nanoseconds a job.
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
    /// The row that each thread runs; put here under the lock of the state, so that who finds the queue empty under that
    /// lock has not missed it.
    at_hand: Box<[AtHand]>,
    closed: AtomicBool,
    queue_max: usize,
    /// As in `State`, to be read without the lock.
    queued: AtomicUsize,
    refused: super::Counter,
}

type AtHand = Mutex<Option<Arc<dyn Row>>>;

struct State {
    queue: VecDeque<Arc<dyn Row>>,
    /// Jobs in it.
    queued: usize,
    /// Threads asleep that nobody has woken yet.
    asleep: usize,
}

impl Compute {
    /// Starts `threads` threads called `NAME-compute-N`, each running `prepare` first.
    pub(crate) fn start(
        name: &str,
        threads: usize,
        queue_max: usize,
        prepare: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Compute> {
        let state = State { queue: VecDeque::new(), queued: 0, asleep: 0 };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            at_hand: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
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
    pub(crate) fn submit<J: Job>(&self, job: J) {
        match worker::may_keep(&self.shared) {
            true => worker::keep(job),
            false => worker::collect(&self.shared, job),
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
        let dropped = std::mem::take(&mut state.queue);
        state.queued = 0;
        self.shared.queued.store(0, Ordering::Relaxed);
        drop(state);
        self.shared.wake.notify_all();
        drop(dropped);
        for row in self.shared.at_hand.iter().filter_map(|at_hand| lock(at_hand).clone()) {
            row.discard();
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

impl Shared {
    /// Puts rows in line, as far as there is room. What finds none is dropped and counted.
    fn push(&self, rows: impl Iterator<Item = Arc<dyn Row>>) {
        let mut refused: Vec<Box<dyn Row>> = Vec::new();
        let mut state = self.lock();
        let before = state.queued;
        for row in rows {
            let room = if self.is_closed() { 0 } else { self.queue_max.saturating_sub(state.queued) };
            let len = row.len();
            if len > room {
                refused.push(row.split_off(room));
            }
            if room > 0 {
                state.queued += len.min(room);
                state.queue.push_back(row);
            }
        }
        let wake = state.asleep.min(state.queued - before);
        state.asleep -= wake;
        self.queued.store(state.queued, Ordering::Relaxed);
        drop(state);
        for _ in 0..wake {
            self.wake.notify_one();
        }
        self.refused.add(refused.iter().map(|row| row.len() as u64).sum());
        drop(refused);
    }

    /// The life of a thread.
    fn live(&self, index: usize) {
        worker::enter(self);
        while let Some(row) = self.take(index) {
            while contained(|| row.run_next()) {
                self.run_kept(&*row);
            }
        }
    }

    /// Runs what a job has left to its thread, job after job. A series that computes on and on takes turns with what waits.
    fn run_kept(&self, row: &dyn Row) {
        for turn in 1_usize.. {
            let Some(kept) = worker::take_kept() else { return };
            let others = turn > BATCH_MAX && self.queued.load(Ordering::Relaxed) > 0
                || turn % BATCH_MAX == 0 && row.len() > 0;
            if others || self.is_closed() {
                return self.push([kept.into_row()].into_iter());
            }
            contained(|| {
                kept.run();
                true
            });
        }
    }

    /// The next row for a thread; waits for it. `None`: the pool is closed.
    fn take(&self, index: usize) -> Option<Arc<dyn Row>> {
        let mut state = self.lock();
        // How often it has found nothing, and let others run.
        let mut looked = 0;
        loop {
            let row = match state.queue.pop_front() {
                Some(row) => {
                    state.queued -= row.len();
                    self.queued.store(state.queued, Ordering::Relaxed);
                    Some(row)
                }
                None => self.row_of_another(index),
            };
            // Its last row is not to keep its jobs' room until there is another.
            lock(&self.at_hand[index]).clone_from(&row);
            if row.is_some() {
                return row;
            }
            if self.is_closed() {
                return None;
            }
            looked += 1;
            if looked < LOOKS {
                drop(state);
                thread::yield_now();
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

    /// A row of another thread in which there is something to do.
    fn row_of_another(&self, index: usize) -> Option<Arc<dyn Row>> {
        let count = self.at_hand.len();
        (1..count)
            .filter_map(|step| lock(&self.at_hand[(index + step) % count]).clone())
            .find(|row| row.len() > 0)
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

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls what runs a job. If that panics, there was one.
fn contained(run: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        log::error!("a computation panicked: {}", panic_message(&*payload));
        true
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};
    use std::time::Duration;

    use super::*;
    use crate::runtime::work::{self, Later};

    const LONG: Duration = Duration::from_secs(10);

    struct Call<F>(F);

    impl<F: FnOnce() + Send + 'static> Job for Call<F> {
        fn run(self) {
            (self.0)();
        }
    }

    struct Says(Sender<u32>, u32);

    impl Job for Says {
        fn run(self) {
            self.0.send(self.1).unwrap();
        }
    }

    fn pool(threads: usize, queue_max: usize) -> Arc<Compute> {
        Arc::new(Compute::start("test", threads, queue_max, || ()).unwrap())
    }

    /// Submits in one go, as a task does that starts many.
    fn together(pool: &Arc<Compute>, submit: impl FnOnce(&Compute) + Send + 'static) {
        let pool = pool.clone();
        work::ready(Box::new(Later(move || submit(&pool))));
    }

    /// Keeps one thread until what is returned is dropped.
    fn hold(pool: &Compute) -> Sender<()> {
        let (release, held) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        pool.submit(Call(move || {
            begin.send(()).unwrap();
            let _ = held.recv();
        }));
        begun.recv_timeout(LONG).unwrap();
        release
    }

    fn end(pool: &Compute) {
        pool.close();
        pool.join();
    }

    #[test]
    fn jobs_of_several_kinds_run_in_their_order() {
        let pool = pool(1, 1_000);
        let (say, said) = mpsc::channel();
        together(&pool, move |pool| {
            for n in 0..100 {
                let say = say.clone();
                match n % 5 {
                    0 => pool.submit(Call(move || say.send(n).unwrap())),
                    _ => pool.submit(Says(say, n)),
                }
            }
        });
        assert!(said.iter().take(100).eq(0..100));
        end(&pool);
    }

    #[test]
    fn a_long_job_does_not_keep_those_behind_it_in_its_row() {
        let pool = pool(2, 1_000);
        for _ in 0..200 {
            let (say, said) = mpsc::channel();
            let (tell, told) = mpsc::channel();
            let mut told = Some(told);
            together(&pool, move |pool| {
                for n in 0..5 {
                    let (say, tell, told) = (say.clone(), tell.clone(), told.take());
                    pool.submit(Call(move || match told {
                        // The first waits for all the others.
                        Some(told) => say.send(told.iter().take(4).sum()).unwrap(),
                        None => tell.send(n).unwrap(),
                    }));
                }
            });
            assert_eq!(said.recv_timeout(LONG), Ok(10));
        }
        end(&pool);
    }

    #[test]
    fn of_a_row_goes_what_finds_room_and_the_rest_is_counted() {
        let pool = pool(1, 3);
        let release = hold(&pool);
        let (say, said) = mpsc::channel();
        together(&pool, move |pool| (0..10).for_each(|n| pool.submit(Says(say.clone(), n))));
        assert_eq!((pool.queued(), pool.refused()), (3, 7));
        drop(release);
        // The others are gone, and so are their ends of the channel.
        assert_eq!(said.iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(pool.queued(), 0);
        end(&pool);
    }

    #[test]
    fn what_waits_when_the_pool_is_closed_is_dropped_though_drops_panic() {
        struct PanicsDropped {
            hold: Option<(Sender<()>, mpsc::Receiver<()>)>,
            say: Sender<u32>,
        }
        impl Job for PanicsDropped {
            fn run(mut self) {
                let (begin, held) = self.hold.take().expect("only the first one runs");
                begin.send(()).unwrap();
                let _ = held.recv();
            }
        }
        impl Drop for PanicsDropped {
            fn drop(&mut self) {
                self.say.send(1).unwrap();
                panic!("as planned");
            }
        }
        let pool = pool(1, 100);
        let (release, held) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let (more, mut hold) = (say.clone(), Some((begin, held)));
        // One row that the thread has at hand, and one in the queue.
        together(&pool, move |pool| {
            (0..5).for_each(|_| pool.submit(PanicsDropped { hold: hold.take(), say: more.clone() }));
        });
        begun.recv_timeout(LONG).unwrap();
        together(&pool, move |pool| {
            (0..5).for_each(|_| pool.submit(PanicsDropped { hold: None, say: say.clone() }));
        });
        pool.close();
        assert_eq!(said.try_iter().sum::<u32>(), 9, "all but the one that runs");
        drop(release);
        pool.join();
        assert_eq!(said.iter().sum::<u32>(), 1);
    }

    #[test]
    fn a_panic_takes_neither_the_thread_nor_the_row_with_it() {
        let pool = pool(1, 100);
        let (say, said) = mpsc::channel();
        together(&pool, move |pool| {
            for n in 0..10 {
                let say = say.clone();
                pool.submit(Call(move || {
                    assert!(n % 2 == 0, "as planned");
                    say.send(n).unwrap();
                }));
            }
        });
        assert_eq!(said.iter().sum::<u32>(), 20);
        end(&pool);
    }
}
