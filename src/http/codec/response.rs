//! A reply as a client reads it: interim heads, the head, the body, in pieces as they arrive.
//!
//! Pure. [`Decoder`] is one reply; it is given bytes and says what they are. It is as strict as the server's side: a reply
//! that two readers could end at different places is refused (RFC 9112, section 6.3), for what comes after it on the
//! connection would be taken for the reply to another request. Folded field lines are refused, too (section 5.2).

use std::fmt;

use crate::http::body::Framing;
use crate::http::codec::dechunk::{self, Dechunker};
use crate::http::codec::fields::Fields;
use crate::http::codec::status::is_bodiless;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

/// The most bytes a head may have unless told otherwise: cookies and policies make some large.
pub const HEAD_MAX: usize = 64 * 1024;
/// The most header fields.
pub const FIELDS_MAX: usize = 200;
/// The most interim replies (1xx) to one request.
const INTERIM_MAX: u32 = 16;

/// The head of a reply.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The version the server speaks.
    pub version: Version,
    /// The fields.
    pub headers: HeaderMap,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// How many bytes of body are announced, where that is said.
    pub body_length: Option<u64>,
}

/// Why what came is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks a rule; this one.
    Malformed(&'static str),
    /// Its head, or its interim replies, are longer than they may be.
    HeadTooLong,
}

/// What came.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Nothing to hand on before more arrives.
    Nothing,
    /// An interim reply; another follows.
    Interim(StatusCode),
    /// The head.
    Head(Box<Head>),
    /// Bytes of the body.
    Data(&'a [u8]),
    /// The end, and the fields that followed the body.
    End(Option<Fields>),
}

/// Takes one reply apart, however its bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    /// What it replies to: that decides whether there is a body.
    method: Method,
    head_max: usize,
    state: State,
    /// Of a head that is not all here.
    partial: Vec<u8>,
    interim: u32,
    /// Bytes of heads, interim ones and trailers included: all that is no body, chunk framing left out.
    head_bytes: u64,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunks(Box<Dechunker>),
    UntilClose,
    Ended,
}

impl Decoder {
    /// For the reply to a request with this method, whose head has at most so many bytes.
    pub fn new(method: Method, head_max: usize) -> Decoder {
        Decoder { method, head_max, state: State::Head, partial: Vec::new(), interim: 0, head_bytes: 0 }
    }

    /// Takes the next piece from the front of `input`, and says how many bytes of that are used. To be called until there
    /// is [`Piece::Nothing`].
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), Fault> {
        match &mut self.state {
            State::Head => self.next_head(input),
            State::Length(0) => {
                self.state = State::Ended;
                Ok((0, Piece::End(None)))
            }
            _ if input.is_empty() => Ok((0, Piece::Nothing)),
            State::Length(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= part as u64;
                Ok((part, Piece::Data(&input[..part])))
            }
            State::UntilClose => Ok((input.len(), Piece::Data(input))),
            State::Chunks(chunks) => {
                let mut rest = input;
                let piece = match chunks.next(&mut rest) {
                    Ok(dechunk::Piece::Data(data)) => Piece::Data(data),
                    Ok(dechunk::Piece::More) => Piece::Nothing,
                    Ok(dechunk::Piece::End) => Piece::End(chunks.take_trailers()),
                    Err(error) => return Err(Fault::Malformed(error.as_str())),
                };
                if matches!(piece, Piece::End(_)) {
                    self.state = State::Ended;
                }
                Ok((input.len() - rest.len(), piece))
            }
            State::Ended => Ok((0, Piece::Nothing)),
        }
    }

    /// The peer will send no more. Says whether the reply ends there, as it may where nothing else tells its end.
    pub fn ends_with_connection(&mut self) -> bool {
        let ends = matches!(self.state, State::UntilClose);
        if ends {
            self.state = State::Ended;
        }
        ends
    }

    /// Whether its end has come.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether any of the reply itself has come; interim replies before it are none of it.
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::Head) || !self.partial.is_empty()
    }

    /// Bytes of heads so far, interim ones included.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    fn next_head<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Piece<'a>), Fault> {
        if input.is_empty() {
            return Ok((0, Piece::Nothing));
        }
        let before = self.partial.len();
        let room = self.head_max - before;
        let part = input.len().min(room);
        // Mostly a head arrives in one piece, and is read where it lies.
        let found = if before == 0 {
            read(&input[..part], &self.method)?
        } else {
            self.partial.extend_from_slice(&input[..part]);
            // Without another line end there is no end of the head; looking each time would be quadratic.
            if part < room && !input[..part].contains(&b'\n') {
                return Ok((part, Piece::Nothing));
            }
            read(&self.partial, &self.method)?
        };
        let Some((head, framing, length)) = found else {
            if part == room {
                return Err(Fault::HeadTooLong);
            }
            if before == 0 {
                self.partial.extend_from_slice(input);
            }
            return Ok((part, Piece::Nothing));
        };
        self.partial = Vec::new();
        self.head_bytes += length as u64;
        let piece = self.understand(head, framing)?;
        Ok((length - before, piece))
    }

    fn understand<'a>(&mut self, head: Head, framing: Framing) -> Result<Piece<'a>, Fault> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Fault::Malformed("the server changes the protocol, which nobody asked for"));
        }
        if head.status.is_informational() {
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(Fault::HeadTooLong);
            }
            return Ok(Piece::Interim(head.status));
        }
        self.state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunks(Box::default()),
            Framing::UntilClose => State::UntilClose,
        };
        Ok(Piece::Head(Box::new(head)))
    }
}

