//! A series' context lent to a future.
//!
//! While the future runs, the running series lies in the [`Lent`] that the future was given; whatever becomes of the
//! future, dropping that gives it back. A [`Meeting`] waits for both, the future's end and the series.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use super::Task;
use super::continuation::{Continuation, Receiver};
use super::future::future;
use super::outcome::{Ended, Error, SeriesError};
use super::series::{Finally, Live, Parts, Series};
use super::step::{Step, Steps};
use super::token::Token;
use crate::runtime::work::{self, Later, Receive};
use crate::runtime::{Job, RuntimeHandle};

/// The context of a series, lent to a future; see [`Series::then_async`]. Dropping it gives it back.
pub struct Lent<C: Send + 'static> {
    /// Present until it is given back.
    context: Option<C>,
    /// Never locked: it makes what it holds shareable, so that a reference to the context may live across an `await`.
    rest: Mutex<Option<Rest<C>>>,
    home: Arc<dyn Home<C>>,
}

/// A running series without its context.
struct Rest<C> {
    steps: Steps<C>,
    finally: Option<Finally<C>>,
    done: Continuation<Ended<C>>,
    token: Option<Arc<Token>>,
}

/// Where the series is given back.
trait Home<C: Send + 'static>: Send + Sync {
    fn give_back(self: Arc<Self>, live: Box<Live<C>>, runtime: RuntimeHandle);
}

impl<C: Send + 'static> Series<C> {
    /// Adds a future that is made when its turn comes and works on the context, and what to do with what comes of it.
    ///
    /// The future is polled as [`future`] says. It is `'static`: it owns the [`Lent`] context, and reads and changes it
    /// through that. The series goes on when the future is done and the `Lent` was dropped, which is the same moment
    /// unless the future gave it to somebody else. After a panic, a cancel or a drop of the future the context comes back
    /// in the same way, and [`finally`](Series::finally) runs with it. Leaked (`std::mem::forget`), it never does.
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{Series, go};
    ///
    /// let runtime = Runtime::new()?;
    /// let handle = runtime.handle();
    /// let series = Series::new(vec![1]).then_async(
    ///     move |mut numbers| async move {
    ///         let next = handle.spawn(go(|| 2)).await;
    ///         numbers.extend(next);
    ///         numbers.len()
    ///     },
    ///     |count, series| {
    ///         series.context.push(count);
    ///         Ok(())
    ///     },
    /// );
    /// assert_eq!(runtime.run(series)?.into_result()?, [1, 2, 2]);
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    #[must_use]
    pub fn then_async<M, F>(
        mut self,
        make: M,
        callback: impl FnOnce(F::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    ) -> Series<C>
    where
        M: FnOnce(Lent<C>) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.push_async(make, callback);
        self
    }

    /// As [`then_async`](Series::then_async), while the series runs.
    pub fn push_async<M, F>(
        &mut self,
        make: M,
        callback: impl FnOnce(F::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
    ) where
        M: FnOnce(Lent<C>) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.steps.push_step(Box::new(AsyncStep { make, callback }));
    }
}

impl<C: Send + 'static> Deref for Lent<C> {
    type Target = C;

    fn deref(&self) -> &C {
        match &self.context {
            Some(context) => context,
            None => unreachable!("it is given back only when dropped"),
        }
    }
}

impl<C: Send + 'static> DerefMut for Lent<C> {
    fn deref_mut(&mut self) -> &mut C {
        match &mut self.context {
            Some(context) => context,
            None => unreachable!("it is given back only when dropped"),
        }
    }
}

impl<C: Send + 'static> Drop for Lent<C> {
    fn drop(&mut self) {
        let rest = self.rest.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(context), Some(Rest { steps, finally, done, token })) = (self.context.take(), rest) {
            let runtime = done.runtime().clone();
            let series = Series { context, steps, finally, cancelled: false };
            let live = Box::new(Live(Some(Parts { series, done, token })));
            self.home.clone().give_back(live, runtime);
        }
    }
}

impl<C: Send + fmt::Debug + 'static> fmt::Debug for Lent<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&**self).finish()
    }
}

/// A step that lends the context.
struct AsyncStep<M, F> {
    make: M,
    callback: F,
}

