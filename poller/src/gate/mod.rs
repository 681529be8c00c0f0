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
//! | Closing | FIN follows the last byte         | (not a stop: what is queued still goes)                |
//!
//! What the kernel told (`told_writable`) is kept whatever the other states are, and cleared only by a write that
//! came up short.

mod pools;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::due::{Due, Key};
use crate::ledger::Ledger;
use crate::moment::{Moment, NANOS_PER_MS};
use crate::outbox::{Front, Outbox, Passed, Pull};
use crate::pace::{Allowance, FlowId, Pacer};
use crate::record::{End, Reason};
use crate::sys;
use crate::timer::{TimerId, Wheel};
use crate::transport::{Wire, Wrote};
pub(crate) use pools::Pools;

/// What is pulled from a source, or read from a file that cannot go by `sendfile`, at a time: the kernel's usual
/// first send buffer is 87 KB, so that one pull is about one write.
const PULL_BYTES: u64 = 64 * 1024;
/// How far ahead a file is looked at, and brought in, before it is sent: some 10 ms of reading from a slow disk.
const WARM_WINDOW_BYTES: u64 = 1024 * 1024;
/// What one step takes of the visit's share at least: a system call, or a call of the session, costs about as much as
/// copying so many bytes. A megabyte in single bytes would be a second of one socket.
const STEP_COST_BYTES: u64 = 4 * 1024;
/// What a transport that has bytes of its own to write may write of them at a time, when nothing else is queued.
const OWN_BYTES: u64 = 16 * 1024;

