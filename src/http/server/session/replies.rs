//! The writing side of a connection: a reply goes into the outbox between two marks.

use tidegate_poller::record::{End, Reason};
use tidegate_poller::{Chunk, Direction, Edge, Io, Mark, Passed};

use super::bodies::Rest;
use super::{HttpSession, Reading, moment_after};
use crate::http::body::{BodyWaker, Framing, Outgoing, StreamBody};
use crate::http::server::exchange::{Asked, Connection, Exchange, Phase, ReplyFacts};
use crate::http::server::reply::{Persistence, Reply, ReplyPacing, sends_body, write_head};
use crate::http::server::work::Paced;
use crate::http::{Body, Version};
use crate::record::ExchangeRecord;

impl HttpSession {
    /// Queues the reply to the latest request, or keeps it until the way is clear for it.
    pub(super) fn reply(&mut self, io: &mut Io<'_>, mut reply: Reply) {
        self.reply_by(io, &mut reply);
    }

    /// The same, with a reply that need not be moved; nothing of it is left.
    pub(super) fn reply_by(&mut self, io: &mut Io<'_>, reply: &mut Reply) {
        if reply.is_paced() && self.work().exchanges.len() > 1 {
            // What it spends through must bind no other.
            let reply = std::mem::replace(reply, Reply::new(reply.status));
            self.work().waiting = Some(Box::new(reply));
            if self.reading != Reading::Body {
                self.reading = Reading::Handler;
            }
            return;
        }
        let rest = self.rest_of_body();
        if rest == Rest::Wanted && self.work().incoming.as_ref().is_some_and(|incoming| incoming.expected) {
            // It goes on being read: now or never.
            self.send_continue(io);
        }
        let last = reply.close || self.last_next || rest == Rest::Left;
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
        if rest == Rest::Nothing {
            self.reading = Reading::Head;
        }
        let (reason, phase) = match reply.denied {
            true => (Reason::Denied, Phase::Request),
            false => (Reason::Ok, Phase::Reply),
        };
        self.queue(io, reply, persistence, End::local(reason), phase);
        if persistence == Persistence::Closed {
            match rest {
                Rest::Wanted => self.work().closing = true,
                Rest::Left if reply.denied => self.finish(io, End::local(reason), phase),
                Rest::Nothing if self.is_told_of_the_end() => {
                    self.shut(Phase::Reply);
                    io.finish_in_haste(self.good_end(io));
                }
                _ => self.finish(io, self.good_end(io), Phase::Reply),
            }
        }
    }

    /// Whether the client itself said that this is its last request, and nobody wants to know whether its reply arrived:
    /// then its FIN need not be awaited.
    fn is_told_of_the_end(&self) -> bool {
        let latest = self.work.as_ref().and_then(|work| work.exchanges.back());
        self.seat.settings.sinks.is_empty() && latest.is_some_and(Exchange::says_close)
    }

    /// How a connection ends on which all was answered.
    pub(super) fn good_end(&self, io: &Io<'_>) -> End {
        End::local(if io.is_shutting_down() { Reason::Shutdown } else { Reason::Ok })
    }

    /// Queues a reply after which nothing that arrives can be understood.
    pub(super) fn last_reply(&mut self, io: &mut Io<'_>, mut reply: Reply, reason: Reason) {
        self.queue(io, &mut reply, Persistence::Closed, End::local(reason), Phase::Request);
        self.finish(io, End::local(reason), Phase::Request);
    }

