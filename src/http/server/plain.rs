//! What is said to a client that speaks plain HTTP where TLS is spoken. Pure, but for the date.
//!
//! No session hears of such a client: the transport has this said, and ends the connection. What came is looked at once,
//! for a hint where to go; a head that has not come whole gets the answer without one.

use std::time::SystemTime;

use tidegate_poller::sys;

use crate::http::body::Framing;
use crate::http::codec::request::{HeadLimits, Parsed, Request, parse};
use crate::http::server::clock::Clock;
use crate::http::server::reply::{Persistence, Reply, write_head};
use crate::http::{Body, StatusCode};

const ADVICE: &str = "TLS is spoken here, and this request came without it.";
/// The longest address that is offered; a longer one is not read by people.
const HINT_MAX: usize = 1_024;

/// The answer to what came first; `None` if that is no HTTP.
pub(super) fn answer(first: &[u8]) -> Option<Vec<u8>> {
    let mut request = Request::default();
    let hint = match parse(first, &HeadLimits::default(), &mut request) {
        Parsed::Head { .. } => hint(&request),
        // Faulty as it may be, it was meant to be a request.
        Parsed::Partial | Parsed::Refused(_) if begins_like_http(first) => None,
        Parsed::Partial | Parsed::Refused(_) => return None,
    };
    let hint = hint.as_deref().unwrap_or("https:// in its address.");
    let reply = Reply::explained(StatusCode::BAD_REQUEST, &format!("{ADVICE} Try {hint}"));
    let now = sys::now();
    let mut clock = Clock::new(now, SystemTime::now());
    let mut out = Vec::new();
    let framing = Framing::Length(reply.body.len().unwrap_or_default());
    write_head(&mut out, &reply, (&mut clock, now), framing, Persistence::Closed);
    if let Body::Bytes(bytes) = &reply.body
        && !first.starts_with(b"HEAD ")
    {
        out.extend_from_slice(bytes);
    }
    Some(out)
}

/// Where the client would find what it asked for, as it named it. What it said is given back as it was, to itself, in plain
/// text; only where nothing in it could be taken for more than an address.
fn hint(request: &Request) -> Option<String> {
    let host = std::str::from_utf8(request.header("host")?).ok()?;
    let path = std::str::from_utf8(request.target()).ok()?;
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    let is_fit = !host.is_empty()
        && host.bytes().all(is_host)
        && path.starts_with('/')
        && path.bytes().all(|b| b.is_ascii_graphic())
        && host.len() + path.len() <= HINT_MAX;
    is_fit.then(|| format!("https://{host}{path}"))
}

/// A method and the beginning of a target, as far as they are here.
fn begins_like_http(first: &[u8]) -> bool {
    let method = first.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    let after = first.get(method);
    (1..=32).contains(&method) && after.is_none_or(|b| *b == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(first: &str) -> Option<String> {
        answer(first.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_request_is_told_where_it_would_be_answered() {
        let text = told("GET /a%20b?c=<d> HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n").unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n\r\n400 Bad Request\n"), "{text}");
        assert!(text.contains("Content-Type: text/plain"), "{text}");
        assert!(text.ends_with(" Try https://[::1]:8443/a%20b?c=<d>\n"), "{text}");
        let head = told("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(head.contains("Content-Length: ") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn what_is_no_address_is_not_given_back() {
        let long = "x".repeat(2_000);
        for first in [
            "GET /half HTTP/1.1\r\nHost: x",
            "GET",
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/<script>\r\n\r\n",
            "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: no\r\n\r\n",
            &format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        ] {
            let text = told(first).unwrap_or_else(|| panic!("{first:?}"));
            assert!(
                text.starts_with("HTTP/1.1 400 ") && text.ends_with(" Try https:// in its address.\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_http_gets_no_answer_of_it() {
        for first in
            ["", "get / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01", "EHLO\r\n", "\r\n", "user x\r\n"]
        {
            assert_eq!(told(first), None, "{first:?}");
        }
        // A word and a blank begin HTTP as well as others.
        assert!(told("EHLO me\r\n").is_some());
    }
}
