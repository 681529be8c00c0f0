//! The embedder's own work on a poller's thread.

use super::Poller;
use crate::moment::Moment;

/// What a poller does for its embedder in each turn, and must wake up for; see
/// [`Poller::set_hook`](super::Poller::set_hook).
///
/// It is called on the poller's thread, once a turn, after the sockets were visited, and must not block. A panic is
/// logged and counted; the hook stays.
pub trait Hook {
    /// Does what is to be done now. What it gives to sockets goes out in the next turn, which then follows at once.
    fn turn(&mut self, poller: &mut Poller);

    /// Until when the poller may sleep; a moment that has passed: not at all. Asked before each sleep.
    fn deadline(&self) -> Option<Moment>;
}
