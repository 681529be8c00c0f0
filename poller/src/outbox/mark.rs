//! Marks: zero-length entries that tell their owner when its bytes went.

use crate::ledger::Sums;
use crate::moment::Moment;

/// A point in the stream of bytes whose passing the owner wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The owner's name for it.
    pub id: u64,
    /// Which side of it counts.
    pub edge: Edge,
}

/// Which side of a mark counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Told when the first byte after the mark was taken by the kernel.
    Begin {
        /// How many bytes after the mark are exempt from the socket's own limit.
        free: u64,
    },
    /// Told when every byte before the mark was taken by the kernel.
    End,
}

/// A mark was passed.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// The name it was queued with.
    pub id: u64,
    /// As it was queued.
    pub edge: Edge,
    /// When it was passed.
    pub at: Moment,
    /// When everything before it had gone. For an end this is `at`; for a beginning, the wait for the first byte
    /// lies between the two.
    pub reached: Moment,
    /// Bytes above the transport that lie before the mark, over the life of the socket.
    pub offset: u64,
    /// The ledger's sums when the mark was reached: the difference between an exchange's two marks is the
    /// exchange's own account, the wait for its first byte included.
    pub sums: Sums,
}
