//! Buffers that sockets borrow while bytes are under way, kept between uses so that moving bytes allocates nothing.
//!
//! Bounded by count and by size: what does not fit is freed. An idle socket holds none of them. A poller has one such
//! store; the gate, the sessions and the [transports](crate::transport) take from it and give back. What is needed only
//! within a call is worked on in one place of memory, the scratch, whose contents nobody relies on afterwards.

/// Buffers kept, and the largest: together about 1 MiB. The largest takes the 64 KiB that are pulled or read at a time
/// and what a transport adds to them.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 68 * 1024;
/// What a new buffer has room for: a reply's head with some of a small body.
const NEW_BYTES: usize = 4 * 1024;

/// A store of buffers.
pub struct Buffers {
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
}

impl Buffers {
    /// An empty buffer, used before where possible.
    pub fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(NEW_BYTES))
    }

    /// An empty buffer for `len` bytes that may stay for long: a few do not keep a large one.
    pub fn take_for(&mut self, len: usize) -> Vec<u8> {
        match self.spare.last() {
            Some(buffer) if buffer.capacity() <= NEW_BYTES.max(2 * len) => self.take(),
            _ => Vec::with_capacity(len),
        }
    }

    /// Takes a buffer back, whatever it holds.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < KEPT && (1..=KEPT_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Memory of at least `len` bytes to work in until the call ends. Always the same, so that it stays in the
    /// processor's cache; filled with whatever was there.
    pub fn scratch(&mut self, len: usize) -> &mut [u8] {
        if self.scratch.len() < len {
            self.scratch.resize(len, 0);
        }
        &mut self.scratch
    }
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers { spare: Vec::with_capacity(KEPT), scratch: Vec::new() }
    }
}
