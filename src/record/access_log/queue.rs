//! The queue between the pollers, which hand records over, and the log's thread.
//!
//! It is bounded by records and by bytes; what does not fit is counted. It must not format, nor touch a file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crate::record::{ConnectionEntry, ExchangeRecord, Sink};

/// The bounds of the queue and the rhythm of the thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Records that wait for the thread. At shutdown every idle connection leaves its record at once, so it is as
    /// many as there can be connections; it is allocated only when it is needed.
    pub(super) records: usize,
    /// Their bytes. Enough for so many records as they mostly are; a stranger's words can be 16 KiB each.
    pub(super) bytes: usize,
    /// How long the first record waits for company: a busy log wakes its thread ten times a second.
    pub(super) gather: Duration,
    /// How soon a failing disk is tried again.
    pub(super) retry: Duration,
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

/// What pollers and the log's thread share.
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) limits: Limits,
    pub(super) stop: AtomicBool,
    pub(super) reopen: AtomicBool,
    /// Whether lines are made of connections.
    connections: bool,
    /// Whom to wake; nobody before it has been started.
    pub(super) thread: Mutex<Option<Thread>>,
}

#[derive(Default)]
pub(super) struct Queue {
    pub(super) items: Vec<Item>,
    pub(super) bytes: usize,
    pub(super) lost: u64,
}

pub(super) enum Item {
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
    pub(super) fn new(limits: Limits, connections: bool) -> Shared {
        Shared {
            queue: Mutex::default(),
            limits,
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            connections,
            thread: Mutex::default(),
        }
    }

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

    pub(super) fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.stop.load(Ordering::Acquire)
            || self.reopen.load(Ordering::Acquire)
            || lock(&self.queue).is_half_full(&self.limits)
    }

    pub(super) fn has_records(&self) -> bool {
        let queue = lock(&self.queue);
        !queue.items.is_empty() || queue.lost > 0
    }
}

/// A panic while a push held the lock leaves a queue that is as good as before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end for records to go in.
pub(super) struct Inlet(pub(super) Arc<Shared>);

impl Sink for Inlet {
    fn exchange(&self, record: &Arc<ExchangeRecord>) {
        self.0.push(Item::Exchange(record.clone()));
    }

    fn connection(&self, entry: &Arc<ConnectionEntry>) {
        if self.0.connections {
            self.0.push(Item::Connection(entry.clone()));
        }
    }
}
