//! The access log: a bounded queue and the one thread that formats, writes, flushes and reopens.
//!
//! Pollers hand records over under a lock that is held for a push; formatting and writing happen on the log's own
//! thread. When the queue is full a record is dropped and counted. When the disk fails, lines wait up to a bound,
//! then are counted. Lines are numbered as they are made, a lost one takes its number with it: the numbers missing
//! in a log are exactly the lines missing, and a `log` line says how many before it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;
use tidegate_poller::sys;

use crate::record::combined::Combined;
use crate::record::line::{self, LogEvent};
use crate::record::spool::Spool;
use crate::record::{ConnectionEntry, ExchangeRecord, Sink};

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Appended to this file, which is made when it is not there. A named pipe needs somebody who reads it already.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// A JSON object, for exchanges and connections.
    Json,
    /// The combined format, for exchanges only.
    Combined,
}

/// A running access log.
pub struct AccessLog {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    done: mpsc::Receiver<Closed>,
}

/// What the log came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Lines written.
    pub written: u64,
    /// Lines lost.
    pub lost: u64,
}

impl AccessLog {
    /// Opens the destination and starts the thread.
    pub fn open(destination: Destination, format: LineFormat) -> io::Result<AccessLog> {
        let out = open(&destination)?;
        AccessLog::start(format, out, Box::new(move || open(&destination)), Limits::default())
    }

    /// The end for records to go in.
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(Inlet { shared: self.shared.clone(), connections: self.shared.connections })
    }

    /// A handle that reopens the file, for log rotation: lines made so far go to the old one.
    pub fn reopener(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || {
            shared.reopen.store(true, Ordering::Release);
            shared.wake();
        }
    }

    /// Writes what is there and ends the thread. `None`: it did not come to an end within `patience` (a pipe nobody
    /// reads), and is left behind.
    pub fn close(self, patience: Duration) -> Option<Closed> {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        let closed = self.done.recv_timeout(patience).ok()?;
        // The thread has nothing left to do but return.
        let _ = self.thread.join();
        Some(closed)
    }

    fn start(format: LineFormat, out: Output, reopen: Reopen, limits: Limits) -> io::Result<AccessLog> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            limits,
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            connections: format == LineFormat::Json,
            thread: Mutex::default(),
        });
        let (tell, done) = mpsc::channel();
        let lines = match format {
            LineFormat::Json => Lines::Json,
            LineFormat::Combined => Lines::Combined(Combined::new(TimeZone::system())),
        };
        let writer = Writer {
            shared: shared.clone(),
            lines,
            out,
            reopen,
            spool: Spool::default(),
            seq: 0,
            closed: Closed::default(),
            lost_unsaid: 0,
            failing: false,
            warned: None,
        };
        let thread = thread::Builder::new()
            .name("tidegate-log".into())
            // Formatting and a write: 256 KiB is plenty, and memory is counted.
            .stack_size(256 * 1024)
            .spawn(move || {
                // Nobody listens any more when closing was given up.
                let _ = tell.send(writer.run());
            })?;
        *lock(&shared.thread) = Some(thread.thread().clone());
        // The thread may have looked for its own handle before it was there: nobody needs to be woken by it.
        Ok(AccessLog { shared, thread, done })
    }
}

type Output = Box<dyn Write + Send>;
type Reopen = Box<dyn Fn() -> io::Result<Output> + Send>;

/// The bounds of the queue and the rhythm of the thread.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Records that wait for the thread. At shutdown every idle connection leaves its record at once, so it is as
    /// many as there can be connections; it is allocated only when it is needed.
    records: usize,
    /// Their bytes. Enough for so many records as they mostly are; a stranger's words can be 16 KiB each.
    bytes: usize,
    /// How long the first record waits for company: a busy log wakes its thread ten times a second.
    gather: Duration,
    /// How soon a failing disk is tried again.
    retry: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            records: 65_536,
            bytes: 64 * 1024 * 1024,
            gather: Duration::from_millis(100),
            retry: Duration::from_millis(500),
        }
    }
}

/// Records formatted between two writes.
const BATCH_BYTES: usize = 64 * 1024;
/// How often a problem is said through `log::warn!`.
const WARN_EVERY: Duration = Duration::from_secs(1);

struct Shared {
    queue: Mutex<Queue>,
    limits: Limits,
    stop: AtomicBool,
    reopen: AtomicBool,
    connections: bool,
    thread: Mutex<Option<Thread>>,
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    bytes: usize,
    lost: u64,
}

enum Item {
    Exchange(Arc<ExchangeRecord>),
    Connection(Arc<ConnectionEntry>),
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Item::Exchange(record) => size_of::<ExchangeRecord>() + record.words.size(),
            Item::Connection(_) => size_of::<ConnectionEntry>(),
        }
    }
}

