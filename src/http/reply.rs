//! A reply: its status, its own fields, its body; and the head that goes on the wire.
//!
//! Pure. A handler makes a [`Reply`]; the session adds what belongs to the connection (date, length, keep-alive)
//! when it writes the head, so that no handler can frame a message wrongly.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::sync::Arc;

use crate::http::in_use::FileId;
use crate::http::request::{Method, Request, Version};
use crate::http::status::Status;

/// What is answered.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: Status,
    /// Fields the handler sets.
    pub fields: Fields,
    /// The body.
    pub body: Body,
    /// Whether the connection ends after it, whatever the client wants.
    pub close: bool,
}

/// A body, before it is known whether it goes (a HEAD request wants only its length).
#[derive(Debug)]
pub enum Body {
    /// None; its length is 0.
    Empty,
    /// Bytes.
    Bytes(Vec<u8>),
    /// Bytes that other replies may be sending too.
    Page {
        /// The bytes.
        bytes: Arc<[u8]>,
        /// A hash of them, by which the others are found.
        hash: u64,
    },
    /// A range of a file.
    File {
        /// The file; shared by the replies that send it.
        file: Arc<File>,
        /// Which file it is.
        id: FileId,
        /// Where the range begins.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
}

impl Body {
    /// A page that many may ask for. Large ones are in memory once, however many clients are slow in taking them.
    pub fn page(bytes: Vec<u8>) -> Body {
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        Body::Page { hash: hasher.finish(), bytes: bytes.into() }
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Page { bytes, .. } => bytes.len() as u64,
            Body::File { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Reply {
    /// A reply without fields and without a body.
    pub fn new(status: Status) -> Reply {
        Reply { status, fields: Fields::default(), body: Body::Empty, close: false }
    }

    /// An error page: the status, and a line of advice, as plain text.
    pub fn error(status: Status) -> Reply {
        Reply::explained(status, status.advice())
    }

    /// An error page with a line of advice of its own.
    pub fn explained(status: Status, advice: &str) -> Reply {
        let mut reply = Reply::new(status);
        reply.fields.add("Content-Type", format_args!("text/plain; charset=utf-8"));
        reply.body = Body::Bytes(format!("{} {}\n{advice}\n", status.code(), status.phrase()).into_bytes());
        reply
    }

    /// The reply after which the connection ends.
    pub fn closing(mut self) -> Reply {
        self.close = true;
        self
    }
}

/// Field lines, ready for the wire.
#[derive(Debug, Default)]
pub struct Fields(Vec<u8>);

/// What the fields of a file's reply take together: one allocation instead of five.
const FIELDS_BYTES: usize = 192;

impl Fields {
    /// Adds a field. A control character in the value becomes a space: no value can add a line.
    pub fn add(&mut self, name: &'static str, value: fmt::Arguments<'_>) {
        if self.0.is_empty() {
            self.0.reserve(FIELDS_BYTES);
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        let start = self.0.len();
        // Writing to a Vec cannot fail.
        let _ = self.0.write_fmt(value);
        for byte in &mut self.0[start..] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
        self.0.extend_from_slice(b"\r\n");
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
            (true, Version::Http11) => Persistence::Kept,
            (true, Version::Http10) => Persistence::KeptAndSaid,
        }
    }
}

/// Whether the body of a reply goes on the wire.
pub fn sends_body(method: Option<Method>, status: Status) -> bool {
    method != Some(Method::Head) && !status.is_bodiless()
}

/// Writes the head of a reply.
pub fn write_head(out: &mut Vec<u8>, reply: &Reply, date: &str, persistence: Persistence) {
    out.extend_from_slice(b"HTTP/1.1 ");
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "{} {}\r\nServer: tidegate\r\nDate: {date}\r\n",
        reply.status.code(),
        reply.status.phrase()
    );
    if !reply.status.is_bodiless() {
        let _ = write!(out, "Content-Length: {}\r\n", reply.body.len());
    }
    out.extend_from_slice(&reply.fields.0);
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
        write_head(&mut out, reply, "DATE", persistence);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads() {
        let mut reply = Reply::new(Status::OK);
        reply.body = Body::Bytes(b"hello".to_vec());
        reply.fields.add("ETag", format_args!("\"x\""));
        assert_eq!(
            head(&reply, Persistence::Kept),
            "HTTP/1.1 200 OK\r\nServer: tidegate\r\nDate: DATE\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n"
        );
        assert_eq!(
            head(&Reply::new(Status::NOT_MODIFIED), Persistence::KeptAndSaid),
            "HTTP/1.1 304 Not Modified\r\nServer: tidegate\r\nDate: DATE\r\nConnection: keep-alive\r\n\r\n"
        );
        let error = head(&Reply::error(Status::NOT_FOUND), Persistence::Closed);
        assert!(
            error.starts_with("HTTP/1.1 404 Not Found\r\n") && error.ends_with("Connection: close\r\n\r\n")
        );
    }

    #[test]
    fn no_value_adds_a_line() {
        let mut reply = Reply::new(Status::OK);
        reply.fields.add("Location", format_args!("/a\r\nSet-Cookie: x\0"));
        assert!(head(&reply, Persistence::Kept).contains("Location: /a  Set-Cookie: x \r\n\r\n"));
    }

    #[test]
    fn bodies_go_where_they_may() {
        assert!(sends_body(Some(Method::Get), Status::OK) && sends_body(None, Status::BAD_REQUEST));
        assert!(!sends_body(Some(Method::Head), Status::NOT_FOUND));
        assert!(!sends_body(Some(Method::Get), Status::NOT_MODIFIED));
        assert!(!sends_body(Some(Method::Options), Status::NO_CONTENT));
    }
}
