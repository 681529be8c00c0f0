//! How long a connection waits for its peer, and how it ends.

use std::time::Duration;

use tidegate_poller::Io;
use tidegate_poller::moment::{Moment, NANOS_PER_MS};
use tidegate_poller::record::{ConnectionRecord, End, Reason};

use super::{HttpSession, PATIENCE, Reading, moment_after};
use crate::http::StatusCode;
use crate::http::body::{BodyError, Reins};
use crate::http::server::exchange::{Asked, Connection, Exchange, Phase};
use crate::http::server::reply::Reply;
use crate::http::server::work::Work;
use crate::record::ExchangeRecord;

/// A connection that was quiet for so long has nothing under way in either direction: closing it needs no FIN to be
/// awaited in return.
const QUIET: Duration = Duration::from_secs(1);

impl HttpSession {
    pub(super) fn current_phase(&self) -> Phase {
        let Some(work) = &self.work else { return self.ended_in.unwrap_or(Phase::Idle) };
        match work.exchanges.front() {
            Some(exchange) => exchange.phase(self.is_answering()),
            None => self.ended_in.unwrap_or(if work.partial_head().is_some() {
                Phase::Request
            } else {
                Phase::Idle
            }),
        }
    }

    /// Brings everything in line with what just happened.
    pub(super) fn settle(&mut self, io: &mut Io<'_>) {
        self.end_if_due(io);
        let Some(work) = &mut self.work else { return self.wait(io) };
        let full = work.incoming.as_ref().is_some_and(|incoming| incoming.full || incoming.stopped);
        let waiting =
            full || !work.input.is_empty() && work.partial.is_none() && self.reading != Reading::Shut;
        if waiting != self.reading_paused {
            self.reading_paused = waiting;
            if waiting {
                io.pause_reading();
            } else {
                work.resumed = Some(io.now());
                io.resume_reading();
            }
        }
        if work.input.is_empty()
            && work.exchanges.is_empty()
            && let Some(work) = self.work.take()
        {
            self.seat.give_back(work);
        }
        self.wait(io);
    }

    /// Ends the connection when nobody wants more of it and nothing can be answered any more.
    fn end_if_due(&mut self, io: &mut Io<'_>) {
        let (waiting, partial, busy) = self.work.as_ref().map_or((false, false, false), |work| {
            let waiting = !work.input.is_empty() && work.partial.is_none();
            (waiting, work.partial_head().is_some(), !work.exchanges.is_empty())
        });
        match self.reading {
            Reading::Shut | Reading::Handler => {}
            _ if waiting => {}
            Reading::Head if self.peer_finished => {
                let phase = if partial {
                    Phase::Request
                } else if busy {
                    Phase::Reply
                } else {
                    Phase::Idle
                };
                let reason = if partial { Reason::Abort } else { Reason::Ok };
                self.finish(io, End::peer(reason), phase);
            }
            Reading::Body if self.peer_finished => self.body_was_cut_short(io),
            // A request that is half here is waited for, as long as its timeout and the grace period allow.
            Reading::Head if self.last_next && !partial && busy => {
                self.finish(io, End::local(Reason::Shutdown), Phase::Reply);
            }
            Reading::Head if self.last_next && !partial => {
                let quiet = match self.deadline {
                    Some(deadline) if self.exchanges > 0 => {
                        self.seat.settings.idle_timeout.saturating_sub(deadline - io.now())
                    }
                    _ => io.now() - self.ready,
                };
                self.finish_idle(io, End::local(Reason::Shutdown), quiet);
            }
            Reading::Head | Reading::Body => {}
        }
    }

    /// Closes when the outbox is empty; nothing is read any more.
    pub(super) fn finish(&mut self, io: &mut Io<'_>, end: End, phase: Phase) {
        if self.reading != Reading::Shut {
            self.shut(phase);
            self.record_ended(io);
            io.finish(end);
        }
    }

