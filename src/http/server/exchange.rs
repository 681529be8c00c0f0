//! One request and its reply, from the first byte of the one to the last byte of the other.
//!
//! Holds the facts as they happen, and turns them into the exchange's record. Pure.

use std::sync::Arc;

use tidegate_poller::moment::Moment;
use tidegate_poller::record::{End, Pauses, Peer, Reason};
use tidegate_poller::{ConnectionRecord, Passed, Role};

use crate::http::StatusCode;
use crate::http::codec::request::Request;
use crate::http::server::clock::Clock;
use crate::http::{Method, Version};
use crate::record::{ExchangeRecord, Words};

/// The phases of a connection and of an exchange, as records name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests, or before the first.
    Idle,
    /// The request is coming in, or was refused before anybody looked at what it asks for.
    Request,
    /// It is being answered.
    Handler,
    /// The reply is on its way.
    Reply,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Request => "request",
            Phase::Handler => "handler",
            Phase::Reply => "reply",
        }
    }
}

/// An exchange under way.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Its number on the connection, from 1.
    pub(super) id: u64,
    pub(super) asked: Asked,
    /// When the first byte of its head arrived.
    started: Moment,
    head_in: u64,
    pub(super) body_in: u64,
    pub(super) reply: Option<ReplyFacts>,
    begun: Option<Begun>,
    interim: Option<Interim>,
}

/// What was said before the reply: `100 Continue`. Part of the exchange's head bytes.
#[derive(Clone, Copy, Debug)]
struct Interim {
    /// Bytes of the connection before it.
    offset: u64,
    len: u64,
    at: Moment,
}

/// What was asked.
#[derive(Debug)]
pub(super) enum Asked {
    /// This.
    Request(Arc<Request>),
    /// Nothing that could be read; its first bytes.
    Broken(Vec<u8>),
}

/// What is known of a reply when it is queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyFacts {
    pub(super) status: StatusCode,
    pub(super) head_len: u64,
    /// `None`: as long as the stream turns out to be.
    pub(super) body_len: Option<u64>,
    /// How the exchange ends when all of it has gone.
    pub(super) end: End,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Moment,
    /// When the gate was done with what lies before.
    reached: Moment,
    offset: u64,
    pauses: Pauses,
}

/// Since when a reply is the one at the gate, and what had been added up until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    pub(super) since: Moment,
    pub(super) pauses: Pauses,
}

impl Default for Front {
    fn default() -> Front {
        Front { since: Moment::FIRST, pauses: Pauses::default() }
    }
}

/// Which connection an exchange was on.
pub(super) struct Connection {
    pub(super) conn_id: u64,
    pub(super) peer: Peer,
    pub(super) role: Role,
}

impl Exchange {
    pub(super) fn new(id: u64, asked: Asked, started: Moment, head_in: u64) -> Exchange {
        Exchange { id, asked, started, head_in, body_in: 0, reply: None, begun: None, interim: None }
    }

    /// When the first byte of its head arrived.
    pub(super) fn started(&self) -> Moment {
        self.started
    }

    /// The latest moment known of it.
    pub(super) fn latest(&self) -> Moment {
        self.begun.map_or(self.started, |begun| begun.at)
    }

    /// So many bytes were queued before its reply, behind `offset` bytes of the connection.
    pub(super) fn interim(&mut self, offset: u64, len: u64, at: Moment) {
        match &mut self.interim {
            // Nothing came between the two.
            Some(interim) => interim.len += len,
            None => self.interim = Some(Interim { offset, len, at }),
        }
    }

    /// The first byte of its reply has gone, at `at`.
    pub(super) fn begin(&mut self, mark: &Passed, at: Moment) {
        self.begun = Some(Begun::new(mark, at));
    }

    /// Whether its client said, in so many words, that it is the last.
    pub(super) fn says_close(&self) -> bool {
        matches!(&self.asked, Asked::Request(request) if request.version() == Version::HTTP_11 && !request.keep_alive())
    }

    /// Whether its client speaks HTTP/1.1, and so knows interim replies.
    pub(super) fn is_http11(&self) -> bool {
        matches!(&self.asked, Asked::Request(request) if request.version() == Version::HTTP_11)
    }

    /// Its request, if that could be read, once it is recorded.
    pub(super) fn take_request(&mut self) -> Option<Arc<Request>> {
        match std::mem::replace(&mut self.asked, Asked::Broken(Vec::new())) {
            Asked::Request(request) => Some(request),
            Asked::Broken(_) => None,
        }
    }

    /// In which phase it is.
    pub(super) fn phase(&self, in_handler: bool) -> Phase {
        match self.reply {
            Some(_) => Phase::Reply,
            None if in_handler => Phase::Handler,
            None => Phase::Request,
        }
    }

