//! Validators of a file and the conditions a request puts on them (RFC 9110, section 13).
//!
//! Pure. The entity tag is strong: it changes when the file's time (to the nanosecond), size or inode does.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::http::codec::request::Request;

/// The last second an HTTP date can say: year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// What tells one version of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    etag: String,
    /// Whole seconds since 1970, where the date can be said in HTTP.
    modified: Option<u64>,
}

impl Validators {
    /// The validators of a file: its length, inode, and time of modification in seconds and nanoseconds since
    /// 1970. A time in the future is said to be now, as RFC 9110 asks.
    pub fn new(length: u64, inode: u64, seconds: i64, nanos: i64, now: SystemTime) -> Validators {
        let mut etag = String::with_capacity(48);
        let _ = write!(etag, "\"{:x}.{:x}-{length:x}-{inode:x}\"", seconds, nanos);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let modified = u64::try_from(seconds).ok().map(|seconds| seconds.min(now).min(LAST_SECOND));
        Validators { etag, modified }
    }

    /// The entity tag, quotes included.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The Last-Modified date.
    pub fn last_modified(&self) -> Option<String> {
        self.modified.map(|seconds| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer the request. `ranges` says whether a Range field counts.
    Proceed {
        /// False when If-Range names another version: then the whole file goes.
        ranges: bool,
    },
    /// The client has this version: 304.
    NotModified,
    /// The client speaks of another version: 412.
    Failed,
}

/// Weighs the conditions of a GET or HEAD against the file, in the order RFC 9110 section 13.2.2 gives.
pub fn weigh(request: &Request, file: &Validators) -> Verdict {
    if request.header("if-match").is_some() {
        if !request.header_all("if-match").any(|list| matches_any(list, &file.etag, Comparison::Strong)) {
            return Verdict::Failed;
        }
    } else if let Some(limit) = request.header("if-unmodified-since").and_then(seconds_of)
        && file.modified.is_none_or(|modified| modified > limit)
    {
        return Verdict::Failed;
    }
    if request.header("if-none-match").is_some() {
        if request.header_all("if-none-match").any(|list| matches_any(list, &file.etag, Comparison::Weak)) {
            return Verdict::NotModified;
        }
    } else if let Some(limit) = request.header("if-modified-since").and_then(seconds_of)
        && file.modified.is_some_and(|modified| modified <= limit)
    {
        return Verdict::NotModified;
    }
    let ranges = match request.header("if-range") {
        None => true,
        Some(value) if value.contains(&b'"') => value.trim_ascii() == file.etag.as_bytes(),
        Some(value) => file.modified.is_some() && seconds_of(value) == file.modified,
    };
    Verdict::Proceed { ranges }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// `W/` never matches.
    Strong,
    /// `W/` is looked through.
    Weak,
}

/// Whether a list of entity tags has ours, or is `*`. Tags are split by their quotes, not by commas: a comma may
/// stand inside one.
fn matches_any(list: &[u8], etag: &str, comparison: Comparison) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let mut rest = list;
    while let Some(open) = rest.iter().position(|&b| b == b'"') {
        let Some(length) = rest[open + 1..].iter().position(|&b| b == b'"') else { return false };
        let tag = &rest[open..open + length + 2];
        let weak = rest[..open].ends_with(b"W/");
        if tag == etag.as_bytes() && (comparison == Comparison::Weak || !weak) {
            return true;
        }
        rest = &rest[open + length + 2..];
    }
    false
}

/// An HTTP date as seconds since 1970; what is none is as if the field were not there.
fn seconds_of(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::codec::request::{HeadLimits, Parsed, parse};

    const SECONDS: i64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn file() -> Validators {
        Validators::new(4_096, 77, SECONDS, 5, UNIX_EPOCH + Duration::from_secs(1_000_000_000))
    }

    fn weigh_fields(fields: &str) -> Verdict {
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", fields.replace("ETAG", file().etag()));
        let mut request = Request::default();
        let parsed = parse(text.as_bytes(), &HeadLimits::default(), &mut request);
        assert!(matches!(parsed, Parsed::Head { .. }), "{fields}");
        weigh(&request, &file())
    }

    #[test]
    fn validators_of_a_file() {
        assert_eq!(file().last_modified().as_deref(), Some(SAME));
        let etag = file().etag().to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'));
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for other in [
            Validators::new(4_097, 77, SECONDS, 5, now),
            Validators::new(4_096, 78, SECONDS, 5, now),
            Validators::new(4_096, 77, SECONDS + 1, 5, now),
            Validators::new(4_096, 77, SECONDS, 6, now),
        ] {
            assert_ne!(other.etag(), etag);
        }
        let future = Validators::new(1, 1, i64::MAX, 0, now);
        assert_eq!(future.last_modified().as_deref(), Some("Sun, 09 Sep 2001 01:46:40 GMT"));
        assert_eq!(Validators::new(1, 1, -1, 0, now).last_modified(), None);
    }

    #[test]
    fn conditions() {
        use Verdict::{Failed, NotModified};
        let yes = Verdict::Proceed { ranges: true };
        let whole = Verdict::Proceed { ranges: false };
        let d = |name: &str, date: &str| format!("{name}: {date}\r\n");
        let cases = [
            (String::new(), yes),
            (d("If-None-Match", "ETAG"), NotModified),
            (d("If-None-Match", "W/ETAG"), NotModified),
            (d("If-None-Match", "*"), NotModified),
            (d("If-None-Match", "\"a\", ETAG"), NotModified),
            (d("If-None-Match", "\"a,b\",ETAG"), NotModified),
            (d("If-None-Match", "\"a\"") + &d("If-None-Match", "ETAG"), NotModified),
            (d("If-None-Match", "\"a\", \"b\""), yes),
            (d("If-None-Match", "\"unclosed"), yes),
            (d("If-None-Match", ""), yes),
            (d("If-Modified-Since", SAME), NotModified),
            (d("If-Modified-Since", AFTER), NotModified),
            (d("If-Modified-Since", BEFORE), yes),
            (d("If-Modified-Since", "yesterday"), yes),
            (d("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT"), NotModified),
            (d("If-Modified-Since", "Sun Nov  6 08:49:37 1994"), NotModified),
            // If-None-Match outranks the date.
            (d("If-None-Match", "\"a\"") + &d("If-Modified-Since", AFTER), yes),
            (d("If-None-Match", "ETAG") + &d("If-Modified-Since", BEFORE), NotModified),
            (d("If-Match", "ETAG"), yes),
            (d("If-Match", "*"), yes),
            (d("If-Match", "\"a\", ETAG"), yes),
            (d("If-Match", "W/ETAG"), Failed),
            (d("If-Match", "\"a\""), Failed),
            (d("If-Match", "\"a\"") + &d("If-Unmodified-Since", AFTER), Failed),
            (d("If-Match", "ETAG") + &d("If-Unmodified-Since", BEFORE), yes),
            (d("If-Unmodified-Since", SAME), yes),
            (d("If-Unmodified-Since", AFTER), yes),
            (d("If-Unmodified-Since", BEFORE), Failed),
            (d("If-Unmodified-Since", "nonsense"), yes),
            (d("If-Match", "ETAG") + &d("If-None-Match", "ETAG"), NotModified),
            (d("If-Range", "ETAG"), yes),
            (d("If-Range", "W/ETAG"), whole),
            (d("If-Range", "\"a\""), whole),
            (d("If-Range", SAME), yes),
            (d("If-Range", BEFORE), whole),
            (d("If-Range", AFTER), whole),
            (d("If-Range", "nonsense"), whole),
        ];
        for (fields, verdict) in cases {
            assert_eq!(weigh_fields(&fields), verdict, "{fields:?}");
        }
    }

    #[test]
    fn a_file_without_a_date_keeps_no_promise_about_it() {
        let file = Validators::new(1, 1, -5, 0, UNIX_EPOCH + Duration::from_secs(10));
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\nIf-Unmodified-Since: {AFTER}\r\n\r\n");
        let mut request = Request::default();
        assert!(matches!(parse(text.as_bytes(), &HeadLimits::default(), &mut request), Parsed::Head { .. }));
        assert_eq!(weigh(&request, &file), Verdict::Failed);
    }
}
