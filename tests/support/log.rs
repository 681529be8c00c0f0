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
            let total = number(line, "total_us");
            for part in ["ttfb_us", "transfer_us"] {
                assert!(line[part].is_null() || number(line, part) <= total, "{part} in {line:#}");
            }
        }
        _ => {
            number(line, "exchanges");
            number(line, "duration_us");
        }
    }
}
