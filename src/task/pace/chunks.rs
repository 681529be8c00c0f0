//! Items given out one by one, as a budget lets them go.

use std::fmt;
use std::sync::Arc;

use tidegate_poller::Budget;

use super::{Acquire, Spender};
use crate::runtime::work::Receive;
use crate::runtime::{Runtime, RuntimeHandle};
use crate::task::continuation::{Continuation, Receiver};
use crate::task::token::Token;
use crate::task::{Error, Series, Task, WaitError};

/// Gives out what an iterator has, each item when a budget has let it go.
///
/// The next item is taken from the iterator when it is asked for, on the thread that asks, and waits as long as its
/// size takes; so no more than one is held. What may block is for [`PacedReader`](super::PacedReader), or for a
/// [`go`](crate::task::go) with a [`BudgetExt::acquire`](super::BudgetExt::acquire) after it. It has a line of its own at the budget, as a socket has.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::Paced;
/// use tidegate_poller::Budget;
///
/// let budget = Budget::builder("tokens").rate(100_000).build();
/// let words = ["every ", "byte ", "passes ", "a ", "gate"].into_iter();
/// let runtime = Runtime::new()?;
/// let paced = Paced::bytes(words, &budget);
/// let sent = runtime.run(paced.for_each(|word| Ok(print!("{word}"))))?.into_result()?;
/// assert_eq!((sent.items(), sent.units()), (5, 24));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub struct Paced<I: Iterator> {
    items: I,
    size: Size<I::Item>,
    spender: Spender,
    count: u64,
    units: u64,
}

type Size<T> = Box<dyn Fn(&T) -> u64 + Send>;

impl<I> Paced<I>
where
    I: Iterator + Send + 'static,
    I::Item: Send + 'static,
{
    /// By bytes.
    pub fn bytes(items: I, budget: &Budget) -> Paced<I>
    where
        I::Item: AsRef<[u8]>,
    {
        Paced::by(items, &Spender::new(budget), |item| item.as_ref().len() as u64)
    }

    /// By events: each item is one.
    pub fn events(items: I, budget: &Budget) -> Paced<I> {
        Paced::by(items, &Spender::new(budget), |_| 1)
    }

    /// By what `size` says of each, spent by `spender`.
    pub fn by(items: I, spender: &Spender, size: impl Fn(&I::Item) -> u64 + Send + 'static) -> Paced<I> {
        Paced { items, size: Box::new(size), spender: spender.clone(), count: 0, units: 0 }
    }

    /// A task for the next item; `None` after the last. An item whose task is dropped or cancelled is lost.
    pub fn next_item(&mut self) -> NextItem<I::Item> {
        let item = self.items.next();
        let size = item.as_ref().map_or(0, |item| (self.size)(item));
        self.count += u64::from(item.is_some());
        self.units = self.units.saturating_add(size);
        NextItem { item, acquire: self.spender.acquire(size) }
    }

    /// A series that hands each item to `each`; an error of that ends it.
    pub fn for_each(
        self,
        each: impl FnMut(I::Item) -> Result<(), Error> + Send + 'static,
    ) -> Series<Paced<I>> {
        let mut series = Series::new(self);
        go_on(&mut series, each);
        series
    }

    /// The items one by one, waited for on the calling thread, which is none of the runtime's.
    pub fn wait_each<'a>(
        &'a mut self,
        runtime: &'a Runtime,
    ) -> impl Iterator<Item = Result<I::Item, WaitError>> + 'a {
        std::iter::from_fn(move || runtime.run(self.next_item()).transpose())
    }

    /// Items taken from the iterator so far.
    pub fn items(&self) -> u64 {
        self.count
    }

    /// The sum of their sizes.
    pub fn units(&self) -> u64 {
        self.units
    }
}

fn go_on<I>(
    series: &mut Series<Paced<I>>,
    mut each: impl FnMut(I::Item) -> Result<(), Error> + Send + 'static,
) where
    I: Iterator + Send + 'static,
    I::Item: Send + 'static,
{
    let next = series.context.next_item();
    series.push_front(next, move |item, series| {
        if let Some(item) = item {
            each(item)?;
            go_on(series, each);
        }
        Ok(())
    });
}

impl<I: Iterator> fmt::Debug for Paced<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced")
            .field("items", &self.count)
            .field("units", &self.units)
            .field("spender", &self.spender)
            .finish_non_exhaustive()
    }
}

/// Waits for the next item; see [`Paced::next_item`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct NextItem<T> {
    item: Option<T>,
    acquire: Acquire,
}

impl<T: Send + 'static> Task for NextItem<T> {
    type Output = Option<T>;

    fn dispatch(self, done: Continuation<Option<T>>) {
        self.acquire.dispatch(Continuation::new(Box::new(Carry { output: self.item, done })));
    }
}

/// Carries a result until its units are there.
pub(super) struct Carry<O: Send + 'static> {
    pub(super) output: O,
    pub(super) done: Continuation<O>,
}

impl<O: Send + 'static> Receiver<()> for Carry<O> {
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl<O: Send + 'static> Receive<()> for Carry<O> {
    fn receive(self: Box<Self>, (): ()) {
        self.done.complete(self.output);
    }
}
