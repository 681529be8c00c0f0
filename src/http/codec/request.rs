//! A request head: what was said, where it ends, and what it means for the connection.
//!
//! Pure. [`parse`] looks at bytes and says whether a head is complete, still coming, or refused. It is strict:
//! what could be read in two ways is refused, because the next reader (a proxy, a log) might take the other way.
//! Bare LF line ends are taken, as RFC 9112 allows; folded header lines are not.

use crate::http::codec::status::advice;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// The most bytes a head may have, its blank line included.
pub const HEAD_MAX: usize = 16 * 1024;
/// The most header fields.
pub const FIELDS_MAX: usize = 100;
/// The longest request target.
pub const TARGET_MAX: usize = 8 * 1024;
/// Blank-line bytes a client may send before a request. RFC 9112 wants at least one CRLF to be forgiven.
const LEADING_BLANK_MAX: usize = 8;
/// How much of a broken request line is kept for the record.
const BROKEN_LINE_MAX: usize = 256;

/// A complete request head. It owns its bytes; the accessors are views of them.
#[derive(Clone, Debug)]
pub struct Request {
    raw: Box<[u8]>,
    method: Method,
    method_text: Span,
    target: Span,
    version: Version,
    fields: Box<[(Span, Span)]>,
    keep_alive: bool,
    expects_continue: bool,
    body_length: u64,
}

impl Request {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The method as it was written.
    pub fn method_text(&self) -> &[u8] {
        self.method_text.of(&self.raw)
    }

    /// The request target as it was written.
    pub fn target(&self) -> &[u8] {
        self.target.of(&self.raw)
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The value of the first field of this name.
    pub fn field<'a, N: AsRef<str> + ?Sized>(&'a self, name: &'a N) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The values of all fields of this name, in order.
    pub fn all<'a, N: AsRef<str> + ?Sized>(&'a self, name: &'a N) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_ref().as_bytes();
        self.fields
            .iter()
            .filter(move |(field, _)| field.of(&self.raw).eq_ignore_ascii_case(name))
            .map(|(_, value)| value.of(&self.raw))
    }

    /// Name and value of each field, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (name.of(&self.raw), value.of(&self.raw)))
    }

    /// The fields as a map of the crate `http`.
    pub fn headers(&self) -> HeaderMap {
        let pairs = self.fields().filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        });
        let mut map = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in pairs {
            map.append(name, value);
        }
        map
    }

    /// Bytes from the first of the method to the last of the blank line.
    pub fn head_len(&self) -> usize {
        self.raw.len()
    }

    /// Whether the client wants the connection kept after this exchange.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Bytes of body that follow the head.
    pub fn body_length(&self) -> u64 {
        self.body_length
    }
}

/// What bytes are, read as a request head.
#[derive(Debug)]
pub enum Parsed {
    /// Right so far, but not all of it is here.
    Partial,
    /// A head; `consumed` bytes belong to it (blank lines before it included).
    Head {
        /// The request.
        request: Request,
        /// How many bytes to take away.
        consumed: usize,
    },
    /// Not a request this server answers, and not one after which another can be found: reply and close.
    Refused(Refused),
}

/// A head that is refused before anybody looks at what it asks for.
#[derive(Debug)]
pub struct Refused {
    /// What to answer.
    pub status: StatusCode,
    /// What is wrong, for the person at the other end.
    pub advice: &'static str,
    /// The head, where it could be read.
    pub request: Option<Box<Request>>,
    /// The broken first line (its first bytes), where it could not.
    pub line: Vec<u8>,
    /// Bytes that belong to the refused head, as far as that can be said.
    pub consumed: usize,
}

