//! Stand-in while the real budgets are being built.
#![allow(missing_docs)]
#[derive(Clone, Debug)]
pub struct Budget;
#[derive(Clone, Debug)]
pub struct Limit;
