//! What a user says of his protocol: how messages become bytes, and bytes messages.

use std::borrow::Cow;
use std::fmt;

use tidegate_poller::Chunk;

use crate::record::Words;
use crate::task::SeriesError;

/// A request/reply protocol.
///
/// Each connection has a clone of its own, so a codec may keep what it has seen of a message, or of a connection. It is
/// called on a poller's thread, and must not block. A panic in it ends the connection.
///
/// ```
/// use tidegate::net::protocol::{Codec, Decoded, Malformed, Outgoing};
///
/// /// Lines of text, answered by lines of text.
/// #[derive(Clone)]
/// struct Lines;
///
/// fn line(bytes: &[u8]) -> Result<Decoded<String>, Malformed> {
///     let Some(end) = bytes.iter().position(|&b| b == b'\n') else { return Ok(Decoded::more()) };
///     let line = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed::new("not UTF-8"))?;
///     Ok(Decoded::message(line.to_owned(), end + 1))
/// }
///
/// impl Codec for Lines {
///     type Request = String;
///     type Reply = String;
///
///     fn encode_request(&mut self, request: &String, out: &mut Outgoing) -> Result<(), Malformed> {
///         out.put(request.as_bytes());
///         out.put(b"\n");
///         Ok(())
///     }
///     fn decode_request(&mut self, bytes: &[u8]) -> Result<Decoded<String>, Malformed> {
///         line(bytes)
///     }
///     fn encode_reply(&mut self, reply: String, out: &mut Outgoing) -> Result<(), Malformed> {
///         self.encode_request(&reply, out)
///     }
///     fn decode_reply(&mut self, bytes: &[u8]) -> Result<Decoded<String>, Malformed> {
///         line(bytes)
///     }
/// }
/// ```
pub trait Codec: Clone + Send + Sync + 'static {
    /// What a client says.
    type Request: Send + 'static;
    /// What a server answers.
    type Reply: Send + 'static;

    /// Appends a request. It may be asked to again for the same request, on another connection.
    fn encode_request(&mut self, request: &Self::Request, out: &mut Outgoing) -> Result<(), Malformed>;

    /// Looks for a request at the front of `bytes`. See [`Decoded`].
    fn decode_request(&mut self, bytes: &[u8]) -> Result<Decoded<Self::Request>, Malformed>;

    /// Appends a reply.
    fn encode_reply(&mut self, reply: Self::Reply, out: &mut Outgoing) -> Result<(), Malformed>;

    /// Looks for a reply at the front of `bytes`. See [`Decoded`].
    fn decode_reply(&mut self, bytes: &[u8]) -> Result<Decoded<Self::Reply>, Malformed>;

    /// The client sends no more, and these bytes are left of what came. A request that ends so is told by nothing else; it
    /// is the last one of its connection, and answered. `None`, the default: no request ends so, and this one was cut
    /// short. Not asked where nothing came of a request.
    fn finish_request(&mut self, bytes: &[u8]) -> Result<Option<Self::Request>, Malformed> {
        let _ = bytes;
        Ok(None)
    }

    /// The server sends no more, and these bytes are left of what came. A reply that ends so is told by nothing else. `None`,
    /// the default: no reply ends so, and this one was cut short. There may be no bytes at all: an empty reply, or
    /// a connection that was closed while the request was on its way to it, and may be repeated on another.
    ///
    /// ```
    /// use tidegate::net::protocol::{Codec, Decoded, Malformed, Outgoing};
    ///
    /// /// Who is it? A line, answered by text up to the connection's end.
    /// #[derive(Clone)]
    /// struct Whois;
    ///
    /// impl Codec for Whois {
    ///     type Request = String;
    ///     type Reply = Vec<u8>;
    ///
    ///     fn encode_request(&mut self, name: &String, out: &mut Outgoing) -> Result<(), Malformed> {
    ///         out.put(name.as_bytes());
    ///         out.put(b"\r\n");
    ///         Ok(())
    ///     }
    ///     fn decode_request(&mut self, bytes: &[u8]) -> Result<Decoded<String>, Malformed> {
    ///         let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(Decoded::more()) };
    ///         let name = std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed::new("not UTF-8"))?;
    ///         Ok(Decoded::message(name.to_owned(), end + 2))
    ///     }
    ///     fn encode_reply(&mut self, text: Vec<u8>, out: &mut Outgoing) -> Result<(), Malformed> {
    ///         out.push(text);
    ///         out.end_connection();
    ///         Ok(())
    ///     }
    ///     fn decode_reply(&mut self, _: &[u8]) -> Result<Decoded<Vec<u8>>, Malformed> {
    ///         Ok(Decoded::more())
    ///     }
    ///     fn finish_reply(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    ///         Ok(Some(bytes.to_vec()))
    ///     }
    /// }
    /// ```
    fn finish_reply(&mut self, bytes: &[u8]) -> Result<Option<Self::Reply>, Malformed> {
        let _ = bytes;
        Ok(None)
    }

    /// What a server answers where the series of a request failed. `None`, the default, answers nothing and closes the
    /// connection.
    fn failed(&mut self, error: &SeriesError) -> Option<Self::Reply> {
        let _ = error;
        None
    }

    /// What a record says of a request: method, target, version, and so on. Nothing by default.
    fn words(&self, request: &Self::Request) -> Words {
        let _ = request;
        Words::default()
    }

    /// What a record says of a reply, as a number. Nothing by default.
    fn status(&self, reply: &Self::Reply) -> Option<u16> {
        let _ = reply;
        None
    }
}

