//! At most one write to the socket, and its accounting.
//!
//! Takes what lies at the front of the outbox: bytes, a file, or a source to pull from. How much may go was decided
//! before, by the module `step`; nothing here asks a budget.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::outgoing::{Outgoing, Starved};
use super::{Env, Gate, Step, end_of_error};
use crate::outbox::{FileRange, Front, Pull};
use crate::record::{End, Reason};
use crate::sys;
use crate::transport::Wrote;

/// What is pulled from a source, or read from a file that cannot go by `sendfile`, at a time: the kernel's usual
/// first send buffer is 87 KB, so that one pull is about one write.
pub(super) const PULL_BYTES: u64 = 64 * 1024;
/// Fewer bytes than this do not go alone when a file follows them that cannot be sent: a record of TLS.
const FEW_BYTES: u64 = 16 * 1024;
/// How far ahead a file is looked at, and brought in, before it is sent: some 10 ms of reading from a slow disk.
const WARM_WINDOW_BYTES: u64 = 1024 * 1024;

impl Gate {
    pub(super) fn write(&mut self, ready: bool, allowance: u64, env: &mut Env<'_>, room: &mut u64) -> Step {
        if ready && !self.wire.sends_files() && self.top_up(allowance, env) {
            return Step::Went;
        }
        let Some(out) = self.out.as_mut() else { return Step::Idle };
        let own = self.wire.wants_write();
        let wire = self.wire.get();
        let buffers = &mut env.pools.buffers;
        let wrote = match out.outbox.front() {
            // A handshake, or an alert; or, with nothing queued, a ticket.
            _ if !ready => wire.write(&[], allowance, false, buffers),
            Front::Source => return self.pull(allowance, env),
            Front::File(range) => {
                let (file, offset, len) = (range.file.clone(), range.offset, range.len.min(allowance));
                if !out.is_warm(allowance) {
                    return self.cold(env);
                }
                match wire.send_file(&file, offset, len, allowance) {
                    Ok(None) => {
                        let len = len.min(wire.plain_bytes(allowance));
                        return self.read_file(&file, offset, len, env);
                    }
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
            Front::Bytes => match out.outbox.only_bytes(allowance) {
                Some(bytes) => {
                    // FIN, or a transport's goodbye, follows at once, and goes in the same packet: one wake-up of the peer less.
                    let last = self.closing && !self.held && out.outbox.is_last(bytes.len() as u64);
                    wire.write(&[IoSlice::new(bytes)], allowance, last, buffers)
                }
                None => {
                    let slices = out.outbox.slices(allowance);
                    let more = slices.before_file() && {
                        let left = allowance - slices.bytes();
                        let warm_until = &mut out.warm_until;
                        out.outbox.file_after_bytes().is_some_and(|range| warm(range, left, warm_until))
                    };
                    wire.write(&slices, allowance, more, buffers)
                }
            },
            Front::Empty if own => wire.write(&[], allowance, false, buffers),
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
                let buffers = &mut env.pools.buffers;
                if matches!(out.outbox.front(), Front::File(range) if range.len <= wrote.plain) {
                    out.warm_until = 0;
                }
                let begun = out
                    .outbox
                    .sent(wrote.plain, now, sums.as_ref(), env.passed, &mut |buffer| buffers.give(buffer));
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

    fn pull(&mut self, allowance: u64, env: &mut Env<'_>) -> Step {
        let Some(out) = &mut self.out else { return Step::Idle };
        let Some(source) = out.outbox.front_source() else { return Step::Idle };
        let max = self.wire.plain_bytes(allowance).min(PULL_BYTES) as usize;
        let mut bytes = env.pools.buffers.take();
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
            env.pools.buffers.give(bytes);
            if pull != Pull::End {
                out.starved = Starved::BySource;
                out.outbox.settle_down();
                self.rest(env);
            }
        } else {
            out.outbox.push_front(bytes);
            self.ledger.set_pending(true, env.now);
        }
        Step::Went
    }

    /// Reads what goes with the few bytes at the front of the file behind them, for a transport that cannot send files: a
    /// head alone would be a record and a system call of its own. Says whether there is more at the front now.
    fn top_up(&mut self, allowance: u64, env: &mut Env<'_>) -> bool {
        let Some(out) = &mut self.out else { return false };
        if !matches!(out.outbox.front(), Front::Bytes) {
            return false;
        }
        let slices = out.outbox.slices(allowance);
        let (ahead, follows) = (slices.bytes(), slices.before_file());
        let room = self.wire.plain_bytes(allowance).min(PULL_BYTES).saturating_sub(ahead);
        if !follows || ahead >= FEW_BYTES || room == 0 {
            return false;
        }
        let Some(range) = out.outbox.file_after_bytes() else { return false };
        if !warm(range, room, &mut out.warm_until) {
            return false;
        }
        let mut bytes = env.pools.buffers.take();
        bytes.resize(range.len.min(room) as usize, 0);
        match range.file.read_at(&mut bytes, range.offset) {
            Ok(n) if n > 0 => {
                bytes.truncate(n);
                out.outbox.replace_file_bytes_behind(bytes);
                true
            }
            // What is wrong will show when the file is at the front.
            _ => false,
        }
    }

    /// Reads a piece of the file at the front into memory, for a transport that cannot send files.
    fn read_file(&mut self, file: &File, offset: u64, len: u64, env: &mut Env<'_>) -> Step {
        let Some(out) = &mut self.out else { return Step::Idle };
        let mut bytes = env.pools.buffers.take();
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
}

impl Outgoing {
    fn is_warm(&mut self, allowance: u64) -> bool {
        match self.outbox.front() {
            Front::File(range) => warm(range, allowance, &mut self.warm_until),
            _ => true,
        }
    }
}

/// Whether what may go of `range` is in memory, looking ahead so that the question is asked once for many writes.
fn warm(range: &FileRange, allowance: u64, warm_until: &mut u64) -> bool {
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
