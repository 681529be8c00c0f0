//! What threads synchronise with: the standard library's, or, where the models of `task::models` are run, shuttle's,
//! which tries the ways in which threads can overtake each other.

#[cfg(not(all(test, tidegate_shuttle)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread_local,
};

#[cfg(all(test, tidegate_shuttle))]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread_local,
};
