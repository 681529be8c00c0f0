//! Jobs of one kind in a row.
//!
//! A thousand jobs that are submitted together are mostly of one kind, as a loop makes them. They share a box, and
//! threads that run the same row take them out of it one by one: none has a box, or a count of references, of its own.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::lock;
use crate::runtime::work;

/// Something for a computing thread to do.
pub(crate) trait Job: Send + 'static {
    /// Does it. A panic is logged.
    fn run(self);
}

/// Jobs of one kind, first in, first out.
pub(super) trait Row: Any + Send + Sync {
    /// Runs the next job. `false`: there is none.
    fn run_next(&self) -> bool;

    /// Jobs that nobody has begun.
    fn len(&self) -> usize;

    /// Takes out all but the first `keep`.
    fn split_off(&self, keep: usize) -> Box<dyn Row>;

    /// Drops the jobs that nobody has begun.
    fn discard(&self);
}

struct Jobs<J: Job>(Mutex<VecDeque<J>>);

/// A row with one job.
pub(super) fn row_of<J: Job>(job: J) -> Box<dyn Row> {
    Box::new(Jobs(Mutex::new(VecDeque::from([job]))))
}

/// The jobs of a row, if they are of this kind, to add more of them.
pub(super) fn jobs_of<J: Job>(row: &mut dyn Row) -> Option<&mut VecDeque<J>> {
    let Jobs(jobs) = (row as &mut dyn Any).downcast_mut()?;
    Some(jobs.get_mut().unwrap_or_else(PoisonError::into_inner))
}

/// Jobs run and are dropped outside the lock.
impl<J: Job> Row for Jobs<J> {
    fn run_next(&self) -> bool {
        let job = lock(&self.0).pop_front();
        job.map(J::run).is_some()
    }

    fn len(&self) -> usize {
        lock(&self.0).len()
    }

    fn split_off(&self, keep: usize) -> Box<dyn Row> {
        let mut jobs = lock(&self.0);
        let keep = keep.min(jobs.len());
        Box::new(Jobs(Mutex::new(jobs.split_off(keep))))
    }

    fn discard(&self) {
        let jobs = std::mem::take(&mut *lock(&self.0));
        // One by one: a panic of one is not the others'.
        jobs.into_iter().for_each(|job| work::contain(|| drop(job)));
    }
}

impl<J: Job> Drop for Jobs<J> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// A job that a thread has kept for itself.
pub(super) trait Kept {
    /// Does it.
    fn run(self: Box<Self>);

    /// Has others do it.
    fn into_row(self: Box<Self>) -> Arc<dyn Row>;
}

impl<J: Job> Kept for J {
    fn run(self: Box<Self>) {
        (*self).run();
    }

    fn into_row(self: Box<Self>) -> Arc<dyn Row> {
        row_of(*self).into()
    }
}
