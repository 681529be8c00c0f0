//! The short way of an exchange: nothing of it is kept but its reply's bytes.
//!
//! For a request without a body that arrives alone and whole while nothing is under way, whose handler leaves no task and a
//! short reply, where nobody records. That is most of what a busy server without a log does. The way leads to the same bytes
//! as the long one; where it turns out not to be open, the exchange goes the long way from there.
//!
//! With nothing kept, nobody is told when the reply has gone. So it is short, only the next one can be queued behind it (and
//! that goes the long way), and who ends an idle connection looks whether something is still to go.

use std::sync::Arc;

use tidegate_poller::Io;

use super::{HttpSession, Reading};
use crate::http::Method;
use crate::http::body::{Framing, RequestBody};
use crate::http::codec::request::{Parsed, Request};
use crate::http::server::exchange::Asked;
use crate::http::server::handler::ExchangeContext;
use crate::http::server::reply::{Persistence, Reply, sends_body, write_head};
use crate::task::Series;

impl HttpSession {
    /// Whether nothing is under way and nothing about to end, so that the next exchange may go the short way.
    #[inline]
    pub(super) fn is_at_rest(&self, io: &Io<'_>) -> bool {
        self.seat.unrecorded
            && self.work.is_none()
            && self.reading == Reading::Head
            && !self.last_next
            && !self.has_freed
            && io.queued() == 0
    }

    /// Answers the request that `bytes` are, and is done with it; gives back what was read at their front where nobody has
    /// been asked for an answer yet.
    pub(super) fn answer_at_once(&mut self, io: &mut Io<'_>, bytes: &[u8]) -> Option<(Parsed, Arc<Request>)> {
        let (parsed, request) = self.parse(bytes);
        match parsed {
            Parsed::Head { consumed } if consumed == bytes.len() && is_plain(&request) => {}
            other => return Some((other, request)),
        }
        let mut series = self.series(io, request, RequestBody::None);
        let handled = self.call_handler(io, &mut series);
        let over = handled && series.is_over();
        if over {
            self.finish_series(&mut series);
            if self.send_at_once(io, &mut series.context) {
                self.exchanges += 1;
                self.set_deadline(io, Some(io.now() + self.seat.settings.idle_timeout));
                let Series { context: ExchangeContext { request, .. }, .. } = series;
                self.seat.give_request(request);
                return None;
            }
        }
        let request = series.context.request().clone();
        self.open_exchange(Asked::Request(request), bytes.len(), io.now());
        match (handled, over) {
            (false, _) => self.end_panicked(io, series),
            (true, true) => self.reply_by(io, &mut series.context.reply),
            (true, false) => self.go_on_with(io, series),
        }
        self.settle(io);
        None
    }

    /// Queues the reply, if that is all there is to do.
    fn send_at_once(&mut self, io: &mut Io<'_>, context: &mut ExchangeContext) -> bool {
        let reply: &mut Reply = &mut context.reply;
        let Some(body) = reply.body.short().filter(|_| !reply.close && reply.pacing.is_none()) else {
            return false;
        };
        let framing = Framing::Length(body.len() as u64);
        let mut out = io.buffer();
        let clock = &mut self.seat.clock.borrow_mut();
        write_head(&mut out, reply, (clock, io.now()), framing, Persistence::Kept);
        if sends_body(Some(context.request.method()), reply.status) {
            out.extend_from_slice(body);
        }
        io.send(out);
        self.seat.give_lines(reply.headers.take_memory());
        true
    }
}

/// Whether the request has no body, and neither it nor its version asks for anything besides its answer.
fn is_plain(request: &Request) -> bool {
    !request.has_body()
        && Persistence::asked_by(request) == Persistence::Kept
        && !matches!(*request.method(), Method::CONNECT | Method::TRACE)
}
