//! A reply: its status, its own fields, its body; and the head that goes on the wire.
//!
//! Pure. A handler makes a [`Reply`]; the session adds what belongs to the connection (date, length, keep-alive)
//! when it writes the head, so that no handler can frame a message wrongly.

use std::fmt;

use tidegate_poller::moment::Moment;
use tidegate_poller::{Budget, Limit};

use crate::http::body::Framing;
use crate::http::codec::fields::{FieldValue, Fields};
use crate::http::codec::request::Request;
use crate::http::codec::status::{advice, is_bodiless, phrase};
use crate::http::server::clock::Clock;
use crate::http::{Body, Method, StatusCode, Version, header};

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    /// The status; an interim one (1xx) is no answer, and becomes 500.
    pub status: StatusCode,
    /// The fields of its head that the handler sets.
    pub headers: Fields,
    /// The body.
    pub body: Body,
    /// Whether the connection ends after it, whatever the client wants.
    pub close: bool,
    /// A bound of the server was in the way of the request; its record says so.
    pub(in crate::http) denied: bool,
    /// What it spends through besides its connection's budgets; few have any.
    pub(in crate::http) pacing: Option<Box<ReplyPacing>>,
}

/// What nginx obeys of an upstream, and others have learned to send.
const ACCEL_LIMIT_RATE: &str = "X-Accel-Limit-Rate";
const ACCEL_BUFFERING: &str = "X-Accel-Buffering";

/// How fast one reply may go.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct ReplyPacing {
    /// In place of the connection's limit.
    pub(in crate::http) limit: Option<Limit>,
    /// In place of the server's `rate_after`.
    pub(in crate::http) rate_after: Option<u64>,
    /// Besides the connection's; each with its weight.
    pub(in crate::http) budgets: Vec<(Budget, u32)>,
}

impl ReplyPacing {
    /// Whether it changes what the connection spends through.
    pub(super) fn binds(&self) -> bool {
        self.limit.is_some() || !self.budgets.is_empty()
    }
}

impl Reply {
    /// A reply without fields and without a body.
    pub fn new(status: StatusCode) -> Reply {
        Reply {
            status,
            headers: Fields::default(),
            body: Body::Empty,
            close: false,
            denied: false,
            pacing: None,
        }
    }

    /// Plain text, with 200.
    pub fn text(text: impl Into<Body>) -> Reply {
        Reply::new(StatusCode::OK).header("Content-Type", "text/plain; charset=utf-8").body(text)
    }

    /// HTML, with 200.
    pub fn html(page: impl Into<Body>) -> Reply {
        Reply::new(StatusCode::OK).header("Content-Type", "text/html; charset=utf-8").body(page)
    }

    /// Sends the client elsewhere, for good (308) or for now (307): method and body stay what they are.
    pub fn redirect(location: impl fmt::Display, for_good: bool) -> Reply {
        let status = if for_good { StatusCode::PERMANENT_REDIRECT } else { StatusCode::TEMPORARY_REDIRECT };
        Reply::new(status).header(header::LOCATION, format_args!("{location}"))
    }

    /// An error page: the status, and a line of advice, as plain text.
    pub fn error(status: StatusCode) -> Reply {
        Reply::explained(status, advice(status))
    }

    /// An error page with a line of advice of its own.
    pub fn explained(status: StatusCode, advice: &str) -> Reply {
        let mut reply = Reply::text(format!("{} {}\n{advice}\n", status.as_u16(), phrase(status)));
        reply.status = status;
        reply
    }

    /// With one more field in its head.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl FieldValue) -> Reply {
        self.headers.add(name, value);
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Reply {
        self.body = body.into();
        self
    }

    /// The reply after which the connection ends.
    #[must_use]
    pub fn closing(mut self) -> Reply {
        self.close = true;
        self
    }
}

/// How fast it goes.
impl Reply {
    /// Gives this reply a limit of its own, in place of its connection's; changing it while bytes flow changes the rate.
    /// Budgets above the connection bind all the same.
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Reply {
        self.pacing().limit = Some(limit.clone());
        self
    }

    /// Exempts the first bytes of this reply, its head included, from the limit, in place of the server's `rate_after`.
    #[must_use]
    pub fn rate_after(mut self, bytes: u64) -> Reply {
        self.pacing().rate_after = Some(bytes);
        self
    }

    /// Has this reply spend through one more budget, with weight 1: a route's, a tenant's.
    #[must_use]
    pub fn budget(self, budget: &Budget) -> Reply {
        self.budget_weighted(budget, 1)
    }

