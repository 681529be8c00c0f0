//! What is left of exchanges and connections, and where it goes.
//!
//! This module owns the exchange's record and the [`Sink`] trait. It knows no protocol: a session fills a record
//! in and hands it over, exactly once. Connection records come from the poller.

mod words;

#[cfg(feature = "access-log")]
mod access_log;
#[cfg(feature = "access-log")]
mod combined;
#[cfg(feature = "access-log")]
mod escape;
#[cfg(feature = "access-log")]
mod line;
#[cfg(feature = "access-log")]
mod spool;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_poller::record::{ConnectionRecord, End, Pauses, Peer, Role};

#[cfg(feature = "cli")]
pub(crate) use line::ClientFields;

#[cfg(feature = "access-log")]
pub use access_log::{AccessLog, Closed, Destination, LineFormat};
pub use words::Words;

/// The account of one exchange: one request and its reply, made once at its end.
///
/// Sums are always there, zero included; a moment that never came is absent.
#[derive(Clone, Debug)]
pub struct ExchangeRecord {
    /// The connection it was on.
    pub conn_id: u64,
    /// Its number on that connection, from 1.
    pub exchange_id: u64,
    /// The other end.
    pub peer: Peer,
    /// Our role.
    pub role: Role,
    /// What was asked, and by what program.
    pub words: Words,
    /// What was answered; absent when nothing was.
    pub status: Option<u16>,
    /// Bytes of the request before its body, as they came, blank lines before it included.
    pub req_header_bytes: u64,
    /// Bytes of the request's body.
    pub req_body_bytes: u64,
    /// Bytes of the reply before its body that went out.
    pub resp_header_bytes: u64,
    /// Bytes of the reply's body that went out.
    pub resp_body_bytes: u64,
    /// Bytes that came off the socket for it.
    pub wire_in: u64,
    /// Bytes the kernel took for it.
    pub wire_out: u64,
    /// Wall-clock time of the request's first byte.
    pub started: SystemTime,
    /// From the request's first byte until the kernel took the reply's first.
    pub first_byte: Option<Duration>,
    /// From the reply's first byte to its last.
    pub transfer: Option<Duration>,
    /// From the request's first byte until the end, whatever it was.
    pub total: Duration,
    /// Why it did not go faster, from the moment the gate reached the reply.
    pub pauses: Pauses,
    /// How it ended.
    pub end: End,
    /// In which phase.
    pub phase: &'static str,
    /// Of a reply that is a stream of events, what became of them; absent of all others.
    pub events: Option<Box<EventFacts>>,
    /// What only who asks knows; absent at servers, and of protocols that do not tell.
    pub client: Option<Box<ClientFacts>>,
}

/// What became of the events of a stream that went to one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFacts {
    /// Events that went: the gate took their last byte off their queue. Those that the client had missed, and was sent when
    /// it came back, are in it; heartbeats and notices are not.
    pub sent: u64,
    /// Events that were dropped because the queue was full.
    pub dropped: u64,
    /// Events whose place a later one took.
    pub conflated: u64,
    /// The most events that ever waited in the queue.
    pub queue_peak: u64,
}

/// How a request came to its connection. Absent is what did not happen: a connection that was there already took no
/// time to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFacts {
    /// From asking for the host's addresses until they were known.
    pub dns: Option<Duration>,
    /// From the start of the request until a connection was free for it, or one was begun for it.
    pub pool_wait: Option<Duration>,
    /// From the first attempt to connect until a connection was made.
    pub connect: Option<Duration>,
    /// From the connection until TLS was agreed on.
    pub tls: Option<Duration>,
    /// Redirects that were followed before it.
    pub redirects: u32,
    /// Attempts before it that failed.
    pub retries: u32,
    /// The connection had served another request.
    pub reused: bool,
    /// Bytes of the reply's body after its content coding was taken away; without one, the body's bytes.
    pub body_decoded_bytes: u64,
    /// Time in which a budget of ours kept us from reading.
    pub read_throttled: Duration,
}

impl ExchangeRecord {
    /// Who ended it, by role: `client` or `server`.
    pub fn end_who(&self) -> &'static str {
        self.role.name_of(self.end.who)
    }
}

