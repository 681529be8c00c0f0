//! A request head: what was said, where it ends, and what it means for the connection.
//!
//! Pure. [`parse`] looks at bytes and says whether a head is complete, still coming, or refused. It is strict:
//! what could be read in two ways is refused, because the next reader (a proxy, a log) might take the other way.
//! Bare LF line ends are taken, as RFC 9112 allows; folded header lines are not.
//!
//! A head is read into a [`Request`] that may have held another before: then nothing is allocated.

use std::mem::MaybeUninit;

use crate::http::codec::fields::{all_among, letters};
use crate::http::codec::status::advice;
use crate::http::codec::target::authority;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

/// The most that a request head may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, the blank line at the end included. At most 65,535: what is above counts as that.
    pub bytes: usize,
    /// Header fields. At most 256: what is above counts as that.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

/// What places in a head are counted with, and how many fields have a place on the stack while it is read.
const BYTES_MOST: usize = u16::MAX as usize;
const FIELDS_MOST: usize = 256;

impl Default for HeadLimits {
    /// 16 KiB, 100 fields, and 8 KiB of them for the target: what browsers with many cookies need, and proxies pass on.
    fn default() -> HeadLimits {
        HeadLimits { bytes: 16 * 1024, fields: 100, target: 8 * 1024 }
    }
}

/// Blank-line bytes a client may send before a request. RFC 9112 wants at least one CRLF to be forgiven.
const LEADING_BLANK_MAX: usize = 8;
/// How much of a broken request line is kept for the record.
const BROKEN_LINE_MAX: usize = 256;

/// A complete request head. It owns its bytes; the accessors are views of them.
#[derive(Clone, Debug, Default)]
pub struct Request {
    raw: Vec<u8>,
    method: Method,
    method_text: Span,
    target: Span,
    version: Version,
    fields: Vec<(Span, Span)>,
    keep_alive: bool,
    expects_continue: bool,
    body_length: Option<u64>,
    /// It was understood: the latest head that was read into it was not refused.
    understood: bool,
}

impl Request {
    /// Whether `bytes` begin with this very request, byte for byte.
    #[inline]
    pub(in crate::http) fn is_at_front_of(&self, bytes: &[u8]) -> bool {
        self.understood && bytes.starts_with(&self.raw)
    }

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

    /// The host that is asked for, with its port where one is said: that of an absolute target, whatever the Host field says
    /// beside it, else that field (RFC 9112, section 3.2.2). `None` where neither says one.
    pub fn host(&self) -> Option<&[u8]> {
        authority(self.target()).or_else(|| self.header("host")).filter(|host| !host.is_empty())
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The value of the first field of this name.
    pub fn header<'a, N: AsRef<str> + ?Sized>(&'a self, name: &'a N) -> Option<&'a [u8]> {
        self.header_all(name).next()
    }

    /// The values of all fields of this name, in order.
    pub fn header_all<'a, N: AsRef<str> + ?Sized>(&'a self, name: &'a N) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_ref().as_bytes();
        self.fields
            .iter()
            .filter(move |(field, _)| field.of(&self.raw).eq_ignore_ascii_case(name))
            .map(|(_, value)| value.of(&self.raw))
    }

