//! The transport: a TLS connection between the gate and a plain socket.
//!
//! Drives rustls' unbuffered connection, whose memory is the caller's: what comes in is decrypted in the poller's read
//! buffer, records are made in the poller's scratch and go to the kernel from there. Only what is under way is kept
//! here, in buffers lent by the poller: part of a record that came in, what the kernel or the allowance did not take.
//! An idle connection holds none.
//!
//! `incoming` has the way in, `outgoing` the way out, `records` their arithmetic.

use std::io::{self, IoSlice};

use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{Error, HandshakeKind};
use tidegate_poller::transport::{Received, Wrote};
use tidegate_poller::{Buffers, Fault, Handshake, Plain, Transport, Who, Wire};

use super::handshake::{describe, fault_of};
use super::incoming::{Incoming, PeerEnd};
use super::outgoing::{Offer, Outgoing};
use super::reception::Reception;
use super::records::Overhead;
use super::side::Side;

/// Enough for each of what rustls has to say at a time: a full record, with what surrounds it.
pub(super) const OWN_WORDS_BYTES: usize = 18 * 1024;

/// The transport for a connection that rustls made, or could not make; a server's has a reception.
pub(super) fn wire<S: Side + 'static>(
    plain: Plain,
    side: Result<S, Error>,
    reception: Option<Reception>,
) -> Wire {
    match side {
        Ok(side) => Wire::Boxed(Box::new(Tls::new(plain, side, reception))),
        Err(error) => {
            let fault = Fault { who: Who::Local, words: error.to_string() };
            Wire::Boxed(Box::new(Unmade { plain, fault }))
        }
    }
}

/// One side of a TLS connection on a socket.
pub(super) struct Tls<S> {
    pub(super) plain: Plain,
    pub(super) side: S,
    pub(super) phase: Phase,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    overhead: Overhead,
    /// Our close_notify was made.
    goodbye: bool,
    pub(super) fault: Option<Box<Fault>>,
    pub(super) reception: Option<Reception>,
}

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Ready,
    Failed,
}

/// What driving the connection came to.
pub(super) enum Turn {
    /// There is more to do.
    Again,
    /// So many bytes for the program, to the front of what was given for them.
    Plain(usize),
    /// The peer's close_notify; what follows it means nothing.
    PeerClosed,
    /// Nothing more without more from the peer.
    Rest,
}

impl<S: Side> Tls<S> {
    fn new(plain: Plain, side: S, reception: Option<Reception>) -> Tls<S> {
        let mut tls = Tls {
            plain,
            side,
            phase: Phase::Handshake,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            overhead: Overhead::default(),
            goodbye: false,
            fault: None,
            reception,
        };
        // A client begins; what it says first waits for the connection.
        let mut words = [0; OWN_WORDS_BYTES];
        if let Err(error) = tls.settle(&mut words) {
            tls.fail(fault_of(&error));
        }
        tls
    }

    /// Has rustls say what it has to say, with nothing new from the peer.
    fn settle(&mut self, words: &mut [u8]) -> Result<(), Error> {
        loop {
            let mut part = std::mem::take(&mut self.incoming.part);
            let (turn, discard) = drive(&mut self.side, &mut part, &mut [], &mut self.outgoing, words);
            part.drain(..discard);
            self.incoming.part = part;
            match turn? {
                Turn::Again => {}
                Turn::Plain(_) | Turn::PeerClosed | Turn::Rest => return Ok(()),
            }
        }
    }

    /// Looks whether the handshake is done.
    pub(super) fn look(&mut self) {
        if self.phase == Phase::Handshake && !self.side.common().is_handshaking() {
            self.phase = Phase::Ready;
            self.overhead = Overhead::of(self.side.common());
            if let Some(reception) = &self.reception {
                reception.is_ready(self.side.common().handshake_kind() == Some(HandshakeKind::Resumed));
            }
        }
    }

    /// It is over; what there is to say about it waits to be written.
    pub(super) fn fail(&mut self, fault: Fault) {
        if self.phase == Phase::Handshake
            && let Some(reception) = &self.reception
        {
            reception.has_failed();
        }
        self.phase = Phase::Failed;
        self.fault.get_or_insert(Box::new(fault));
    }

    /// Makes records of what is offered, as much as goes into `room` bytes, and writes them.
    fn write_records(
        &mut self,
        offer: &mut Offer<'_>,
        room: u64,
        more: bool,
        buffers: &mut Buffers,
        wrote: &mut Wrote,
    ) -> io::Result<()> {
        let (side, part) = (&mut self.side, &mut self.incoming.part);
        let made = self.outgoing.make_records(side, part, offer, room, self.overhead, buffers);
        match made {
            Ok(0) => Ok(()),
            Ok(made) => self.outgoing.write_made(&mut self.plain, made, room, more, buffers, wrote),
            Err(error) => {
                let fault = fault_of(&error);
                self.fail(fault.clone());
                Err(fault.into())
            }
        }
    }
}