impl<C, M, F, B> Step<C> for AsyncStep<M, B>
where
    C: Send + 'static,
    M: FnOnce(Lent<C>) -> F + Send + 'static,
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    B: FnOnce(F::Output, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn dispatch(self: Box<Self>, mut live: Box<Live<C>>) {
        let AsyncStep { make, callback } = *self;
        let Some(Parts { series, done, token }) = live.0.take() else { return };
        let meeting = Arc::new(Meeting {
            state: Mutex::new(State { live: None, end: None, callback: Some(callback) }),
        });
        let arrival =
            Arrival { meeting: Some(meeting.clone()), runtime: done.runtime().clone(), token: token.clone() };
        let Series { context, steps, finally, .. } = series;
        let rest = Mutex::new(Some(Rest { steps, finally, done, token }));
        let lent = Lent { context: Some(context), rest, home: meeting };
        let done = Continuation::new(Box::new(arrival));
        future(make(lent)).dispatch(done);
    }
}

/// Where the future's end and the series meet.
struct Meeting<C: Send + 'static, O, B> {
    state: Mutex<State<C, O, B>>,
}

struct State<C: Send + 'static, O, B> {
    live: Option<Box<Live<C>>>,
    end: Option<End<O>>,
    callback: Option<B>,
}

/// How the future ended.
enum End<O> {
    Done(O),
    Panicked,
    Dropped,
}

impl<C, O, B> Meeting<C, O, B>
where
    C: Send + 'static,
    O: Send + 'static,
    B: FnOnce(O, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    /// One of both has come. When that was the second, what comes next is to be run.
    fn arrive(&self, live: Option<Box<Live<C>>>, end: Option<End<O>>) -> Option<Next<C, O, B>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.live = live.or(state.live.take());
        state.end = end.or(state.end.take());
        if state.live.is_none() || state.end.is_none() {
            return None;
        }
        let (live, end, callback) = (state.live.take()?, state.end.take()?, state.callback.take()?);
        Some(Next { live, end, callback })
    }
}

impl<C, O, B> Home<C> for Meeting<C, O, B>
where
    C: Send + 'static,
    O: Send + 'static,
    B: FnOnce(O, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn give_back(self: Arc<Self>, live: Box<Live<C>>, runtime: RuntimeHandle) {
        // Not on this thread: whoever drops the context may hold a lock, or unwind.
        if let Some(next) = self.arrive(Some(live), None) {
            runtime.compute(next);
        }
    }
}

/// The series goes on.
struct Next<C: Send + 'static, O, B> {
    live: Box<Live<C>>,
    end: End<O>,
    callback: B,
}

impl<C, O, B> Job for Next<C, O, B>
where
    C: Send + 'static,
    O: Send + 'static,
    B: FnOnce(O, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn run(self) {
        let Next { live, end, callback } = self;
        let cancelled = live.0.as_ref().is_some_and(Parts::is_cancelled);
        match end {
            End::Done(output) => live.call(|series| callback(output, series)),
            End::Panicked => live.finish(Err(SeriesError::Panicked)),
            End::Dropped if cancelled => live.finish(Err(SeriesError::Cancelled)),
            End::Dropped => live.finish(Err(SeriesError::Aborted)),
        }
    }
}

/// What the future continues with.
struct Arrival<C, O, B>
where
    C: Send + 'static,
    O: Send + 'static,
    B: FnOnce(O, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    meeting: Option<Arc<Meeting<C, O, B>>>,
    runtime: RuntimeHandle,
    token: Option<Arc<Token>>,
}

impl<C, O, B> Receiver<O> for Arrival<C, O, B>
where
    C: Send + 'static,
    O: Send + 'static,
    B: FnOnce(O, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }
}

impl<C, O, B> Receive<O> for Arrival<C, O, B>
where
    C: Send + 'static,
    O: Send + 'static,
    B: FnOnce(O, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn receive(mut self: Box<Self>, output: O) {
        let Some(meeting) = self.meeting.take() else { return };
        if let Some(next) = meeting.arrive(None, Some(End::Done(output))) {
            next.run();
        }
    }
}

impl<C, O, B> Drop for Arrival<C, O, B>
where
    C: Send + 'static,
    O: Send + 'static,
    B: FnOnce(O, &mut Series<C>) -> Result<(), Error> + Send + 'static,
{
    fn drop(&mut self) {
        let Some(meeting) = self.meeting.take() else { return };
        let end = if std::thread::panicking() { End::Panicked } else { End::Dropped };
        if let Some(next) = meeting.arrive(None, Some(end)) {
            work::ready(Box::new(Later(|| next.run())));
        }
    }
}
