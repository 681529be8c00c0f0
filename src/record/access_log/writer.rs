//! The log's own thread: it takes records over, formats them, writes, reopens, and counts what is lost.
//!
//! The disk may be slow or full: lines wait in the spool up to its bound. It must not hold the queue's lock meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::queue::{Item, Queue, Shared, lock};
use super::{Closed, Output, Reopen};
use crate::record::combined::Combined;
use crate::record::line::{self, LogEvent};
use crate::record::spool::Spool;

/// Records formatted between two writes.
const BATCH_BYTES: usize = 64 * 1024;
/// How often a problem is said through `log::warn!`.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// What is made of a record.
pub(super) enum Lines {
    Json,
    Combined(Combined),
}

/// The state of the log's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    lines: Lines,
    out: Output,
    reopen: Reopen,
    spool: Spool,
    /// The number of the latest line.
    seq: u64,
    closed: Closed,
    /// Lines lost since the last `log` line about it.
    lost_unsaid: u64,
    failing: bool,
    warned: Option<Instant>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, lines: Lines, out: Output, reopen: Reopen) -> Writer {
        Writer {
            shared,
            lines,
            out,
            reopen,
            spool: Spool::default(),
            seq: 0,
            closed: Closed::default(),
            lost_unsaid: 0,
            failing: false,
            warned: None,
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self) -> Closed {
        loop {
            let stopping = self.wait();
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.take_over();
                self.reopen();
            }
            self.take_over();
            if stopping {
                return self.finish();
            }
        }
    }

    /// Sleeps until there is something to do; true when it is to stop.
    fn wait(&self) -> bool {
        let retry_at = (self.spool.waiting() > 0 || self.lost_unsaid > 0)
            .then(|| Instant::now() + self.shared.limits.retry);
        while !self.shared.has_records() && !self.shared.is_urgent() {
            match retry_at.map(|at| at.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => break,
                Some(left) => thread::park_timeout(left),
            }
        }
        let until = Instant::now() + self.shared.limits.gather;
        while !self.shared.is_urgent() {
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => break,
                left => thread::park_timeout(left),
            }
        }
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Formats and writes all that was handed over.
    fn take_over(&mut self) {
        let Queue { mut items, lost, .. } = std::mem::take(&mut *lock(&self.shared.queue));
        for item in items.drain(..) {
            self.format(&item);
            if self.spool.waiting() >= BATCH_BYTES && !self.failing {
                self.write();
            }
        }
        self.count_lost(lost);
        self.write();
        // Said once the log takes lines again; while it does not, the count grows.
        if self.lost_unsaid > 0 && !self.failing {
            let lines = std::mem::take(&mut self.lost_unsaid);
            self.say(LogEvent::Lost(lines));
            self.write();
        }
        self.give_back(items);
    }

    fn format(&mut self, item: &Item) {
        let seq = self.seq + 1;
        let lines = &mut self.lines;
        let made = self.spool.push(|out| match (lines, item) {
            (Lines::Json, Item::Exchange(record)) => line::exchange(out, seq, record),
            (Lines::Json, Item::Connection(entry)) => line::connection(out, seq, entry),
            (Lines::Combined(combined), Item::Exchange(record)) => combined.exchange(out, record),
            (Lines::Combined(_), Item::Connection(_)) => {}
        });
        if made {
            self.seq = seq;
            self.closed.written += 1;
        } else {
            self.count_lost(1);
        }
    }

    /// A line about the log itself, where the format has such.
    fn say(&mut self, event: LogEvent) {
        if matches!(self.lines, Lines::Json) {
            self.seq += 1;
            let seq = self.seq;
            if self.spool.push(|out| line::event(out, seq, event, SystemTime::now())) {
                self.closed.written += 1;
            }
        }
    }

    fn write(&mut self) {
        match self.spool.write_to(&mut *self.out) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    log::warn!("the access log can be written again");
                }
            }
            Err(error) => {
                self.failing = true;
                self.warn(|writer| {
                    format!(
                        "the access log cannot be written: {error}; {} bytes wait",
                        writer.spool.waiting()
                    )
                });
            }
        }
    }

    /// Lost lines take their numbers with them.
    fn count_lost(&mut self, lines: u64) {
        if lines > 0 {
            self.seq += lines;
            self.closed.lost += lines;
            self.lost_unsaid += lines;
            self.warn(|writer| format!("the access log has lost {} lines so far", writer.closed.lost));
        }
    }

    fn reopen(&mut self) {
        match (self.reopen)() {
            Ok(out) => {
                // Numbered already, never written whole: it does not count as written after all.
                let torn = self.spool.drop_torn();
                self.closed.written -= torn;
                self.closed.lost += torn;
                self.lost_unsaid += torn;
                self.out = out;
                self.say(LogEvent::Reopened);
            }
            Err(error) => {
                log::error!("the access log cannot be reopened: {error}; the old file stays in use")
            }
        }
    }

    /// The last chance of what still waits.
    fn finish(mut self) -> Closed {
        if self.spool.waiting() > 0 {
            // The time that a disk may need is all that can be waited for here.
            thread::sleep(self.shared.limits.retry);
            self.write();
        }
        let lost = self.spool.drop_all();
        self.closed.written -= lost;
        self.closed.lost += lost;
        if self.closed.lost > 0 {
            log::error!("the access log ends with {} lines lost", self.closed.lost);
        }
        self.closed
    }

    fn warn(&mut self, message: impl FnOnce(&Writer) -> String) {
        let now = Instant::now();
        if self.warned.is_none_or(|last| now - last >= WARN_EVERY) {
            self.warned = Some(now);
            log::warn!("{}", message(self));
        }
    }

    /// The empty list goes back, so that a steady log allocates none; a large one is let go.
    fn give_back(&self, items: Vec<Item>) {
        let mut queue = lock(&self.shared.queue);
        if queue.items.capacity() == 0 && items.capacity() <= 1_024 {
            queue.items = items;
        }
    }
}