/// Has rustls look at `incoming` once. What it says goes to `outgoing` by way of `words`, what it decrypts to `plain`.
/// Also returns how many bytes of `incoming` are done with.
pub(super) fn drive<S: Side>(
    side: &mut S,
    incoming: &mut [u8],
    plain: &mut [u8],
    outgoing: &mut Outgoing,
    words: &mut [u8],
) -> (Result<Turn, Error>, usize) {
    let UnbufferedStatus { mut discard, state } = side.process(incoming);
    let turn = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => match data.encode(words) {
            Ok(len) => {
                outgoing.say(&words[..len]);
                Ok(Turn::Again)
            }
            Err(error) => Err(Error::General(error.to_string())),
        },
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It lies in `outgoing`, ahead of everything that comes later.
            data.done();
            Ok(Turn::Again)
        }
        Ok(ConnectionState::ReadTraffic(mut records)) => {
            let mut len = 0;
            let mut turn = Ok(());
            while let Some(record) = records.next_record() {
                match record {
                    Ok(record) if record.payload.len() <= plain.len() - len => {
                        plain[len..len + record.payload.len()].copy_from_slice(record.payload);
                        len += record.payload.len();
                        discard += record.discard;
                    }
                    Ok(_) => turn = Err(Error::General(String::from("no room for what was decrypted"))),
                    Err(error) => turn = Err(error),
                }
            }
            turn.map(|()| Turn::Plain(len))
        }
        Ok(ConnectionState::PeerClosed) => Ok(Turn::PeerClosed),
        Ok(
            ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake | ConnectionState::Closed,
        ) => Ok(Turn::Rest),
        // Early data is never asked for.
        Ok(state) => Err(Error::General(format!("unexpected state {state:?}"))),
    };
    (turn, discard)
}

impl<S: Side> Transport for Tls<S> {
    fn read(&mut self, buf: &mut [u8], wire_allowance: u64, buffers: &mut Buffers) -> io::Result<Received> {
        self.receive(buf, wire_allowance, buffers)
    }

    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        wire_allowance: u64,
        more: bool,
        buffers: &mut Buffers,
    ) -> io::Result<Wrote> {
        self.catch_up(buffers);
        let mut wrote = Wrote::default();
        let mut offer = Offer::new(bufs, self.outgoing.in_flight());
        loop {
            let room = wire_allowance - wrote.wire;
            self.outgoing.flush(&mut self.plain, room, more || !offer.is_empty(), buffers, &mut wrote)?;
            let room = wire_allowance - wrote.wire;
            let stopped = wrote.full || self.outgoing.is_waiting() || room == 0;
            if stopped || self.phase != Phase::Ready || offer.is_empty() {
                return Ok(wrote);
            }
            self.write_records(&mut offer, room, more, buffers, &mut wrote)?;
        }
    }

    fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    fn wire_bytes(&self, plain: u64) -> u64 {
        let fresh = plain.saturating_sub(self.outgoing.in_flight() as u64);
        self.overhead.wire_bytes(fresh) + self.outgoing.waiting() as u64
    }

    fn plain_bytes(&self, wire: u64) -> u64 {
        self.overhead.plain_bytes(wire.saturating_sub(self.outgoing.waiting() as u64))
    }

    fn wants_write(&self) -> bool {
        self.outgoing.is_waiting()
    }

    fn wants_read(&self) -> bool {
        self.incoming.has_something()
    }

    fn finish(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        self.catch_up(buffers);
        if self.phase == Phase::Ready && !std::mem::replace(&mut self.goodbye, true) {
            let said = {
                let words = buffers.scratch(OWN_WORDS_BYTES);
                self.outgoing.say_goodbye(&mut self.side, &mut self.incoming.part, words)
            };
            if let Err(error) = said {
                return Err(fault_of(&error).into());
            }
        }
        if self.outgoing.is_waiting() { Ok(false) } else { self.plain.finish(buffers) }
    }

    fn handshake(&self) -> Option<Handshake> {
        let agreed = describe(self.side.common(), self.side.server_name());
        let fault = self.fault.as_ref().map(|fault| fault.words.clone());
        Some(Handshake { truncated: self.is_truncated(), fault, ..agreed })
    }

    fn is_truncated(&self) -> bool {
        self.incoming.peer_end == PeerEnd::Bare
    }

    fn plain(&self) -> &Plain {
        &self.plain
    }

    fn plain_mut(&mut self) -> &mut Plain {
        &mut self.plain
    }
}

/// What stands for a connection that could not be made: it fails at the first look.
struct Unmade {
    plain: Plain,
    fault: Fault,
}

impl Transport for Unmade {
    fn read(&mut self, _buf: &mut [u8], _allowance: u64, _buffers: &mut Buffers) -> io::Result<Received> {
        Err(self.fault.clone().into())
    }

    fn write(
        &mut self,
        _bufs: &[IoSlice<'_>],
        _allowance: u64,
        _more: bool,
        _buffers: &mut Buffers,
    ) -> io::Result<Wrote> {
        Err(self.fault.clone().into())
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn wants_read(&self) -> bool {
        true
    }

    fn finish(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        self.plain.finish(buffers)
    }

    fn handshake(&self) -> Option<Handshake> {
        Some(Handshake { fault: Some(self.fault.words.clone()), ..Handshake::default() })
    }

    fn plain(&self) -> &Plain {
        &self.plain
    }

    fn plain_mut(&mut self) -> &mut Plain {
        &mut self.plain
    }
}
