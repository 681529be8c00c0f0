//! Where the body of a response goes.

use tidegate_poller::Chunk;

#[cfg(feature = "decompression")]
use super::content::{Broken, Coding};
use super::error::ClientError;
use crate::http::Fields;
use crate::http::body::{BodyFeed, Wake};

/// Takes a body in, piece by piece, with its coding taken away.
pub(super) struct Intake {
    to: To,
    #[cfg(feature = "decompression")]
    coding: Option<Coding>,
    /// What came and could not be handed on yet, encoded. Empty: what the coding still holds.
    kept: Option<Vec<u8>>,
    any: bool,
    /// Bytes handed on.
    pub(super) decoded: u64,
    max_bytes: u64,
}

/// Who wants it.
pub(super) enum To {
    /// Whoever waits for all of it.
    Whole(Vec<u8>),
    /// Whoever reads it.
    Reader(BodyFeed),
    /// Nobody: what comes after it on the connection is wanted.
    Nobody,
}

/// Whether there is room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    More,
    /// Not now; the waker will be used.
    Full,
    /// Nobody reads any more.
    Unwanted,
}

/// What is decoded at a time.
#[cfg(feature = "decompression")]
const PIECE: usize = 32 * 1024;

impl Intake {
    pub(super) fn new(to: To, max_bytes: u64) -> Intake {
        Intake {
            to,
            #[cfg(feature = "decompression")]
            coding: None,
            kept: None,
            any: false,
            decoded: 0,
            max_bytes,
        }
    }

    #[cfg(feature = "decompression")]
    pub(super) fn with_coding(self, coding: Option<Coding>) -> Intake {
        Intake { coding, ..self }
    }

    /// Whether bytes wait for room.
    pub(super) fn is_behind(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether nobody reads it any more.
    pub(super) fn is_unwanted(&self) -> bool {
        matches!(&self.to, To::Reader(feed) if feed.is_unwanted())
    }

    /// Takes in bytes of the body.
    pub(super) fn put(&mut self, bytes: &[u8], wake: impl Fn() -> Wake) -> Result<Room, ClientError> {
        debug_assert!(self.kept.is_none(), "what came before goes before");
        self.any = true;
        self.take(bytes, &wake)
    }

    /// Goes on with what could not be handed on.
    pub(super) fn go_on(&mut self, wake: impl Fn() -> Wake) -> Result<Room, ClientError> {
        let kept = self.kept.take().unwrap_or_default();
        self.take(&kept, &wake)
    }

    #[cfg(not(feature = "decompression"))]
    fn take(&mut self, bytes: &[u8], wake: &dyn Fn() -> Wake) -> Result<Room, ClientError> {
        self.hand_on(bytes, wake)
    }

    #[cfg(feature = "decompression")]
    fn take(&mut self, bytes: &[u8], wake: &dyn Fn() -> Wake) -> Result<Room, ClientError> {
        let Some(mut coding) = self.coding.take() else { return self.hand_on(bytes, wake) };
        let room = self.decode(&mut coding, bytes, wake);
        self.coding = Some(coding);
        room
    }

    #[cfg(feature = "decompression")]
    fn decode(
        &mut self,
        coding: &mut Coding,
        mut input: &[u8],
        wake: &dyn Fn() -> Wake,
    ) -> Result<Room, ClientError> {
        let mut piece = vec![0; PIECE];
        loop {
            let (used, made) =
                coding.decode(input, &mut piece).map_err(|Broken(name)| ClientError::Coding(name))?;
            input = &input[used..];
            if made > 0 {
                match self.hand_on(&piece[..made], wake)? {
                    Room::More => {}
                    Room::Full if input.is_empty() && made < PIECE => return Ok(Room::Full),
                    Room::Full => {
                        self.kept = Some(input.to_vec());
                        return Ok(Room::Full);
                    }
                    Room::Unwanted => return Ok(Room::Unwanted),
                }
            }
            if input.is_empty() && made < PIECE {
                return Ok(Room::More);
            }
            if (used, made) == (0, 0) {
                // It goes neither on nor to its end.
                return Err(ClientError::Coding(coding.name()));
            }
        }
    }

    fn hand_on(&mut self, bytes: &[u8], wake: &dyn Fn() -> Wake) -> Result<Room, ClientError> {
        self.decoded += bytes.len() as u64;
        if self.decoded > self.max_bytes {
            return Err(ClientError::BodyTooLarge { max_bytes: self.max_bytes });
        }
        match &mut self.to {
            To::Whole(all) => {
                all.extend_from_slice(bytes);
                Ok(Room::More)
            }
            To::Reader(feed) => {
                let room = feed.push(Chunk::Owned(bytes.to_vec()), wake);
                Ok(match room {
                    _ if feed.is_unwanted() => Room::Unwanted,
                    true => Room::More,
                    false => Room::Full,
                })
            }
            To::Nobody => Ok(Room::More),
        }
    }

    /// Whether the body is whole where its message ends. No byte at all is whole, whatever coding it is said to be in.
    pub(super) fn check_end(&self) -> Result<(), ClientError> {
        #[cfg(feature = "decompression")]
        if let Some(coding) = self.coding.as_ref().filter(|_| self.any) {
            return coding.finish().map_err(|Broken(name)| ClientError::Coding(name));
        }
        Ok(())
    }

    /// The body ended, or was cut.
    pub(super) fn end(self, ended: Result<Option<Fields>, &ClientError>) -> Vec<u8> {
        match (self.to, ended) {
            (To::Whole(all), _) => all,
            (To::Reader(feed), Ok(trailers)) => {
                feed.end(trailers);
                Vec::new()
            }
            (To::Reader(feed), Err(error)) => {
                feed.cut(error.as_body_error());
                Vec::new()
            }
            (To::Nobody, _) => Vec::new(),
        }
    }
}