/// The write side of one socket.
pub(crate) struct Gate {
    pub(crate) wire: Wire,
    pub(crate) ledger: Ledger,
    /// Here only while something is queued; from the poller's pool.
    pub(crate) out: Option<Box<Outgoing>>,
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

/// The state that exists only while something is to be written.
#[derive(Default)]
pub(crate) struct Outgoing {
    pub(crate) outbox: Outbox,
    pause: Pause,
    /// When the latest pause began.
    paused_since: Option<Moment>,
    pause_timer: Option<TimerId>,
    send_timer: Option<TimerId>,
    /// Since when the kernel takes nothing and the peer is not known to have taken any of what it has, holds not
    /// counted.
    blocked_since: Option<Moment>,
    /// What the peer had still to take when that was last looked at.
    unacknowledged: Option<u32>,
    starved: Starved,
    /// The file range at the front, or the first one behind bytes, is in memory up to here.
    warm_until: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pause {
    #[default]
    No,
    Until(Moment),
    /// Queued at a shared budget: the pacer names the socket when it is its turn.
    Turn,
    /// A rate of zero: until it is changed.
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Starved {
    #[default]
    No,
    BySource,
    ByFile,
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
        let out = outgoing(&mut self.out, &self.ledger, now, pools);
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

    /// Zero: none.
    pub(crate) fn set_send_timeout(&mut self, timeout: Duration, env: &mut Env<'_>) {
        self.send_timeout = SendTimeout::new(timeout);
        if let Some(out) = &mut self.out {
            if let Some(timer) = out.send_timer.take() {
                env.wheel.cancel(timer);
            }
            if let Some(since) = out.blocked_since {
                out.start_send_timer(self.send_timeout, since, env);
            }
        }
    }

    /// Counts the time that the kernel takes nothing from now on.
    pub(crate) fn restart_send_timer(&mut self, env: &mut Env<'_>) {
        if let Some(out) = &mut self.out {
            out.blocked_since = Some(env.now);
            out.start_send_timer(self.send_timeout, env.now, env);
        }
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

    /// The send timer came due: whether the peer has taken nothing for too long. Starts it again if not.
    ///
    /// The kernel says that its buffer has room only when about a third is free, which a slow peer may be long in
    /// making: so it is asked now and then whether the peer took any.
    pub(crate) fn send_timer_due(&mut self, env: &mut Env<'_>) -> bool {
        let (Some(out), Some(limit)) = (&mut self.out, self.send_timeout.nanos()) else { return false };
        out.send_timer = None;
        let Some(since) = &mut out.blocked_since else { return false };
        let mut due = env.now.plus_nanos(limit);
        if !self.held {
            let left = sys::unacknowledged(self.wire.plain()).ok();
            if left != std::mem::replace(&mut out.unacknowledged, left) {
                *since = env.now;
            } else if since.plus_nanos(limit) <= env.now {
                return true;
            }
            due = since.plus_nanos(limit).min(env.now.plus_nanos(limit / SEND_CHECKS));
        }
        out.send_timer = Some(env.wheel.insert(due, Due::Send(env.key)));
        false
    }

    /// Does at most one write.
    pub(crate) fn step(&mut self, env: &mut Env<'_>, room: &mut u64) -> Step {
        let own = self.wire.wants_write();
        if self.out.is_none() && !own {
            return Step::Idle;
        }
        let out = outgoing(&mut self.out, &self.ledger, env.now, env.pools);
        if out.outbox.at_mark() {
            if *room == 0 {
                return Step::Again;
            }
            self.reach_marks(env);
            if !env.passed.is_empty() {
                *room = room.saturating_sub(STEP_COST_BYTES);
                return Step::Went;
            }
        }
        let Some(out) = &mut self.out else { return Step::Idle };
        if !out.outbox.has_work() && !own {
            self.idle(env);
            return Step::Idle;
        }
        if !self.told_writable {
            self.block(env);
        }
        let Some(out) = &mut self.out else { return Step::Idle };
        if self.held || !self.told_writable || out.pause != Pause::No || out.starved != Starved::No {
            self.note_states(env.now);
            return Step::Stopped;
        }
        // Told here and not at the next stop: a fast socket may not stop again for a long time.
        self.ledger.goes_on(env.now);
        if *room == 0 {
            return Step::Again;
        }
        match self.allowance(own, env, *room) {
            Some(allowance) => {
                let most = room.saturating_sub(STEP_COST_BYTES);
                let step = self.write(own, allowance, env, room);
                *room = most.min(*room);
                step
            }
            None => {
                self.note_states(env.now);
                Step::Stopped
            }
        }
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

    /// How many bytes may go on the wire now; `None` when a budget says none, and the pause is set.
    fn allowance(&mut self, own: bool, env: &mut Env<'_>, room: u64) -> Option<u64> {
        let out = self.out.as_mut()?;
        let mut wanted = out.outbox.reachable(room);
        if wanted == 0 && matches!(out.outbox.front(), Front::Source) {
            wanted = PULL_BYTES.min(room);
        }
        if own {
            wanted = wanted.max(OWN_BYTES).min(room);
        }
        let Some(flow) = self.flow else { return Some(wanted) };
        let pause = match env.pacer.allow(flow, wanted, env.now) {
            Allowance::Now(n) => return Some(n.clamp(1, room)),
            Allowance::Until(until) => {
                out.pause_timer = Some(env.wheel.insert(until, Due::Resume(env.key)));
                Pause::Until(until)
            }
            Allowance::Turn => Pause::Turn,
            Allowance::Never => Pause::Never,
        };
        out.pause = pause;
        out.paused_since = Some(env.now);
        self.ledger.set_paused(true, env.now);
        if !self.lowat_set {
            self.lowat_set = true;
            if let (Some(bytes), true) = (env.notsent_lowat, self.wire.plain().is_tcp()) {
                // Of no consequence if refused: a pause is felt a little later.
                let _ = sys::set_notsent_lowat(self.wire.plain(), bytes);
            }
        }
        None
    }

    fn write(&mut self, own: bool, allowance: u64, env: &mut Env<'_>, room: &mut u64) -> Step {
        let Some(out) = self.out.as_mut() else { return Step::Idle };
        let wrote = match out.outbox.front() {
            Front::Source => return self.pull(allowance, env),
            Front::File(range) => {
                let (file, offset, len) = (range.file.clone(), range.offset, range.len.min(allowance));
                if !out.is_warm(allowance) {
                    return self.cold(env);
                }
                match self.wire.get().send_file(&file, offset, len, allowance) {
                    Ok(None) => return self.read_file(&file, offset, len, env),
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        // Not a file the kernel can send from (procfs and the like).
                        return self.read_file(&file, offset, len, env);
                    }
                    Err(error) if is_of_the_file(&error) => {
                        return Step::Failed(End::local(Reason::SourceFailed));
                    }
                    Err(error) => Err(error),
                    Ok(Some(wrote)) if wrote.plain == 0 && !wrote.full => {
                        self.account(wrote, env, room);
                        return Step::Failed(End::local(Reason::SourceFailed));
                    }
                    Ok(Some(wrote)) => Ok(wrote),
                }
            }
            Front::Bytes => {
                let slices = out.outbox.slices(allowance);
                let more = slices.before_file() && {
                    let left = allowance - slices.bytes();
                    let warm_until = &mut out.warm_until;
                    out.outbox.file_after_bytes().is_some_and(|range| warm(range, left, warm_until))
                };
                self.wire.get().write(&slices, allowance, more)
            }
            Front::Empty if own => self.wire.get().write(&[], allowance, false),
            Front::Empty => return Step::Idle,
        };
        match wrote {
            Ok(wrote) => {
                self.account(wrote, env, room);
                Step::Went
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.account(Wrote { full: true, ..Wrote::default() }, env, room);
                    Step::Went
                }
                io::ErrorKind::Interrupted => Step::Went,
                _ => Step::Failed(end_of_error(&error)),
            },
        }
    }

    /// Books what went.
    fn account(&mut self, wrote: Wrote, env: &mut Env<'_>, room: &mut u64) {
        let now = env.now;
        if wrote.wire > 0 {
            if let Some(flow) = self.flow {
                env.pacer.charge(flow, wrote.wire);
            }
            self.ledger.note_out(wrote.wire, wrote.plain, now);
            *room = room.saturating_sub(wrote.wire);
        }
        if let Some(out) = &mut self.out {
            if wrote.wire > 0 {
                out.blocked_since = None;
            }
            if wrote.plain > 0 {
                let sums = out.outbox.has_marks().then(|| self.ledger.sums(now));
                let pools = &mut *env.pools;
                if matches!(out.outbox.front(), Front::File(range) if range.len <= wrote.plain) {
                    out.warm_until = 0;
                }
                let begun = out.outbox.sent(wrote.plain, now, sums.as_ref(), env.passed, &mut |buffer| {
                    pools.give_buffer(buffer)
                });
                let pending = out.outbox.pending();
                self.ledger.set_pending(pending > 0, now);
                if self.above_high && pending <= u64::from(self.low) {
                    self.above_high = false;
                    self.drained = true;
                }
                if let Some(free) = begun {
                    self.begin(free, env);
                }
            }
        }
        if wrote.full {
            self.told_writable = false;
            self.block(env);
        }
    }

    fn reach_marks(&mut self, env: &mut Env<'_>) {
        let sums = self.ledger.sums(env.now);
        if let Some(out) = &mut self.out
            && let Some(free) = out.outbox.reach(env.now, &sums, env.passed)
        {
            self.begin(free, env);
        }
    }

    /// The gate reached the beginning of an exchange's bytes.
    fn begin(&mut self, free: u64, env: &mut Env<'_>) {
        self.ledger.start_span(env.now);
        if let Some(flow) = self.flow {
            env.pacer.free_bytes(flow, free);
        }
    }

    fn pull(&mut self, allowance: u64, env: &mut Env<'_>) -> Step {
        let Some(out) = &mut self.out else { return Step::Idle };
        let Some(source) = out.outbox.front_source() else { return Step::Idle };
        let max = allowance.min(PULL_BYTES) as usize;
        let mut bytes = env.pools.take_buffer();
        let Ok(pull) = catch_unwind(AssertUnwindSafe(|| source.pull(max, &mut bytes))) else {
            log::error!("a source panicked; its socket is closed");
            return Step::Failed(End::local(Reason::Internal));
        };
        if pull == Pull::Failed || bytes.len() > max {
            return Step::Failed(End::local(Reason::SourceFailed));
        }
        if pull == Pull::End {
            out.outbox.end_source();
        }
        if bytes.is_empty() {
            env.pools.give_buffer(bytes);
            if pull != Pull::End {
                out.starved = Starved::BySource;
                self.rest(env);
            }
        } else {
            out.outbox.push_front(bytes);
            self.ledger.set_pending(true, env.now);
        }
        Step::Went
    }

    /// Reads a piece of the file at the front into memory, for a transport that cannot send files.
    fn read_file(&mut self, file: &File, offset: u64, len: u64, env: &mut Env<'_>) -> Step {
        let Some(out) = &mut self.out else { return Step::Idle };
        let mut bytes = env.pools.take_buffer();
        bytes.resize(len.min(PULL_BYTES) as usize, 0);
        match file.read_at(&mut bytes, offset) {
            Ok(n) if n > 0 => {
                bytes.truncate(n);
                if matches!(out.outbox.front(), Front::File(range) if range.len <= n as u64) {
                    out.warm_until = 0;
                }
                out.outbox.replace_file_bytes(bytes);
                Step::Went
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Step::Went,
            Ok(_) | Err(_) => Step::Failed(End::local(Reason::SourceFailed)),
        }
    }

    fn cold(&mut self, env: &mut Env<'_>) -> Step {
        let Some(out) = &mut self.out else { return Step::Idle };
        let Front::File(range) = out.outbox.front() else { return Step::Idle };
        let step = Step::Cold {
            file: range.file.clone(),
            offset: range.offset,
            len: range.len.min(WARM_WINDOW_BYTES),
        };
        out.starved = Starved::ByFile;
        self.rest(env);
        self.note_states(env.now);
        step
    }

    /// The kernel takes no more: nothing is asked of the pacer until it does.
    fn block(&mut self, env: &mut Env<'_>) {
        let Some(out) = &mut self.out else { return };
        if (out.outbox.has_work() || self.wire.wants_write()) && out.blocked_since.is_none() {
            out.blocked_since = Some(env.now);
            out.start_send_timer(self.send_timeout, env.now, env);
            self.rest(env);
        }
    }

    fn idle(&mut self, env: &mut Env<'_>) {
        self.rest(env);
        if let Some(out) = &mut self.out {
            out.blocked_since = None;
            out.starved = Starved::No;
        }
        self.note_states(env.now);
        if self.out.as_ref().is_some_and(|out| out.outbox.is_empty())
            && let Some(mut out) = self.out.take()
        {
            out.disarm(env.wheel);
            env.pools.give_outgoing(out);
        }
    }

    fn rest(&mut self, env: &mut Env<'_>) {
        if let Some(flow) = self.flow {
            env.pacer.rest(flow, env.now);
        }
    }

    /// Tells the ledger how things stand.
    fn note_states(&mut self, now: Moment) {
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
            closing: self.closing,
        }
    }
}

impl Outgoing {
    /// Has the send timeout run from `since`, unless it runs already.
    fn start_send_timer(&mut self, timeout: SendTimeout, since: Moment, env: &mut Env<'_>) {
        if let (Some(limit), None) = (timeout.nanos(), self.send_timer) {
            let due = since.plus_nanos(limit / SEND_CHECKS);
            self.send_timer = Some(env.wheel.insert(due.max(env.now.plus_nanos(1)), Due::Send(env.key)));
        }
    }

    fn disarm(&mut self, wheel: &mut Wheel<Due>) {
        for timer in [self.pause_timer.take(), self.send_timer.take()].into_iter().flatten() {
            wheel.cancel(timer);
        }
        self.pause = Pause::No;
        self.blocked_since = None;
        self.unacknowledged = None;
        self.starved = Starved::No;
        self.warm_until = 0;
    }

    fn is_warm(&mut self, allowance: u64) -> bool {
        match self.outbox.front() {
            Front::File(range) => warm(range, allowance, &mut self.warm_until),
            _ => true,
        }
    }
}

/// The socket's outgoing side, taken from the pool when there is none.
fn outgoing<'a>(
    slot: &'a mut Option<Box<Outgoing>>,
    ledger: &Ledger,
    now: Moment,
    pools: &mut Pools,
) -> &'a mut Outgoing {
    slot.get_or_insert_with(|| {
        let mut out = pools.take_outgoing();
        out.outbox.reset(ledger.sums(now).plain_out);
        out
    })
}

/// Whether what may go of `range` is in memory, looking ahead so that the question is asked once for many writes.
fn warm(range: &crate::outbox::FileRange, allowance: u64, warm_until: &mut u64) -> bool {
    let due = range.len.min(allowance);
    if range.offset.saturating_add(due) <= *warm_until {
        return true;
    }
    let window = range.len.min(allowance.max(WARM_WINDOW_BYTES));
    // Where the question cannot be answered, sending will show.
    let warm = sys::file_is_warm(&*range.file, range.offset, window).unwrap_or(true);
    if warm {
        *warm_until = range.offset.saturating_add(window);
    }
    warm
}

/// Whether an error of `sendfile` came from the file and not from the socket.
fn is_of_the_file(error: &io::Error) -> bool {
    let of_files = [libc::EIO, libc::EFBIG, libc::EOVERFLOW, libc::ESTALE, libc::ENODATA];
    error.raw_os_error().is_some_and(|code| of_files.contains(&code))
}

/// How a socket ended that gave this error.
pub(crate) fn end_of_error(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => End::peer(Reason::TransportError),
        io::ErrorKind::TimedOut => End::peer(Reason::Timeout),
        _ => End::peer(Reason::Abort),
    }
}