    /// The same, with a weight among those who share the budget.
    #[must_use]
    pub fn budget_weighted(mut self, budget: &Budget, weight: u32) -> Reply {
        self.pacing().budgets.push((budget.clone(), weight));
        self
    }

    /// Does what an upstream says in this reply about how it is to be sent, and takes those fields away: no client is to see
    /// them. `X-Accel-Limit-Rate` is a limit of its own, in bytes per second; 0 or `off` is none, its connection's neither.
    /// A value that is no number is passed over. Says what `X-Accel-Buffering` wants, for a handler that reads ahead of its
    /// client: `Some(false)` where it had better not.
    pub fn obey_accel(&mut self) -> Option<bool> {
        let rate = self.headers.get(ACCEL_LIMIT_RATE).and_then(|value| match value.trim_ascii() {
            b"off" => Some(None),
            digits => {
                std::str::from_utf8(digits).ok()?.parse().ok().map(|rate| Some(rate).filter(|rate| *rate > 0))
            }
        });
        if let Some(rate) = rate {
            self.pacing().limit = Some(Limit::new("x-accel", rate));
        }
        let buffering = self.headers.get(ACCEL_BUFFERING).and_then(|value| match value.trim_ascii() {
            b"yes" => Some(true),
            b"no" => Some(false),
            _ => None,
        });
        self.headers.remove(ACCEL_LIMIT_RATE);
        self.headers.remove(ACCEL_BUFFERING);
        buffering
    }

    /// What is answered where the server has as much as it may: the client may come again.
    pub(in crate::http) fn no_room() -> Reply {
        let mut reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE).header("Retry-After", 1);
        reply.denied = true;
        reply
    }

    /// Makes it one that can be the answer. An interim status would have its client wait for another reply, and take the
    /// next one for it; what has status 205 has no body (RFC 9110, sections 15.2 and 15.3.6).
    pub(super) fn make_final(&mut self) {
        if self.status.is_informational() {
            log::error!("a handler answers with {}, which is no answer: 500 is sent", self.status.as_u16());
            *self = Reply { close: self.close, ..Reply::error(StatusCode::INTERNAL_SERVER_ERROR) };
        } else if self.status == StatusCode::RESET_CONTENT {
            self.body = Body::Empty;
        }
    }

    /// Whether it spends as only it does.
    pub(super) fn is_paced(&self) -> bool {
        self.pacing.as_ref().is_some_and(|pacing| pacing.binds())
    }

    pub(in crate::http) fn pacing(&mut self) -> &mut ReplyPacing {
        self.pacing.get_or_insert_default()
    }
}

/// What becomes of the connection after a reply, and how the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Kept, which is what HTTP/1.1 takes for granted.
    Kept,
    /// Kept, and said so, for an HTTP/1.0 client that asked for it.
    KeptAndSaid,
    /// Closed.
    Closed,
}

impl Persistence {
    /// What the request asks for.
    pub fn asked_by(request: &Request) -> Persistence {
        match (request.keep_alive(), request.version()) {
            (false, _) => Persistence::Closed,
            (true, Version::HTTP_10) => Persistence::KeptAndSaid,
            (true, _) => Persistence::Kept,
        }
    }
}

/// Whether the body of a reply goes on the wire.
pub fn sends_body(method: Option<&Method>, status: StatusCode) -> bool {
    method != Some(&Method::HEAD) && !is_bodiless(status)
}

