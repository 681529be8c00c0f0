//! The steps of a series: each a task and its callback.
//!
//! A step waits in its series' [`Steps`]; while its task runs it is what receives the result, and holds the series itself.
//! Steps of one kind that follow each other, as a loop makes them, share a box: a million of them are a million small
//! entries in one queue, and running them allocates nothing.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use super::Task;
use super::continuation::{Continuation, Receiver};
use super::outcome::Error;
use super::series::{Live, Parts, Series};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{self, Receive};

/// What is left to do in a series.
pub(super) struct Steps<C> {
    queue: VecDeque<Box<dyn Step<C>>>,
    /// How many tasks that is.
    left: usize,
}

impl<C> Steps<C> {
    pub(super) fn len(&self) -> usize {
        self.left
    }
}

impl<C: Send + 'static> Steps<C> {
    pub(super) const fn new() -> Steps<C> {
        Steps { queue: VecDeque::new(), left: 0 }
    }

    pub(super) fn push_back<T, F>(&mut self, task: T, callback: F)
    where
        T: Task,
        F: FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    {
        self.left += 1;
        let last = self.queue.back_mut().map(|step| &mut **step as &mut dyn Any);
        match last.and_then(|step| step.downcast_mut::<TaskStep<C, T, F>>()) {
            Some(step) => step.following.get_or_insert_with(Following::new).0.push_back((task, callback)),
            None => self.queue.push_back(Box::new(TaskStep::new(task, callback))),
        }
    }

    pub(super) fn push_front<T, F>(&mut self, task: T, callback: F)
    where
        T: Task,
        F: FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    {
        self.left += 1;
        self.queue.push_front(Box::new(TaskStep::new(task, callback)));
    }

    /// Adds a step of another kind at the end.
    pub(super) fn push_step(&mut self, step: Box<dyn Step<C>>) {
        self.left += 1;
        self.queue.push_back(step);
    }

    pub(super) fn pop_front(&mut self) -> Option<Box<dyn Step<C>>> {
        let step = self.queue.pop_front()?;
        self.left -= 1;
        Some(step)
    }

    /// Drops what is left, one by one: a panic of it is no reason for `finally` not to run.
    pub(super) fn discard(self) {
        for step in self.queue {
            work::contain(|| drop(step));
        }
    }

    /// What follows a step in its box comes next.
    fn put_back(&mut self, step: Box<dyn Step<C>>) {
        self.queue.push_front(step);
    }
}

/// A step of a series.
pub(super) trait Step<C: Send + 'static>: Any + Send {
    /// Starts the task.
    fn dispatch(self: Box<Self>, live: Box<Live<C>>);
}

/// A task and its callback.
///
/// Its fields are dropped in this order: what the callbacks hold is gone before the series ends.
struct TaskStep<C: Send + 'static, T, F> {
    callback: F,
    /// Steps of the same kind that come after it.
    following: Option<Box<Following<T, F>>>,
    state: State<C, T>,
}

/// Dropped one by one: any of them may panic, and the first may already do.
struct Following<T, F>(VecDeque<(T, F)>);

impl<T, F> Following<T, F> {
    fn new() -> Box<Following<T, F>> {
        Box::new(Following(VecDeque::new()))
    }
}

impl<T, F> Drop for Following<T, F> {
    fn drop(&mut self) {
        for step in self.0.drain(..) {
            work::contain(|| drop(step));
        }
    }
}

enum State<C: Send + 'static, T> {
    Task(T),
    Running(Box<Live<C>>),
}

impl<C: Send + 'static, T, F> TaskStep<C, T, F> {
    fn new(task: T, callback: F) -> TaskStep<C, T, F> {
        TaskStep { state: State::Task(task), callback, following: None }
    }

    /// Takes the step that has received its result, and leaves the one that follows it in its box.
    fn next(&mut self) -> Option<TaskStep<C, T, F>> {
        let mut following = self.following.take()?;
        let (task, callback) = following.0.pop_front()?;
        let following = Some(following).filter(|following| !following.0.is_empty());
        Some(std::mem::replace(self, TaskStep { state: State::Task(task), callback, following }))
    }

    fn parts(&self) -> &Parts<C> {
        match &self.state {
            State::Running(live) => live.parts(),
            State::Task(_) => unreachable!("a task that runs has a series"),
        }
    }
}

