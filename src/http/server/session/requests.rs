//! The reading side of a connection: heads are found in what arrives, and handed on one by one.

use std::sync::Arc;

use tidegate_poller::Io;
use tidegate_poller::moment::Moment;
use tidegate_poller::record::Reason;

use super::{HttpSession, Reading};
use crate::http::Method;
use crate::http::StatusCode;
use crate::http::body::Intake;
use crate::http::codec::request::{HEAD_MAX, Parsed, Refused, Request, parse};
use crate::http::server::exchange::{Asked, Exchange};
use crate::http::server::reply::Reply;

/// The most replies queued at a time.
const AHEAD_MAX: usize = 16;

impl HttpSession {
    /// Uses what it can of `input`; says how much.
    pub(super) fn advance(&mut self, io: &mut Io<'_>, input: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.reading {
                Reading::Head if rest.is_empty() || !self.may_answer(io) => break,
                Reading::Head => match parse(rest) {
                    Parsed::Partial => {
                        self.work().partial = Some(rest.len());
                        break;
                    }
                    Parsed::Head { request, consumed } => {
                        used += consumed;
                        self.begin(io, request, consumed);
                    }
                    Parsed::Refused(refused) => {
                        used += refused.consumed;
                        self.refuse(io, refused);
                    }
                },
                Reading::Body => {
                    let work = self.work();
                    let part = work.body_left.min(rest.len() as u64);
                    work.body_left -= part;
                    if let Some(body) = &mut work.body {
                        body.extend_from_slice(&rest[..part as usize]);
                    }
                    used += part as usize;
                    if let Some(exchange) = work.exchanges.back_mut() {
                        exchange.body_in += part;
                    }
                    if work.body_left > 0 {
                        break;
                    }
                    self.handle(io);
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

    pub(super) fn advance_input(&mut self, io: &mut Io<'_>) {
        let mut input = std::mem::take(&mut self.work().input);
        self.work().partial = None;
        let used = self.advance(io, &input);
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
        self.work.as_ref().is_none_or(|work| work.exchanges.len() < AHEAD_MAX) && !io.above_high()
    }

    pub(super) fn open_exchange(&mut self, asked: Asked, head_in: usize, now: Moment) {
        self.exchanges += 1;
        let id = u64::from(self.exchanges);
        let work = self.work();
        let started = work.head_since.take().unwrap_or(now);
        // What is left of the latest bytes belongs to the next head.
        work.head_since = work.latest;
        work.partial = None;
        work.exchanges.push_back(Exchange::new(id, asked, started, head_in as u64));
    }

    pub(super) fn begin(&mut self, io: &mut Io<'_>, request: Request, head_in: usize) {
        let body = request.body_length();
        let (max_bytes, whole) = match self.seat.handler.intake(&request) {
            Intake::Whole { max_bytes } | Intake::Stream { max_bytes } => (max_bytes, true),
            Intake::Discard { max_bytes } => (max_bytes, false),
        };
        let refused = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let unread = body > max_bytes || request.expects_continue();
        self.open_exchange(Asked::Request(Arc::new(request)), head_in, io.now());
        if body == 0 {
            self.handle(io);
        } else if !unread {
            let work = self.work();
            work.body_left = body;
            work.body = whole.then(Vec::new);
            self.reading = Reading::Body;
        } else if refused {
            // It will be refused for its method, which says more than its size does.
            self.last_next = true;
            self.handle(io);
        } else if body > max_bytes {
            self.last_reply(io, Reply::error(StatusCode::PAYLOAD_TOO_LARGE), Reason::Denied);
        } else {
            // A client that waits for "100 Continue" may send the body after all: no telling what comes next.
            self.last_next = true;
            self.handle(io);
        }
    }

    pub(super) fn refuse(&mut self, io: &mut Io<'_>, refused: Refused) {
        let reason = match refused.status {
            StatusCode::BAD_REQUEST | StatusCode::HTTP_VERSION_NOT_SUPPORTED => Reason::ProtocolError,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::Denied,
            _ => Reason::LocalClose,
        };
        let asked = match refused.request {
            Some(request) => Asked::Request(Arc::new(*request)),
            None => Asked::Broken(refused.line),
        };
        self.open_exchange(asked, refused.consumed, io.now());
        self.last_reply(io, Reply::explained(refused.status, refused.advice), reason);
    }
}

/// Whether bytes that came after an incomplete head may have completed it: looking again at every byte of a head
/// that comes one byte at a time would cost the square of its length.
pub(super) fn worth_a_look(partial: Option<usize>, held: usize, fresh: &[u8]) -> bool {
    match partial {
        Some(looked_at) => {
            let length = held + fresh.len();
            fresh.contains(&b'\n') || length >= looked_at * 2 || length >= HEAD_MAX
        }
        None => false,
    }
}
