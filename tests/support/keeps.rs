//! A place for records, where a test waits for them.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use tidegate::record::{ConnectionEntry, ExchangeRecord, Sink, Sinks};

use super::PATIENCE;

/// Keeps records.
#[derive(Default)]
pub(crate) struct Keeps {
    kept: Mutex<Kept>,
    more: Condvar,
}

#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) exchanges: Vec<Arc<ExchangeRecord>>,
    pub(crate) connections: Vec<Arc<ConnectionEntry>>,
}

impl Sink for Keeps {
    fn exchange(&self, record: &Arc<ExchangeRecord>) {
        self.kept.lock().unwrap().exchanges.push(record.clone());
        self.more.notify_all();
    }
    fn connection(&self, entry: &Arc<ConnectionEntry>) {
        self.kept.lock().unwrap().connections.push(entry.clone());
        self.more.notify_all();
    }
}

impl Keeps {
    pub(crate) fn new() -> (Arc<Keeps>, Sinks) {
        let keeps = Arc::new(Keeps::default());
        (keeps.clone(), Sinks::new([keeps as Arc<dyn Sink>]))
    }

    pub(crate) fn kept(&self) -> Kept {
        self.kept.lock().unwrap().clone()
    }

    /// The exchanges, once there are so many.
    pub(crate) fn exchanges(&self, count: usize) -> Vec<Arc<ExchangeRecord>> {
        self.until("exchanges", |kept| kept.exchanges.len() >= count).exchanges
    }

    /// The connections, once there are so many, and their exchanges.
    pub(crate) fn connections(&self, count: usize) -> (Vec<Arc<ExchangeRecord>>, Vec<Arc<ConnectionEntry>>) {
        let kept = self.until("connections", |kept| kept.connections.len() >= count);
        (kept.exchanges, kept.connections)
    }

    /// Waits until it is so.
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Kept) -> bool) -> Kept {
        let deadline = Instant::now() + PATIENCE;
        let mut kept = self.kept.lock().unwrap();
        while !so(&kept) {
            let left = deadline.saturating_duration_since(Instant::now());
            let counts = (kept.exchanges.len(), kept.connections.len());
            assert!(!left.is_zero(), "waited in vain: {what}; exchanges and connections: {counts:?}");
            kept = self.more.wait_timeout(kept, left).unwrap().0;
        }
        kept.clone()
    }

    /// Waits for so many records, and sees that each connection says how many exchanges it had.
    pub(crate) fn counts(&self, exchanges: usize, connections: usize) -> Kept {
        let kept = self.until("all records", |kept| {
            kept.exchanges.len() >= exchanges && kept.connections.len() >= connections
        });
        assert_eq!((kept.exchanges.len(), kept.connections.len()), (exchanges, connections));
        for entry in &kept.connections {
            let ours: Vec<_> =
                kept.exchanges.iter().filter(|exchange| exchange.conn_id == entry.record.conn_id).collect();
            assert_eq!(ours.len() as u64, entry.exchanges, "{entry:?}");
            let mut ids: Vec<u64> = ours.iter().map(|exchange| exchange.exchange_id).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(1..=entry.exchanges));
            let (sent, received): (u64, u64) =
                (ours.iter().map(|e| e.wire_out).sum(), ours.iter().map(|e| e.wire_in).sum());
            assert!(
                sent <= entry.record.plain_out && received <= entry.record.plain_in,
                "{ours:?} {entry:?}"
            );
        }
        kept
    }
}
