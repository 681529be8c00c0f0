//! What the poller's timers are for, and a socket's list of its session's timers.

use crate::timer::{TimerId, Wheel};

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

/// The timers a session has started and that have neither fired nor been cancelled. Most sessions have one at a
/// time; it lives in place, others in a box.
#[derive(Debug, Default)]
pub(crate) struct SessionTimers {
    first: Option<TimerId>,
    #[expect(clippy::box_collection, reason = "8 bytes in every socket instead of 24; rarely there")]
    others: Option<Box<Vec<Option<TimerId>>>>,
}

impl SessionTimers {
    /// A slot for one more; `None` when 65,535 run.
    pub(crate) fn free_slot(&mut self) -> Option<u16> {
        if self.first.is_none() {
            return Some(0);
        }
        let others = self.others.get_or_insert_default();
        let place = others.iter().position(Option::is_none).unwrap_or_else(|| {
            others.push(None);
            others.len() - 1
        });
        u16::try_from(place + 1).ok()
    }

    pub(crate) fn set(&mut self, slot: u16, timer: Option<TimerId>) {
        if slot == 0 {
            self.first = timer;
        } else if let Some(place) =
            self.others.as_mut().and_then(|others| others.get_mut(usize::from(slot) - 1))
        {
            *place = timer;
        }
    }

    /// Forgets a timer; says whether it was there.
    pub(crate) fn forget(&mut self, timer: TimerId) -> bool {
        let others = self.others.iter_mut().flat_map(|others| others.iter_mut());
        match std::iter::once(&mut self.first).chain(others).find(|place| **place == Some(timer)) {
            Some(place) => {
                *place = None;
                true
            }
            None => false,
        }
    }

    pub(crate) fn cancel_all(&mut self, wheel: &mut Wheel<Due>) {
        let others = self.others.take();
        for timer in
            self.first.take().into_iter().chain(others.into_iter().flat_map(|others| *others).flatten())
        {
            wheel.cancel(timer);
        }
    }
}