    /// Looks at nothing that still arrives.
    pub(super) fn shut(&mut self, phase: Phase) {
        self.reading = Reading::Shut;
        self.ended_in = Some(phase);
        if let Some(work) = &mut self.work {
            // Its reader is told that no more comes.
            work.incoming = None;
        }
    }

    /// Closes a connection on which nothing is under way, and was not for `quiet`.
    fn finish_idle(&mut self, io: &mut Io<'_>, end: End, quiet: Duration) {
        self.finish(io, end, Phase::Idle);
        // A reply that left nothing else behind may still be going.
        if quiet >= QUIET && io.queued() == 0 {
            io.abort(end);
        }
    }

    /// Decides how long to wait for the peer.
    pub(super) fn wait(&mut self, io: &mut Io<'_>) {
        let timeouts = &self.seat.settings;
        let deadline = match (&self.work, self.reading) {
            (_, Reading::Shut | Reading::Handler) => None,
            (Some(work), Reading::Body) => self.body_deadline(work),
            (Some(work), Reading::Head) if work.partial.is_some() => {
                let since = work.head_since.filter(|_| self.exchanges > 0).unwrap_or(self.ready);
                Some(work.awaited_since(since) + timeouts.header_timeout)
            }
            (Some(_), Reading::Head) => None,
            (None, _) if self.exchanges == 0 => Some(self.ready + timeouts.header_timeout),
            (None, _) => Some(io.now() + timeouts.idle_timeout),
        };
        self.set_deadline(io, deadline);
    }

    /// Until when the next piece of a body is waited for.
    fn body_deadline(&self, work: &Work) -> Option<Moment> {
        let incoming = work.incoming.as_ref()?;
        let exchange = work.exchanges.back()?;
        let timeouts = &self.seat.settings;
        let total = timeouts.request_timeout.map(|total| exchange.started() + total);
        // Who may not send cannot be late.
        let may_send = !incoming.full && !incoming.stopped && !incoming.expected;
        let latest = work.latest.unwrap_or(exchange.started());
        let next = may_send.then(|| work.awaited_since(latest) + timeouts.body_timeout);
        [total, next].into_iter().flatten().min()
    }

    /// Whether a handler is at work on the latest request, and has all of it.
    pub(super) fn is_answering(&self) -> bool {
        self.reading != Reading::Body && self.work.as_ref().is_some_and(|work| work.answering.is_some())
    }

    /// The peer sent FIN where more of a body was due. What was answered still goes.
    fn body_was_cut_short(&mut self, io: &mut Io<'_>) {
        let replied = self.is_replied();
        let work = self.work();
        work.waiting = None;
        if let Some(token) = work.answering.take() {
            token.cancel();
        }
        let phase = if replied { Phase::Reply } else { Phase::Request };
        self.finish(io, End::peer(Reason::Abort), phase);
    }

    /// The peer sent FIN. It may have left, or only have said that it asks no more: where a handler is at work, or a stream
    /// has nothing to say for now, something that means nothing is sent. A peer that is there passes over it; the kernel of
    /// one that has left answers with a reset, which ends the connection and all that works for it.
    pub(super) fn look_for_peer(&mut self, io: &mut Io<'_>) {
        let Some(work) = &self.work else { return };
        let http11 = work.exchanges.back().is_some_and(Exchange::is_http11);
        let waits = work.answering.is_some() && self.reading == Reading::Handler;
        if work.reins.as_ref().is_some_and(Reins::probe) {
            io.wake_source();
        } else if waits && http11 {
            self.send_continue(io);
        }
    }

    /// Moves the deadline. The timer is touched only when it would fire too late.
    pub(super) fn set_deadline(&mut self, io: &mut Io<'_>, deadline: Option<Moment>) {
        self.deadline = deadline;
        let Some(deadline) = deadline else { return };
        let deadline_ms = deadline.nanos_since(self.ready) / NANOS_PER_MS + 1;
        let deadline_ms = u32::try_from(deadline_ms).unwrap_or(u32::MAX);
        if let Some(timer) = self.timer {
            if self.timer_at_ms <= deadline_ms {
                return;
            }
            io.cancel_timer(timer);
        }
        self.timer = Some(io.start_timer(deadline - io.now(), PATIENCE));
        self.timer_at_ms = deadline_ms;
    }

