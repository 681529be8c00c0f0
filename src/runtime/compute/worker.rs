//! What a thread that makes jobs knows: one it keeps for itself, and those it is about to give away.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::row::{Job, Kept, Row, jobs_of, row_of};
use super::{BATCH_MAX, Shared};
use crate::runtime::work;

thread_local! {
    static WORKER: Worker = const {
        Worker {
            pool: Cell::new(0),
            in_job: Cell::new(false),
            kept: RefCell::new(None),
            outgoing: RefCell::new(Outgoing { pool: None, rows: Vec::new(), jobs: 0 }),
        }
    };
}

struct Worker {
    /// Which pool the thread belongs to; zero for other threads.
    pool: Cell<usize>,
    /// User code runs: who knows for how long.
    in_job: Cell<bool>,
    /// A job left by the series that the thread has just helped on; it comes next.
    kept: RefCell<Option<Box<dyn Kept>>>,
    /// Jobs for a pool, given when what runs on this thread has run: a crowd that is started together takes the lock, and
    /// wakes threads, once for many.
    outgoing: RefCell<Outgoing>,
}

struct Outgoing {
    pool: Option<Arc<Shared>>,
    rows: Vec<Box<dyn Row>>,
    /// How many jobs they are.
    jobs: usize,
}

/// Makes the calling thread one of a pool's.
pub(super) fn enter(pool: &Shared) {
    WORKER.with(|worker| worker.pool.set(pool.id()));
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

/// Whether the calling thread is one of the pool's and about to look for a job, and so may [`keep`] one.
pub(super) fn may_keep(pool: &Shared) -> bool {
    let free = |worker: &Worker| {
        worker.pool.get() == pool.id() && !worker.in_job.get() && worker.kept.borrow().is_none()
    };
    WORKER.try_with(free) == Ok(true) && work::is_line_empty()
}

/// Keeps a job for the calling thread.
pub(super) fn keep(job: impl Job) {
    WORKER.with(|worker| worker.kept.replace(Some(Box::new(job))));
}

/// The job that the calling thread has kept.
pub(super) fn take_kept() -> Option<Box<dyn Kept>> {
    WORKER.with(|worker| worker.kept.take())
}

/// Gives a job to the pool soon, with others.
pub(super) fn collect<J: Job>(pool: &Arc<Shared>, job: J) {
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
        outgoing.push(job);
        outgoing.jobs >= BATCH_MAX
    });
    if flush_now || !work::when_done(flush) {
        flush();
    }
}

/// Gives this thread's outgoing jobs to their pool.
fn flush() {
    let taken = WORKER.try_with(|worker| {
        let mut outgoing = worker.outgoing.borrow_mut();
        outgoing.jobs = 0;
        (outgoing.pool.take(), std::mem::take(&mut outgoing.rows))
    });
    let Ok((Some(pool), mut rows)) = taken else { return };
    // With nothing borrowed: jobs that find no room are dropped.
    pool.push(rows.drain(..).map(Arc::from));
    // The room is kept for the next ones.
    let _ = WORKER.try_with(|worker| {
        let mut outgoing = worker.outgoing.borrow_mut();
        if outgoing.rows.capacity() == 0 {
            outgoing.rows = rows;
        }
    });
}

impl Outgoing {
    fn push<J: Job>(&mut self, job: J) {
        self.jobs += 1;
        match self.rows.last_mut().and_then(|row| jobs_of(&mut **row)) {
            Some(jobs) => jobs.push_back(job),
            None => self.rows.push(row_of(job)),
        }
    }
}
