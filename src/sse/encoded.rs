//! An event as bytes, made once and shared by all who are to get it. Pure.

use crate::sse::event::{Event, append_id};

/// An encoded event.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Its place among all that its hub published; 0 where there is no hub.
    pub(super) seq: u64,
    /// Its id, where that is not the number above.
    given_id: Option<Box<str>>,
    key: Option<Box<str>>,
    /// Before it lies room that was kept for a number.
    start: u32,
    /// Up to here it says its id.
    id_end: u32,
    bytes: Vec<u8>,
}

/// What the largest number takes as an id.
const NUMBER_ROOM: usize = "id: 18446744073709551615\n".len();

impl Encoded {
    /// With the id that it has; one without can be [numbered](Encoded::number).
    pub(super) fn new(event: &Event) -> Encoded {
        let mut bytes = Vec::new();
        match event.id() {
            Some(id) => append_id(&mut bytes, id),
            None => bytes.resize(NUMBER_ROOM, 0),
        }
        let id_end = bytes.len() as u32;
        event.append_rest(&mut bytes);
        let start = if event.id().is_some() { 0 } else { id_end };
        Encoded {
            seq: 0,
            given_id: event.id().map(Box::from),
            key: event.key().map(Box::from),
            start,
            id_end,
            bytes,
        }
    }

    /// Gives it its place, and that as its id where it has none. Nothing is copied: a hub does this under its lock.
    pub(super) fn number(&mut self, seq: u64) {
        self.seq = seq;
        if self.given_id.is_none() {
            let mut id = [0; NUMBER_ROOM];
            let mut at = id.len() - 1;
            id[at] = b'\n';
            let mut rest = seq;
            loop {
                at -= 1;
                id[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
                if rest == 0 {
                    break;
                }
            }
            at -= "id: ".len();
            id[at..][.."id: ".len()].copy_from_slice(b"id: ");
            self.bytes[at..NUMBER_ROOM].copy_from_slice(&id[at..]);
            self.start = at as u32;
        }
    }

    /// The id it was given; `None` where it is its number.
    pub(super) fn given_id(&self) -> Option<&str> {
        self.given_id.as_deref()
    }

    /// Whether the later of both may take the place of the earlier.
    pub(super) fn same_key(&self, other: &Encoded) -> bool {
        self.key == other.key
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }

    /// How many of the bytes, at their start, say the id.
    pub(super) fn id_len(&self) -> usize {
        (self.id_end - self.start) as usize
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start as usize
    }
}

#[cfg(test)]
pub(super) fn numbered(event: &Event, seq: u64) -> std::sync::Arc<Encoded> {
    let mut encoded = Encoded::new(event);
    encoded.number(seq);
    std::sync::Arc::new(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_given_or_the_number() {
        for (seq, id) in [(7, "7"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            let event = numbered(&Event::data("x"), seq);
            let text = format!("id: {id}\ndata: x\n\n");
            assert_eq!((event.bytes(), event.given_id()), (text.as_bytes(), None));
            assert_eq!((&event.bytes()[event.id_len()..], event.len()), (&b"data: x\n\n"[..], text.len()));
        }
        let given = numbered(&Event::data("x").with_id("a"), 7);
        assert_eq!((given.bytes(), given.given_id()), (&b"id: a\ndata: x\n\n"[..], Some("a")));
        let none = Encoded::new(&Event::data("x"));
        assert_eq!((none.bytes(), none.id_len(), none.len()), (&b"data: x\n\n"[..], 0, 9));
    }
}
