//! The body of a request while it comes in: how it is framed, how much of it is taken, and where its bytes go.
//!
//! Pure but for the pipe to whoever reads it. The session gives it bytes and is told what they came to; what follows from
//! that (an error page, a pause in reading, the handler's call) is the session's.

use std::sync::Arc;

use crate::http::body::{BodyError, BodyFeed, BodyReader, Intake, Room, Wake, WholeBody};
use crate::http::codec::dechunk::{ChunkError, Dechunker, Piece};
use crate::http::codec::fields::Fields;

/// How much of a body that nobody wants is read and thrown away, so that the connection can go on after it. A new
/// connection costs the client about as much as sending this.
const DRAIN_MAX: u64 = 64 * 1024;
/// Bytes that wait for a handler that reads while they arrive, and one read of the socket more.
const STREAM_BYTES: usize = 64 * 1024;

/// A body on its way in.
pub(super) struct Incoming {
    framing: Framing,
    to: To,
    /// The most that is taken.
    max_bytes: u64,
    /// Bytes of the body so far, framing apart.
    taken: u64,
    /// The client waits for `100 Continue`.
    pub(super) expected: bool,
    /// There is no room for more of it; reading stops until its reader makes some.
    pub(super) full: bool,
    /// Nothing more of it is read.
    pub(super) stopped: bool,
}

enum Framing {
    Length(u64),
    Chunked(Box<Dechunker>),
}

enum To {
    Whole(WholeBody),
    Stream(BodyFeed),
    /// It was to be read, and its reader is gone.
    NobodyAnyMore,
    Nobody,
}

/// What bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// More is to come.
    More,
    /// More is to come, and not to be read now.
    Full,
    /// It is complete.
    End,
    /// It has more bytes than are taken.
    TooLarge,
    /// Others have taken the room that it would need.
    NoRoom,
    /// Nobody wants it, and it is too long to be thrown away.
    Unwanted,
    /// Its end cannot be found.
    Broken(ChunkError),
}

/// What came of a body that a handler is given whole.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) body: Option<WholeBody>,
    pub(super) trailers: Option<Fields>,
}

impl Incoming {
    /// A body of this length, or chunked, for a handler that wants it so; and the reader's end, where it is to be read
    /// while it arrives. Taken whole, it counts in the `room`.
    pub(super) fn new(
        length: Option<u64>,
        intake: Intake,
        room: &Arc<Room>,
    ) -> (Incoming, Option<BodyReader>) {
        let (to, max_bytes, reader) = match intake {
            // For more there is never room: no use in trying again.
            Intake::Whole { max_bytes } => {
                (To::Whole(WholeBody::none_of(Some(room.clone()))), max_bytes.min(room.max()), None)
            }
            Intake::Discard { max_bytes } => (To::Nobody, max_bytes, None),
            Intake::Stream { max_bytes } => {
                let (feed, reader) = BodyFeed::with_room(STREAM_BYTES, length, Some(room.clone()));
                (To::Stream(feed), max_bytes, Some(reader))
            }
        };
        let framing = match length {
            Some(length) => Framing::Length(length),
            None => Framing::Chunked(Box::default()),
        };
        (Incoming { framing, to, max_bytes, taken: 0, expected: false, full: false, stopped: false }, reader)
    }

    /// Whether it is known to have more bytes than are taken.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.framing, Framing::Length(length) if length > self.max_bytes)
    }

    /// Whether it could be taken, as things stand, as it is wanted.
    pub(super) fn has_room(&self) -> bool {
        let length = match self.framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked(_) => None,
        };
        match &self.to {
            To::Whole(body) => body.room().is_none_or(|room| room.is_there_for(length)),
            To::Stream(_) | To::NobodyAnyMore | To::Nobody => true,
        }
    }

    /// The most that is taken of it.
    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Whether somebody reads it, while it arrives.
    pub(super) fn is_read(&self) -> bool {
        matches!(&self.to, To::Stream(feed) if !feed.is_unwanted())
    }

    /// Whether the handler is called before it is complete.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.to, To::Stream(_) | To::NobodyAnyMore)
    }

    /// Whether so much is left, for all that is known, that the connection had better end.
    pub(super) fn is_not_worth_draining(&self) -> bool {
        matches!(self.framing, Framing::Length(left) if left > DRAIN_MAX)
    }

    /// Has the session woken when its reader first asks for bytes.
    pub(super) fn when_wanted(&self, wake: Wake) {
        if let To::Stream(feed) = &self.to {
            feed.when_wanted(wake);
        }
    }

    /// Takes what it can from the front of `input`. `wake` makes what is called when there is room again.
    pub(super) fn take(&mut self, input: &mut &[u8], wake: impl Fn() -> Wake) -> Came {
        loop {
            // The end needs no room.
            if matches!(self.framing, Framing::Length(0)) {
                return Came::End;
            }
            if self.stopped || self.full && self.is_read() {
                return Came::Full;
            }
            self.full = false;
            let data = match self.framing.next(input) {
                Ok(Piece::Data(data)) => data,
                Ok(Piece::More) => return Came::More,
                Ok(Piece::End) => return Came::End,
                Err(error) => return Came::Broken(error),
            };
            self.expected = false;
            self.taken = self.taken.saturating_add(data.len() as u64);
            if matches!(&self.to, To::Stream(feed) if feed.is_unwanted()) {
                self.abandon();
            }
            if self.taken > self.max_bytes {
                return if matches!(self.to, To::NobodyAnyMore) { Came::Unwanted } else { Came::TooLarge };
            }
            match &mut self.to {
                To::Whole(body) => {
                    let most = match self.framing {
                        Framing::Length(left) => self.taken + left,
                        Framing::Chunked(_) => self.max_bytes,
                    };
                    if body.push(data, most).is_err() {
                        return Came::NoRoom;
                    }
                }
                To::Stream(feed) => self.full = !feed.push(data.to_vec(), &wake),
                To::Nobody | To::NobodyAnyMore => {}
            }
        }
    }

    /// It is complete: its reader is told, or what was collected is handed on.
    pub(super) fn end(mut self) -> Collected {
        let trailers = match &mut self.framing {
            Framing::Chunked(dechunker) => dechunker.take_trailers(),
            Framing::Length(_) => None,
        };
        match self.to {
            To::Whole(body) => Collected { body: Some(body), trailers },
            To::Nobody | To::NobodyAnyMore => Collected { body: None, trailers },
            To::Stream(feed) => {
                feed.end(trailers);
                Collected::default()
            }
        }
    }

    /// It does not come whole: its reader is told why.
    pub(super) fn cut(self, error: BodyError) {
        if let To::Stream(feed) = self.to {
            feed.cut(error);
        }
    }

    /// What still comes is thrown away, up to a bound.
    fn abandon(&mut self) {
        self.to = To::NobodyAnyMore;
        self.max_bytes = self.taken.saturating_add(DRAIN_MAX);
    }
}

impl Framing {
    fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, ChunkError> {
        match self {
            Framing::Chunked(dechunker) => dechunker.next(input),
            Framing::Length(_) if input.is_empty() => Ok(Piece::More),
            Framing::Length(left) => {
                let part = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(part);
                *input = rest;
                *left -= part as u64;
                Ok(Piece::Data(data))
            }
        }
    }
}
