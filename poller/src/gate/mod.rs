//! The gate: the one place where an outbox meets its socket.
//!
//! Owns the write state of one socket and decides, before every system call, how many bytes may go: the least of
//! what is queued, what the [pacer](crate::pace) allows and what is left of the visit. It must not call a session:
//! it says what happened ([`Step`], passed marks, the drained edge) and the loop tells. The loop drives it, one
//! [`Gate::step`] (at most one write) at a time.
//!
//! A socket does not write for one or more of these reasons; each has its own wake-up and is timed apart:
//!
//! | state   | because of                        | resumed by                                             |
//! |---------|-----------------------------------|--------------------------------------------------------|
//! | Idle    | an empty outbox                   | something queued                                       |
//! | Paused  | a budget                          | the timer, the pacer's turn, a change of a budget      |
//! | Blocked | the kernel's buffer               | the kernel's writable edge                             |
//! | Held    | the program                       | the program                                            |
//! | Starved | a source or a cold file           | [`Io::wake_source`](crate::Io::wake_source), the file  |
//! | Unready | the transport's handshake         | the read that ends it                                  |
//! | Closing | FIN follows the last byte         | (not a stop: what is queued still goes)                |
//!
//! What the kernel told (`told_writable`) is kept whatever the other states are, and cleared only by a write that
//! came up short.
//!
//! This file has what the loop tells and asks. `step` decides what may go, `write` lets it go, `send_timer` watches a
//! peer that takes nothing, and `states` names the reasons above for the ledger. What they work on is `outgoing`,
//! borrowed from `pools`.

mod outgoing;
mod pools;
mod send_timeout;
mod send_timer;
mod states;
mod step;
mod write;

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::due::{Due, Key};
use crate::ledger::Ledger;
use crate::moment::Moment;
use crate::outbox::{Outbox, Passed};
use crate::pace::{FlowId, Pacer};
use crate::record::{End, Reason};
use crate::timer::Wheel;
use crate::transport::{Fault, Wire};
use outgoing::{Outgoing, Pause, Starved};
pub(crate) use pools::Pools;
use send_timeout::SendTimeout;

/// The write side of one socket.
pub(crate) struct Gate {
    pub(crate) wire: Wire,
    pub(crate) ledger: Ledger,
    /// Here only while something is queued; from the poller's pool.
    out: Option<Box<Outgoing>>,
    pub(crate) flow: Option<FlowId>,
    low: u32,
    high: u32,
    send_timeout: SendTimeout,
    /// The kernel told that it takes bytes, and no write since came up short.
    pub(crate) told_writable: bool,
    pub(crate) held: bool,
    above_high: bool,
    drained: bool,
    /// FIN follows the last byte.
    pub(crate) closing: bool,
    /// The small not-sent mark was set, at the first pause.
    lowat_set: bool,
}

/// What the gate works with, lent for the length of a step.
pub(crate) struct Env<'a> {
    pub(crate) now: Moment,
    pub(crate) key: Key,
    pub(crate) pacer: &'a mut Pacer,
    pub(crate) wheel: &'a mut Wheel<Due>,
    pub(crate) pools: &'a mut Pools,
    pub(crate) passed: &'a mut Vec<Passed>,
    pub(crate) notsent_lowat: Option<u32>,
}

/// What one step came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing to write.
    Idle,
    /// Something changed; tell the session what is to be told, and step again.
    Went,
    /// The visit's share is used up: again in the next turn, for no edge will come.
    Again,
    /// One or more of the reasons in the table above hold.
    Stopped,
    /// The file is not in memory: bring this range in off the poller, then [`Gate::file_is_warm`].
    Cold { file: Arc<File>, offset: u64, len: u64 },
    /// The socket is done for.
    Failed(End),
}

impl Gate {
    pub(crate) fn new(wire: Wire, ledger: Ledger) -> Gate {
        Gate {
            wire,
            ledger,
            out: None,
            flow: None,
            low: DEFAULT_LOW_BYTES,
            high: DEFAULT_HIGH_BYTES,
            send_timeout: SendTimeout::default(),
            told_writable: true,
            held: false,
            above_high: false,
            drained: false,
            closing: false,
            lowat_set: false,
        }
    }

    /// Queues something; the loop steps the gate at the end of the visit.
    pub(crate) fn queue(&mut self, now: Moment, pools: &mut Pools, push: impl FnOnce(&mut Outbox)) {
        let out = outgoing_of(&mut self.out, &self.ledger, pools);
        push(&mut out.outbox);
        let pending = out.outbox.pending();
        if pending > 0 {
            self.ledger.set_pending(true, now);
        }
        if pending > u64::from(self.high) {
            self.above_high = true;
        }
    }