/// What was found at the front of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<M> {
    /// A message has not come whole.
    More {
        /// So many bytes are done with: the codec has kept what it needs of them, and does not see them again.
        used: usize,
        /// Not worth another look before there are so many of the others; 0 or 1: look when anything comes.
        wanted: usize,
    },
    /// A message.
    Message {
        /// This.
        message: M,
        /// It ends after so many bytes.
        used: usize,
    },
}

impl<M> Decoded<M> {
    /// More is needed, whatever it is.
    pub fn more() -> Decoded<M> {
        Decoded::More { used: 0, wanted: 0 }
    }

    /// Nothing can be said before so many bytes have come, those seen now included.
    pub fn wants(bytes: usize) -> Decoded<M> {
        Decoded::More { used: 0, wanted: bytes }
    }

    /// A message that ends after `used` bytes.
    pub fn message(message: M, used: usize) -> Decoded<M> {
        Decoded::Message { message, used }
    }
}

/// Bytes that are not the protocol, or a message that it cannot express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    /// What is wrong.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed(what.into())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// The bytes of a message, in pieces: small ones are copied together, big ones can be handed over or shared.
#[derive(Debug, Default)]
pub struct Outgoing {
    chunks: Vec<Chunk>,
    tail: Vec<u8>,
    length: usize,
    ends_connection: bool,
}

impl Outgoing {
    /// Starts with an empty buffer that was used before.
    pub(super) fn with_buffer(tail: Vec<u8>) -> Outgoing {
        Outgoing { tail, ..Outgoing::default() }
    }

    /// Appends a copy.
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// A buffer to append to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends bytes without a copy.
    pub fn push(&mut self, chunk: impl Into<Chunk>) {
        let chunk = chunk.into();
        self.seal();
        self.length += chunk.len();
        self.chunks.push(chunk);
    }

    /// Has the connection closed after this reply, which is how a peer knows the end of one that says nothing of its length. Of
    /// a request it is an error: a connection is closed in both directions. To such a peer, an exchange without a reply looks
    /// like an empty one; [`Codec::failed`] can say more.
    pub fn end_connection(&mut self) {
        self.ends_connection = true;
    }

    pub(super) fn ends_connection(&self) -> bool {
        self.ends_connection
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.length + self.tail.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn into_chunks(mut self) -> Vec<Chunk> {
        self.seal();
        self.chunks
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.length += self.tail.len();
            self.chunks.push(Chunk::Owned(std::mem::take(&mut self.tail)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_in_order() {
        let mut out = Outgoing::default();
        out.put(b"a");
        out.put(b"b");
        out.push("cd");
        out.push(Vec::from(*b"e"));
        out.buffer().push(b'f');
        assert_eq!(out.len(), 6);
        let bytes: Vec<u8> = out.into_chunks().iter().flat_map(|chunk| chunk.as_slice().to_vec()).collect();
        assert_eq!(bytes, b"abcdef");
    }
}
