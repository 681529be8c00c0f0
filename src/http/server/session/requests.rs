//! The reading side of a connection: heads are found in what arrives, and handed on one by one.

use std::sync::Arc;

use tidegate_poller::Io;
use tidegate_poller::moment::Moment;
use tidegate_poller::record::Reason;

use super::answer::contained;
use super::{HttpSession, Reading};
use crate::http::body::{Intake, RequestBody};
use crate::http::codec::request::{Parsed, Refused, Request, parse};
use crate::http::server::exchange::{Asked, Exchange};
use crate::http::server::incoming::Incoming;
use crate::http::server::reply::Reply;
use crate::http::{Method, StatusCode};

/// The most replies queued at a time.
const AHEAD_MAX: usize = 16;

impl HttpSession {
    /// Uses what it can of `input`; says how much. `first` is what was read at its front already, if that was.
    pub(super) fn advance(
        &mut self,
        io: &mut Io<'_>,
        input: &[u8],
        mut first: Option<(Parsed, Arc<Request>)>,
    ) -> usize {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.reading {
                Reading::Head if rest.is_empty() || !self.may_answer(io) => break,
                Reading::Head => match first.take().unwrap_or_else(|| self.parse(rest)) {
                    (Parsed::Partial, request) => {
                        self.seat.give_request(request);
                        self.work().partial = Some(rest.len());
                        break;
                    }
                    (Parsed::Head { consumed }, request) => {
                        used += consumed;
                        self.begin(io, request, consumed);
                    }
                    (Parsed::Refused(refused), request) => {
                        used += refused.consumed;
                        self.refuse(io, refused, request);
                    }
                },
                Reading::Body => {
                    used += self.take_body(io, rest);
                    if self.reading == Reading::Body {
                        break;
                    }
                }
                Reading::Handler => break,
                Reading::Shut => {
                    used = input.len();
                    break;
                }
            }
        }
        used
    }

    /// Reads a head into the request of an exchange that is over, where there is one.
    pub(super) fn parse(&self, bytes: &[u8]) -> (Parsed, Arc<Request>) {
        let mut request = self.seat.take_request();
        if let Some(head) = Arc::get_mut(&mut request) {
            return (self.parse_into(head, bytes), request);
        }
        // Somebody who once had it has a weak hold on it still.
        let mut fresh = Request::default();
        (self.parse_into(&mut fresh, bytes), Arc::new(fresh))
    }

    fn parse_into(&self, request: &mut Request, bytes: &[u8]) -> Parsed {
        if request.is_at_front_of(bytes) {
            // The same bytes within the same limits are the same request: what a client asks again and again, or a crowd of
            // them asks at once, is read once.
            return Parsed::Head { consumed: request.head_len() };
        }
        parse(bytes, &self.seat.settings.head_limits, request)
    }

    pub(super) fn advance_input(&mut self, io: &mut Io<'_>) {
        let mut input = std::mem::take(&mut self.work().input);
        self.work().partial = None;
        let used = self.advance(io, &input, None);
        input.drain(..used);
        self.work().input = input;
    }

    /// Room was made: what waits is looked at.
    pub(super) fn go_on(&mut self, io: &mut Io<'_>) {
        if self.work.as_ref().is_some_and(|work| !work.input.is_empty() && work.partial.is_none()) {
            self.advance_input(io);
        }
        self.settle(io);
    }

    /// Whether another reply may be queued.
    pub(super) fn may_answer(&self, io: &Io<'_>) -> bool {
        self.work.as_ref().is_none_or(|work| work.exchanges.len() < AHEAD_MAX && !work.alone)
            && !io.above_high()
    }

    pub(super) fn open_exchange(&mut self, asked: Asked, head_in: usize, now: Moment) {
        self.exchanges += 1;
        let id = u64::from(self.exchanges);
        let work = self.work();
        let started = work.head_since.take().unwrap_or(now);
        // What is left of the latest bytes belongs to the next head.
        work.head_since = work.latest;
        work.partial = None;
        // Most connections have one at a time, and a stream keeps its for long: no room for more until there are more.
        if work.exchanges.capacity() == 0 {
            work.exchanges.reserve_exact(1);
        }
        work.exchanges.push_back(Exchange::new(id, asked, started, head_in as u64));
    }

    fn begin(&mut self, io: &mut Io<'_>, request: Arc<Request>, head_in: usize) {
        if self.seat.settings.max_requests.is_some_and(|most| self.exchanges.saturating_add(1) >= most) {
            self.last_next = true;
        }
        let tunnel = match *request.method() {
            Method::CONNECT => Some(true),
            Method::TRACE => Some(false),
            _ => None,
        };
        if !request.has_body() && tunnel.is_none() {
            self.open_exchange(Asked::Request(request), head_in, io.now());
            return self.handle(io, RequestBody::None, None);
        }
        let intake = match tunnel {
            None => contained("what chooses the intake", || self.seat.handler.intake(&request)),
            Some(_) => Some(Intake::Stream { max_bytes: u64::MAX }),
        };
        let Some(intake) = intake else {
            // Nobody knows what is to become of the body.
            self.open_exchange(Asked::Request(request), head_in, io.now());
            return self.last_reply(io, Reply::error(StatusCode::INTERNAL_SERVER_ERROR), Reason::Internal);
        };
        let (length, expected) = (request.body_length(), request.expects_continue());
        self.open_exchange(Asked::Request(request), head_in, io.now());
        let (mut incoming, reader) = Incoming::new(length, intake, self.seat.room());
        incoming.expected = expected;
        if incoming.is_too_large() {
            return self.last_reply(io, Reply::error(StatusCode::PAYLOAD_TOO_LARGE), Reason::Denied);
        }
        if !incoming.has_room() {
            return self.last_reply(io, Reply::no_room(), Reason::Denied);
        }
        if length != Some(0) {
            self.reading = Reading::Body;
            self.work().incoming = Some(Box::new(incoming));
        }
        if let Some(tunnel) = tunnel {
            // What follows a CONNECT would be another protocol's.
            let refused = Reply::error(StatusCode::NOT_IMPLEMENTED);
            drop(reader);
            return self.reply(io, if tunnel { refused.closing() } else { refused });
        }
        match (intake, reader) {
            (Intake::Stream { .. }, Some(reader)) => {
                if expected {
                    self.wake_when_wanted(io);
                }
                self.handle(io, RequestBody::Stream(reader), None);
            }
            (Intake::Whole { .. }, _) if expected => self.send_continue(io),
            // The client is not asked to send what nobody wants. It may do so after all: no telling what comes next.
            (Intake::Discard { .. }, _) if expected => {
                self.last_next = true;
                self.work().incoming = None;
                self.reading = Reading::Handler;
                self.handle(io, RequestBody::None, None);
            }
            _ => {}
        }
    }

    fn refuse(&mut self, io: &mut Io<'_>, refused: Refused, request: Arc<Request>) {
        let reason = match refused.status {
            StatusCode::BAD_REQUEST | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Reason::ProtocolError,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::Denied,
            _ => Reason::LocalClose,
        };
        let asked = match refused.line {
            None => Asked::Request(request),
            Some(line) => Asked::Broken(line),
        };
        self.open_exchange(asked, refused.consumed, io.now());
        self.last_reply(io, Reply::explained(refused.status, refused.advice), reason);
    }
}

/// Whether bytes that came after an incomplete head may have completed it: looking again at every byte of a head
/// that comes one byte at a time would cost the square of its length. `head_max` is the most that a head may have.
pub(super) fn worth_a_look(partial: Option<usize>, held: usize, fresh: &[u8], head_max: usize) -> bool {
    match partial {
        Some(looked_at) => {
            let length = held + fresh.len();
            fresh.contains(&b'\n') || length >= looked_at * 2 || length >= head_max
        }
        None => false,
    }
}
