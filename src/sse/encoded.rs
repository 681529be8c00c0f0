//! An event as bytes, made once and shared by all who are to get it. Pure.

use crate::sse::event::{Event, append_id};

/// An encoded event.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Its place among all that its hub published; 0 where there is no hub.
    pub(super) seq: u64,
    /// Its id, where that is not the number above.
    id: Option<Box<str>>,
    key: Option<Box<str>>,
    id_len: u32,
    bytes: Box<[u8]>,
}

impl Encoded {
    /// With the id that it has, or none.
    pub(super) fn new(event: &Event) -> Encoded {
        Encoded::with_id(event, 0, event.id())
    }

    /// With the id that it has, or else the number of its place.
    pub(super) fn numbered(event: &Event, seq: u64) -> Encoded {
        match event.id() {
            Some(id) => Encoded { id: Some(id.into()), ..Encoded::with_id(event, seq, Some(id)) },
            None => Encoded::with_id(event, seq, Some(&seq.to_string())),
        }
    }

    fn with_id(event: &Event, seq: u64, id: Option<&str>) -> Encoded {
        let mut bytes = Vec::new();
        if let Some(id) = id {
            append_id(&mut bytes, id);
        }
        let id_len = bytes.len() as u32;
        event.append_rest(&mut bytes);
        Encoded { seq, id: None, key: event.key().map(Box::from), id_len, bytes: bytes.into_boxed_slice() }
    }

    /// The id it was given; `None` where it is its number.
    pub(super) fn given_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether a later event may take its place, or it that of an earlier one.
    pub(super) fn same_key(&self, other: &Encoded) -> bool {
        self.key == other.key
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many of the bytes, at their start, say the id.
    pub(super) fn id_len(&self) -> usize {
        self.id_len as usize
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_given_or_the_number() {
        let numbered = Encoded::numbered(&Event::data("x"), 7);
        assert_eq!((numbered.bytes(), numbered.given_id()), (&b"id: 7\ndata: x\n\n"[..], None));
        assert_eq!(&numbered.bytes()[numbered.id_len()..], b"data: x\n\n");
        let given = Encoded::numbered(&Event::data("x").with_id("a"), 7);
        assert_eq!((given.bytes(), given.given_id()), (&b"id: a\ndata: x\n\n"[..], Some("a")));
        assert_eq!(Encoded::new(&Event::data("x")).bytes(), b"data: x\n\n");
    }
}
