//! The way in: from the kernel, through rustls, to the program.
//!
//! Ciphertext is read into the back of the poller's read buffer and decrypted record by record to its front, which never
//! reaches what is still to be decrypted: a record holds less than it takes. What is left of the last record, being a
//! part, is kept for the next read.

use std::io;

use rustls::Error;
use tidegate_poller::transport::Received;
use tidegate_poller::{Buffers, Fault, Transport as _, Who};

use super::handshake::{fault_of, fault_of_plain_text};
use super::records::RECORD_BYTES;
use super::side::Side;
use super::transport::{OWN_WORDS_BYTES, Phase, Tls, Turn, drive};

/// How much of the read buffer is left free before the ciphertext: what the first record holds.
const HEADROOM: usize = RECORD_BYTES;
/// The least that a read buffer must have to be worked in: two full records. Smaller ones get their bytes from a buffer
/// of this size.
const SPACE_BYTES: usize = 64 * 1024;
/// Most calls of rustls to hear its alert: it comes behind at most a few messages of the handshake.
const LAST_WORDS_MAX: usize = 4;
/// The record types that an alert may have on the wire: its own, or that of all encrypted ones (RFC 8446, 5.1).
const ALERT: u8 = 21;
const ENCRYPTED: u8 = 23;

#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// What came off the wire and waits for the rest: part of a record, or of a message of the handshake.
    pub(super) part: Vec<u8>,
    /// What was decrypted and not handed over, and how much of it was.
    plain: Vec<u8>,
    handed: usize,
    pub(super) peer_end: PeerEnd,
    /// The fault was not told yet: what came with it is to be accounted for, and what came before it handed over, first.
    untold: bool,
    /// The part was not looked at yet: it came behind the end of the handshake, of which the session is told first.
    unread: bool,
}

/// How the peer ended, if it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PeerEnd {
    #[default]
    No,
    /// With close_notify.
    Said,
    /// With FIN alone.
    Bare,
}

impl Incoming {
    /// Whether there is something to hand over or to tell without reading.
    pub(super) fn has_something(&self) -> bool {
        self.handed < self.plain.len() || self.untold || self.unread
    }

    fn keep(&mut self, plain: &[u8], buffers: &mut Buffers) {
        if self.plain.capacity() == 0 {
            self.plain = buffers.take();
        }
        self.plain.extend_from_slice(plain);
    }

    fn hand_over(&mut self, buf: &mut [u8], buffers: &mut Buffers) -> usize {
        let rest = &self.plain[self.handed..];
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.handed += len;
        if self.handed == self.plain.len() {
            self.handed = 0;
            buffers.give(std::mem::take(&mut self.plain));
        }
        len
    }

    fn keep_part(&mut self, part: &[u8], buffers: &mut Buffers) {
        if part.is_empty() {
            buffers.give(std::mem::take(&mut self.part));
        } else {
            if self.part.capacity() == 0 {
                self.part = buffers.take_for(part.len());
            }
            self.part.clear();
            self.part.extend_from_slice(part);
        }
    }
}

impl<S: Side> Tls<S> {
    pub(super) fn receive(
        &mut self,
        buf: &mut [u8],
        allowance: u64,
        buffers: &mut Buffers,
    ) -> io::Result<Received> {
        if self.incoming.handed < self.incoming.plain.len() {
            let plain = self.incoming.hand_over(buf, buffers);
            return Ok(Received { plain, eof: self.is_at_end(), ..Received::default() });
        }
        if self.phase == Phase::Failed || self.incoming.peer_end == PeerEnd::Said {
            return self.discard(buf, allowance, buffers);
        }
        if buf.len() >= SPACE_BYTES {
            return self.receive_in(buf, allowance, buffers);
        }
        let mut space = buffers.take();
        space.resize(SPACE_BYTES, 0);
        let received = self.receive_in(&mut space, allowance, buffers);
        let received = received.map(|received| {
            self.incoming.keep(&space[..received.plain], buffers);
            let plain = self.incoming.hand_over(buf, buffers);
            Received { plain, eof: self.is_at_end(), ..received }
        });
        buffers.give(space);
        received
    }

    /// Whether the peer will send no more, and all it sent was handed over.
    fn is_at_end(&self) -> bool {
        self.incoming.peer_end != PeerEnd::No && !self.incoming.has_something()
    }

    /// Reads into `space`, and leaves at its front what was decrypted.
    fn receive_in(
        &mut self,
        space: &mut [u8],
        allowance: u64,
        buffers: &mut Buffers,
    ) -> io::Result<Received> {
        let start = HEADROOM + self.incoming.part.len();
        if start >= space.len() {
            let fault = Fault {
                who: Who::Peer,
                words: String::from("a message of the peer's handshake is too large"),
            };
            self.fail(fault.clone());
            return Err(fault.into());
        }
        let came = match std::mem::take(&mut self.incoming.unread) {
            true => Received::default(),
            false => self.plain.read(&mut space[start..], allowance, buffers)?,
        };
        if came.eof {
            return self.receive_fin();
        }
        space[HEADROOM..start].copy_from_slice(&self.incoming.part);
        let end = start + came.plain;
        let was_ready = self.phase == Phase::Ready;
        let plain = self.decrypt(space, end, buffers);
        let mut received = Received { plain, eof: false, ..came };
        if !was_ready && plain > 0 {
            // Not before the session knows that it is ready.
            self.incoming.keep(&space[..plain], buffers);
            received.plain = 0;
        }
        received.eof = self.is_at_end();
        Ok(received)
    }