    fn queue(
        &mut self,
        io: &mut Io<'_>,
        reply: &mut Reply,
        persistence: Persistence,
        end: End,
        phase: Phase,
    ) {
        let mut out = io.buffer();
        let now = io.now();
        self.seat.refresh(now);
        let pacing = reply.pacing.take();
        let after = pacing.as_ref().and_then(|pacing| pacing.rate_after);
        let free = after.unwrap_or(self.seat.settings.rate_after);
        let Some(exchange) = self.work().exchanges.back() else { return };
        let framing = match (reply.body.len(), &exchange.asked) {
            (Some(length), _) => Framing::Length(length),
            (None, Asked::Request(request)) if request.version() != Version::HTTP_10 => Framing::Chunked,
            (None, _) => Framing::UntilClose,
        };
        write_head(&mut out, reply, (&mut self.seat.clock.borrow_mut(), now), framing, persistence);
        let head_len = out.len() as u64;
        self.seat.give_lines(reply.headers.take_memory());
        let Some(exchange) = self.work().exchanges.back_mut() else { return };
        let with_body = sends_body(exchange.asked.method(), reply.status);
        let body_len = match framing {
            _ if !with_body => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        exchange.reply = Some(ReplyFacts { status: reply.status, head_len, body_len, end, phase });
        let id = exchange.id;
        // Nobody is told when it begins where there are no records, nor is anything exempt from no limit.
        let recorded = !self.seat.settings.sinks.is_empty();
        let limited = self.seat.settings.pacing.limit().is_some();
        let begins = recorded || pacing.is_some() || limited;
        self.has_freed |= limited && after.is_some();
        if let Some(work) = self.work.as_mut().filter(|work| recorded && work.exchanges.len() == 1) {
            work.set_front(now, io.sums().pauses);
        }
        if let Some(pacing) = pacing.filter(|pacing| pacing.binds()) {
            self.pace(io, &pacing);
        }
        if begins {
            io.mark(Mark { id, edge: Edge::Begin { free } });
        }
        if let Some(bytes) = reply.body.short().filter(|_| with_body) {
            out.extend_from_slice(bytes);
        }
        match std::mem::take(&mut reply.body) {
            body if !with_body || body.short().is_some() => io.send(out),
            Body::Empty => io.send(out),
            Body::Static(bytes) => {
                io.send(out);
                io.send(bytes);
            }
            Body::Bytes(bytes) => {
                io.send(out);
                io.send(bytes);
            }
            Body::Part { bytes, range } => {
                io.send(out);
                io.send(Chunk::Shared(bytes, range));
            }
            Body::Page { bytes, hash } => {
                io.send(out);
                io.send(self.seat.pages.borrow_mut().share(hash, bytes, |a, b| a == b));
            }
            Body::File { file, id, offset, len } => {
                io.send(out);
                io.send_file(self.seat.files.borrow_mut().share(id, file, |_, _| true), offset, len);
            }
            Body::Stream(stream) => {
                io.send(out);
                self.send_stream(io, stream, framing);
            }
        }
        io.mark(Mark { id, edge: Edge::End });
    }

    /// Nothing is queued behind a stream: nobody knows when it ends, and what waits there would only take memory.
    fn send_stream(&mut self, io: &mut Io<'_>, stream: StreamBody, framing: Framing) {
        let mut source = stream.into_source();
        source.attach(BodyWaker::new(io.socket()));
        let (source, reins) = Outgoing::new(source, framing).share();
        io.send_source(source);
        if io.is_shutting_down() {
            reins.shut_down();
        }
        let work = self.work();
        work.reins = Some(reins);
        work.alone = true;
        work.settle_down();
    }

    /// From here on the connection spends as its next reply wants, which goes alone.
    fn pace(&mut self, io: &mut Io<'_>, pacing: &ReplyPacing) {
        if let Some(limit) = &pacing.limit {
            io.set_limit(Direction::Egress, Some(limit));
        }
        let mut budgets = Vec::new();
        for (budget, weight) in &pacing.budgets {
            if io.spend_through(Direction::Egress, budget, *weight) {
                budgets.push(budget.clone());
            }
        }
        let work = self.work();
        work.alone = true;
        work.paced = Some(Box::new(Paced { limit: pacing.limit.is_some(), budgets }));
    }

    /// The reply with a pace of its own has gone: the connection has its own again.
    fn unpace(&mut self, io: &mut Io<'_>) {
        let Some(paced) = self.work().paced.take() else { return };
        if paced.limit {
            io.set_limit(Direction::Egress, self.seat.settings.pacing.limit());
        }
        for budget in &paced.budgets {
            io.stop_spending_through(Direction::Egress, budget);
        }
    }

    /// The last byte of the first reply in the outbox has gone.
    pub(super) fn reply_has_gone(&mut self, io: &mut Io<'_>, mark: Passed) {
        let recorded = !self.seat.settings.sinks.is_empty();
        let Some(work) = &mut self.work else { return };
        if recorded {
            work.set_front(mark.at, mark.sums.pauses);
        }
        if work.exchanges.len() == 1 {
            work.alone = false;
            self.unpace(io);
        }
        let work = self.work();
        debug_assert!(work.exchanges.front().is_some_and(|exchange| exchange.id == mark.id), "in order");
        if self.reading == Reading::Body && self.work().exchanges.len() == 1 {
            self.work().ended = Some(Box::new(mark));
        } else {
            self.record(io, &mark);
        }
        if let Some(reply) =
            self.work.as_mut().filter(|work| work.exchanges.len() == 1).and_then(|work| work.waiting.take())
        {
            self.reply(io, *reply);
        }
        self.go_on(io);
    }

    /// Records the exchange whose reply has gone, if there is one: nothing of its request comes any more.
    pub(super) fn record_ended(&mut self, io: &mut Io<'_>) {
        if let Some(mark) = self.work.as_mut().and_then(|work| work.ended.take()) {
            self.record(io, &mark);
        }
    }

    /// Records the first exchange, whose reply has gone by this mark.
    fn record(&mut self, io: &mut Io<'_>, mark: &Passed) {
        let Some(work) = &mut self.work else { return };
        // A stream is the last one there is.
        let reins = if work.exchanges.len() == 1 { work.reins.take() } else { None };
        let Some(exchange) = work.exchanges.front_mut() else { return };
        let seat = &self.seat;
        if !seat.settings.sinks.is_empty() {
            seat.refresh(io.now());
            let at = moment_after(exchange.latest(), mark);
            let connection = Connection { conn_id: io.conn_id(), peer: io.peer(), role: io.role() };
            seat.settings.sinks.exchange(|| {
                let record = exchange.complete(connection, mark, at, &seat.clock.borrow());
                ExchangeRecord { events: reins.and_then(|reins| reins.events()), ..record }
            });
        }
        let request = exchange.take_request();
        work.exchanges.pop_front();
        if let Some(request) = request {
            seat.give_request(request);
        }
    }
}