impl Queue {
    fn is_half_full(&self, limits: &Limits) -> bool {
        self.items.len() >= limits.records / 2 || self.bytes >= limits.bytes / 2
    }
}

impl Shared {
    fn push(&self, item: Item) {
        let size = item.size();
        let due = {
            let mut queue = lock(&self.queue);
            if queue.items.len() >= self.limits.records || queue.bytes + size > self.limits.bytes {
                queue.lost += 1;
                return;
            }
            let was_half_full = queue.is_half_full(&self.limits);
            queue.items.push(item);
            queue.bytes += size;
            // The first wakes the thread, which then gathers; half full is no time to gather.
            queue.items.len() == 1 || !was_half_full && queue.is_half_full(&self.limits)
        };
        if due {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }

    fn is_urgent(&self) -> bool {
        self.stop.load(Ordering::Acquire)
            || self.reopen.load(Ordering::Acquire)
            || lock(&self.queue).is_half_full(&self.limits)
    }

    fn has_records(&self) -> bool {
        let queue = lock(&self.queue);
        !queue.items.is_empty() || queue.lost > 0
    }
}

/// A panic while a push held the lock leaves a queue that is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Inlet {
    shared: Arc<Shared>,
    connections: bool,
}

impl Sink for Inlet {
    fn exchange(&self, record: &Arc<ExchangeRecord>) {
        self.shared.push(Item::Exchange(record.clone()));
    }

    fn connection(&self, entry: &Arc<ConnectionEntry>) {
        if self.connections {
            self.shared.push(Item::Connection(entry.clone()));
        }
    }
}

fn open(destination: &Destination) -> io::Result<Output> {
    match destination {
        Destination::File(path) => {
            // Opening a pipe would wait for its reader, for ever if none comes. Writing may wait: only the log's own
            // thread does, and what it leaves is bounded and counted.
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)?;
            sys::set_blocking(&file)?;
            Ok(Box::new(file))
        }
        // The descriptor, not `io::Stdout`: that one keeps a part of what it was given when a write fails.
        Destination::Stdout => Ok(Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
    }
}

enum Lines {
    Json,
    Combined(Combined),
}

/// The state of the log's thread.
struct Writer {
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
    fn run(mut self) -> Closed {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Condvar;

    use super::*;
    use crate::record::Words;
    use crate::record::tests::sample;

    /// A disk whose behaviour the test decides, shared with the log's thread.
    #[derive(Clone, Default)]
    struct Disk(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        files: VecDeque<String>,
        broken: bool,
        held: bool,
        waiting: bool,
    }

    impl Disk {
        fn set(&self, change: impl FnOnce(&mut State)) {
            change(&mut self.0.0.lock().unwrap());
            self.0.1.notify_all();
        }

        /// Waits until the content is as wanted.
        fn until(&self, wanted: impl Fn(&State) -> bool) {
            let (state, timeout) = self
                .0
                .1
                .wait_timeout_while(self.0.0.lock().unwrap(), Duration::from_secs(10), |state| !wanted(state))
                .unwrap();
            assert!(!timeout.timed_out(), "{:?}", state.files);
        }

        fn text(&self) -> String {
            self.0.0.lock().unwrap().files.iter().cloned().collect()
        }

        fn new_file(&self) -> Output {
            self.set(|state| state.files.push_back(String::new()));
            Box::new(self.clone())
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock().unwrap();
            state.waiting = true;
            self.0.1.notify_all();
            while state.held {
                state = self.0.1.wait(state).unwrap();
            }
            state.waiting = false;
            if state.broken {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.files.back_mut().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
            self.0.1.notify_all();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(disk: &Disk, format: LineFormat, records: usize) -> AccessLog {
        let short = Duration::from_millis(1);
        let limits = Limits { records, gather: short, retry: short, ..Limits::default() };
        let reopen = disk.clone();
        AccessLog::start(format, disk.new_file(), Box::new(move || Ok(reopen.new_file())), limits).unwrap()
    }

    fn offer(log: &AccessLog, count: u64) {
        let sink = log.sink();
        for exchange_id in 1..=count {
            sink.exchange(&Arc::new(ExchangeRecord { exchange_id, ..sample() }));
        }
    }

    fn numbers(text: &str) -> Vec<u64> {
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["log_seq"].as_u64().unwrap()).collect()
    }

    #[test]
    fn every_record_is_a_line_and_close_waits_for_the_last() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Json, 65_536);
        offer(&log, 5_000);
        assert_eq!(log.close(Duration::from_secs(10)), Some(Closed { written: 5_000, lost: 0 }));
        assert_eq!(numbers(&disk.text()), (1..=5_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_drops_counts_and_says_so() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Json, 10);
        disk.set(|state| state.held = true);
        offer(&log, 1);
        disk.until(|state| state.waiting);
        // The thread hangs in a write, as on a pipe nobody reads: the queue takes ten, no more, and no one waits.
        offer(&log, 25);
        disk.set(|state| state.held = false);
        disk.until(|state| state.files[0].contains("\"lost\""));
        offer(&log, 1);
        assert_eq!(log.close(Duration::from_secs(10)), Some(Closed { written: 13, lost: 15 }));
        let text = disk.text();
        assert!(text.contains("\"event\":\"lost\",\"lines\":15"), "{text}");
        // The gap in the numbers is the loss.
        assert_eq!(numbers(&text), [(1..=11).collect::<Vec<_>>(), vec![27, 28]].concat());
    }

    #[test]
    fn long_words_do_not_make_the_queue_large() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Json, 65_536);
        disk.set(|state| state.held = true);
        offer(&log, 1);
        disk.until(|state| state.waiting);
        let sink = log.sink();
        let words = Words::new(b"GET", &[b'/'; 16 * 1024], b"HTTP/1.1", None, None);
        for _ in 0..6_000 {
            sink.exchange(&Arc::new(ExchangeRecord { words: words.clone(), ..sample() }));
        }
        let (held, bytes, lost) = {
            let queue = lock(&log.shared.queue);
            (queue.items.len() as u64, queue.bytes, queue.lost)
        };
        assert!((3_000..4_096).contains(&held) && bytes <= 64 * 1024 * 1024, "{held} records, {bytes} bytes");
        assert_eq!(held + lost, 6_000);
        disk.set(|state| state.held = false);
        let closed = log.close(Duration::from_secs(60)).unwrap();
        assert!(closed.lost >= lost);
    }

