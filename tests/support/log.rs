//! The JSON access log, as a reader of it sees it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

/// The lines of a log by kind, each kind in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) exchanges: Vec<Value>,
    pub(crate) connections: Vec<Value>,
    /// Lines of the log about itself.
    pub(crate) own: Vec<Value>,
}

impl Log {
    /// Reads what is there. A last line without its end is still being written and is left out.
    pub(crate) fn read(path: &Path) -> Log {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Log::parse(whole.lines())
    }

    pub(crate) fn parse<'l>(lines: impl Iterator<Item = &'l str>) -> Log {
        let mut log = Log::default();
        for line in lines {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
            match value["kind"].as_str() {
                Some("exchange") => log.exchanges.push(value),
                Some("connection") => log.connections.push(value),
                Some("log") => log.own.push(value),
                _ => panic!("a line of no kind: {line}"),
            }
        }
        log
    }

    /// The one record of the connection that came from there. More or less than one is what it is all about.
    pub(crate) fn connection(&self, from: SocketAddr) -> &Value {
        let from = from.to_string();
        let found: Vec<&Value> =
            self.connections.iter().filter(|line| line["peer"] == from.as_str()).collect();
        assert_eq!(found.len(), 1, "records of the connection from {from}, among {:#?}", self.connections);
        found[0]
    }

    /// The exchanges of the connection that came from there, in order.
    pub(crate) fn exchanges(&self, from: SocketAddr) -> Vec<&Value> {
        let from = from.to_string();
        self.exchanges.iter().filter(|line| line["peer"] == from.as_str()).collect()
    }

    /// The one exchange of that connection.
    pub(crate) fn exchange(&self, from: SocketAddr) -> &Value {
        let found = self.exchanges(from);
        assert_eq!(found.len(), 1, "{found:#?}");
        found[0]
    }
}

/// A number that has to be there.
pub(crate) fn number(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {line:#}"))
}

/// `who/reason` of an end.
pub(crate) fn end(line: &Value) -> String {
    let word =
        |field: &str| line[field].as_str().unwrap_or_else(|| panic!("no {field} in {line:#}")).to_owned();
    assert!(!word("end_phase").is_empty());
    format!("{}/{}", word("end_who"), word("end_reason"))
}

/// What holds for a whole log, whatever happened: each line for itself, and those of a connection together.
pub(crate) fn check_log(log: &Log) {
    log.connections.iter().chain(&log.exchanges).for_each(check_line);
    for connection in &log.connections {
        let id = number(connection, "conn_id");
        let of_it = log.connections.iter().filter(|line| number(line, "conn_id") == id).count();
        assert_eq!(of_it, 1, "more than one record: {connection:#}");
        let exchanges: Vec<&Value> =
            log.exchanges.iter().filter(|line| number(line, "conn_id") == id).collect();
        let sum = |field: &str| exchanges.iter().map(|line| number(line, field)).sum::<u64>();
        assert_eq!(number(connection, "exchanges"), exchanges.len() as u64, "{connection:#}");
        for (line, nth) in exchanges.iter().zip(1..) {
            assert_eq!(number(line, "exchange_id"), nth, "{line:#}");
            assert_eq!(line["peer"], connection["peer"]);
        }
        // Who is turned away gets a reply, and some of what comes in is nobody's.
        assert!(connection["end_phase"] == "accept" || sum("wire_out") == number(connection, "wire_out"));
        assert!(sum("wire_in") <= number(connection, "wire_in"), "{connection:#} {exchanges:#?}");
    }
    let known = |id: u64| log.connections.iter().any(|line| number(line, "conn_id") == id);
    assert!(log.exchanges.iter().all(|line| known(number(line, "conn_id"))), "an exchange of no connection");
}

/// What holds for every line of a connection or an exchange, whatever happened: sums are there, 0 included, and
/// times fit together.
pub(crate) fn check_line(line: &Value) {
    let common =
        ["conn_id", "wire_in", "wire_out", "throttled_us", "blocked_us", "longest_gap_us", "throttle_count"];
    for field in common {
        number(line, field);
    }
    end(line);
    assert!(line["peer"].is_string(), "{line:#}");
    let start = line["t_start"].as_str().unwrap_or_else(|| panic!("no t_start in {line:#}"));
    // 2026-01-31T12:34:56.123456Z
    let digits = start.split_once('.').map(|(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    assert!(start.as_bytes()[10] == b'T' && digits == Some(6), "not RFC 3339 with microseconds: {start}");
    match line["kind"].as_str() {
        Some("exchange") => {
            for field in ["req_header_bytes", "req_body_bytes", "resp_header_bytes", "resp_body_bytes"] {
                number(line, field);
            }
            number(line, "exchange_id");
            for [whole, head, body] in [
                ["wire_in", "req_header_bytes", "req_body_bytes"],
                ["wire_out", "resp_header_bytes", "resp_body_bytes"],
            ] {
                assert_eq!(number(line, whole), number(line, head) + number(line, body), "{line:#}");
            }
            assert_eq!(line["ttfb_us"].is_null(), number(line, "wire_out") == 0, "{line:#}");
            check_times(line, "total_us", &["ttfb_us", "transfer_us"]);
        }
        _ => {
            number(line, "exchanges");
            check_times(line, "duration_us", &[]);
        }
    }
}

/// No part of a time is longer than the whole.
fn check_times(line: &Value, whole: &str, moments: &[&str]) {
    let total = number(line, whole);
    for part in ["throttled_us", "blocked_us", "held_us", "starved_us", "longest_gap_us"] {
        assert!(number(line, part) <= total, "{part} in {line:#}");
    }
    for part in moments {
        assert!(line[part].is_null() || number(line, part) <= total, "{part} in {line:#}");
    }
}
