//! What is said about each transfer: lines for a person, or JSON for a program.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::outcome::Outcome;
use crate::record::{ClientFields, ExchangeRecord};

/// A JSON object; the names are those of the access log where the log has them. What never happened is absent.
pub(super) fn json(outcome: &Outcome) -> String {
    let record = outcome.record.as_deref();
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let line = Line {
        url: outcome.url.to_string(),
        effective_url: outcome.effective.as_ref().map(ToString::to_string),
        ok: outcome.failure.is_none(),
        failure: outcome.failure.as_ref().map(|failed| failed.kind.as_str()),
        message: outcome.failure.as_ref().map(|failed| failed.message.as_str()),
        status: outcome.status.map(|status| status.as_u16()),
        file: outcome.file.as_deref(),
        bytes: outcome.bytes,
        resumed_from: outcome.resumed_from,
        ttfb_us: record.and_then(|record| record.first_byte).map(micros),
        transfer_us: record.and_then(|record| record.transfer).map(micros),
        total_us: record.map(|record| micros(record.total)),
        req_header_bytes: record.map(|record| record.req_header_bytes),
        req_body_bytes: record.map(|record| record.req_body_bytes),
        resp_header_bytes: record.map(|record| record.resp_header_bytes),
        resp_body_bytes: record.map(|record| record.resp_body_bytes),
        wire_in: record.map(|record| record.wire_in),
        wire_out: record.map(|record| record.wire_out),
        throttled_us: record.map(|record| record.pauses.throttled_ns / 1_000),
        peer: record.map(|record| record.peer.to_string()),
        conn_id: record.map(|record| record.conn_id),
        client: record.and_then(|record| record.client.as_deref()).map(ClientFields::new),
    };
    // Strings and numbers: nothing here can fail.
    serde_json::to_string(&line).unwrap_or_default()
}

#[derive(Serialize)]
struct Line<'a> {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_url: Option<String>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    bytes: u64,
    resumed_from: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttfb_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    req_header_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    req_body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resp_header_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resp_body_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wire_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wire_out: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttled_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_id: Option<u64>,
    #[serde(flatten)]
    client: Option<ClientFields>,
}

/// A few lines for a person.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut out = format!("{}\n", outcome.url);
    let file = outcome.file.as_deref().unwrap_or("nothing written");
    let resumed = match outcome.resumed_from {
        0 => String::new(),
        before => format!(", {} of it from before", bytes(before)),
    };
    let status = outcome.status.map(|status| format!("{status}, ")).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = match &outcome.failure {
        None => writeln!(out, "  {status}{} in {file}{resumed}", bytes(outcome.bytes)),
        Some(failed) => writeln!(out, "  failed: {}", failed.message),
    };
    if let Some(record) = &outcome.record {
        out.push_str(&timings(record));
    }
    out
}

fn timings(record: &ExchangeRecord) -> String {
    let facts = record.client.clone().unwrap_or_default();
    let phases = [
        ("dns", facts.dns),
        ("connect", facts.connect),
        ("tls", facts.tls),
        ("first byte", record.first_byte),
        ("transfer", record.transfer),
        ("total", Some(record.total)),
    ];
    let phases: Vec<_> =
        phases.iter().filter_map(|(name, took)| took.map(|took| format!("{name} {}", time(took)))).collect();
    let sent = record.req_body_bytes > record.resp_body_bytes;
    let body = record.req_body_bytes.max(record.resp_body_bytes);
    let took = if sent { Some(record.total) } else { record.transfer }.unwrap_or(record.total);
    let throttled =
        if sent { Duration::from_nanos(record.pauses.throttled_ns) } else { facts.read_throttled };
    let held = match throttled {
        Duration::ZERO => String::new(),
        throttled => format!(", held back by the rate for {}", time(throttled)),
    };
    format!(
        "  {}\n  body {}, head {}, {}{held}\n",
        phases.join(", "),
        bytes(body),
        bytes(record.resp_header_bytes),
        rate(body as f64 / took.as_secs_f64().max(1e-6)),
    )
}

/// Three digits and a unit.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB"], 1_000.0)
}

pub(super) fn rate(per_second: f64) -> String {
    format!("{}/s", bytes(per_second as u64))
}

pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 120.0 {
        return format!("{} min", (seconds / 60.0).round());
    }
    if seconds >= 1.0 { digits(seconds, "s") } else { scaled(seconds * 1e6, &["µs", "ms", "s"], 1_000.0) }
}

fn scaled(mut amount: f64, units: &[&str], step: f64) -> String {
    let mut units = units.iter();
    let first = units.next().copied().unwrap_or_default();
    if amount < step {
        return format!("{amount:.0} {first}");
    }
    let mut unit = first;
    for larger in units {
        if amount < step {
            break;
        }
        (amount, unit) = (amount / step, larger);
    }
    digits(amount, unit)
}

fn digits(amount: f64, unit: &str) -> String {
    let decimals = if amount < 10.0 { 2 } else { usize::from(amount < 100.0) };
    format!("{amount:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_three_digits() {
        let shown = [0, 999, 1_000, 12_345, 123_456, 5_000_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.00 kB", "12.3 kB", "123 kB", "5.00 GB"]);
        let shown =
            [5, 1_500, 250_000, 1_000_000, 59_900_000, 600_000_000].map(|us| time(Duration::from_micros(us)));
        assert_eq!(shown, ["5 µs", "1.50 ms", "250 ms", "1.00 s", "59.9 s", "10 min"]);
        assert_eq!(rate(1_234.0), "1.23 kB/s");
    }
}