    /// Bytes queued and not yet taken by the kernel.
    pub(crate) fn queued(&self) -> u64 {
        self.out.as_ref().map_or(0, |out| out.outbox.pending())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out.as_ref().is_none_or(|out| !out.outbox.has_work()) && !self.wire.wants_write()
    }

    pub(crate) fn set_watermarks(&mut self, low: u64, high: u64) {
        self.high = u32::try_from(high).unwrap_or(u32::MAX);
        self.low = u32::try_from(low).unwrap_or(u32::MAX).min(self.high);
        let (queued, waited) = (self.queued(), self.above_high);
        self.above_high = queued > u64::from(self.high) || waited && queued > u64::from(self.low);
        // A producer that waits must be told, though no byte will go below the mark any more.
        self.drained |= waited && !self.above_high;
    }

    pub(crate) fn above_high(&self) -> bool {
        self.above_high
    }

    /// Whether the drained edge came since this was last asked.
    pub(crate) fn take_drained(&mut self) -> bool {
        std::mem::take(&mut self.drained)
    }

    /// The kernel told that it takes bytes again.
    pub(crate) fn writable(&mut self) {
        self.told_writable = true;
        if let Some(out) = &mut self.out {
            out.blocked_since = None;
        }
    }

    pub(crate) fn hold(&mut self, env: &mut Env<'_>) {
        self.held = true;
        if let Some(flow) = self.flow {
            env.pacer.rest(flow, env.now);
        }
        // A place in a shared budget's queue is given up; a time to wait for stands.
        if self.out.as_ref().is_some_and(|out| out.pause == Pause::Turn) {
            self.resume(env.wheel, env.now);
        }
        self.note_states(env.now);
    }

    pub(crate) fn release(&mut self, now: Moment) {
        self.held = false;
        if let Some(out) = &mut self.out
            && out.blocked_since.is_some()
        {
            out.blocked_since = Some(now);
        }
        self.note_states(now);
    }

    /// Whether a budget keeps the gate closed.
    pub(crate) fn is_paused(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.pause != Pause::No)
    }

    /// A budget opens the gate again, or may: the next step asks.
    pub(crate) fn resume(&mut self, wheel: &mut Wheel<Due>, now: Moment) {
        if let Some(out) = &mut self.out {
            if let Some(timer) = out.pause_timer.take() {
                wheel.cancel(timer);
            }
            let paused = std::mem::take(&mut out.pause) != Pause::No;
            self.ledger.set_paused(false, now);
            if paused && out.paused_since == Some(now) {
                self.ledger.uncount_pause();
            }
        }
    }

    /// The source at the front has something again.
    pub(crate) fn wake_source(&mut self) {
        if let Some(out) = &mut self.out
            && out.starved == Starved::BySource
        {
            out.starved = Starved::No;
        }
    }

    /// The file at the front was brought in up to `until` (zero: it could not be, try again).
    pub(crate) fn file_is_warm(&mut self, until: u64) {
        if let Some(out) = &mut self.out
            && out.starved == Starved::ByFile
        {
            out.starved = Starved::No;
            out.warm_until = until;
        }
    }

    /// Whether a source lies in the outbox that is not at its end.
    pub(crate) fn has_source(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.outbox.has_source())
    }

    /// Nothing goes out any more, but the socket lives on. Returns how many bytes were dropped.
    pub(crate) fn give_up(&mut self, env: &mut Env<'_>) -> u64 {
        let dropped = self.clear(env);
        self.note_states(env.now);
        dropped
    }

    /// Gives up everything queued and everything armed. Returns how many bytes were dropped.
    pub(crate) fn clear(&mut self, env: &mut Env<'_>) -> u64 {
        let mut dropped = 0;
        if let Some(mut out) = self.out.take() {
            out.disarm(env.wheel);
            dropped = out.outbox.clear();
            env.pools.give_outgoing(out);
        }
        if let Some(flow) = self.flow.take() {
            env.pacer.part(flow, env.now);
        }
        dropped
    }
}

/// The socket's outgoing side, taken from the pool when there is none.
fn outgoing_of<'a>(
    slot: &'a mut Option<Box<Outgoing>>,
    ledger: &Ledger,
    pools: &mut Pools,
) -> &'a mut Outgoing {
    slot.get_or_insert_with(|| {
        let mut out = pools.take_outgoing();
        out.outbox.reset(ledger.plain_out());
        out
    })
}

/// How a socket ended that gave this error.
pub(crate) fn end_of_error(error: &io::Error) -> End {
    if let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()) {
        return End { who: fault.who, reason: Reason::TransportError };
    }
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => End::peer(Reason::TransportError),
        io::ErrorKind::TimedOut => End::peer(Reason::Timeout),
        _ => End::peer(Reason::Abort),
    }
}

/// Default watermarks: a full pull above, half of it below.
const DEFAULT_LOW_BYTES: u32 = 64 * 1024;
const DEFAULT_HIGH_BYTES: u32 = 256 * 1024;
