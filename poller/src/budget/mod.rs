//! Byte-rate budgets: what may pass the gate, and when.
//!
//! A [`Budget`] is shared and sits in a tree; a [`Limit`] is what each socket has for itself; [`KeyedBudgets`] make a
//! budget for each client. All are handles. The arithmetic is pure: `bucket` for one budget, `tree` for fair
//! sharing, `interval` for how often and how much at a time. Each poller spends through its
//! [`Pacer`](crate::pace::Pacer).

pub(crate) mod bucket;
pub(crate) mod interval;
mod keyed;
pub(crate) mod shared;
pub(crate) mod tree;

pub use keyed::KeyedBudgets;
pub use shared::{Budget, BudgetBuilder, Limit, Signal};