    #[test]
    fn a_full_disk_loses_nothing_while_there_is_room_to_wait() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Json, 100);
        disk.set(|state| state.broken = true);
        offer(&log, 50);
        disk.set(|state| state.broken = false);
        disk.until(|state| state.files[0].lines().count() == 50);
        assert_eq!(log.close(Duration::from_secs(10)), Some(Closed { written: 50, lost: 0 }));
    }

    #[test]
    fn a_disk_that_stays_full_is_counted_at_the_end() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Json, 100);
        disk.set(|state| state.broken = true);
        offer(&log, 50);
        assert_eq!(log.close(Duration::from_secs(10)), Some(Closed { written: 0, lost: 50 }));
    }

    #[test]
    fn reopening_splits_the_log_between_two_lines() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Json, 100);
        offer(&log, 2);
        disk.until(|state| state.files[0].lines().count() == 2);
        log.reopener()();
        disk.until(|state| state.files.len() == 2);
        offer(&log, 1);
        assert_eq!(log.close(Duration::from_secs(10)), Some(Closed { written: 4, lost: 0 }));
        let state = disk.0.0.lock().unwrap();
        assert_eq!(numbers(&state.files[0]), [1, 2]);
        assert_eq!(numbers(&state.files[1]), [3, 4]);
        assert!(state.files[1].contains("\"event\":\"reopened\""));
    }

    #[test]
    fn combined_has_lines_of_exchanges_only() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Combined, 100);
        offer(&log, 2);
        log.reopener()();
        log.close(Duration::from_secs(10)).unwrap();
        let text = disk.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().all(|line| line.starts_with("192.0.2.1 - - [")));
    }

    #[test]
    fn a_reader_that_never_reads_does_not_keep_the_program() {
        let disk = Disk::default();
        let log = start(&disk, LineFormat::Json, 100);
        disk.set(|state| state.held = true);
        offer(&log, 1);
        disk.until(|state| state.waiting);
        assert_eq!(log.close(Duration::from_millis(20)), None);
        disk.set(|state| state.held = false);
    }

    #[test]
    fn a_real_file_is_appended_to_and_reopened() {
        let directory = std::env::temp_dir().join(format!("tidegate-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("access.log");
        std::fs::write(&path, "before\n").unwrap();
        let log = AccessLog::open(Destination::File(path.clone()), LineFormat::Json).unwrap();
        offer(&log, 1);
        log.close(Duration::from_secs(10)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("before\n{\"kind\":\"exchange\""), "{text}");
        std::fs::remove_dir_all(&directory).unwrap();
        let missing = Destination::File(directory.join("no/such/dir.log"));
        assert!(AccessLog::open(missing, LineFormat::Json).is_err());
    }
}
