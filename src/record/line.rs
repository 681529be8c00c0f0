//! The JSON access log: one object a line.
//!
//! The fields of these structs are the names in the log and their order on the line: a promise to everybody who
//! reads it. `docs/metrics.md` and the layout tests below change with them.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tidegate_poller::record::{ConnectionRecord, Handshake, Pauses, TcpFigures};

use crate::record::escape::for_json;
use crate::record::{ClientFacts, ConnectionEntry, EventFacts, ExchangeRecord};

/// Writes the line of an exchange.
pub(super) fn exchange(out: &mut Vec<u8>, log_seq: u64, record: &ExchangeRecord) {
    let words = &record.words;
    write_line(
        out,
        &ExchangeLine {
            kind: "exchange",
            log_seq,
            conn_id: record.conn_id,
            exchange_id: record.exchange_id,
            peer: record.peer.to_string(),
            method: words.method().map(for_json),
            target: words.target().map(for_json),
            status: record.status,
            req_header_bytes: record.req_header_bytes,
            req_body_bytes: record.req_body_bytes,
            resp_header_bytes: record.resp_header_bytes,
            resp_body_bytes: record.resp_body_bytes,
            wire_in: record.wire_in,
            wire_out: record.wire_out,
            ttfb_us: record.first_byte.map(micros),
            transfer_us: record.transfer.map(micros),
            total_us: micros(record.total),
            pauses: PauseFields::new(&record.pauses),
            events: record.events.as_deref().map(EventFields::new),
            end_who: record.end_who(),
            end_phase: record.phase,
            end_reason: record.end.reason.as_str(),
            t_start: WallTime(record.started),
            client: record.client.as_deref().map(ClientFields::new),
        },
    );
}

/// Writes the line of a connection.
pub(super) fn connection(out: &mut Vec<u8>, log_seq: u64, entry: &ConnectionEntry) {
    let record = &entry.record;
    write_line(
        out,
        &ConnectionLine {
            kind: "connection",
            log_seq,
            conn_id: record.conn_id,
            peer: record.peer.to_string(),
            wire_in: record.wire_in,
            wire_out: record.wire_out,
            dropped_out: record.dropped_out,
            exchanges: entry.exchanges,
            duration_us: micros(record.duration),
            pauses: PauseFields::new(&record.pauses),
            end_who: record.end_who(),
            end_phase: record.phase,
            end_reason: record.end.reason.as_str(),
            t_start: WallTime(record.started),
            tls: record.handshake.as_deref().map(|handshake| TlsFields::new(record, handshake)),
            tcp: record.tcp.as_ref().map(TcpFields::new),
        },
    );
}

/// What the log says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogEvent {
    /// So many lines before this one could not be written. Their numbers are missing.
    Lost(u64),
    /// The file was opened anew.
    Reopened,
}

/// Writes a line about the log itself.
pub(super) fn event(out: &mut Vec<u8>, log_seq: u64, event: LogEvent, now: SystemTime) {
    let (name, lines) = match event {
        LogEvent::Lost(lines) => ("lost", Some(lines)),
        LogEvent::Reopened => ("reopened", None),
    };
    write_line(out, &LogLine { kind: "log", log_seq, event: name, lines, t_start: WallTime(now) });
}

#[derive(Serialize)]
struct ExchangeLine<'a> {
    kind: &'static str,
    log_seq: u64,
    conn_id: u64,
    exchange_id: u64,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    req_header_bytes: u64,
    req_body_bytes: u64,
    resp_header_bytes: u64,
    resp_body_bytes: u64,
    wire_in: u64,
    wire_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttfb_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer_us: Option<u64>,
    total_us: u64,
    #[serde(flatten)]
    pauses: PauseFields,
    #[serde(flatten)]
    events: Option<EventFields>,
    end_who: &'static str,
    end_phase: &'static str,
    end_reason: &'static str,
    t_start: WallTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientFields>,
}

/// What a stream of events adds.
#[derive(Serialize)]
struct EventFields {
    events_sent: u64,
    events_dropped: u64,
    events_conflated: u64,
    queue_peak: u64,
}

impl EventFields {
    fn new(facts: &EventFacts) -> EventFields {
        EventFields {
            events_sent: facts.sent,
            events_dropped: facts.dropped,
            events_conflated: facts.conflated,
            queue_peak: facts.queue_peak,
        }
    }
}

