//! How far the transfers have come, for a person at a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::report::{bytes, rate, time};
use crate::http::client::UploadProgress;

/// Counts of all transfers together; written by them, read by who draws.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes that are there, those of earlier tries included.
    pub(super) there: AtomicU64,
    /// Bytes that came now.
    pub(super) came: AtomicU64,
    /// Bytes expected in all, as far as that is known.
    pub(super) expected: AtomicU64,
    /// Bytes of the file that is sent.
    pub(super) upload: UploadProgress,
    pub(super) done: AtomicUsize,
}

/// Draws one line on stderr, where that is a terminal.
pub(super) struct Bar {
    files: usize,
    /// When, and how much had come: the rate shown is that of the last seconds.
    seen: Vec<(Instant, u64)>,
    shown: bool,
}

/// How often it is drawn.
pub(super) const DRAWN_EVERY: Duration = Duration::from_millis(200);
/// Over how many drawings the rate is taken: about three seconds.
const RATE_OVER: usize = 15;

impl Progress {
    pub(super) fn add(&self, bytes: u64) {
        self.there.fetch_add(bytes, Ordering::Relaxed);
        self.came.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Bar {
    /// `None` where nobody would see it.
    pub(super) fn new(files: usize, quiet: bool) -> Option<Bar> {
        let seen = !quiet && std::io::stderr().is_terminal();
        seen.then(|| Bar { files, seen: vec![(Instant::now(), 0)], shown: false })
    }

    pub(super) fn draw(&mut self, progress: &Progress, now: Instant) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let sent = progress.upload.sent_bytes();
        let (there, came, expected) =
            (load(&progress.there) + sent, load(&progress.came) + sent, load(&progress.expected));
        self.seen.push((now, came));
        if self.seen.len() > RATE_OVER {
            self.seen.remove(0);
        }
        let (since, before) = self.seen[0];
        let elapsed = now.duration_since(since).as_secs_f64();
        let per_second = if elapsed > 0.0 { came.saturating_sub(before) as f64 / elapsed } else { 0.0 };
        let done = progress.done.load(Ordering::Relaxed);
        let line = line(done, self.files, there, expected.max(there), per_second);
        // To the start of the line, and clear what was longer. On a terminal that is narrower the line is cut at its edge:
        // wrapped, it could not be taken back.
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K\x1b[?7l{line}\x1b[?7h");
        self.shown = true;
    }

    /// Takes the line away, so that something else can be said.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(done: usize, files: usize, there: u64, expected: u64, per_second: f64) -> String {
    const WIDTH: usize = 24;
    let share = if expected > 0 { there as f64 / expected as f64 } else { 0.0 };
    let full = (share * WIDTH as f64) as usize;
    let left = match expected - there {
        0 => String::new(),
        _ if per_second < 1.0 => ", stands still".to_owned(),
        rest => format!(
            ", {} left",
            time(Duration::try_from_secs_f64(rest as f64 / per_second).unwrap_or(Duration::MAX))
        ),
    };
    format!(
        "{done}/{files} [{}{}] {:3.0}% {} of {}, {}{left}",
        "#".repeat(full),
        "-".repeat(WIDTH - full),
        share * 100.0,
        bytes(there),
        bytes(expected),
        rate(per_second),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        assert_eq!(
            line(1, 2, 5_000_000, 10_000_000, 1_000_000.0),
            "1/2 [############------------]  50% 5.00 MB of 10.0 MB, 1.00 MB/s, 5.00 s left"
        );
        assert_eq!(line(0, 1, 0, 0, 0.0), format!("0/1 [{}]   0% 0 B of 0 B, 0 B/s", "-".repeat(24)));
        assert!(line(0, 1, 1, 2, 0.0).ends_with("stands still"));
    }
}