/// A number in decimal digits: on the way of every reply, where the formatter of `std` takes as long as all the rest.
fn append_number(out: &mut Vec<u8>, mut number: u64) {
    // As many digits as the largest has.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// What the session's own part of a head takes at most, its first line with a phrase of usual length.
const HEAD_BYTES: usize = 192;

/// Writes the head of a reply. `framing`: that of its body, or of the body it would have.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    reply: &Reply,
    (clock, now): (&mut Clock, Moment),
    framing: Framing,
    persistence: Persistence,
) {
    out.reserve(HEAD_BYTES + reply.headers.as_bytes().len());
    match (reply.status, reply.headers.has_server, reply.headers.has_date) {
        (StatusCode::OK, false, false) => out.extend_from_slice(clock.ok_server_and_date(now)),
        (status, has_server, has_date) => {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(status.as_str().as_bytes());
            out.push(b' ');
            out.extend_from_slice(phrase(status).as_bytes());
            out.extend_from_slice(b"\r\n");
            match (has_server, has_date) {
                (false, false) => out.extend_from_slice(clock.server_and_date(now)),
                (false, true) => out.extend_from_slice(b"Server: tidegate\r\n"),
                (true, false) => out.extend_from_slice(clock.date(now)),
                (true, true) => {}
            }
        }
    }
    match framing {
        _ if is_bodiless(reply.status) => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            append_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose => {}
    }
    out.extend_from_slice(reply.headers.as_bytes());
    out.extend_from_slice(match persistence {
        Persistence::Kept => b"\r\n",
        Persistence::KeptAndSaid => b"Connection: keep-alive\r\n\r\n",
        Persistence::Closed => b"Connection: close\r\n\r\n",
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(reply: &Reply, persistence: Persistence) -> String {
        let mut out = Vec::new();
        let framing = Framing::Length(reply.body.len().unwrap_or_default());
        let mut clock = Clock::new(Moment::FIRST, std::time::UNIX_EPOCH);
        write_head(&mut out, reply, (&mut clock, Moment::FIRST), framing, persistence);
        String::from_utf8(out).unwrap().replace("Thu, 01 Jan 1970 00:00:00 GMT", "DATE")
    }

    #[test]
    fn heads() {
        let mut reply = Reply::new(StatusCode::OK);
        reply.body = Body::Bytes(b"hello".to_vec());
        reply.headers.add("ETag", "\"x\"");
        assert_eq!(
            head(&reply, Persistence::Kept),
            "HTTP/1.1 200 OK\r\nServer: tidegate\r\nDate: DATE\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n"
        );
        assert_eq!(
            head(&Reply::new(StatusCode::NOT_MODIFIED), Persistence::KeptAndSaid),
            "HTTP/1.1 304 Not Modified\r\nServer: tidegate\r\nDate: DATE\r\nConnection: keep-alive\r\n\r\n"
        );
        let error = head(&Reply::error(StatusCode::NOT_FOUND), Persistence::Closed);
        assert!(
            error.starts_with("HTTP/1.1 404 Not Found\r\n") && error.ends_with("Connection: close\r\n\r\n")
        );
    }

    #[test]
    fn what_an_upstream_says_of_the_pace_is_obeyed_and_not_passed_on() {
        for (rate, limit) in [
            ("5000", Some(Some(5_000))),
            ("0", Some(None)),
            ("off", Some(None)),
            ("-1", None),
            ("fast", None),
            ("99999999999999999999", None),
        ] {
            let mut reply =
                Reply::text("x").header("x-accel-limit-rate", rate).header("X-Accel-Buffering", "no");
            assert_eq!(reply.obey_accel(), Some(false));
            let pacing = reply.pacing.as_ref().and_then(|pacing| pacing.limit.as_ref());
            assert_eq!(pacing.map(Limit::rate), limit, "{rate}");
            assert_eq!(reply.headers.iter().count(), 1);
        }
        let mut plain = Reply::text("x").header("X-Accel-Buffering", "perhaps");
        assert_eq!((plain.obey_accel(), plain.is_paced()), (None, false));
    }

    #[test]
    fn numbers_are_what_they_are() {
        for number in [0, 1, 9, 10, 13, 99, 100, 12_345, u64::MAX] {
            let mut out = Vec::new();
            append_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    #[test]
    fn what_is_no_answer_becomes_one() {
        let page = Reply::error(StatusCode::INTERNAL_SERVER_ERROR).body.len().unwrap();
        for (status, sent, bytes) in
            [(100, 500, page), (101, 500, page), (199, 500, page), (205, 205, 0), (200, 200, 4)]
        {
            let mut reply = Reply::text("text").closing();
            reply.status = StatusCode::from_u16(status).unwrap();
            reply.make_final();
            let seen = (reply.status.as_u16(), reply.body.len(), reply.close);
            assert_eq!(seen, (sent, Some(bytes), true), "{status}");
        }
    }

    #[test]
    fn bodies_go_where_they_may() {
        assert!(sends_body(Some(&Method::GET), StatusCode::OK) && sends_body(None, StatusCode::BAD_REQUEST));
        assert!(!sends_body(Some(&Method::HEAD), StatusCode::NOT_FOUND));
        assert!(!sends_body(Some(&Method::GET), StatusCode::NOT_MODIFIED));
        assert!(!sends_body(Some(&Method::OPTIONS), StatusCode::NO_CONTENT));
    }
}
