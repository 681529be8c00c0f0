//! The pieces an outbox is made of.

use std::fmt;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Chunk, Mark, Source};

/// A range of a file that is still to be sent.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file; shared by all that send it.
    pub file: Arc<File>,
    /// Where the rest begins.
    pub offset: u64,
    /// How much is left of it.
    pub len: u64,
}

/// One entry of the queue.
pub(super) enum Segment {
    Bytes(Chunk),
    File(FileRange),
    Source(Owned),
    Mark(Mark),
}

/// A source. Others wrote it: where its drop panics, the other sockets must not suffer.
pub(super) struct Owned(Option<Box<dyn Source>>);

impl Owned {
    pub(super) fn new(source: Box<dyn Source>) -> Owned {
        Owned(Some(source))
    }

    pub(super) fn get(&mut self) -> Option<&mut dyn Source> {
        Some(self.0.as_mut()?.as_mut())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let source = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(source))).is_err() {
            log::error!("a source panicked when it was dropped");
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Bytes(chunk) => write!(f, "Bytes({})", chunk.len()),
            Segment::File(range) => write!(f, "File({}+{})", range.offset, range.len),
            Segment::Source(_) => f.write_str("Source"),
            Segment::Mark(mark) => write!(f, "{mark:?}"),
        }
    }
}