#[derive(Clone, Copy)]
struct States {
    idle: bool,
    pause: Pause,
    blocked: bool,
    held: bool,
    starved: bool,
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
            (states.closing, " Closing"),
        ] {
            if holds {
                f.write_str(name)?;
            }
        }
        let stopped = states.pause != Pause::No || states.blocked || states.held || states.starved;
        if !states.idle && !stopped {
            f.write_str(" Ready")?;
        }
        f.write_str(")")
    }
}

/// Default watermarks: a full pull above, half of it below.
const DEFAULT_LOW_BYTES: u32 = 64 * 1024;
const DEFAULT_HIGH_BYTES: u32 = 256 * 1024;
/// How many times in a send timeout it is looked whether the peer takes bytes. The timeout is late by one part.
const SEND_CHECKS: u64 = 8;

/// A send timeout in two bytes, which every socket has: steps of 10 ms, or of a second with the top bit set. Rounded
/// up; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SendTimeout(u16);

impl SendTimeout {
    const SECONDS: u16 = 1 << 15;
    const STEP_MS: u128 = 10;

    fn new(timeout: Duration) -> SendTimeout {
        let steps = timeout.as_millis().div_ceil(Self::STEP_MS);
        SendTimeout(match u16::try_from(steps) {
            Ok(steps) if steps < Self::SECONDS => steps,
            _ => {
                let seconds = timeout.as_millis().div_ceil(1_000);
                Self::SECONDS | u16::try_from(seconds).unwrap_or(u16::MAX).min(Self::SECONDS - 1)
            }
        })
    }

    fn nanos(self) -> Option<u64> {
        match self.0 {
            0 => None,
            steps if steps < Self::SECONDS => Some(u64::from(steps) * Self::STEP_MS as u64 * NANOS_PER_MS),
            seconds => Some(u64::from(seconds & !Self::SECONDS) * 1_000 * NANOS_PER_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_timeouts_fit_into_two_bytes() {
        for (asked, kept) in [
            (0, None),
            (1, Some(10)),
            (10, Some(10)),
            (2_001, Some(2_010)),
            (60_000, Some(60_000)),
            (327_670, Some(327_670)),
            (327_671, Some(328_000)),
            (600_001, Some(601_000)),
            (7_200_000, Some(7_200_000)),
            (32_400_000, Some(32_400_000)),
            (u64::MAX, Some(32_767_000)),
        ] {
            let timeout = SendTimeout::new(Duration::from_millis(asked));
            assert_eq!(timeout.nanos(), kept.map(|millis: u64| millis * NANOS_PER_MS), "{asked} ms");
        }
    }
}
