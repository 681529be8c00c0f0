//! The access log: a bounded queue and the one thread that formats, writes, flushes and reopens.
//!
//! Pollers hand records over under a lock that is held for a push; formatting and writing happen on the log's own
//! thread. When the queue is full a record is dropped and counted. When the disk fails, lines wait up to a bound,
//! then are counted. Lines are numbered as they are made, a lost one takes its number with it: the numbers missing
//! in a log are exactly the lines missing, and a `log` line says how many before it.

mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::tz::TimeZone;
use tidegate_poller::sys;

use crate::record::Sink;
use crate::record::combined::Combined;
use queue::{Inlet, Limits, Shared, lock};
use writer::{Lines, Writer};

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
    ///
    /// # Errors
    /// The file cannot be opened, or is a named pipe that nobody reads; or the thread cannot be started.
    pub fn open(destination: Destination, format: LineFormat) -> io::Result<AccessLog> {
        let out = open(&destination)?;
        AccessLog::start(format, out, Box::new(move || open(&destination)), Limits::default())
    }

    /// The end for records to go in.
    pub fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(Inlet(self.shared.clone()))
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
        let shared = Arc::new(Shared::new(limits, format == LineFormat::Json));
        let (tell, done) = mpsc::channel();
        let lines = match format {
            LineFormat::Json => Lines::Json,
            LineFormat::Combined => Lines::Combined(Combined::new(TimeZone::system())),
        };
        let writer = Writer::new(shared.clone(), lines, out, reopen);
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