/// Reads a head from the start of `bytes`: the head, how its body ends, and how many bytes it took.
fn read(bytes: &[u8], method: &Method) -> Result<Option<(Head, Framing, usize)>, Fault> {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut slots);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::HeadTooLong),
        Err(error) => return Err(Fault::Malformed(rule_of(error))),
    };
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| Fault::Malformed("the status is no number from 100 to 999"))?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) else {
            return Err(Fault::Malformed("a field has a character that cannot stand there"));
        };
        headers.append(name, value);
    }
    let framing = framing(method, status, version, &headers)?;
    let lists = |token| lists(&headers, header::CONNECTION, token);
    let persists = match version {
        Version::HTTP_11 => !lists("close"),
        _ => lists("keep-alive") && !lists("close"),
    };
    let body_length = match framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::UntilClose => None,
    };
    let keep_alive = persists && framing != Framing::UntilClose;
    Ok(Some((Head { status, version, headers, keep_alive, body_length }, framing, length)))
}

/// RFC 9112, section 6.3, in its order.
fn framing(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<Framing, Fault> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (coding, length) = (codings.next(), lengths.next());
    if coding.is_some() && (length.is_some() || version == Version::HTTP_10) {
        return Err(Fault::Malformed("Transfer-Encoding cannot stand beside Content-Length, or in HTTP/1.0"));
    }
    if codings.next().is_some()
        || coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Fault::Malformed("a transfer coding other than chunked"));
    }
    if lengths.next().is_some() {
        return Err(Fault::Malformed("more than one Content-Length"));
    }
    let length = match length.map(HeaderValue::as_bytes) {
        Some(digits) if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) => {
            return Err(Fault::Malformed("Content-Length is not a number"));
        }
        Some(digits) => Some(
            std::str::from_utf8(digits)
                .unwrap_or_default()
                .parse()
                .map_err(|_| Fault::Malformed("Content-Length is more than can be counted"))?,
        ),
        None => None,
    };
    let tunnel = method == Method::CONNECT && status.is_success();
    Ok(match (coding, length) {
        _ if method == Method::HEAD || is_bodiless(status) || tunnel => Framing::Length(0),
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    })
}