    /// The record of an exchange whose reply has gone to the last byte, at `at`.
    pub(super) fn complete(
        &self,
        connection: Connection,
        mark: &Passed,
        at: Moment,
        clock: &Clock,
    ) -> ExchangeRecord {
        // The poller passes what was marked, in order, so both are there.
        let begun = self.begun.unwrap_or(Begun::new(mark, at));
        let sent = mark.offset - begun.offset;
        let (head_out, body_out, end, phase) = match self.reply {
            Some(reply) => {
                let body_out = sent - reply.head_len;
                debug_assert!(
                    reply.body_len.is_none_or(|len| len == body_out),
                    "what went is what was queued"
                );
                (reply.head_len, body_out, reply.end, reply.phase)
            }
            None => (0, 0, End::local(Reason::Internal), Phase::Reply),
        };
        let head_out = head_out + self.interim.map_or(0, |interim| interim.len);
        let mut record = self.known(connection, clock);
        record.resp_header_bytes = head_out;
        record.resp_body_bytes = body_out;
        record.wire_out = head_out + body_out;
        record.first_byte = Some(begun.at - self.started);
        record.transfer = Some(at - begun.at);
        record.total = at - self.started;
        // The poller's gap is that since the latest mark before the write; one write can pass the marks of several.
        let gap = mark.sums.gap_since_mark_ns.min(mark.at.nanos_since(begun.reached));
        record.pauses = between(&begun.pauses, &mark.sums.pauses, gap);
        (record.end, record.phase) = (end, phase.as_str());
        record
    }

    /// The record of an exchange that the connection's end cut. `opened` is the connection's start. `in_front`: its
    /// reply is the one at the gate.
    pub(super) fn cut(
        self,
        record: &ConnectionRecord,
        opened: Moment,
        clock: &Clock,
        in_front: Option<&Front>,
        in_handler: bool,
    ) -> ExchangeRecord {
        let connection = Connection { conn_id: record.conn_id, peer: record.peer.clone(), role: record.role };
        let phase = self.phase(in_handler);
        let mut cut = self.known(connection, clock);
        // The close has its turn's moment, the reply's first byte perhaps a later reading of the clock in the same turn.
        let closed = (opened + record.duration).max(self.latest());
        cut.total = closed - self.started;
        let interim = self.interim.map_or(0, |interim| {
            let sent = record.plain_out.saturating_sub(interim.offset).min(interim.len);
            cut.first_byte = (sent > 0).then(|| interim.at - self.started);
            sent
        });
        (cut.resp_header_bytes, cut.wire_out) = (interim, interim);
        if let (Some(begun), Some(reply)) = (self.begun, self.reply) {
            // What lies behind it is another's, unless it is a stream, which is the last.
            let most = reply.body_len.map_or(u64::MAX, |len| reply.head_len + len);
            let sent = record.plain_out.saturating_sub(begun.offset).min(most);
            let head_out = sent.min(reply.head_len);
            cut.resp_header_bytes = interim + head_out;
            cut.resp_body_bytes = sent - head_out;
            cut.wire_out = interim + sent;
            cut.first_byte = Some(begun.at - self.started);
        }
        cut.pauses = match (&self.begun, in_front) {
            (Some(begun), _) => {
                let gap = record.gap_since_mark_ns.min(closed.nanos_since(begun.reached));
                between(&begun.pauses, &record.pauses, gap)
            }
            // Not a byte of it went.
            (None, Some(front)) if self.reply.is_some() => {
                between(&front.pauses, &record.pauses, closed.nanos_since(front.since))
            }
            _ => Pauses::default(),
        };
        // A connection that ended well and an exchange on it that did not: it left in the middle of it.
        let reason = if record.end.reason == Reason::Ok { Reason::Abort } else { record.end.reason };
        (cut.end, cut.phase) = (End { who: record.end.who, reason }, phase.as_str());
        cut
    }

    /// What is known of it whatever becomes of it.
    fn known(&self, connection: Connection, clock: &Clock) -> ExchangeRecord {
        ExchangeRecord {
            conn_id: connection.conn_id,
            exchange_id: self.id,
            peer: connection.peer,
            role: connection.role,
            words: self.asked.words(),
            status: self.reply.map(|reply| reply.status.as_u16()),
            req_header_bytes: self.head_in,
            req_body_bytes: self.body_in,
            resp_header_bytes: 0,
            resp_body_bytes: 0,
            wire_in: self.head_in + self.body_in,
            wire_out: 0,
            started: clock.wall(self.started),
            first_byte: None,
            transfer: None,
            total: std::time::Duration::ZERO,
            pauses: Pauses::default(),
            end: End::local(Reason::Internal),
            phase: Phase::Request.as_str(),
            events: None,
            client: None,
        }
    }
}

