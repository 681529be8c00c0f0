//! Bytes that are made while they are sent.

/// What a [`Source`] says after a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// There may be more at once.
    More,
    /// Nothing more now; the owner calls [`Io::wake_source`](crate::Io::wake_source) when there is.
    Starved,
    /// That was all.
    End,
    /// It cannot go on: the socket is ended with [`Reason::SourceFailed`](crate::Reason::SourceFailed).
    Failed,
}

/// Makes bytes on demand. It is asked only when the gate can let bytes out, so a paused or slow socket holds at
/// most one pull of them.
pub trait Source {
    /// Appends at most `max` bytes to `out` (which is empty). Must not block. An answer of [`Pull::More`] without
    /// a byte counts as [`Pull::Starved`].
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull;
}