/// What a client adds, as lines and reports have it.
#[derive(Serialize)]
pub(crate) struct ClientFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_wait_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_us: Option<u64>,
    redirects: u32,
    retries: u32,
    reused: bool,
    body_decoded_bytes: u64,
    read_throttled_us: u64,
}

impl ClientFields {
    pub(crate) fn new(facts: &ClientFacts) -> ClientFields {
        ClientFields {
            dns_us: facts.dns.map(micros),
            pool_wait_us: facts.pool_wait.map(micros),
            connect_us: facts.connect.map(micros),
            tls_us: facts.tls.map(micros),
            redirects: facts.redirects,
            retries: facts.retries,
            reused: facts.reused,
            body_decoded_bytes: facts.body_decoded_bytes,
            read_throttled_us: micros(facts.read_throttled),
        }
    }
}

#[derive(Serialize)]
struct ConnectionLine<'a> {
    kind: &'static str,
    log_seq: u64,
    conn_id: u64,
    peer: String,
    wire_in: u64,
    wire_out: u64,
    dropped_out: u64,
    exchanges: u64,
    duration_us: u64,
    #[serde(flatten)]
    pauses: PauseFields,
    end_who: &'static str,
    end_phase: &'static str,
    end_reason: &'static str,
    t_start: WallTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<TcpFields>,
}

#[derive(Serialize)]
struct LogLine {
    kind: &'static str,
    log_seq: u64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
    t_start: WallTime,
}

#[derive(Serialize)]
struct PauseFields {
    throttled_us: u64,
    blocked_us: u64,
    held_us: u64,
    starved_us: u64,
    longest_gap_us: u64,
    throttle_count: u64,
}

impl PauseFields {
    fn new(pauses: &Pauses) -> PauseFields {
        PauseFields {
            throttled_us: pauses.throttled_ns / 1_000,
            blocked_us: pauses.blocked_ns / 1_000,
            held_us: pauses.held_ns / 1_000,
            starved_us: pauses.starved_ns / 1_000,
            longest_gap_us: pauses.longest_gap_ns / 1_000,
            throttle_count: pauses.throttle_count,
        }
    }
}

#[derive(Serialize)]
struct TlsFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    resumed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_us: Option<u64>,
    plain_in: u64,
    plain_out: u64,
    certificate: bool,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
}