/// Reads a request head from the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    if blank > LEADING_BLANK_MAX {
        return broken(bytes, StatusCode::BAD_REQUEST, "More blank lines than a request may start with.");
    }
    let window = &bytes[blank..bytes.len().min(blank + HEAD_MAX)];
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut slots);
    match head.parse(window) {
        Ok(httparse::Status::Complete(length)) => match Request::from_parsed(&head, &window[..length]) {
            Ok(request) => Parsed::Head { request, consumed: blank + length },
            Err((status, advice, request)) => Parsed::Refused(Refused {
                status,
                advice,
                request: Some(Box::new(request)),
                line: Vec::new(),
                consumed: blank + length,
            }),
        },
        Ok(httparse::Status::Partial) if window.len() < HEAD_MAX => Parsed::Partial,
        Ok(httparse::Status::Partial) if !window.contains(&b'\n') => {
            broken(bytes, StatusCode::URI_TOO_LONG, advice(StatusCode::URI_TOO_LONG))
        }
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => broken(
            bytes,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            advice(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        ),
        Err(httparse::Error::Version) if names_a_version(window) => broken(
            bytes,
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            advice(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        ),
        Err(error) => broken(bytes, StatusCode::BAD_REQUEST, advice_for(error)),
    }
}

/// A range of the head. A head is at most 16 KiB, so two bytes each are enough.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it.
    fn locate(part: &[u8], whole: &[u8]) -> Span {
        if part.is_empty() {
            return Span { start: 0, end: 0 };
        }
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        debug_assert!(start + part.len() <= whole.len());
        Span { start: start as u16, end: (start + part.len()) as u16 }
    }

    fn of(self, whole: &[u8]) -> &[u8] {
        &whole[usize::from(self.start)..usize::from(self.end)]
    }
}