    /// Name and value of each field, in order.
    pub fn header_lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|(name, value)| (name.of(&self.raw), value.of(&self.raw)))
    }

    /// The fields as a map of the crate `http`.
    pub fn headers(&self) -> HeaderMap {
        let pairs = self.header_lines().filter_map(|(name, value)| {
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

    /// Bytes of body that follow the head; `None` where it is chunked, and ends where it says so.
    pub fn body_length(&self) -> Option<u64> {
        self.body_length
    }

    /// Whether a body follows the head, an empty chunked one included.
    pub fn has_body(&self) -> bool {
        self.body_length != Some(0)
    }
}

/// What bytes are, read as a request head.
#[derive(Debug)]
pub enum Parsed {
    /// Right so far, but not all of it is here.
    Partial,
    /// A head; so many bytes belong to it (blank lines before it included).
    Head {
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
    /// The broken first line (its first bytes); `None` where the head could be read.
    pub line: Option<Vec<u8>>,
    /// Bytes that belong to the refused head, as far as that can be said.
    pub consumed: usize,
}

/// Reads a request head from the start of `bytes` into `request`. What was there before is overwritten, and is of no
/// meaning unless a head was read.
pub fn parse(bytes: &[u8], limits: &HeadLimits, request: &mut Request) -> Parsed {
    let blank = match bytes.first() {
        Some(b'\r' | b'\n') => bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count(),
        _ => 0,
    };
    if blank > LEADING_BLANK_MAX {
        return broken(bytes, StatusCode::BAD_REQUEST, "More blank lines than a request may start with.");
    }
    let most = limits.bytes.min(BYTES_MOST);
    let window = &bytes[blank..bytes.len().min(blank + most)];
    let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MOST];
    let slots = &mut slots[..limits.fields.min(FIELDS_MOST)];
    let mut head = httparse::Request::new(&mut []);
    match head.parse_with_uninit_headers(window, slots) {
        Ok(httparse::Status::Complete(length)) => {
            let consumed = blank + length;
            match request.take_over(&head, &window[..length], limits) {
                Ok(()) => Parsed::Head { consumed },
                Err((status, advice)) => Parsed::Refused(Refused { status, advice, line: None, consumed }),
            }
        }
        Ok(httparse::Status::Partial) if window.len() < most => Parsed::Partial,
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
        // How a client hello begins (RFC 8446, section 5.1). Who sees the bytes of this answer at all sees why.
        Err(_) if window.starts_with(&[22, 3]) => {
            broken(bytes, StatusCode::BAD_REQUEST, "This is TLS, and plain HTTP is spoken here: use http://.")
        }
        Err(error) => broken(bytes, StatusCode::BAD_REQUEST, advice_for(error)),
    }
}

/// A range of the head, which two bytes each are enough for.
#[derive(Clone, Copy, Debug, Default)]
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

const fn bad(advice: &'static str) -> Fault {
    (StatusCode::BAD_REQUEST, advice)
}

impl Request {
    /// Takes over what the parser found in `raw`.
    fn take_over(
        &mut self,
        head: &httparse::Request<'_, '_>,
        raw: &[u8],
        limits: &HeadLimits,
    ) -> Result<(), Fault> {
        let method_text = head.method.unwrap_or_default().as_bytes();
        self.understood = false;
        self.raw.clear();
        self.raw.extend_from_slice(raw);
        if self.method.as_str().as_bytes() != method_text {
            // The parser takes tokens only, and so does this: it never falls back.
            self.method = Method::from_bytes(method_text).unwrap_or_default();
        }
        self.method_text = Span::locate(method_text, raw);
        self.target = Span::locate(head.path.unwrap_or_default().as_bytes(), raw);
        self.version = if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        self.fields.clear();
        self.fields.extend(
            head.headers
                .iter()
                .map(|field| (Span::locate(field.name.as_bytes(), raw), Span::locate(field.value, raw))),
        );
        self.understand(head.headers)?;
        if self.target().len() > limits.target {
            return Err((StatusCode::URI_TOO_LONG, advice(StatusCode::URI_TOO_LONG)));
        }
        self.understood = true;
        Ok(())
    }

    /// Reads the fields that say how the message is framed and what becomes of the connection.
    fn understand(&mut self, fields: &[httparse::Header<'_>]) -> Result<(), Fault> {
        let found = Found::among(fields)?;
        let http11 = self.version == Version::HTTP_11;
        match found.host {
            None if http11 => return Err(bad("The request has no Host field, which HTTP/1.1 needs.")),
            Some(host) if !all_among(host, &HOST) => {
                return Err(bad("The Host field is not a host name or an address."));
            }
            _ => {}
        }
        // User names, too, are refused in it (RFC 9110, section 4.2.4).
        if authority(self.target()).is_some_and(|host| !all_among(host, &HOST)) {
            return Err(bad("The host in the request target is not a host name or an address."));
        }
        self.body_length = found.body_length(http11)?;
        self.keep_alive = !found.close && (http11 || found.keep_alive);
        self.expects_continue = false;
        if let Some(expectation) = found.expect.filter(|_| http11) {
            if !expectation.eq_ignore_ascii_case(b"100-continue") {
                return Err((StatusCode::EXPECTATION_FAILED, advice(StatusCode::EXPECTATION_FAILED)));
            }
            self.expects_continue = self.has_body();
        }
        Ok(())
    }
}

/// Fills a place that two fields must not claim.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8], twice: &'static str) -> Result<(), Fault> {
    if place.replace(value).is_some() { Err(bad(twice)) } else { Ok(()) }
}

/// The fields that matter to the connection, found in one pass over all of them.
#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
}

impl<'a> Found<'a> {
    fn among(fields: &[httparse::Header<'a>]) -> Result<Found<'a>, Fault> {
        let mut found = Found::default();
        for field in fields {
            let (name, value) = (field.name, field.value);
            // By length first: most names are none of these.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    once(&mut found.host, value, "The request has more than one Host field.")?;
                }
                6 if name.eq_ignore_ascii_case("expect") => {
                    found.expect.get_or_insert(value);
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                        found.close |= option.eq_ignore_ascii_case(b"close");
                        found.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    once(&mut found.length, value, "The request has more than one Content-Length.")?;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    once(&mut found.coding, value, "The request has more than one Transfer-Encoding.")?;
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// RFC 9112, section 6: where two fields disagree about the length, another reader may see another request.
    fn body_length(&self, http11: bool) -> Result<Option<u64>, Fault> {
        if let Some(coding) = self.coding {
            return match self.length {
                Some(_) => Err(bad("Content-Length and Transfer-Encoding cannot stand together.")),
                None if !http11 => Err(bad("HTTP/1.0 has no Transfer-Encoding.")),
                None if coding.eq_ignore_ascii_case(b"chunked") => Ok(None),
                None => Err((
                    StatusCode::NOT_IMPLEMENTED,
                    "The only transfer coding understood is chunked, and nothing besides.",
                )),
            };
        }
        let Some(length) = self.length else { return Ok(Some(0)) };
        if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
            return Err(bad("Content-Length is not a number."));
        }
        // Digits only, so all that can go wrong is too many of them.
        let digits = std::str::from_utf8(length).unwrap_or_default();
        let too_large = |_| (StatusCode::PAYLOAD_TOO_LARGE, advice(StatusCode::PAYLOAD_TOO_LARGE));
        digits.parse().map(Some).map_err(too_large)
    }
}

/// What a host, a port and an IPv6 address in brackets are written with (RFC 3986, user names left out).
const HOST: [bool; 256] = letters(b"-._~:[]%!$&'()*+,;=");

fn broken(bytes: &[u8], status: StatusCode, advice: &'static str) -> Parsed {
    let start = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let line = bytes[start..].split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    Parsed::Refused(Refused {
        status,
        advice,
        line: Some(line[..line.len().min(BROKEN_LINE_MAX)].to_vec()),
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
mod tests;
