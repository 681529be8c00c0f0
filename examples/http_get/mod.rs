//! As much of HTTP as the two `wget` examples need, as a protocol of one's own: GET, and replies that say how long they
//! are.

use std::fmt::Write as _;

use tidegate::net::protocol::{Codec, Decoded, Malformed, Outgoing};
use tidegate::record::Words;
use tidegate::task::Error;

/// No head of a reply is longer, and none has more fields.
const HEAD_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 100;

/// `http://HOST:PORT/PATH`; also what is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    path: String,
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl std::str::FromStr for Url {
    type Err = Error;

    fn from_str(url: &str) -> Result<Url, Error> {
        let rest = url.strip_prefix("http://").ok_or("a URL starts with http:// here")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.bytes().any(|byte| byte <= b' ' || byte == b'#') {
            return Err("a URL has no spaces, and no fragment here".into());
        }
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        Ok(Url { host: host.to_owned(), port: port.parse()?, path: format!("/{path}") })
    }
}

/// The codec. It keeps nothing: each reply is looked at from its start.
#[derive(Clone)]
pub(crate) struct Http;

impl Codec for Http {
    type Request = Url;
    type Reply = Page;

    fn encode_request(&mut self, url: &Url, out: &mut Outgoing) -> Result<(), Malformed> {
        let Url { host, port, path } = url;
        let mut head = String::new();
        // Writing to a String cannot fail.
        let _ = write!(head, "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        out.put(head.as_bytes());
        Ok(())
    }

    fn decode_reply(&mut self, bytes: &[u8]) -> Result<Decoded<Page>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut reply = httparse::Response::new(&mut fields);
        let head = match reply.parse(bytes).map_err(|error| Malformed::new(error.to_string()))? {
            httparse::Status::Complete(head) => head,
            httparse::Status::Partial if bytes.len() < HEAD_MAX => return Ok(Decoded::more()),
            httparse::Status::Partial => return Err(Malformed::new("the head is too long")),
        };
        let status = reply.code.unwrap_or_default();
        let length = match status {
            204 | 304 => 0,
            _ => {
                let field =
                    reply.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
                let value = field.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
                // Chunks, and bodies that end with the connection, are for the HTTP client of the library to come.
                value.ok_or(Malformed::new("the reply does not say how long it is"))?
            }
        };
        let end = head.checked_add(length).ok_or(Malformed::new("no reply is so long"))?;
        match bytes.get(head..end) {
            Some(body) => Ok(Decoded::message(Page { status, body: body.to_vec() }, end)),
            None => Ok(Decoded::wants(end)),
        }
    }

    /// It is a client's only.
    fn decode_request(&mut self, _: &[u8]) -> Result<Decoded<Url>, Malformed> {
        Err(Malformed::new("this is no server"))
    }

    fn encode_reply(&mut self, _: Page, _: &mut Outgoing) -> Result<(), Malformed> {
        Err(Malformed::new("this is no server"))
    }

    fn words(&self, url: &Url) -> Words {
        Words::new(b"GET", url.path.as_bytes(), b"HTTP/1.1", None, None)
    }

    fn status(&self, page: &Page) -> Option<u16> {
        Some(page.status)
    }
}
