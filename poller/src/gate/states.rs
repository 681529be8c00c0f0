//! Why a gate does not write, named: for the ledger, which times each reason apart, and for `Debug`.
//!
//! Reads the states of a [`Gate`] and must not change them; told to the ledger whenever a step stops.

use std::fmt;

use super::Gate;
use super::outgoing::{Pause, Starved};
use crate::moment::Moment;

impl Gate {
    /// Tells the ledger how things stand.
    pub(super) fn note_states(&mut self, now: Moment) {
        let states = self.states();
        self.ledger.set_pending(self.queued() > 0 || self.wire.wants_write(), now);
        self.ledger.set_paused(states.pause != Pause::No, now);
        self.ledger.set_blocked(states.blocked, now);
        self.ledger.set_held(states.held, now);
        self.ledger.set_starved(states.starved, now);
    }

    fn states(&self) -> States {
        let idle = self.is_empty();
        let out = self.out.as_deref();
        States {
            idle,
            pause: out.map_or(Pause::No, |out| out.pause),
            blocked: !idle && !self.told_writable,
            held: !idle && self.held,
            starved: out.is_some_and(|out| out.starved != Starved::No),
            unready: self.queued() > 0 && !self.wire.is_ready(),
            closing: self.closing,
        }
    }
}

#[derive(Clone, Copy)]
struct States {
    idle: bool,
    pause: Pause,
    blocked: bool,
    held: bool,
    starved: bool,
    unready: bool,
    closing: bool,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.states();
        write!(f, "Gate({:?}, {} queued:", self.wire, self.queued())?;
        if states.idle {
            f.write_str(" Idle")?;
        }
        match states.pause {
            Pause::No => {}
            Pause::Until(until) => write!(f, " Paused{{until: {until:?}}}")?,
            Pause::Turn => f.write_str(" Paused{turn}")?,
            Pause::Never => f.write_str(" Paused{rate 0}")?,
        }
        for (holds, name) in [
            (states.blocked, " Blocked"),
            (states.held, " Held"),
            (states.starved, " Starved"),
            (states.unready, " Unready"),
            (states.closing, " Closing"),
        ] {
            if holds {
                f.write_str(name)?;
            }
        }
        let stopped =
            states.pause != Pause::No || states.blocked || states.held || states.starved || states.unready;
        if !states.idle && !stopped {
            f.write_str(" Ready")?;
        }
        f.write_str(")")
    }
}
