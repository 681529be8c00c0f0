//! What a gate holds only while something is to be written.
//!
//! Owns the outbox of one socket and why it does not drain. Idle sockets have none: it is lent by the
//! [pools](super::pools). The other files of the gate change it; it decides nothing.

use crate::due::Due;
use crate::moment::Moment;
use crate::outbox::Outbox;
use crate::timer::{TimerId, Wheel};

/// The state that exists only while something is to be written.
#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) outbox: Outbox,
    pub(super) pause: Pause,
    /// When the latest pause began.
    pub(super) paused_since: Option<Moment>,
    pub(super) pause_timer: Option<TimerId>,
    pub(super) send_timer: Option<TimerId>,
    /// Since when the kernel takes nothing and the peer is not known to have taken any of what it has, holds not
    /// counted.
    pub(super) blocked_since: Option<Moment>,
    /// What the peer had still to take when that was last looked at.
    pub(super) unacknowledged: Option<u32>,
    pub(super) starved: Starved,
    /// The file range at the front, or the first one behind bytes, is in memory up to here.
    pub(super) warm_until: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pause {
    #[default]
    No,
    Until(Moment),
    /// Queued at a shared budget: the pacer names the socket when it is its turn.
    Turn,
    /// A rate of zero: until it is changed.
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Starved {
    #[default]
    No,
    BySource,
    ByFile,
}

impl Outgoing {
    /// Takes the timers back and forgets what kept the gate from writing.
    pub(super) fn disarm(&mut self, wheel: &mut Wheel<Due>) {
        for timer in [self.pause_timer.take(), self.send_timer.take()].into_iter().flatten() {
            wheel.cancel(timer);
        }
        self.pause = Pause::No;
        self.blocked_since = None;
        self.unacknowledged = None;
        self.starved = Starved::No;
        self.warm_until = 0;
    }
}
