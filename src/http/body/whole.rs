//! A request's body, taken whole.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::http::body::room::{Held, Room};
use crate::http::body::{Body, BodyError};

/// A request's body, taken whole: its bytes.
///
/// They count towards what the whole bodies of its server may take together
/// ([`max_whole_bytes`](crate::http::ServerSettings::max_whole_bytes)) as long as this is there, whoever has it: taken out of
/// the exchange's context, it is counted beyond the exchange, and given back when it is dropped.
/// [`into_bytes`](WholeBody::into_bytes) makes the bytes the program's own, which nobody counts.
#[derive(Default)]
pub struct WholeBody {
    // In this order: the memory goes before its place is given to others.
    bytes: Vec<u8>,
    held: Held,
}

/// What the first bytes of a body of unknown length get, if they are fewer.
const SMALLEST: usize = 64;

impl WholeBody {
    /// The bytes alone. They are not counted any more.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// One to be collected, which counts in a room.
    pub(in crate::http) fn none_of(room: Option<Arc<Room>>) -> WholeBody {
        WholeBody { bytes: Vec::new(), held: Held::none_of(room) }
    }

    /// Where it is counted.
    pub(in crate::http) fn room(&self) -> Option<&Arc<Room>> {
        self.held.room()
    }

    /// Puts bytes behind those that are here. It will have no more than `most` in the end.
    ///
    /// What counts is the memory, which doubles when it is full. So the room is asked a few times for a body, not for each
    /// piece of it, and what is counted is at most twice what has come; never what was announced and has not.
    ///
    /// # Errors
    /// [`BodyError::NoRoom`]; that is counted, and the body is to be given up.
    pub(in crate::http) fn push(&mut self, piece: &[u8], most: u64) -> Result<(), BodyError> {
        let needed = self.bytes.len() + piece.len();
        if needed > self.bytes.capacity() {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let roomy = self.bytes.capacity().saturating_mul(2).max(SMALLEST).min(most).max(needed);
            let grown = [roomy, needed].into_iter().find(|bytes| self.held.grow_to(*bytes as u64));
            let Some(grown) = grown else {
                self.held.room().inspect(|room| room.refuse());
                return Err(BodyError::NoRoom);
            };
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// The bytes, and what counts them.
    #[cfg(feature = "multipart")]
    pub(in crate::http) fn into_parts(self) -> (Vec<u8>, Held) {
        (self.bytes, self.held)
    }
}

impl Deref for WholeBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for WholeBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<B: AsRef<[u8]> + ?Sized> PartialEq<B> for WholeBody {
    fn eq(&self, other: &B) -> bool {
        self.bytes == other.as_ref()
    }
}

/// Bytes of the program's own, in the place of a body that came. They are not counted.
impl From<Vec<u8>> for WholeBody {
    fn from(bytes: Vec<u8>) -> WholeBody {
        WholeBody { bytes, held: Held::default() }
    }
}

impl From<WholeBody> for Vec<u8> {
    fn from(body: WholeBody) -> Vec<u8> {
        body.into_bytes()
    }
}

/// Sends back what came. A reply is not counted.
impl From<WholeBody> for Body {
    fn from(body: WholeBody) -> Body {
        Body::Bytes(body.into_bytes())
    }
}

impl fmt::Debug for WholeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WholeBody({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_counted_is_its_memory_which_is_at_most_twice_what_came(
            pieces in prop::collection::vec(1..5_000_usize, 0..40),
            known in any::<bool>(),
        ) {
            let room = Room::new(None);
            let mut body = WholeBody::none_of(Some(room.clone()));
            let length = pieces.iter().sum::<usize>();
            let most = if known { length as u64 } else { 1_000_000 };
            let mut came = 0;
            for piece in pieces {
                came += piece;
                body.push(&vec![7; piece], most).unwrap();
                prop_assert_eq!(room.held(), body.bytes.capacity() as u64);
                prop_assert!(room.held() <= (2 * came).max(SMALLEST) as u64);
            }
            // Where its length was known, not a byte is held for nothing.
            prop_assert!(!known || room.held() == length as u64);
            prop_assert_eq!(body.len(), length);
            drop(body);
            prop_assert_eq!(room.held(), 0);
        }

        #[test]
        fn the_last_byte_of_the_room_can_be_had_and_no_further_one(
            first in 1..3_000_usize,
            pieces in prop::collection::vec(1..1_000_usize, 1..40),
        ) {
            let length = pieces.iter().sum::<usize>();
            let room = Room::new(Some((first + length) as u64));
            let mut other = WholeBody::none_of(Some(room.clone()));
            other.push(&vec![1; first], first as u64).unwrap();
            // Nobody knows how long it is to be.
            let mut body = WholeBody::none_of(Some(room.clone()));
            for piece in &pieces {
                body.push(&vec![2; *piece], u64::MAX).unwrap();
            }
            prop_assert_eq!((room.held(), room.peak()), (room.max(), room.max()));
            prop_assert_eq!(body.push(b"x", u64::MAX), Err(BodyError::NoRoom));
            prop_assert_eq!((body.len(), room.held(), room.refused()), (length, room.max(), 1));
            drop(other);
            prop_assert!(body.push(&vec![3; first], u64::MAX).is_ok());
        }
    }

    #[test]
    fn bytes_that_are_the_programs_own_are_not_counted() {
        let room = Room::new(Some(10));
        let body = |bytes: &[u8]| {
            let mut body = WholeBody::none_of(Some(room.clone()));
            body.push(bytes, 10).unwrap();
            body
        };
        let taken = body(b"0123456789");
        assert_eq!((&*taken, room.held()), (&b"0123456789"[..], 10));
        let bytes = taken.into_bytes();
        assert_eq!((bytes.len(), room.held()), (10, 0));
        let reply = Body::from(body(b"0123456789"));
        assert_eq!((reply.len(), room.held()), (Some(10), 0));
        assert_eq!(Vec::from(WholeBody::from(bytes)).len(), 10);
    }
}