impl<'a> TlsFields<'a> {
    fn new(record: &ConnectionRecord, handshake: &'a Handshake) -> TlsFields<'a> {
        TlsFields {
            version: handshake.version,
            cipher: handshake.cipher.as_deref(),
            alpn: handshake.protocol.as_deref(),
            sni: handshake.server_name.as_deref(),
            resumed: handshake.resumed,
            handshake_us: handshake.took.map(micros),
            plain_in: record.plain_in,
            plain_out: record.plain_out,
            certificate: handshake.certificate.is_some(),
            truncated: handshake.truncated,
            fault: handshake.fault.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct TcpFields {
    rtt_us: u32,
    rtt_var_us: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_min_us: Option<u32>,
    retransmits: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    retransmitted_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acked_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    unacked_segments: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsent_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_rate: Option<u64>,
    app_limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    busy_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rwnd_limited_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sndbuf_limited_us: Option<u64>,
    congestion_window: u32,
    segment_size: u32,
}

impl TcpFields {
    fn new(tcp: &TcpFigures) -> TcpFields {
        TcpFields {
            rtt_us: tcp.rtt_us,
            rtt_var_us: tcp.rtt_var_us,
            rtt_min_us: tcp.rtt_min_us,
            retransmits: tcp.retransmits,
            retransmitted_bytes: tcp.retransmitted_bytes,
            acked_bytes: tcp.acked_bytes,
            received_bytes: tcp.received_bytes,
            unacked_segments: tcp.unacked_segments,
            unsent_bytes: tcp.unsent_bytes,
            delivery_rate: tcp.delivery_rate,
            app_limited: tcp.app_limited,
            busy_us: tcp.busy_us,
            rwnd_limited_us: tcp.rwnd_limited_us,
            sndbuf_limited_us: tcp.sndbuf_limited_us,
            congestion_window: tcp.congestion_window,
            segment_size: tcp.segment_size,
        }
    }
}

/// RFC 3339 in UTC, always with six digits of a second, so that lines sort as text.
struct WallTime(SystemTime);

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stamp = jiff::Timestamp::try_from(self.0).unwrap_or_default();
        serializer.collect_str(&format_args!("{stamp:.6}"))
    }
}

fn write_line(out: &mut Vec<u8>, line: &impl Serialize) {
    let start = out.len();
    // Strings and numbers into memory: nothing here can fail. Should it, no half line is left behind.
    if let Err(error) = serde_json::to_writer(&mut *out, line) {
        out.truncate(start);
        let _ = write!(out, "{{\"kind\":\"log\",\"event\":\"internal\",\"error\":\"{}\"}}", error.line());
    }
    out.push(b'\n');
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tidegate_poller::record::{ConnectionRecord, End, Peer, Reason, Role};

    use super::*;
    use crate::record::Words;
    use crate::record::tests::sample;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn layout_of_an_exchange() {
        assert_eq!(
            text(|out| exchange(out, 9, &sample())),
            "{\"kind\":\"exchange\",\"log_seq\":9,\"conn_id\":7,\"exchange_id\":2,\"peer\":\"192.0.2.1:50000\",\
             \"method\":\"GET\",\"target\":\"/a?b\",\"status\":206,\"req_header_bytes\":101,\"req_body_bytes\":3,\
             \"resp_header_bytes\":202,\"resp_body_bytes\":4096,\"wire_in\":104,\"wire_out\":4298,\
             \"ttfb_us\":450,\"transfer_us\":9000,\"total_us\":9450,\"throttled_us\":5000,\"blocked_us\":2000,\
             \"held_us\":3,\"starved_us\":4,\"longest_gap_us\":1500,\"throttle_count\":6,\"end_who\":\"server\",\
             \"end_phase\":\"reply\",\"end_reason\":\"ok\",\"t_start\":\"2023-11-14T22:13:20.123456Z\"}\n"
        );
    }

    #[test]
    fn a_moment_that_never_came_is_absent_and_a_sum_is_not() {
        let mut record = sample();
        (record.status, record.first_byte, record.transfer) = (None, None, None);
        record.words = Words::default();
        record.pauses = Pauses::default();
        record.started = SystemTime::UNIX_EPOCH;
        let line = text(|out| exchange(out, 1, &record));
        for absent in ["status", "ttfb_us", "transfer_us", "method", "target"] {
            assert!(!line.contains(&format!("\"{absent}\"")), "{line}");
        }
        assert!(line.contains("\"throttled_us\":0") && line.contains("\"longest_gap_us\":0"));
        assert!(line.contains("\"t_start\":\"1970-01-01T00:00:00.000000Z\""));
    }

    #[test]
    fn layout_of_what_a_stream_of_events_adds() {
        let mut record = sample();
        record.events = Some(Box::new(EventFacts { sent: 11, dropped: 12, conflated: 13, queue_peak: 14 }));
        let line = text(|out| exchange(out, 1, &record));
        let events = "\"throttle_count\":6,\"events_sent\":11,\"events_dropped\":12,\"events_conflated\":13,\
                      \"queue_peak\":14,\"end_who\":";
        assert!(line.contains(events), "{line}");
    }

    #[test]
    fn layout_of_what_a_client_adds() {
        let mut record = sample();
        let facts = ClientFacts {
            dns: Some(Duration::from_micros(11)),
            pool_wait: Some(Duration::from_micros(12)),
            connect: Some(Duration::from_micros(13)),
            tls: Some(Duration::from_micros(14)),
            redirects: 1,
            retries: 2,
            reused: true,
            body_decoded_bytes: 15,
            read_throttled: Duration::from_micros(16),
        };
        record.client = Some(Box::new(facts));
        let line = text(|out| exchange(out, 1, &record));
        let client = "\"client\":{\"dns_us\":11,\"pool_wait_us\":12,\"connect_us\":13,\"tls_us\":14,\"redirects\":1,\
                      \"retries\":2,\"reused\":true,\"body_decoded_bytes\":15,\"read_throttled_us\":16}}\n";
        assert!(line.ends_with(client), "{line}");
        record.client = Some(Box::default());
        let line = text(|out| exchange(out, 1, &record));
        assert!(line.contains("\"client\":{\"redirects\":0,"), "{line}");
    }

    #[test]
    fn hostile_words_stay_inside_their_string() {
        let mut record = sample();
        record.words = Words::new(b"G\"T", b"/\",\"status\":200,\"x\":\"\n\xff\0\\", b"", None, None);
        let line = text(|out| exchange(out, 1, &record));
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["method"], "G\"T");
        assert_eq!(value["target"], "/\",\"status\":200,\"x\":\"\n\\xFF\0\\");
        assert_eq!(value["status"], 206);
    }

    #[test]
    fn layout_of_a_connection() {
        let mut entry = ConnectionEntry {
            record: ConnectionRecord {
                conn_id: 7,
                peer: Peer::Inet(SocketAddr::from(([192, 0, 2, 1], 50_000))),
                role: Role::Server,
                started: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
                wire_in: 104,
                wire_out: 4_298,
                plain_in: 104,
                plain_out: 4_298,
                dropped_out: 11,
                connected: None,
                first_in: None,
                last_in: None,
                first_out: None,
                last_out: None,
                duration: Duration::from_micros(77),
                pauses: Pauses::default(),
                gap_since_mark_ns: 0,
                ingress_throttled_ns: 0,
                end: End::peer(Reason::Abort),
                phase: "idle",
                tcp: Some(TcpFigures { rtt_us: 31, acked_bytes: Some(4_299), ..TcpFigures::default() }),
                handshake: None,
            },
            exchanges: 2,
        };
        assert_eq!(
            text(|out| connection(out, 10, &entry)),
            "{\"kind\":\"connection\",\"log_seq\":10,\"conn_id\":7,\"peer\":\"192.0.2.1:50000\",\"wire_in\":104,\
             \"wire_out\":4298,\"dropped_out\":11,\"exchanges\":2,\"duration_us\":77,\"throttled_us\":0,\
             \"blocked_us\":0,\"held_us\":0,\"starved_us\":0,\"longest_gap_us\":0,\"throttle_count\":0,\
             \"end_who\":\"client\",\"end_phase\":\"idle\",\"end_reason\":\"abort\",\
             \"t_start\":\"1970-01-01T00:00:01.000000Z\",\"tcp\":{\"rtt_us\":31,\"rtt_var_us\":0,\
             \"retransmits\":0,\"acked_bytes\":4299,\"unacked_segments\":0,\"app_limited\":false,\
             \"congestion_window\":0,\"segment_size\":0}}\n"
        );
        entry.record.tcp = None;
        assert!(!text(|out| connection(out, 10, &entry)).contains("tcp"));
        entry.record.handshake = Some(Box::new(Handshake {
            took: Some(Duration::from_micros(1_234)),
            version: Some("TLSv1.3"),
            cipher: Some(String::from("TLS_AES_256_GCM_SHA384")),
            protocol: Some(String::from("http/1.1")),
            server_name: Some(String::from("a\"b.test")),
            resumed: true,
            ..Handshake::default()
        }));
        let line = text(|out| connection(out, 10, &entry));
        assert!(
            line.ends_with(
                "\"tls\":{\"version\":\"TLSv1.3\",\"cipher\":\"TLS_AES_256_GCM_SHA384\",\"alpn\":\"http/1.1\",\
                 \"sni\":\"a\\\"b.test\",\"resumed\":true,\"handshake_us\":1234,\"plain_in\":104,\"plain_out\":4298,\
                 \"certificate\":false,\"truncated\":false}}\n"
            ),
            "{line}"
        );
    }

    #[test]
    fn layout_of_a_log_line() {
        let at = SystemTime::UNIX_EPOCH;
        assert_eq!(
            text(|out| event(out, 3, LogEvent::Lost(12), at)),
            "{\"kind\":\"log\",\"log_seq\":3,\"event\":\"lost\",\"lines\":12,\"t_start\":\"1970-01-01T00:00:00.000000Z\"}\n"
        );
        assert!(
            text(|out| event(out, 3, LogEvent::Reopened, at)).contains("\"event\":\"reopened\",\"t_start\"")
        );
    }
}
