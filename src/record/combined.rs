//! The combined access log, as nginx and Apache write it, for tools that read nothing else.
//!
//! One line an exchange; connections and the log's own events have no place in this format (lost lines are said
//! through `log::warn!` only). The time is that of the end, in the local zone, as nginx has it. An exchange that
//! ended without an answer has nginx's status 499 when the client left, 408 when it was too slow, else 500.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tidegate_poller::record::{Peer, Reason, Who};

use crate::record::ExchangeRecord;
use crate::record::escape::for_combined;

/// Writes combined lines; keeps the text of the latest second.
pub(super) struct Combined {
    zone: TimeZone,
    second: Option<u64>,
    stamp: String,
}

impl Combined {
    /// With times in this zone.
    pub(super) fn new(zone: TimeZone) -> Combined {
        Combined { zone, second: None, stamp: String::new() }
    }

    /// Writes the line of an exchange.
    pub(super) fn exchange(&mut self, out: &mut Vec<u8>, record: &ExchangeRecord) {
        // Writing to a Vec cannot fail.
        let _ = match &record.peer {
            Peer::Inet(address) => write!(out, "{}", address.ip()),
            Peer::Unix(_) => write!(out, "unix:"),
        };
        let _ = write!(out, " - - [{}] \"", self.stamp(record.started + record.total));
        let words = &record.words;
        let line = [words.method(), words.target(), words.version()];
        for (index, word) in line.into_iter().flatten().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            for_combined(out, word);
        }
        if line.iter().all(Option::is_none) {
            out.push(b'-');
        }
        let _ = write!(out, "\" {:03} {} \"", status(record), record.resp_body_bytes);
        for_combined(out, words.referer().unwrap_or(b"-"));
        out.extend_from_slice(b"\" \"");
        for_combined(out, words.agent().unwrap_or(b"-"));
        out.extend_from_slice(b"\"\n");
    }

    fn stamp(&mut self, time: SystemTime) -> &str {
        let second = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second != Some(second) {
            self.second = Some(second);
            let zoned = Timestamp::try_from(time).unwrap_or_default().to_zoned(self.zone.clone());
            self.stamp = zoned.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
        }
        &self.stamp
    }
}

fn status(record: &ExchangeRecord) -> u16 {
    record.status.unwrap_or(match (record.end.who, record.end.reason) {
        (Who::Peer, _) => 499,
        (Who::Local, Reason::Timeout) => 408,
        (Who::Local, _) => 500,
    })
}

#[cfg(test)]
mod tests {
    use tidegate_poller::record::End;

    use super::*;
    use crate::record::Words;
    use crate::record::tests::sample;

    fn line(record: &ExchangeRecord) -> String {
        let mut out = Vec::new();
        Combined::new(TimeZone::fixed(jiff::tz::offset(-7))).exchange(&mut out, record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn layout() {
        assert_eq!(
            line(&sample()),
            "192.0.2.1 - - [14/Nov/2023:15:13:20 -0700] \"GET /a?b HTTP/1.1\" 206 4096 \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn hostile_words_stay_inside_their_quotes() {
        let mut record = sample();
        record.words = Words::new(b"GET", b"/\"\n", b"HTTP/1.1", Some(b"\x1b[31m"), Some(b"a\"b"));
        let text = line(&record);
        assert!(text.contains("\"GET /\\x22\\x0A HTTP/1.1\""), "{text}");
        assert!(text.ends_with("\"\\x1B[31m\" \"a\\x22b\"\n"), "{text}");
    }

    #[test]
    fn exchanges_that_were_none() {
        let mut record = sample();
        record.words = Words::broken(b"\x16\x03\x01");
        record.status = Some(400);
        assert!(line(&record).contains("\"\\x16\\x03\\x01\" 400 "));
        record.words = Words::default();
        (record.status, record.end) = (None, End::peer(Reason::Abort));
        assert!(line(&record).contains("\"-\" 499 "));
        record.end = End::local(Reason::Timeout);
        assert!(line(&record).contains("\"-\" 408 "));
    }
}
