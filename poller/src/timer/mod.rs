//! Timers: many deadlines, few of which are ever reached.
//!
//! This module owns the deadlines of one poller and nothing else: it reads no clock and calls nobody back. The
//! loop asks [`Wheel::next_deadline`] how long it may sleep, then takes what is due with [`Wheel::pop_due`].
//!
//! A timer never fires before its nanosecond, and never needs a wake-up only to keep the wheel in order. Due
//! timers come in the order of their deadlines; those with the same deadline in the order of their insertion.

mod slot;
mod wheel;

#[cfg(test)]
mod model;

pub use wheel::{TimerId, Wheel};
