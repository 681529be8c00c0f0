//! The first success of several tasks.

use std::fmt;
use std::sync::{Arc, PoisonError};

use super::Task;
use super::child::{drop_child, start_child};
use super::continuation::{Continuation, Parent};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Deliver;
use crate::sync::{Mutex, MutexGuard};

/// Tasks that run side by side until one succeeds. The others are cancelled then, and not waited for.
///
/// What comes of it is the value of the first that succeeds, or all the errors, in the order of the tasks.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Select, go};
///
/// let runtime = Runtime::new()?;
/// let texts = ["many", "7", "some"];
/// let number: Select<_> = texts.into_iter().map(|text| go(move || text.parse::<u32>())).collect();
/// assert_eq!(runtime.run(number)?, Ok(7));
///
/// let number: Select<_> = ["many"].into_iter().map(|text| go(move || text.parse::<u32>())).collect();
/// let failed = runtime.run(number)?.unwrap_err();
/// assert_eq!(failed.errors.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a task does nothing until it is started"]
pub struct Select<T: Task> {
    tasks: Vec<T>,
}

/// None of several tasks has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllFailed<E> {
    /// The error of each, in the order of the tasks; none of one that was dropped before it was done.
    pub errors: Vec<Option<E>>,
}

impl<T: Task> Select<T> {
    /// No tasks yet.
    pub fn new() -> Select<T> {
        Select { tasks: Vec::new() }
    }

    /// Adds a task.
    pub fn push(&mut self, task: T) {
        self.tasks.push(task);
    }

    /// How many tasks it has.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it has none; then all have failed at once.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl<T: Task> Default for Select<T> {
    fn default() -> Select<T> {
        Select::new()
    }
}

impl<T: Task> FromIterator<T> for Select<T> {
    fn from_iter<I: IntoIterator<Item = T>>(tasks: I) -> Select<T> {
        Select { tasks: tasks.into_iter().collect() }
    }
}

impl<T: Task> Extend<T> for Select<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, tasks: I) {
        self.tasks.extend(tasks);
    }
}

impl<T: Task> fmt::Debug for Select<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("tasks", &self.tasks.len()).finish()
    }
}

impl<T, V, E> Task for Select<T>
where
    T: Task<Output = Result<V, E>>,
    V: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<V, AllFailed<E>>;

    fn dispatch(self, mut done: Continuation<Self::Output>) {
        let count = self.tasks.len();
        if count == 0 {
            return done.complete(Err(AllFailed { errors: Vec::new() }));
        }
        let cancellation = done.cancellation();
        let runtime = done.runtime().clone();
        let race = Arc::new(Race {
            state: Mutex::new(State {
                done: Some(done),
                left: count,
                errors: (0..count).map(|_| None).collect(),
            }),
            tokens: (0..count).map(|_| Arc::default()).collect(),
            runtime,
        });
        if cancellation.is_possible() {
            let reached = Arc::downgrade(&race);
            cancellation.on_cancel(move || {
                if let Some(race) = reached.upgrade() {
                    race.give_up();
                }
            });
        }
        for (index, task) in self.tasks.into_iter().enumerate() {
            match race.is_on() {
                true => start_child(task, Continuation::of_child(race.clone(), index as u32)),
                false => drop_child(task),
            }
        }
    }
}

/// What the tasks share while they run.
struct Race<V, E> {
    state: Mutex<State<V, E>>,
    /// One each.
    tokens: Box<[Arc<Token>]>,
    runtime: RuntimeHandle,
}

struct State<V, E> {
    /// Who takes it has won.
    done: Option<Continuation<Result<V, AllFailed<E>>>>,
    left: usize,
    errors: Vec<Option<E>>,
}

impl<V: Send + 'static, E: Send + 'static> Race<V, E> {
    fn is_on(&self) -> bool {
        self.lock().done.is_some()
    }

    fn cancel_tasks(&self) {
        for token in &self.tokens {
            token.cancel();
        }
    }

    fn give_up(&self) {
        let done = self.lock().done.take();
        if let Some(done) = done {
            self.cancel_tasks();
            drop(done);
        }
    }

    fn win(&self, value: V) {
        let done = self.lock().done.take();
        if let Some(done) = done {
            self.cancel_tasks();
            done.complete(Ok(value));
        }
    }

    fn lose(&self, index: usize, error: Option<E>) {
        let mut state = self.lock();
        // Nothing was there before: each task comes here at most once.
        state.errors[index] = error;
        state.left -= 1;
        if state.left > 0 {
            return;
        }
        let done = state.done.take();
        let errors = std::mem::take(&mut state.errors);
        drop(state);
        if let Some(done) = done {
            done.complete(Err(AllFailed { errors }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<V, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Send + 'static, E: Send + 'static> Deliver<Result<V, E>> for Race<V, E> {
    fn deliver(&self, index: u32, output: Option<Result<V, E>>) {
        match output {
            Some(Ok(value)) => self.win(value),
            Some(Err(error)) => self.lose(index as usize, Some(error)),
            None => self.lose(index as usize, None),
        }
    }
}

impl<V: Send + 'static, E: Send + 'static> Parent<Result<V, E>> for Race<V, E> {
    fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    fn token(&self, index: u32) -> Option<&Arc<Token>> {
        self.tokens.get(index as usize)
    }
}

impl<E: fmt::Display> fmt::Display for AllFailed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none of {} tasks succeeded", self.errors.len())?;
        match self.errors.iter().flatten().next() {
            Some(error) => write!(f, "; the first error: {error}"),
            None => Ok(()),
        }
    }
}

impl<E: std::error::Error> std::error::Error for AllFailed<E> {}
