//! A stream on its way out, framed as its message says.

use std::cell::RefCell;
use std::rc::Rc;

use tidegate_poller::{Pull, Source};

use crate::http::body::BodySource;
use crate::http::codec::chunked::{OVERHEAD_MAX, append_chunk, append_end};
use crate::record::EventFacts;

/// How the other side learns where a body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Framing {
    /// It was told how many bytes there are; so many are still to come.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Pulls a body source for the outbox.
pub(in crate::http) struct Outgoing {
    /// Gone once the outbox is done with it.
    source: Option<Box<dyn BodySource>>,
    framing: Framing,
    /// Framed, and not taken yet: where fewer bytes may go than the framing of one takes.
    pending: Vec<u8>,
    taken: usize,
    /// What the source said last.
    last: Option<Pull>,
    /// A chunk's size has begun with a zero; see [`Reins::probe`].
    probes: bool,
    /// What became of its events, once it is gone.
    events: Option<Box<EventFacts>>,
}

/// A session's hold on a stream that lies, or lay, in its outbox.
pub(in crate::http) struct Reins(Rc<RefCell<Outgoing>>);

impl Reins {
    /// The server is shutting down.
    pub(in crate::http) fn shut_down(&self) {
        if let Some(source) = &mut self.0.borrow_mut().source {
            source.shutting_down();
        }
    }

    /// What became of its events; for the record, once.
    pub(in crate::http) fn events(&self) -> Option<Box<EventFacts>> {
        let mut outgoing = self.0.borrow_mut();
        match &outgoing.source {
            Some(source) => source.events().map(Box::new),
            None => outgoing.events.take(),
        }
    }

    /// Has one byte go although there is nothing to say, to find out whether a peer that sent FIN still reads: if it does
    /// not, its kernel answers with a reset. The byte is the first of the next chunk's size, a zero, as many of which may
    /// stand there as one likes (RFC 9112, section 7.1). Says whether the stream is one where that can be done.
    pub(in crate::http) fn probe(&self) -> bool {
        let mut outgoing = self.0.borrow_mut();
        outgoing.probes = outgoing.framing == Framing::Chunked && outgoing.source.is_some();
        outgoing.probes
    }
}

/// Both the outbox and the session reach it, one after the other.
struct Shared(Rc<RefCell<Outgoing>>);

impl Source for Shared {
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        self.0.borrow_mut().pull(max, out)
    }
}

impl Drop for Shared {
    /// With the outbox's part, the source goes, whoever still holds the reins.
    fn drop(&mut self) {
        let mut outgoing = self.0.borrow_mut();
        let source = outgoing.source.take();
        outgoing.events = source.as_ref().and_then(|source| source.events()).map(Box::new);
        drop(outgoing);
        drop(source);
    }
}

/// What is framed at a time where hardly anything may go.
const SMALL: usize = 64;

impl Outgoing {
    pub(in crate::http) fn new(source: Box<dyn BodySource>, framing: Framing) -> Outgoing {
        let source = Some(source);
        Outgoing { source, framing, pending: Vec::new(), taken: 0, last: None, probes: false, events: None }
    }

    /// For the outbox, and for the session to keep hold of.
    pub(in crate::http) fn share(self) -> (Box<dyn Source>, Reins) {
        let shared = Rc::new(RefCell::new(self));
        let reins = Reins(shared.clone());
        (Box::new(Shared(shared)), reins)
    }

    /// Appends framed bytes: at most `max` of them, or the end.
    fn frame(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let Some(source) = &mut self.source else { return Pull::Failed };
        let pulled = match &mut self.framing {
            Framing::UntilClose => source.pull(max, out),
            Framing::Chunked => append_chunk(out, max, |room, out| source.pull(room, out)),
            Framing::Length(left) => {
                let before = out.len();
                let pulled = source.pull(max, out);
                let made = (out.len() - before) as u64;
                match left.checked_sub(made) {
                    Some(rest) if rest == 0 || pulled != Pull::End => *left = rest,
                    // More than was said, or less: the other side would take what follows for this body, or wait.
                    _ => return Pull::Failed,
                }
                pulled
            }
        };
        if pulled == Pull::End && self.framing == Framing::Chunked {
            append_end(out, source.trailers().as_ref());
        }
        pulled
    }
}

