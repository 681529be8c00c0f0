//! What the poller's timers are for, and the name of a socket they are for.
//!
//! Owns two words that the gate and the loop share: both put a [`Due`] on the [wheel](crate::timer::Wheel), the
//! loop alone takes it off and acts. It must not know what a socket is.

/// Names a socket for as long as it lives: a slab index is used again, a generation is not (for 4 billion
/// sockets).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What to do when a timer comes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The egress budget has bytes again.
    Resume(Key),
    /// The ingress budget has bytes again.
    ResumeReading(Key),
    /// A cold file could not be brought in: look again.
    Rewarm(Key),
    /// The peer has taken nothing for long.
    Send(Key),
    /// Connecting took too long, or lingering.
    Deadline(Key),
    /// A timer of the session.
    Session { key: Key, reason: u32, slot: u16 },
    /// A listener that could not accept tries again.
    Listener(u32),
    /// Shutdown's grace is over.
    Cut,
}
