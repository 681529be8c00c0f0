//! The log on disks that the tests make: slow, full, held up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::record::tests::sample;
use crate::record::{ExchangeRecord, Words};

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
