//! Listening, and what sockets spend through.

mod listen;
mod pacing;

pub use listen::{ListenError, Listeners};
pub use pacing::{Pacing, PacingBuilder};