/// Whether `token` is in one of the comma-separated lists called `name`.
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|list| list.as_bytes().split(|&b| b == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn rule_of(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a field name has a character that cannot stand there",
        httparse::Error::HeaderValue => "a field value has a character that cannot stand there",
        httparse::Error::NewLine => "a line end is broken",
        httparse::Error::Status => "the status is no number",
        _ => "this is not HTTP/1.1",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(rule) => f.write_str(rule),
            Fault::HeadTooLong => f.write_str("its head is longer than it may be"),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a decoder said of an input, in short.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        interim: Vec<u16>,
        status: Option<u16>,
        keep_alive: bool,
        body: Vec<u8>,
        trailers: bool,
        ended: bool,
        used: usize,
    }

    fn decode(method: Method, input: &[u8], mut cut: impl FnMut() -> usize) -> Result<Read, Fault> {
        let (mut decoder, mut read) = (Decoder::new(method, 1_000), Read::default());
        let mut end = 0;
        loop {
            let (used, piece) = decoder.next(&input[read.used..end])?;
            read.used += used;
            match piece {
                Piece::Nothing if end == input.len() || read.ended => return Ok(read),
                Piece::Nothing => {
                    assert_eq!(read.used, end, "all is used");
                    end = (end + cut().max(1)).min(input.len());
                }
                Piece::Interim(status) => read.interim.push(status.as_u16()),
                Piece::Head(head) => {
                    read.status = Some(head.status.as_u16());
                    read.keep_alive = head.keep_alive;
                }
                Piece::Data(data) => read.body.extend_from_slice(data),
                Piece::End(trailers) => (read.ended, read.trailers) = (true, trailers.is_some()),
            }
        }
    }

    fn whole(method: Method, text: &str) -> Read {
        decode(method, text.as_bytes(), || 10_000).unwrap_or_else(|fault| panic!("{text:?}: {fault}"))
    }

    #[test]
    fn each_way_to_end_a_body() {
        let get = |fields: &str| whole(Method::GET, &format!("HTTP/1.1 200 OK\r\n{fields}"));
        let read = get("Content-Length: 5\r\n\r\nhelloHTTP");
        assert_eq!((&read.body[..], read.ended, read.keep_alive), (&b"hello"[..], true, true));
        let read = get("Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\nHTTP");
        assert_eq!((&read.body[..], read.ended, read.trailers), (&b"hello"[..], true, true));
        let read = get("\r\nhello");
        assert_eq!((&read.body[..], read.ended, read.keep_alive), (&b"hello"[..], false, false));
        let read = get("Content-Length: 6\r\n\r\nhello");
        assert!(!read.ended);
        for (method, status) in
            [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304), (Method::CONNECT, 200)]
        {
            for field in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", ""] {
                let read = whole(method.clone(), &format!("HTTP/1.1 {status} x\r\n{field}\r\nHTTP"));
                assert!(read.ended && read.body.is_empty() && read.keep_alive, "{method} {status} {field}");
            }
        }
        let mut decoder = Decoder::new(Method::GET, 1_000);
        assert!(!decoder.ends_with_connection());
        decoder.next(b"HTTP/1.0 200\r\n\r\n").unwrap();
        assert!(decoder.ends_with_connection() && decoder.has_ended());
    }

    #[test]
    fn interim_replies_are_passed_over() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let read = whole(Method::POST, text);
        assert_eq!((read.interim, read.status, read.ended), (vec![100, 103], Some(200), true));
        let endless = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100);
        assert_eq!(decode(Method::GET, endless.as_bytes(), || 9), Err(Fault::HeadTooLong));
    }

    #[test]
    fn connections_are_kept_where_both_mean_it() {
        for (head, kept) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", false),
            ("HTTP/1.0 200 OK\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", true),
        ] {
            let text = format!("{head}Content-Length: 0\r\n\r\n");
            assert_eq!(whole(Method::GET, &text).keep_alive, kept, "{head:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n",
            "HTTP/1.1 101 Switching\r\n",
            "HTTP/1.1 20 OK\r\n",
            "HTTP/1.1 099 OK\r\n",
            "HTTP/2 200 OK\r\n",
            "HTTP/1.2 200 OK\r\n",
            "\x15\x03\x01\r\n",
            "220 smtp.example ready\r\n",
        ] {
            let read = decode(Method::GET, format!("{head}\r\n").as_bytes(), || 10_000);
            assert!(matches!(read, Err(Fault::Malformed(_))), "{head:?}: {read:?}");
        }
    }

    #[test]
    fn heads_have_a_bound() {
        let exact = |n: usize| format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(n - 24));
        assert_eq!(exact(1_000).len(), 1_000);
        for cut in [1, 7, 10_000] {
            assert_eq!(decode(Method::GET, exact(1_000).as_bytes(), || cut).unwrap().status, Some(200));
            assert_eq!(decode(Method::GET, exact(1_001).as_bytes(), || cut), Err(Fault::HeadTooLong));
            let many = format!("HTTP/1.1 200 OK\r\n{}", "A:\r\n".repeat(FIELDS_MAX + 1));
            assert_eq!(decode(Method::GET, many.as_bytes(), || cut), Err(Fault::HeadTooLong));
        }
    }

    const REPLIES: [&str; 6] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n1;x\r\ne\r\n0\r\nT: 1\r\n\r\n",
        "HTTP/1.0 404 Not Found\nServer: old\n\nall that follows",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ];

    proptest! {
        #[test]
        fn any_split_gives_the_same(which in 0..REPLIES.len(), cuts in proptest::collection::vec(1usize..12, 1..30)) {
            let mut cuts = cuts.iter().copied().cycle();
            let text = REPLIES[which].as_bytes();
            prop_assert_eq!(decode(Method::GET, text, || 10_000), decode(Method::GET, text, || cuts.next().unwrap()));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            let _ = decode(Method::GET, &bytes, || cut);
        }

        #[test]
        fn no_reply_like_bytes_panic(
            fields in "((Content-Length|Transfer-Encoding|Connection|X): ?(chunked|close|[0-9]{1,3})\r\n){0,3}",
            rest in "[0-9a-f\r\n]{0,30}",
            cut in 1usize..50,
        ) {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{rest}");
            let whole = decode(Method::GET, text.as_bytes(), || 10_000);
            prop_assert_eq!(decode(Method::GET, text.as_bytes(), || cut), whole);
        }
    }
}
