//! Tasks side by side.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::Task;
use super::child::{drop_child, start_child};
use super::continuation::{Continuation, Parent};
use super::outcome::{Dropped, Ended};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{self, Deliver, panic_message};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Tasks that run side by side. What comes of it is what came of each, in their order.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Parallel, go};
///
/// let runtime = Runtime::new()?;
/// let squares: Parallel<_> = (0..4).map(|n| go(move || n * n)).collect();
/// let squares = runtime.run(squares)?;
/// assert_eq!(squares, [Ok(0), Ok(1), Ok(4), Ok(9)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a task does nothing until it is started"]
pub struct Parallel<T: Task> {
    tasks: Vec<T>,
    /// Which result has the others cancelled.
    stop_at: Option<StopAt<T::Output>>,
}

/// What comes of all, in their order.
type Results<O> = Vec<Result<O, Dropped>>;

type StopAt<O> = Box<dyn Fn(&O) -> bool + Send + Sync>;

/// What may have failed; see [`Parallel::stop_on_error`].
pub trait Fallible {
    /// Whether it did.
    fn failed(&self) -> bool;
}

impl<T: Task> Parallel<T> {
    /// No tasks yet.
    pub fn new() -> Parallel<T> {
        Parallel { tasks: Vec::new(), stop_at: None }
    }

    /// Adds a task.
    pub fn push(&mut self, task: T) {
        self.tasks.push(task);
    }

    /// Has the others cancelled when the result of one is such. Where `stop` panics, that result is lost ([`Dropped`]), and the
    /// others go on.
    pub fn stop_when(mut self, stop: impl Fn(&T::Output) -> bool + Send + Sync + 'static) -> Parallel<T> {
        self.stop_at = Some(Box::new(stop));
        self
    }

    /// Has the others cancelled when one fails. Without this, all run to their end.
    pub fn stop_on_error(self) -> Parallel<T>
    where
        T::Output: Fallible,
    {
        self.stop_when(Fallible::failed)
    }

    /// How many tasks it has.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it has none; then it is done at once.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl<T: Task> Default for Parallel<T> {
    fn default() -> Parallel<T> {
        Parallel::new()
    }
}

impl<T: Task> FromIterator<T> for Parallel<T> {
    fn from_iter<I: IntoIterator<Item = T>>(tasks: I) -> Parallel<T> {
        Parallel { tasks: tasks.into_iter().collect(), stop_at: None }
    }
}

impl<T: Task> Extend<T> for Parallel<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, tasks: I) {
        self.tasks.extend(tasks);
    }
}

impl<T: Task> fmt::Debug for Parallel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parallel").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl<T, E> Fallible for Result<T, E> {
    fn failed(&self) -> bool {
        self.is_err()
    }
}

impl<C> Fallible for Ended<C> {
    fn failed(&self) -> bool {
        self.outcome.is_err()
    }
}

impl<T: Task> Task for Parallel<T> {
    type Output = Results<T::Output>;

    fn dispatch(self, mut done: Continuation<Self::Output>) {
        let count = self.tasks.len();
        if count == 0 {
            return done.complete(Vec::new());
        }
        // A million tasks that nobody can cancel pay for no tokens.
        let cancellable = done.can_be_cancelled() || self.stop_at.is_some();
        let cancellation = cancellable.then(|| done.cancellation());
        let group = Arc::new(Group {
            runtime: done.runtime().clone(),
            left: AtomicUsize::new(count.div_ceil(BLOCK)),
            done: Mutex::new(Some(done)),
            blocks: Mutex::default(),
            stop_at: self.stop_at,
        });
        let block = |from: usize| Block::new(&group, BLOCK.min(count - from), cancellable);
        let blocks: Vec<_> = (0..count).step_by(BLOCK).map(block).collect();
        lock(&group.blocks).clone_from(&blocks);
        if let Some(cancellation) = cancellation {
            let reached = Arc::downgrade(&group);
            cancellation.on_cancel(move || {
                if let Some(group) = reached.upgrade() {
                    group.cancel();
                }
            });
        }
        for (index, task) in self.tasks.into_iter().enumerate() {
            let child = Continuation::of_child(blocks[index / BLOCK].clone(), (index % BLOCK) as u32);
            match child.is_cancelled() {
                true => drop_child(task),
                false => start_child(task, child),
            }
        }
    }
}

/// How many tasks share a count of those that are left. Threads that complete tasks of one block at a time pass its count,
/// and its count of references, from cache to cache; with one for a million tasks, that is most of the time. As many as
/// a computing thread is given at a time, so that a block of computations is mostly one thread's.
const BLOCK: usize = 32;

/// What the tasks share while they run.
struct Group<O> {
    runtime: RuntimeHandle,
    /// Blocks with tasks that are not over.
    left: AtomicUsize,
    done: Mutex<Option<Continuation<Results<O>>>>,
    /// Until all are over; they hold the group in turn.
    blocks: Mutex<Vec<Arc<Block<O>>>>,
    stop_at: Option<StopAt<O>>,
}

/// Some of the tasks.
struct Block<O> {
    group: Arc<Group<O>>,
    state: Mutex<State<O>>,
    /// One each, if any can be cancelled.
    tokens: Box<[Arc<Token>]>,
}

struct State<O> {
    results: Vec<Option<O>>,
    left: usize,
}

impl<O> Block<O> {
    fn new(group: &Arc<Group<O>>, count: usize, cancellable: bool) -> Arc<Block<O>> {
        Arc::new(Block {
            group: group.clone(),
            state: Mutex::new(State { results: (0..count).map(|_| None).collect(), left: count }),
            tokens: if cancellable { (0..count).map(|_| Arc::default()).collect() } else { Box::default() },
        })
    }
}

impl<O: Send + 'static> Deliver<O> for Block<O> {
    fn deliver(&self, index: u32, output: Option<O>) {
        let (output, stop) = match (output, &self.group.stop_at) {
            (Some(output), Some(stop_at)) => match catch_unwind(AssertUnwindSafe(|| stop_at(&output))) {
                Ok(stop) => (Some(output), stop),
                // Whether to stop is not known, and what it left of the result is not to be trusted.
                Err(payload) => {
                    work::contain(|| drop(output));
                    log::error!("what is to stop a parallel panicked: {}", panic_message(&*payload));
                    (None, false)
                }
            },
            (output, _) => (output, false),
        };
        let all_of_block = {
            let mut state = lock(&self.state);
            state.results[index as usize] = output;
            state.left -= 1;
            state.left == 0
        };
        // Everybody's result is in its place before the last one looks at them.
        if all_of_block && self.group.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.group.complete();
        } else if stop {
            self.group.cancel();
        }
    }
}

impl<O: Send + 'static> Parent<O> for Block<O> {
    fn runtime(&self) -> &RuntimeHandle {
        &self.group.runtime
    }

    fn token(&self, index: u32) -> Option<&Arc<Token>> {
        self.tokens.get(index as usize)
    }
}

impl<O: Send + 'static> Group<O> {
    fn complete(&self) {
        let blocks = std::mem::take(&mut *lock(&self.blocks));
        let done = lock(&self.done).take();
        if let Some(done) = done {
            let results = blocks.iter().flat_map(|block| std::mem::take(&mut lock(&block.state).results));
            done.complete(results.map(|result| result.ok_or(Dropped)).collect());
        }
    }

    fn cancel(&self) {
        let blocks = lock(&self.blocks).clone();
        for token in blocks.iter().flat_map(|block| &block.tokens) {
            token.cancel();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
