//! Bytes that came and are no message yet. Pure.

use super::codec::{Decoded, Malformed};

/// What of a buffer is kept while it is empty.
const BUFFER_KEPT: usize = 4 * 1024;

/// Gathers bytes until a codec makes a message of them, and bounds what one may take.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    bytes: Vec<u8>,
    /// Where what is not used yet begins.
    start: usize,
    /// Bytes of the message at hand that the codec has kept.
    kept: usize,
    /// Not worth a look before there are so many.
    wanted: usize,
}

/// Why there will be no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed(Malformed),
    /// It is longer than a message may be.
    TooLong,
}

impl Inbound {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that are there and not used.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// What is there and not used.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Bytes of a message that has not come whole.
    pub(super) fn partial(&self) -> usize {
        self.kept + self.len()
    }

    /// Whether another look may find something.
    pub(super) fn is_worth_a_look(&self) -> bool {
        self.len() >= self.wanted.max(1)
    }

    /// The next message and its length, if it is there; it may have at most `max` bytes.
    pub(super) fn next<M>(
        &mut self,
        max: usize,
        mut decode: impl FnMut(&[u8]) -> Result<Decoded<M>, Malformed>,
    ) -> Result<Option<(M, usize)>, Fault> {
        while self.is_worth_a_look() {
            let bytes = &self.bytes[self.start..];
            match decode(bytes).map_err(Fault::Malformed)? {
                Decoded::Message { used, .. } | Decoded::More { used, .. } if used > bytes.len() => {
                    return Err(Fault::Malformed(Malformed::new("the codec used more than there is")));
                }
                Decoded::Message { message, used } => {
                    let length = self.kept + used;
                    (self.kept, self.wanted) = (0, 0);
                    self.advance(used);
                    if length > max {
                        return Err(Fault::TooLong);
                    }
                    if length == 0 {
                        return Err(Fault::Malformed(Malformed::new("a message without bytes")));
                    }
                    return Ok(Some((message, length)));
                }
                Decoded::More { used, wanted } => {
                    self.advance(used);
                    self.kept += used;
                    // More than is there, or it would be asked in vain.
                    self.wanted = wanted.max(self.len() + 1);
                    // As many as it may have are not too many yet: the end of the connection may be that of the message.
                    if self.kept.saturating_add(wanted.max(self.len())) > max {
                        return Err(Fault::TooLong);
                    }
                }
            }
        }
        Ok(None)
    }

    fn advance(&mut self, used: usize) {
        self.start += used;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(BUFFER_KEPT);
            self.start = 0;
        } else if self.start > self.bytes.len() / 2 {
            // Moved at most once for each byte that was used.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A length byte, then so many bytes. Gives the first half of a long one away early.
    fn counted(bytes: &[u8]) -> Result<Decoded<Vec<u8>>, Malformed> {
        match bytes.first() {
            Some(0) => Err(Malformed::new("zero")),
            Some(&n) if bytes.len() > n as usize => {
                Ok(Decoded::message(bytes[1..=n as usize].to_vec(), n as usize + 1))
            }
            Some(&n) => Ok(Decoded::wants(n as usize + 1)),
            None => Ok(Decoded::more()),
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..20),
            cuts in proptest::collection::vec(1usize..50, 1..400),
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|m| [&[m.len() as u8][..], m].concat()).collect();
            let (mut inbound, mut rest, mut found) = (Inbound::default(), &wire[..], Vec::new());
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = later;
                inbound.push(now);
                while let Some((message, length)) = inbound.next(256, counted).unwrap() {
                    prop_assert_eq!(length, message.len() + 1);
                    found.push(message);
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert_eq!(inbound.partial(), 0);
        }
    }

    #[test]
    fn a_message_that_would_be_too_long_is_refused_at_its_head() {
        let mut inbound = Inbound::default();
        inbound.push(&[100]);
        assert_eq!(inbound.next(100, counted), Err(Fault::TooLong));
        let mut inbound = Inbound::default();
        inbound.push(&[99]);
        assert_eq!(inbound.next(100, counted), Ok(None));
    }

    #[test]
    fn what_a_codec_keeps_counts_too() {
        let mut inbound = Inbound::default();
        let swallow = |bytes: &[u8]| Ok(Decoded::<()>::More { used: bytes.len(), wanted: 0 });
        inbound.push(&[1; 60]);
        assert_eq!(inbound.next(100, swallow), Ok(None));
        assert_eq!((inbound.len(), inbound.partial()), (0, 60));
        inbound.push(&[1; 60]);
        assert_eq!(inbound.next(100, swallow), Err(Fault::TooLong));
    }

    #[test]
    fn a_codec_that_lies_is_found_out() {
        let mut inbound = Inbound::default();
        inbound.push(&[1]);
        assert!(inbound.next(100, |_| Ok(Decoded::message((), 2))).is_err());
        let mut inbound = Inbound::default();
        inbound.push(&[1]);
        assert!(inbound.next(100, |_| Ok(Decoded::message((), 0))).is_err());
    }
}
