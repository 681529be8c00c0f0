//! How series end.

use std::fmt;

/// An error of a callback: whatever `?` makes of one.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a series ended.
pub type Outcome = Result<(), SeriesError>;

/// Why a series ended before its last task was done.
#[derive(Debug)]
#[non_exhaustive]
pub enum SeriesError {
    /// A callback returned this error.
    Failed(Error),
    /// It was cancelled, from outside or by a callback.
    Cancelled,
    /// A callback or a task panicked; the log has what it said.
    Panicked,
    /// A task will never be done: its continuation was dropped.
    Aborted,
}

/// A series that has ended: how, and its context.
#[derive(Debug)]
#[must_use]
pub struct Ended<C> {
    /// How it ended.
    pub outcome: Outcome,
    /// The data it had.
    pub context: C,
}

/// A task was cancelled, or has dropped its continuation: nothing comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

impl<C> Ended<C> {
    /// The context of a series that went well.
    ///
    /// # Errors
    /// It did not; the context is dropped.
    pub fn into_result(self) -> Result<C, SeriesError> {
        self.outcome.map(|()| self.context)
    }
}

impl fmt::Display for SeriesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeriesError::Failed(error) => error.fmt(f),
            SeriesError::Cancelled => f.write_str("the series was cancelled"),
            SeriesError::Panicked => f.write_str("a callback or a task of the series panicked"),
            SeriesError::Aborted => f.write_str("a task of the series was dropped before it was done"),
        }
    }
}

impl std::error::Error for SeriesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SeriesError::Failed(error) => error.source(),
            _ => None,
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was cancelled, or dropped before it was done")
    }
}

impl std::error::Error for Dropped {}