impl Begun {
    fn new(mark: &Passed, at: Moment) -> Begun {
        Begun { at, reached: mark.reached, offset: mark.offset, pauses: mark.sums.pauses }
    }
}

impl Asked {
    /// The method, as far as one can be made out: also a head that cannot be read may have asked for no body.
    pub(super) fn method(&self) -> Option<&Method> {
        match self {
            Asked::Request(request) => Some(request.method()),
            Asked::Broken(line) if line.starts_with(b"HEAD ") => Some(&Method::HEAD),
            Asked::Broken(_) => None,
        }
    }

    fn words(&self) -> Words {
        match self {
            Asked::Broken(line) => Words::broken(line),
            Asked::Request(request) => {
                let version = match request.version() {
                    Version::HTTP_10 => &b"HTTP/1.0"[..],
                    _ => b"HTTP/1.1",
                };
                let (referer, agent) = (request.header("referer"), request.header("user-agent"));
                Words::new(request.method_text(), request.target(), version, referer, agent)
            }
        }
    }
}

fn between(before: &Pauses, after: &Pauses, longest_gap_ns: u64) -> Pauses {
    Pauses {
        throttled_ns: after.throttled_ns.saturating_sub(before.throttled_ns),
        blocked_ns: after.blocked_ns.saturating_sub(before.blocked_ns),
        held_ns: after.held_ns.saturating_sub(before.held_ns),
        starved_ns: after.starved_ns.saturating_sub(before.starved_ns),
        longest_gap_ns,
        throttle_count: after.throttle_count.saturating_sub(before.throttle_count),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tidegate_poller::{Edge, Sums};

    use super::*;

    const MS: u64 = 1_000_000;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1_000 * MS + millis * MS)
    }

    /// Whose reply is queued.
    fn replied(id: u64, started: Moment) -> Exchange {
        let end = End::local(Reason::Ok);
        let reply =
            ReplyFacts { status: StatusCode::OK, head_len: 9, body_len: Some(0), end, phase: Phase::Reply };
        let mut exchange = Exchange::new(id, Asked::Broken(Vec::new()), started, 10);
        exchange.reply = Some(reply);
        exchange
    }

    /// Of a connection that was opened at 0 and reset at 100 ms, after a silence of 90 ms.
    fn reset() -> ConnectionRecord {
        ConnectionRecord {
            conn_id: 1,
            peer: Peer::Unix(None),
            role: Role::Server,
            started: SystemTime::UNIX_EPOCH,
            wire_in: 0,
            wire_out: 0,
            plain_in: 0,
            plain_out: 0,
            dropped_out: 0,
            connected: None,
            first_in: None,
            last_in: None,
            first_out: None,
            last_out: None,
            duration: Duration::from_millis(100),
            pauses: Pauses { throttled_ns: 95 * MS, longest_gap_ns: 90 * MS, ..Pauses::default() },
            gap_since_mark_ns: 90 * MS,
            ingress_throttled_ns: 0,
            end: End::peer(Reason::Abort),
            phase: "reply",
            tcp: None,
            handshake: None,
        }
    }

    #[test]
    fn a_reply_that_begins_in_the_turn_of_the_close_does_not_end_before_it() {
        let clock = Clock::new(at(0), SystemTime::UNIX_EPOCH);
        let mut exchange = replied(1, at(100));
        let (edge, reached, sums) = (Edge::Begin { free: 0 }, at(100), Sums::default());
        exchange.begin(&Passed { id: 1, edge, at: at(100), reached, offset: 0, sums }, at(101));
        let cut = exchange.cut(&reset(), at(0), &clock, None, false);
        assert_eq!(cut.first_byte, Some(Duration::from_millis(1)));
        assert!(cut.total >= Duration::from_millis(1), "{:?}", cut.total);
    }

    #[test]
    fn a_reply_that_never_began_waited_since_its_turn_came() {
        let clock = Clock::new(at(0), SystemTime::UNIX_EPOCH);
        let front = Front { since: at(93), pauses: Pauses { throttled_ns: 88 * MS, ..Pauses::default() } };
        let cut = |in_front| replied(2, at(40)).cut(&reset(), at(0), &clock, in_front, false);
        let first = cut(Some(&front));
        assert_eq!((first.pauses.throttled_ns, first.pauses.longest_gap_ns), (7 * MS, 7 * MS));
        assert_eq!((first.total, first.first_byte, first.wire_out), (Duration::from_millis(60), None, 0));
        assert_eq!(cut(None).pauses, Pauses::default());
    }
}