type Fault = (StatusCode, &'static str);

impl Request {
    fn from_parsed(
        head: &httparse::Request<'_, '_>,
        raw: &[u8],
    ) -> Result<Request, (StatusCode, &'static str, Request)> {
        let method_text = head.method.unwrap_or_default();
        let target = head.path.unwrap_or_default();
        let mut request = Request {
            raw: raw.into(),
            // The parser takes tokens only, and so does this: it never falls back.
            method: Method::from_bytes(method_text.as_bytes()).unwrap_or_default(),
            method_text: Span::locate(method_text.as_bytes(), raw),
            target: Span::locate(target.as_bytes(), raw),
            version: if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
            fields: head
                .headers
                .iter()
                .map(|field| (Span::locate(field.name.as_bytes(), raw), Span::locate(field.value, raw)))
                .collect(),
            keep_alive: false,
            expects_continue: false,
            body_length: 0,
        };
        match request.understand() {
            Ok(()) => Ok(request),
            Err((status, advice)) => Err((status, advice, request)),
        }
    }

    /// Reads the fields that say how the message is framed and what becomes of the connection.
    fn understand(&mut self) -> Result<(), Fault> {
        self.check_host()?;
        self.body_length = self.find_body_length()?;
        let http11 = self.version == Version::HTTP_11;
        self.keep_alive = http11 && !self.lists("connection", "close")
            || !http11 && self.lists("connection", "keep-alive") && !self.lists("connection", "close");
        if let Some(expectation) = self.field("expect").filter(|_| http11) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err((StatusCode::EXPECTATION_FAILED, advice(StatusCode::EXPECTATION_FAILED)));
            }
            self.expects_continue = self.body_length > 0;
        }
        if self.target().len() > TARGET_MAX {
            return Err((StatusCode::URI_TOO_LONG, advice(StatusCode::URI_TOO_LONG)));
        }
        Ok(())
    }

    fn check_host(&self) -> Result<(), Fault> {
        let mut hosts = self.all("host");
        match (hosts.next(), hosts.next()) {
            (_, Some(_)) => Err((StatusCode::BAD_REQUEST, "The request has more than one Host field.")),
            (None, _) if self.version == Version::HTTP_11 => {
                Err((StatusCode::BAD_REQUEST, "The request has no Host field, which HTTP/1.1 needs."))
            }
            (Some(host), _) if !host.iter().all(|&b| is_host_byte(b)) => {
                Err((StatusCode::BAD_REQUEST, "The Host field is not a host name or an address."))
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 section 6: where two fields disagree about the length, another reader may see another request.
    fn find_body_length(&self) -> Result<u64, Fault> {
        let mut lengths = self.all("content-length");
        let length = lengths.next();
        if lengths.next().is_some() {
            return Err((StatusCode::BAD_REQUEST, "The request has more than one Content-Length."));
        }
        let mut codings = self.all("transfer-encoding");
        if let Some(coding) = codings.next() {
            if length.is_some() || self.version == Version::HTTP_10 || codings.next().is_some() {
                return Err((StatusCode::BAD_REQUEST, "Transfer-Encoding cannot stand here."));
            }
            if coding.eq_ignore_ascii_case(b"chunked") {
                return Err((
                    StatusCode::LENGTH_REQUIRED,
                    "This server takes no chunked body; leave the body out.",
                ));
            }
            return Err((StatusCode::NOT_IMPLEMENTED, "This transfer coding is not known here."));
        }
        let Some(length) = length else { return Ok(0) };
        if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
            return Err((StatusCode::BAD_REQUEST, "Content-Length is not a number."));
        }
        // Digits only, so all that can go wrong is too many of them.
        let digits = std::str::from_utf8(length).unwrap_or_default();
        digits.parse().map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, advice(StatusCode::PAYLOAD_TOO_LARGE)))
    }

    /// Whether `token` is in one of the comma-separated lists called `name`.
    fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|list| list.split(|&b| b == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// What a host, a port and an IPv6 address in brackets are written with (RFC 3986, user names left out).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

fn broken(bytes: &[u8], status: StatusCode, advice: &'static str) -> Parsed {
    let start = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let line = bytes[start..].split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    Parsed::Refused(Refused {
        status,
        advice,
        request: None,
        line: line[..line.len().min(BROKEN_LINE_MAX)].to_vec(),
        consumed: bytes.len(),
    })
}

/// Three words, the last of them `HTTP/` and a digit, are from a client of another version; anything else is no
/// HTTP.
fn names_a_version(window: &[u8]) -> bool {
    let line = window.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let words: Vec<&[u8]> = line.splitn(4, |&b| b == b' ').collect();
    matches!(words[..], [_, _, version] if matches!(version.strip_prefix(b"HTTP/"), Some([b'0'..=b'9', ..])))
}

fn advice_for(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "A field name has a character that cannot stand there.",
        httparse::Error::HeaderValue => "A field value has a character that cannot stand there.",
        httparse::Error::NewLine => "A line end is broken.",
        _ => "This is not HTTP/1.1.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Head { request, consumed } => {
                assert!(consumed <= text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refused(bytes: &[u8]) -> Refused {
        match parse(bytes) {
            Parsed::Refused(refused) => refused,
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn a_head_is_read() {
        let text = "GET /a%20b?q=1 HTTP/1.1\r\nHost: x:8080\r\nRange: bytes=0-1\r\nX-Empty:\r\nrange: two\r\n\r\nrest";
        let Parsed::Head { request, consumed } = parse(text.as_bytes()) else { panic!() };
        assert_eq!(consumed, text.len() - 4);
        assert_eq!(request.head_len(), consumed);
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.method_text(), b"GET");
        assert_eq!(request.target(), b"/a%20b?q=1");
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(request.field("RANGE"), Some(&b"bytes=0-1"[..]));
        assert_eq!(request.all("range").count(), 2);
        assert_eq!(request.field("x-empty"), Some(&b""[..]));
        assert_eq!(request.field("absent"), None);
        assert!(request.keep_alive());
    }

    #[test]
    fn leading_blank_lines_belong_to_the_head() {
        let text = b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let Parsed::Head { request, consumed } = parse(text) else { panic!() };
        assert_eq!((consumed, request.head_len()), (text.len(), text.len() - 4));
        assert!(matches!(parse(b"\r\n"), Parsed::Partial));
        assert_eq!(refused(b"\n\n\n\n\n\n\n\n\nGET / HTTP/1.1\r\n").status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn every_prefix_of_a_head_is_partial() {
        let text = b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        for end in 0..text.len() {
            assert!(matches!(parse(&text[..end]), Parsed::Partial), "{end}");
        }
    }

    #[test]
    fn keep_alive_follows_version_and_connection() {
        let table = [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: Close\r\n", false),
            ("HTTP/1.1", "Connection: upgrade, close\r\n", false),
            ("HTTP/1.1", "Connection: upgrade\r\nConnection: close\r\n", false),
            ("HTTP/1.1", "Connection: closed\r\n", true),
            ("HTTP/1.1", "Connection: keep-alive\r\n", true),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: keep-alive\r\n", true),
            ("HTTP/1.0", "Connection: Keep-Alive, x\r\n", true),
            ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ];
        for (version, field, expected) in table {
            let request = head(&format!("GET / {version}\r\nHost: x\r\n{field}\r\n"));
            assert_eq!(request.keep_alive(), expected, "{version} {field:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let table = [
            ("", StatusCode::BAD_REQUEST),
            ("Host: x\r\nHost: x\r\n", StatusCode::BAD_REQUEST),
            ("Host: x/y\r\n", StatusCode::BAD_REQUEST),
            ("Host: x y\r\n", StatusCode::BAD_REQUEST),
            ("Host: u@x\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length: 5, 5\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length: -5\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length: +5\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length: 0x5\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length:\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nContent-Length: 99999999999999999999999\r\n", StatusCode::PAYLOAD_TOO_LARGE),
            ("Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", StatusCode::BAD_REQUEST),
            ("Host: x\r\nTransfer-Encoding: chunked\r\n", StatusCode::LENGTH_REQUIRED),
            (
                "Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                StatusCode::BAD_REQUEST,
            ),
            ("Host: x\r\nTransfer-Encoding: gzip\r\n", StatusCode::NOT_IMPLEMENTED),
            ("Host: x\r\nTransfer-Encoding: gzip, chunked\r\n", StatusCode::NOT_IMPLEMENTED),
            ("Host: x\r\nExpect: tea\r\n", StatusCode::EXPECTATION_FAILED),
        ];
        for (fields, status) in table {
            let refused = refused(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes());
            assert_eq!(refused.status, status, "{fields:?}");
            assert!(refused.request.is_some() && !refused.advice.is_empty(), "{fields:?}");
        }
        let old = refused(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old.status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let table: &[(&[u8], StatusCode)] = &[
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", StatusCode::BAD_REQUEST),
            (b"\0\0\0\0", StatusCode::BAD_REQUEST),
            (b"GET\r\n", StatusCode::BAD_REQUEST),
            (b" GET / HTTP/1.1\r\n", StatusCode::BAD_REQUEST),
            (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"GET / a HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"G\xc3\x84T / HTTP/1.1\r\n", StatusCode::BAD_REQUEST),
            (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", StatusCode::BAD_REQUEST),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", StatusCode::HTTP_VERSION_NOT_SUPPORTED),
            (b"GET / HTTP/1.2\r\n\r\n", StatusCode::HTTP_VERSION_NOT_SUPPORTED),
            (b"GET / HTTP/3\r\n\r\n", StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        ];
        for (bytes, status) in table {
            let refused = refused(bytes);
            assert_eq!(refused.status, *status, "{:?}", String::from_utf8_lossy(bytes));
            assert!(refused.request.is_none());
        }
        assert_eq!(refused(b"\x16\x03\x01hello\r\nsecond").line, b"\x16\x03\x01hello");
    }

    #[test]
    fn limits_are_kept() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(TARGET_MAX));
        assert_eq!(refused(long.as_bytes()).status, StatusCode::URI_TOO_LONG);
        let longer = format!("GET /{}", "a".repeat(HEAD_MAX));
        assert_eq!(refused(longer.as_bytes()).status, StatusCode::URI_TOO_LONG);
        let big = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(HEAD_MAX));
        assert_eq!(refused(big.as_bytes()).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let many = |n| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(n));
        assert_eq!(refused(many(FIELDS_MAX).as_bytes()).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(head(&many(FIELDS_MAX - 1)).all("a").count(), FIELDS_MAX - 1);

        // Exactly the limit passes, with another request behind it.
        let base = "GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
        let exact = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\nGET", "a".repeat(HEAD_MAX - base));
        assert_eq!(head(&exact).head_len(), HEAD_MAX);
        let over = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(HEAD_MAX - base + 1));
        assert_eq!(refused(over.as_bytes()).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }

    #[test]
    fn bodies_and_expectations() {
        let request = head("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n");
        assert_eq!((request.body_length(), request.expects_continue()), (5, true));
        let request = head("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n");
        assert!(!request.expects_continue());
        let request = head("POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        assert_eq!((request.method(), request.body_length()), (&Method::POST, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_head_like_bytes_panic(line in "[A-Z]{0,5} ?/?[ -~]{0,20} HTTP/1.[01]", fields in "([A-Za-z-]{0,16}:? ?[ -~]{0,12}\r?\n){0,6}") {
            let text = format!("{line}\r\n{fields}\r\n");
            if let Parsed::Head { request, consumed } = parse(text.as_bytes()) {
                prop_assert!(consumed <= text.len());
                prop_assert!(request.target().len() <= TARGET_MAX);
            }
        }

        #[test]
        fn a_cut_head_is_never_complete(cut in 0usize..60) {
            let text = b"GET /x HTTP/1.1\r\nHost: example\r\nAccept: */*\r\nA: b\r\nCc: dd\r\n\r\n";
            prop_assert!(matches!(parse(&text[..cut]), Parsed::Partial));
        }
    }
}