    /// The peer let the deadline pass.
    pub(super) fn out_of_time(&mut self, io: &mut Io<'_>) {
        self.deadline = None;
        if self.work.is_none() && io.queued() > 0 {
            // The time that a reply takes is not its client's.
            return self.settle(io);
        }
        let partial = self.work.as_ref().and_then(|work| work.partial_head());
        if self.reading == Reading::Body {
            if let Some(incoming) = self.work().incoming.take() {
                incoming.cut(BodyError::TimedOut);
            }
            self.give_up_body(io, Reply::error(StatusCode::REQUEST_TIMEOUT), Reason::Timeout);
        } else if let Some(partial) = partial {
            let (line, head_in) =
                (first_line(partial), self.work.as_ref().map_or(0, |work| work.input.len()));
            self.work().input.clear();
            self.open_exchange(Asked::Broken(line), head_in, io.now());
            self.last_reply(io, Reply::error(StatusCode::REQUEST_TIMEOUT), Reason::Timeout);
        } else {
            let timeouts = &self.seat.settings;
            let quiet = if self.exchanges > 0 { timeouts.idle_timeout } else { timeouts.header_timeout };
            self.finish_idle(io, End::local(Reason::Timeout), quiet);
        }
        self.settle(io);
    }

    /// When the connection was made: where its record begins to count.
    fn opened(&self, record: &ConnectionRecord) -> Moment {
        let handshake = record.handshake.as_ref().and_then(|handshake| handshake.took).unwrap_or_default();
        let nanos = u64::try_from(handshake.as_nanos()).unwrap_or(u64::MAX);
        Moment::from_nanos(self.ready.as_nanos().saturating_sub(nanos))
    }

    /// Records what the connection's end cut: replies under way, requests not answered, a head that never came whole.
    pub(super) fn record_cut(&mut self, work: &mut Work, record: &ConnectionRecord, in_handler: bool) {
        let opened = self.opened(record);
        let closed = opened + record.duration;
        self.seat.refresh(closed);
        // A stream is the last that was asked for.
        let events = work.reins.take().and_then(|reins| reins.events());
        let streamed = work.exchanges.back().map(|exchange| exchange.id);
        let events_of = |id| events.clone().filter(|_| streamed == Some(id));
        if let Some(partial) = work.partial_head().map(first_line) {
            self.exchanges += 1;
            let (head_in, since) = (work.input.len() as u64, work.head_since.unwrap_or(closed));
            let id = u64::from(self.exchanges);
            work.exchanges.push_back(Exchange::new(id, Asked::Broken(partial), since, head_in));
        }
        let front = work.front.take();
        let clock = self.seat.clock.borrow();
        if let Some(mark) = work.ended.take()
            && let Some(exchange) = work.exchanges.pop_front()
        {
            let connection =
                Connection { conn_id: record.conn_id, peer: record.peer.clone(), role: record.role };
            let at = moment_after(exchange.latest(), &mark);
            self.seat.settings.sinks.exchange(|| {
                let events = events_of(exchange.id);
                ExchangeRecord { events, ..exchange.complete(connection, &mark, at, &clock) }
            });
        }
        for (place, exchange) in work.exchanges.drain(..).enumerate() {
            let in_front = front.as_deref().filter(|_| place == 0);
            self.seat.settings.sinks.exchange(|| {
                let events = events_of(exchange.id);
                ExchangeRecord { events, ..exchange.cut(record, opened, &clock, in_front, in_handler) }
            });
        }
    }
}

fn first_line(bytes: &[u8]) -> Vec<u8> {
    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    line[..line.len().min(256)].to_vec()
}
