//! Bytes in an outbox, shared without a copy.

use std::ops::Range;
use std::sync::Arc;

/// Bytes to send: borrowed from the program, owned, or shared by many outboxes.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// Lives as long as the program.
    Static(&'static [u8]),
    /// Owned by the outbox; the buffer goes back to the poller's pool when it has been sent.
    Owned(Vec<u8>),
    /// A range of bytes that other outboxes may hold too.
    Shared(Arc<[u8]>, Range<usize>),
}

impl Chunk {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Static(bytes) => bytes,
            Chunk::Owned(bytes) => bytes,
            Chunk::Shared(bytes, range) => &bytes[range.clone()],
        }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        match self {
            Chunk::Static(bytes) => bytes.len(),
            Chunk::Owned(bytes) => bytes.len(),
            Chunk::Shared(_, range) => range.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&'static [u8]> for Chunk {
    fn from(bytes: &'static [u8]) -> Chunk {
        Chunk::Static(bytes)
    }
}

impl From<&'static str> for Chunk {
    fn from(text: &'static str) -> Chunk {
        Chunk::Static(text.as_bytes())
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Chunk {
        Chunk::Owned(bytes)
    }
}

impl From<Arc<[u8]>> for Chunk {
    fn from(bytes: Arc<[u8]>) -> Chunk {
        let end = bytes.len();
        Chunk::Shared(bytes, 0..end)
    }
}
