//! Bodies: what a message carries, whole or as a stream.
//!
//! A body is a value until a session takes it. A stream is made while it is sent, by a [`BodySource`] that the session
//! pulls on its poller's thread as the gate lets bytes out; [`body_stream`] makes one that tasks write to from any thread.
//! What arrives as a stream is read by tasks from a [`BodyReader`]. Between tasks and sessions lies a pipe (see the
//! module `pipe`), which holds a bounded number of bytes: whoever is faster waits for the other.
//!
//! This module knows neither servers nor clients, and how bodies are framed on the wire is the codec's business.

mod outgoing;
mod pipe;
mod reader;
mod room;
mod source;
mod whole;
mod writer;

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

pub use pipe::Wake;
pub use reader::{BodyFeed, BodyReader, NextChunk};
pub use source::{BodySource, BodyWaker, StreamBody};
pub use whole::WholeBody;
pub use writer::{BodyWriter, Left, ReaderGone, SendChunk, ShuttingDown, TrySendError, body_stream};

pub(in crate::http) use outgoing::{Framing, Outgoing, Reins};
#[cfg(feature = "multipart")]
pub(in crate::http) use room::Held;
pub(in crate::http) use room::Room;

/// To copy so much costs about as much as to hand the kernel one piece more.
const SHORT_MAX: usize = 4 * 1024;

/// A body, before it is known whether it goes (a HEAD request wants only its length).
#[derive(Debug, Default)]
pub enum Body {
    /// None; its length is 0.
    #[default]
    Empty,
    /// Bytes that live as long as the program.
    Static(&'static [u8]),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Bytes that other messages may be sending too.
    Page {
        /// The bytes.
        bytes: Arc<[u8]>,
        /// A hash of them, by which the others are found.
        hash: u64,
    },
    /// A part of bytes that somebody keeps: shared, however many messages send it.
    Part {
        /// The bytes.
        bytes: Arc<[u8]>,
        /// Which of them.
        range: Range<usize>,
    },
    /// A range of a file.
    File {
        /// The file; shared by the messages that send it.
        file: Arc<File>,
        /// Which file it is.
        id: FileId,
        /// Where the range begins.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Made while it is sent.
    Stream(StreamBody),
}

/// What a handler wants of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// All of it, before the handler is called. It counts towards what all of them may take together
    /// ([`max_whole_bytes`](crate::http::ServerSettings::max_whole_bytes)).
    Whole {
        /// A larger one is refused with 413.
        max_bytes: u64,
    },
    /// The handler is called with the head, and reads the body while it arrives.
    Stream {
        /// A larger one is cut, and refused with 413 where that can still be said.
        max_bytes: u64,
    },
    /// Nothing. It is read and thrown away, so that the connection can go on after it.
    Discard {
        /// A larger one is refused with 413, unread.
        max_bytes: u64,
    },
}

/// The body of a request, as its handler wanted it.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// None came, or none was wanted.
    #[default]
    None,
    /// This.
    Whole(WholeBody),
    /// To be read while it arrives.
    Stream(BodyReader),
}

/// Names a file while it is open: device and inode. While somebody has it open, the inode is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

impl Body {
    /// A page that many may ask for. Large ones are in memory once, however many clients are slow in taking them.
    pub fn page(bytes: Vec<u8>) -> Body {
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        Body::Page { hash: hasher.finish(), bytes: bytes.into() }
    }

    /// How many bytes; `None` for a stream that does not say.
    pub fn len(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Static(bytes) => Some(bytes.len() as u64),
            Body::Bytes(bytes) => Some(bytes.len() as u64),
            Body::Page { bytes, .. } => Some(bytes.len() as u64),
            Body::Part { range, .. } => Some(range.len() as u64),
            Body::File { len, .. } => Some(*len),
            Body::Stream(stream) => stream.len(),
        }
    }

    /// Whether it is known to have none.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Its bytes, where they are here and so few that they had better go in one piece with the head before them.
    #[inline]
    pub(in crate::http) fn short(&self) -> Option<&[u8]> {
        match self {
            Body::Empty => Some(&[]),
            Body::Static(bytes) if bytes.len() <= SHORT_MAX => Some(bytes),
            Body::Bytes(bytes) if bytes.len() <= SHORT_MAX => Some(bytes),
            _ => None,
        }
    }
}

impl RequestBody {
    /// Where it is counted, or would be if it were taken whole.
    #[cfg(feature = "multipart")]
    pub(in crate::http) fn room(&self) -> Option<&Arc<Room>> {
        match self {
            RequestBody::None => None,
            RequestBody::Whole(body) => body.room(),
            RequestBody::Stream(reader) => reader.room(),
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Body::Static(text.as_bytes())
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Body {
        Body::Static(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::Bytes(text.into_bytes())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::Bytes(bytes)
    }
}

impl From<StreamBody> for Body {
    fn from(stream: StreamBody) -> Body {
        Body::Stream(stream)
    }
}

/// Why a body did not come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The connection ended before the body did, or was cut.
    Disconnected,
    /// It has more bytes than are taken.
    TooLarge {
        /// How many are.
        max_bytes: u64,
    },
    /// It is not framed as it should be (RFC 9112, section 7).
    Malformed,
    /// The peer sent nothing for too long.
    TimedOut,
    /// Whoever made it gave it up.
    Abandoned,
    /// It was to be taken whole, and the whole bodies of all connections take as much memory as they may
    /// ([`max_whole_bytes`](crate::http::ServerSettings::max_whole_bytes)).
    NoRoom,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Disconnected => f.write_str("the connection ended before the body did"),
            BodyError::TooLarge { max_bytes } => write!(f, "the body has more than {max_bytes} bytes"),
            BodyError::Malformed => f.write_str("the body is not framed as HTTP/1.1 frames it"),
            BodyError::TimedOut => f.write_str("nothing of the body came for too long"),
            BodyError::Abandoned => f.write_str("whoever made the body gave it up"),
            BodyError::NoRoom => f.write_str("there is no room for the body now"),
        }
    }
}

impl std::error::Error for BodyError {}
