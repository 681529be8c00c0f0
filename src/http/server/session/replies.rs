//! The writing side of a connection: a reply goes into the outbox between two marks.

use tidegate_poller::record::{End, Reason};
use tidegate_poller::{Edge, Io, Mark};

use super::{HttpSession, Reading};
use crate::http::body::{BodyWaker, Framing, Outgoing};
use crate::http::server::exchange::{Asked, Front, Phase, ReplyFacts};
use crate::http::server::reply::{Persistence, Reply, sends_body, write_head};
use crate::http::{Body, Version};

/// A body in memory up to this size goes into the buffer of its head: one piece for the kernel instead of two.
const BODY_INLINE_MAX: usize = 4 * 1024;

impl HttpSession {
    /// Queues the reply to the latest request.
    pub(super) fn reply(&mut self, io: &mut Io<'_>, reply: Reply) {
        let last = reply.close || self.last_next;
        let Some(exchange) = self.work().exchanges.back() else { return };
        let persistence = match &exchange.asked {
            // The end of the connection will be the end of the body.
            Asked::Request(request)
                if request.version() == Version::HTTP_10 && reply.body.len().is_none() =>
            {
                Persistence::Closed
            }
            Asked::Request(request) if !last => Persistence::asked_by(request),
            _ => Persistence::Closed,
        };
        self.reading = Reading::Head;
        self.queue(io, reply, persistence, End::local(Reason::Ok), Phase::Reply);
        if persistence == Persistence::Closed {
            let stopping = io.is_shutting_down();
            self.finish(io, End::local(if stopping { Reason::Shutdown } else { Reason::Ok }), Phase::Reply);
        }
    }

    /// Queues a reply after which nothing that arrives can be understood.
    pub(super) fn last_reply(&mut self, io: &mut Io<'_>, reply: Reply, reason: Reason) {
        self.queue(io, reply, Persistence::Closed, End::local(reason), Phase::Request);
        self.finish(io, End::local(reason), Phase::Request);
    }

    pub(super) fn queue(
        &mut self,
        io: &mut Io<'_>,
        reply: Reply,
        persistence: Persistence,
        end: End,
        phase: Phase,
    ) {
        let mut out = io.buffer();
        let now = io.now();
        self.seat.wall(now);
        let free = self.seat.settings.rate_after;
        let Some(exchange) = self.work().exchanges.back() else { return };
        let framing = match (reply.body.len(), &exchange.asked) {
            (Some(length), _) => Framing::Length(length),
            (None, Asked::Request(request)) if request.version() != Version::HTTP_10 => Framing::Chunked,
            (None, _) => Framing::UntilClose,
        };
        write_head(&mut out, &reply, self.seat.clock.borrow_mut().date(now), framing, persistence);
        let head_len = out.len() as u64;
        let Some(exchange) = self.work().exchanges.back_mut() else { return };
        let with_body = sends_body(exchange.asked.method(), reply.status);
        let body_len = match framing {
            _ if !with_body => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        exchange.reply = Some(ReplyFacts { status: reply.status, head_len, body_len, end, phase });
        let id = exchange.id;
        if let Some(work) = self.work.as_mut().filter(|work| work.exchanges.len() == 1) {
            work.front = Front { since: now, pauses: io.sums().pauses };
        }
        io.mark(Mark { id, edge: Edge::Begin { free } });
        match reply.body {
            Body::Static(bytes) if with_body && bytes.len() <= BODY_INLINE_MAX => {
                out.extend_from_slice(bytes);
                io.send(out);
            }
            Body::Static(bytes) if with_body => {
                io.send(out);
                io.send(bytes);
            }
            Body::Bytes(bytes) if with_body && bytes.len() <= BODY_INLINE_MAX => {
                out.extend_from_slice(&bytes);
                io.send(out);
            }
            Body::Bytes(bytes) if with_body => {
                io.send(out);
                io.send(bytes);
            }
            Body::Page { bytes, hash } if with_body => {
                io.send(out);
                io.send(self.seat.pages.borrow_mut().share(hash, bytes, |a, b| a == b));
            }
            Body::File { file, id, offset, len } if with_body => {
                io.send(out);
                io.send_file(self.seat.files.borrow_mut().share(id, file, |_, _| true), offset, len);
            }
            Body::Stream(stream) if with_body => {
                io.send(out);
                let mut source = stream.into_source();
                source.attach(BodyWaker::new(io.socket()));
                io.send_source(Box::new(Outgoing::new(source, framing)));
            }
            _ => io.send(out),
        }
        io.mark(Mark { id, edge: Edge::End });
    }
}