    /// Decrypts what came behind the handshake and was not asked for yet: before anything is written, rustls is to have seen
    /// it.
    pub(super) fn catch_up(&mut self, buffers: &mut Buffers) {
        if !std::mem::take(&mut self.incoming.unread) {
            return;
        }
        let end = HEADROOM + self.incoming.part.len();
        let mut space = buffers.take();
        space.resize(end.max(SPACE_BYTES), 0);
        space[HEADROOM..end].copy_from_slice(&self.incoming.part);
        let plain = self.decrypt(&mut space, end, buffers);
        if plain > 0 {
            self.incoming.keep(&space[..plain], buffers);
        }
        buffers.give(space);
    }

    /// The peer's FIN, and no close_notify before it.
    fn receive_fin(&mut self) -> io::Result<Received> {
        self.incoming.peer_end = PeerEnd::Bare;
        if self.phase == Phase::Handshake {
            self.phase = Phase::Failed;
            self.outgoing.forget();
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer left in the handshake"));
        }
        Ok(Received { eof: true, ..Received::default() })
    }

    /// Decrypts what lies in `space` from the headroom to `end`, to its front. Returns how much that was. A fault is told by
    /// the next read.
    fn decrypt(&mut self, space: &mut [u8], end: usize, buffers: &mut Buffers) -> usize {
        let mut at = HEADROOM;
        let mut plain = 0;
        let was_ready = self.phase == Phase::Ready;
        loop {
            let (front, rest) = space.split_at_mut(at);
            let words = buffers.scratch(OWN_WORDS_BYTES);
            let incoming = &mut rest[..end - at];
            let (turn, discard) =
                drive(&mut self.side, incoming, &mut front[plain..], &mut self.outgoing, words);
            self.look();
            match turn {
                Ok(Turn::Again) if !was_ready && self.phase == Phase::Ready => {
                    // What lies behind may be bytes, or a fault: the session's, which hears first that it is ready.
                    self.incoming.keep_part(&space[at + discard..end], buffers);
                    self.incoming.unread = true;
                    return plain;
                }
                Ok(Turn::Again) => {}
                Ok(Turn::Plain(len)) => plain += len,
                Ok(Turn::PeerClosed) => self.incoming.peer_end = PeerEnd::Said,
                Ok(Turn::Rest) => {
                    self.keep_rest(&space[at + discard..end], buffers);
                    if self.phase == Phase::Handshake && self.incoming.peer_end == PeerEnd::Said {
                        let words = String::from("the peer said goodbye in the handshake");
                        self.fail(Fault { who: Who::Peer, words });
                        self.incoming.untold = true;
                    }
                    return plain;
                }
                Err(error) => {
                    self.fail_by(&error, &mut space[at..end], discard, buffers);
                    self.incoming.untold = true;
                    return plain;
                }
            }
            at += discard;
        }
    }

    /// Keeps the part of a record that came; what follows a close_notify means nothing.
    fn keep_rest(&mut self, rest: &[u8], buffers: &mut Buffers) {
        if self.incoming.peer_end == PeerEnd::Said {
            self.incoming.keep_part(&[], buffers);
        } else {
            self.incoming.keep_part(rest, buffers);
        }
    }

    /// rustls refused what lies in `rest`, of which `discard` bytes are done with: has it say why to the peer.
    fn fail_by(&mut self, error: &Error, rest: &mut [u8], discard: usize, buffers: &mut Buffers) {
        let plain_text = match self.phase {
            // Of TLS, nothing was understood yet.
            Phase::Handshake if self.side.common().protocol_version().is_none() => fault_of_plain_text(rest),
            _ => None,
        };
        let answer = plain_text.as_ref().and_then(|_| self.reception.as_ref()?.answer_plainly(rest));
        if let Some(answer) = answer {
            self.outgoing.say(&answer);
        } else if !matches!(error, Error::AlertReceived(_)) {
            self.hear_last_words(&mut rest[discard..], buffers);
        }
        self.incoming.keep_part(&[], buffers);
        self.fail(plain_text.unwrap_or_else(|| fault_of(error)));
    }

    /// After an error rustls has its alert ready, behind what it had to say before. It must not be asked again once it
    /// was heard: it would look at the bad bytes once more.
    fn hear_last_words(&mut self, rest: &mut [u8], buffers: &mut Buffers) {
        for _ in 0..LAST_WORDS_MAX {
            let words = buffers.scratch(OWN_WORDS_BYTES);
            let before = self.outgoing.waiting();
            let (turn, _) = drive(&mut self.side, rest, &mut [], &mut self.outgoing, words);
            let kind = self.outgoing.kind_of_what_waits_after(before);
            if !matches!(turn, Ok(Turn::Again)) || matches!(kind, Some(ALERT | ENCRYPTED)) {
                return;
            }
        }
    }

    /// After a fault, or the peer's goodbye: what it still sends is read for its FIN only.
    fn discard(&mut self, buf: &mut [u8], allowance: u64, buffers: &mut Buffers) -> io::Result<Received> {
        if std::mem::take(&mut self.incoming.untold)
            && let Some(fault) = &self.fault
        {
            return Err((**fault).clone().into());
        }
        let came = self.plain.read(buf, allowance, buffers)?;
        Ok(Received { plain: 0, ..came })
    }
}
