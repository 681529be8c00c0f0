//! The outbox: what a socket has still to write, in order.
//!
//! Pure: it holds bytes, file ranges, sources and marks, knows the offset in the first of them and how much of
//! all was sent. It makes no system call and reads no clock. The gate drives it.

mod chunk;
mod mark;
mod queue;
mod segment;
mod source;
#[cfg(test)]
mod tests;

pub use chunk::Chunk;
pub use mark::{Edge, Mark, Passed};
pub use queue::{Front, MAX_SLICES, Outbox, Slices};
pub use segment::FileRange;
pub use source::{Pull, Source};