/// A connection's record, and what its session adds.
#[derive(Clone, Debug)]
pub struct ConnectionEntry {
    /// The account the poller kept.
    pub record: ConnectionRecord,
    /// How many exchanges there were.
    pub exchanges: u64,
}

/// Somewhere records go.
///
/// It is called on a poller's thread: it must not block. It may drop, and then it must count.
pub trait Sink: Send + Sync {
    /// An exchange ended.
    fn exchange(&self, record: &Arc<ExchangeRecord>);

    /// A connection ended. It comes after its exchanges.
    fn connection(&self, entry: &Arc<ConnectionEntry>);
}

/// All the sinks of a server. Each is handed each record once; a sink that panics harms no other.
#[derive(Clone, Default)]
pub struct Sinks(Arc<[Arc<dyn Sink>]>);

impl Sinks {
    /// These sinks.
    pub fn new(sinks: impl IntoIterator<Item = Arc<dyn Sink>>) -> Sinks {
        Sinks(sinks.into_iter().collect())
    }

    /// Whether nobody wants a record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands an exchange to each.
    pub fn exchange(&self, make: impl FnOnce() -> ExchangeRecord) {
        if !self.0.is_empty() {
            self.exchange_made(&Arc::new(make()));
        }
    }

    /// The same, for one that is wanted elsewhere, too.
    pub fn exchange_made(&self, record: &Arc<ExchangeRecord>) {
        self.each(|sink| sink.exchange(record));
    }

    /// Hands a connection to each.
    pub fn connection(&self, record: ConnectionRecord, exchanges: u64) {
        if !self.0.is_empty() {
            let entry = Arc::new(ConnectionEntry { record, exchanges });
            self.each(|sink| sink.connection(&entry));
        }
    }

    fn each(&self, hand_over: impl Fn(&dyn Sink)) {
        for sink in &*self.0 {
            if catch_unwind(AssertUnwindSafe(|| hand_over(&**sink))).is_err() {
                log::error!("a record sink panicked; the record is lost to it");
            }
        }
    }
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sinks({})", self.0.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use tidegate_poller::record::Reason;

    use super::*;

    /// A record with a different value in every field.
    pub(crate) fn sample() -> ExchangeRecord {
        ExchangeRecord {
            conn_id: 7,
            exchange_id: 2,
            peer: Peer::Inet(SocketAddr::from(([192, 0, 2, 1], 50_000))),
            role: Role::Server,
            words: Words::new(b"GET", b"/a?b", b"HTTP/1.1", None, Some(b"curl/8")),
            status: Some(206),
            req_header_bytes: 101,
            req_body_bytes: 3,
            resp_header_bytes: 202,
            resp_body_bytes: 4_096,
            wire_in: 104,
            wire_out: 4_298,
            started: SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            first_byte: Some(Duration::from_micros(450)),
            transfer: Some(Duration::from_micros(9_000)),
            total: Duration::from_micros(9_450),
            pauses: Pauses {
                throttled_ns: 5_000_999,
                blocked_ns: 2_000_000,
                held_ns: 3_000,
                starved_ns: 4_000,
                longest_gap_ns: 1_500_000,
                throttle_count: 6,
            },
            end: End::local(Reason::Ok),
            phase: "reply",
            events: None,
            client: None,
        }
    }

    struct Panics;
    impl Sink for Panics {
        fn exchange(&self, _: &Arc<ExchangeRecord>) {
            panic!("as planned");
        }
        fn connection(&self, _: &Arc<ConnectionEntry>) {}
    }

    #[derive(Default)]
    struct Keeps(Mutex<Vec<Arc<ExchangeRecord>>>);
    impl Sink for Keeps {
        fn exchange(&self, record: &Arc<ExchangeRecord>) {
            self.0.lock().unwrap().push(record.clone());
        }
        fn connection(&self, _: &Arc<ConnectionEntry>) {}
    }

    #[test]
    fn a_sink_that_panics_harms_no_other() {
        let keeps = Arc::new(Keeps::default());
        let sinks = Sinks::new([Arc::new(Panics) as Arc<dyn Sink>, keeps.clone()]);
        sinks.exchange(sample);
        assert_eq!(keeps.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn without_sinks_no_record_is_made() {
        Sinks::default().exchange(|| panic!("nobody asked"));
    }
}