impl Source for Outgoing {
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        if std::mem::take(&mut self.probes) && self.pending.is_empty() && self.last != Some(Pull::End) {
            out.push(b'0');
            return Pull::More;
        }
        if self.pending.is_empty() && self.last != Some(Pull::End) {
            // The last chunk comes on top of the bytes that may go, and has to wait.
            if max > SMALL {
                let pulled = self.frame(max - OVERHEAD_MAX, out);
                self.last = Some(pulled);
                if out.len() <= max {
                    return pulled;
                }
                self.pending.extend_from_slice(&out[max..]);
                out.truncate(max);
            } else {
                let mut pending = std::mem::take(&mut self.pending);
                self.last = Some(self.frame(SMALL, &mut pending));
                self.pending = pending;
            }
        }
        let part = (self.pending.len() - self.taken).min(max - out.len());
        out.extend_from_slice(&self.pending[self.taken..][..part]);
        self.taken += part;
        if self.taken < self.pending.len() {
            return Pull::More;
        }
        self.pending.clear();
        self.taken = 0;
        self.last.unwrap_or(Pull::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::BodyWaker;
    use crate::http::codec::dechunk::{Dechunker, Piece};
    use crate::http::codec::fields::Fields;

    /// Makes a text, so much at a time.
    struct Text(&'static [u8], usize);

    impl BodySource for Text {
        fn attach(&mut self, _: BodyWaker) {}

        fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
            let (now, later) = self.0.split_at(self.0.len().min(max).min(self.1));
            out.extend_from_slice(now);
            self.0 = later;
            if later.is_empty() { Pull::End } else { Pull::More }
        }

        fn trailers(&mut self) -> Option<Fields> {
            let mut fields = Fields::default();
            fields.add("Sum", "a rather long field that comes after the body");
            Some(fields)
        }
    }

    fn all(framing: Framing, text: &'static [u8], max: usize, step: usize) -> (Vec<u8>, Pull) {
        let mut outgoing = Outgoing::new(Box::new(Text(text, step)), framing);
        let mut all = Vec::new();
        loop {
            let mut out = Vec::new();
            let pulled = outgoing.pull(max, &mut out);
            assert!(out.len() <= max, "{} > {max}", out.len());
            all.extend_from_slice(&out);
            match pulled {
                Pull::More => assert!(!out.is_empty()),
                end => return (all, end),
            }
        }
    }

    #[test]
    fn chunks_carry_all_of_it_however_little_may_go_at_a_time() {
        const TEXT: &[u8] = &[b'x'; 1_000];
        for max in [1, 2, 13, 63, 64, 65, 66, 100, 5_000] {
            for step in [1, 7, 2_000] {
                let (bytes, end) = all(Framing::Chunked, TEXT, max, step);
                assert_eq!(end, Pull::End);
                let text = String::from_utf8(bytes).unwrap();
                assert_eq!(text.matches('x').count(), 1_000, "{max} {step}");
                assert!(
                    text.ends_with("\r\n0\r\nSum: a rather long field that comes after the body\r\n\r\n")
                );
            }
        }
    }

    #[test]
    fn a_probe_is_a_byte_that_means_nothing() {
        let (mut source, reins) = Outgoing::new(Box::new(Text(b"hello", 3)), Framing::Chunked).share();
        let mut out = Vec::new();
        while {
            assert!(reins.probe());
            let mut part = Vec::new();
            let pulled = source.pull(100, &mut part);
            assert_eq!((pulled, part.as_slice()), (Pull::More, &b"0"[..]));
            out.append(&mut part);
            let pulled = source.pull(100, &mut part);
            out.append(&mut part);
            pulled == Pull::More
        } {}
        let (mut rest, mut body, mut dechunker) = (out.as_slice(), Vec::new(), Dechunker::default());
        while let Piece::Data(data) = dechunker.next(&mut rest).unwrap() {
            body.extend_from_slice(data);
        }
        assert!(dechunker.is_done() && rest.is_empty() && body == b"hello");
        let (_source, reins) = Outgoing::new(Box::new(Text(b"", 1)), Framing::Length(0)).share();
        assert!(!reins.probe());
        drop(_source);
        assert!(!reins.probe());
    }

    #[test]
    fn a_length_is_kept_or_the_message_is_cut() {
        for max in [1, 100] {
            assert_eq!(all(Framing::Length(5), b"hello", max, 3), (b"hello".to_vec(), Pull::End));
            assert_eq!(all(Framing::Length(6), b"hello", max, 3).1, Pull::Failed);
            assert_eq!(all(Framing::Length(4), b"hello", max, 3).1, Pull::Failed);
            assert_eq!(all(Framing::UntilClose, b"hello", max, 3), (b"hello".to_vec(), Pull::End));
        }
    }
}
