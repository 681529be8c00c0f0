//! Pacing what is no socket: bytes or events, by the budgets that sockets spend through.
//!
//! [`BudgetExt::acquire`] waits until a budget lets so many units go; [`Paced`] gives out items that way; [`Ticks`] keeps
//! time without a budget. Who spends here stands in line as a socket does: the [`desk`] of each runtime is one more
//! spender beside its pollers. The budgets know of no task.

mod chunks;
mod desk;
mod reader;
mod ticks;

use std::fmt;
use std::sync::Arc;

use tidegate_poller::Budget;

pub use chunks::{NextItem, Paced};
pub use reader::{NextChunk, PacedReader};
pub use ticks::{NextTick, Tick, Ticks};

use super::Task;
use super::continuation::Continuation;
use desk::Desk;

/// What tasks do with a budget.
pub trait BudgetExt {
    /// Done when the budget, and all above it, have let `units` go: bytes, or events where the rate is one of events a
    /// second.
    ///
    /// Those who acquire of the same budget stand in one line, first come, first served; beside sockets and the other
    /// children of its parent, that line counts as one that spends. Many units are taken piece by piece, as time
    /// brings them. Without a rate it is done at once; at rate 0 it waits until the rate is changed. Cancelled, it leaves
    /// the line; what it took by then is spent. For lines of their own, see [`Spender`].
    ///
    /// ```
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::{BudgetExt, Series};
    /// use tidegate_poller::Budget;
    ///
    /// let mails = Budget::builder("mails").rate(200).build();
    /// let runtime = Runtime::new()?;
    /// let mut series = Series::new(0);
    /// for _ in 0..5 {
    ///     series.push(mails.acquire(1), |(), series| {
    ///         series.context += 1; // One every 5 ms goes out.
    ///         Ok(())
    ///     });
    /// }
    /// assert_eq!(runtime.run(series)?.into_result()?, 5);
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    fn acquire(&self, units: u64) -> Acquire;
}

impl BudgetExt for Budget {
    fn acquire(&self, units: u64) -> Acquire {
        Acquire { line: Line::Budget(self.clone()), units }
    }
}

/// Has a line of its own at one or several budgets, as a socket has: it gets its part by weight, in units, however much
/// others ask for at a time. Cheap to clone; clones stand in the same line.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::Spender;
/// use tidegate_poller::Budget;
///
/// let total = Budget::builder("total").rate(1_000_000).build();
/// let tenant = Budget::builder("tenant").parent(&total).build();
/// let (gold, free) = (Spender::new(&tenant).weight(3), Spender::new(&tenant));
/// let runtime = Runtime::new()?;
/// runtime.run(gold.acquire(3_000))?;
/// runtime.run(free.acquire(1_000))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Spender(Arc<Leaves>);

#[derive(Clone)]
struct Leaves {
    budgets: Vec<Budget>,
    weight: u32,
}

impl Spender {
    /// Spends through `budget`.
    pub fn new(budget: &Budget) -> Spender {
        Spender(Arc::new(Leaves { budgets: vec![budget.clone()], weight: 1 }))
    }

    /// And through this one: the least of them counts, and what is above several of them is charged once.
    #[must_use]
    pub fn and(self, budget: &Budget) -> Spender {
        let mut leaves = (*self.0).clone();
        leaves.budgets.push(budget.clone());
        Spender(Arc::new(leaves))
    }

    /// The weight among those who spend through the same budget; 1 by default. A line of its own from here on.
    #[must_use]
    pub fn weight(self, weight: u32) -> Spender {
        let leaves = Leaves { weight, ..(*self.0).clone() };
        Spender(Arc::new(leaves))
    }

    /// As [`BudgetExt::acquire`], in this line.
    pub fn acquire(&self, units: u64) -> Acquire {
        Acquire { line: Line::Spender(self.clone()), units }
    }
}

impl fmt::Debug for Spender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spender")
            .field("budgets", &self.0.budgets)
            .field("weight", &self.0.weight)
            .finish_non_exhaustive()
    }
}

/// Waits for units of a budget; see [`BudgetExt::acquire`].
#[derive(Clone, Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct Acquire {
    line: Line,
    units: u64,
}

impl Task for Acquire {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        if self.units == 0 {
            return done.complete(());
        }
        let desk = done.runtime().extension::<Desk>();
        desk.acquire(self.line, self.units, done);
    }
}

/// Who stands in a line.
#[derive(Clone, Debug)]
enum Line {
    /// All who name no other.
    Budget(Budget),
    Spender(Spender),
}

impl Line {
    /// No other line has it as long as this one is kept.
    fn key(&self) -> usize {
        match self {
            Line::Budget(budget) => budget.id(),
            Line::Spender(spender) => Arc::as_ptr(&spender.0).addr(),
        }
    }

    fn budgets(&self) -> &[Budget] {
        match self {
            Line::Budget(budget) => std::slice::from_ref(budget),
            Line::Spender(spender) => &spender.0.budgets,
        }
    }

    fn weight(&self) -> u32 {
        match self {
            Line::Budget(_) => 1,
            Line::Spender(spender) => spender.0.weight,
        }
    }
}