impl<C, T, F> Step<C> for TaskStep<C, T, F>
where
    C: Send + 'static,
    T: Task,
    F: FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn dispatch(mut self: Box<Self>, live: Box<Live<C>>) {
        if let State::Task(task) = std::mem::replace(&mut self.state, State::Running(live)) {
            work::start_directly(self, |step| task.dispatch(Continuation::new(step)));
        }
    }
}

impl<C, T, F> Receiver<T::Output> for TaskStep<C, T, F>
where
    C: Send + 'static,
    T: Task,
    F: FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn runtime(&self) -> &RuntimeHandle {
        self.parts().done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.parts().token.as_ref()
    }
}

impl<C, T, F> Receive<T::Output> for TaskStep<C, T, F>
where
    C: Send + 'static,
    T: Task,
    F: FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn receive(mut self: Box<Self>, output: T::Output) {
        let (step, rest) = match self.next() {
            Some(step) => (step, Some(self)),
            None => (*self, None),
        };
        let TaskStep { state, callback, .. } = step;
        let State::Running(mut live) = state else { return };
        if let Some(rest) = rest {
            // Before the callback, which may put something in front of it.
            live.parts_mut().series.steps.put_back(rest);
        }
        live.call(|series| callback(output, series));
    }
}

/// A step whose task is made when its turn comes.
pub(super) struct Dynamic<M, F> {
    make: M,
    callback: F,
}

impl<M, F> Dynamic<M, F> {
    pub(super) fn new(make: M, callback: F) -> Dynamic<M, F> {
        Dynamic { make, callback }
    }
}

impl<C, T, M, F> Step<C> for Dynamic<M, F>
where
    C: Send + 'static,
    T: Task,
    M: FnOnce(&mut C) -> T + Send + 'static,
    F: FnOnce(T::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn dispatch(self: Box<Self>, mut live: Box<Live<C>>) {
        let Dynamic { make, callback } = *self;
        let task = make(&mut live.parts_mut().series.context);
        Box::new(TaskStep::new(task, callback)).dispatch(live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;

    struct Now(u32);

    impl Task for Now {
        type Output = u32;

        fn dispatch(self, done: Continuation<u32>) {
            done.complete(self.0);
        }
    }

    fn note(n: u32, series: &mut Series<Vec<u32>>) -> Result<(), Error> {
        series.context.push(n);
        Ok(())
    }

    #[test]
    fn steps_of_one_kind_and_of_others_run_in_the_order_they_were_added() {
        let mut series = Series::new(Vec::new());
        for round in 0..3 {
            series.push(Now(round * 10), note);
            series.push(Now(round * 10 + 1), move |n, series| note(n.max(round), series));
            series.push(Now(round * 10 + 2), move |n, series| note(n.max(round), series));
            for n in 3..6 {
                series.push(Now(round * 10 + n), note);
            }
        }
        assert_eq!(series.remaining(), 18);
        let noted = Runtime::new().unwrap().run(series).unwrap().into_result().unwrap();
        assert_eq!(noted, [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25]);
    }

    #[test]
    fn what_a_callback_puts_in_front_comes_before_the_steps_that_share_its_box() {
        let mut series = Series::new(Vec::new());
        for n in 1..=3 {
            series.push(Now(n), move |n, series| {
                assert_eq!(series.remaining() as u32, 3 - n);
                series.push_front(Now(100 + n), note);
                note(n, series)
            });
        }
        let noted = Runtime::new().unwrap().run(series).unwrap().into_result().unwrap();
        assert_eq!(noted, [1, 101, 2, 102, 3, 103]);
    }

    #[test]
    fn a_step_of_a_loop_is_small() {
        // The queue's entry of a step whose callback has captured 16 bytes.
        assert!(size_of::<TaskStep<u64, (), [u64; 2]>>() <= 32);
        assert_eq!(size_of::<((), [u64; 2])>(), 16);
    }
}
