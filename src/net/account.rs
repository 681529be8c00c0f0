//! The facts of one exchange, as they happen, and the record they become. Pure.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tidegate_poller::record::{ConnectionRecord, End, Pauses, Peer, Reason, Role};
use tidegate_poller::{Io, Moment, Passed, Sums, sys};

use crate::record::{ClientFacts, ExchangeRecord, Words};

/// An exchange under way, at either end: a message that comes in, and one that goes out.
#[derive(Debug)]
pub(crate) struct Account {
    /// Its number on the connection, from 1.
    pub(crate) id: u64,
    pub(crate) words: Words,
    pub(crate) status: Option<u16>,
    pub(crate) bytes_in: u64,
    /// Of these, how many are no body. A protocol that does not tell has none such.
    pub(crate) head_in: u64,
    /// The same of what goes out.
    pub(crate) head_out: u64,
    /// A client's, where its protocol tells.
    pub(crate) client: Option<Box<ClientFacts>>,
    /// What the connection had moved before it, where a transport adds bytes of its own.
    wire_before: Option<(u64, u64)>,
    started: Moment,
    wall: SystemTime,
    /// A client's: when the first byte of the reply came.
    first_in: Option<Moment>,
    out: Option<Out>,
    /// How it ends when all has gone, once that is known.
    pub(crate) end: Option<(End, &'static str)>,
}

/// The message that goes out.
#[derive(Debug)]
struct Out {
    length: u64,
    /// When it was queued, and what had been added up until then.
    queued: (Moment, Pauses),
    begun: Option<Passed>,
    sent: Option<Passed>,
}

/// Which connection it was on.
pub(crate) struct On {
    pub(crate) conn_id: u64,
    pub(crate) peer: Peer,
    pub(crate) role: Role,
}

impl On {
    pub(crate) fn this(io: &Io<'_>) -> On {
        On { conn_id: io.conn_id(), peer: io.peer(), role: io.role() }
    }

    pub(crate) fn of(record: &ConnectionRecord) -> On {
        On { conn_id: record.conn_id, peer: record.peer.clone(), role: record.role }
    }

    /// A request that never got a connection.
    pub(crate) fn none(address: SocketAddr) -> On {
        On { conn_id: 0, peer: Peer::Inet(address), role: Role::Client }
    }
}

impl Account {
    /// An exchange that began at `started`, which was not long ago.
    pub(crate) fn new(id: u64, words: Words, started: Moment) -> Account {
        let wall = SystemTime::now().checked_sub(sys::now() - started).unwrap_or(SystemTime::UNIX_EPOCH);
        Account {
            id,
            words,
            status: None,
            bytes_in: 0,
            head_in: 0,
            head_out: 0,
            client: None,
            wire_before: None,
            started,
            wall,
            first_in: None,
            out: None,
            end: None,
        }
    }

    /// The message that goes out was queued.
    pub(crate) fn queued(&mut self, io: &Io<'_>, length: u64) {
        let queued = (io.now(), io.sums().pauses);
        self.out = Some(Out { length, queued, begun: None, sent: None });
    }

    /// Bytes on the wire are counted from here on, as the socket saw them.
    #[cfg(feature = "http")]
    pub(crate) fn count_wire(&mut self, sums: &Sums) {
        self.wire_before = Some((sums.wire_in, sums.wire_out));
    }

    /// The first byte of what goes out has gone.
    pub(crate) fn begun(&mut self, mark: Passed) {
        let at = self.after(mark.at);
        if let Some(out) = &mut self.out {
            out.begun = Some(Passed { at, ..mark });
        }
    }

    /// Its last byte has.
    pub(crate) fn sent(&mut self, mark: Passed) {
        if let Some(out) = &mut self.out {
            out.sent = Some(mark);
        }
    }

    /// How many bytes of what goes out have gone, where the socket has moved so many.
    #[cfg(feature = "http")]
    pub(crate) fn gone_by(&self, sums: &Sums) -> u64 {
        let begun = self.out.as_ref().and_then(|out| out.begun);
        begun.map_or(0, |begun| sums.plain_out.saturating_sub(begun.offset))
    }

    /// When the first byte of what came in came; a server's request is handed over when it is whole.
    pub(crate) fn handed_over(&self) -> Moment {
        self.first_in.unwrap_or(self.started)
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.sent.is_some())
    }

    /// Whether any of what goes out has gone.
    #[cfg(feature = "http")]
    pub(crate) fn has_begun(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.begun.is_some())
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.out.is_some()
    }

    /// Bytes of the message that comes in have come.
    pub(crate) fn received(&mut self, bytes: usize, now: Moment) {
        self.first_in.get_or_insert(self.after(now));
        self.bytes_in += bytes as u64;
    }

    /// All that happens in a turn of the poller has the turn's moment; what is over within one would be said to have taken
    /// no time, so then the clock is read.
    fn after(&self, now: Moment) -> Moment {
        let begun = self.out.as_ref().and_then(|out| out.begun).map(|mark| mark.at);
        let latest = [Some(self.started), self.first_in, begun].into_iter().flatten().max();
        match latest {
            Some(latest) if now <= latest => sys::now().max(latest),
            _ => now,
        }
    }

    /// The record of an exchange that came to its end.
    pub(crate) fn complete(
        self,
        on: On,
        now: Moment,
        sums: &Sums,
        (end, phase): (End, &'static str),
    ) -> ExchangeRecord {
        let at = self.after(now);
        let first = self.first(on.role);
        let gone = self.out.as_ref().map_or(0, |out| match (out.sent, out.begun) {
            (Some(sent), Some(begun)) => sent.offset - begun.offset,
            _ => 0,
        });
        let pauses = self.out.as_ref().map_or(Pauses::default(), |out| out.pauses(&sums.pauses, at));
        let mut record = self.known(on, gone, (sums.wire_in, sums.wire_out), at);
        record.transfer = first.map(|first| at - first);
        record.pauses = pauses;
        (record.end, record.phase) = (end, phase);
        record
    }

    /// The record of an exchange that its connection's end cut. `in_front`: its message is the one at the gate.
    pub(crate) fn cut(
        self,
        record: &ConnectionRecord,
        phase: &'static str,
        in_front: bool,
    ) -> ExchangeRecord {
        let at = self.after(sys::now());
        let gone = self.out.as_ref().map_or(0, |out| match out.begun {
            Some(begun) => record.plain_out.saturating_sub(begun.offset).min(out.length),
            None => 0,
        });
        let pauses = match &self.out {
            Some(out) if in_front || out.begun.is_some() => {
                out.pauses_at_cut(&record.pauses, record.gap_since_mark_ns, at)
            }
            _ => Pauses::default(),
        };
        let mut cut = self.known(On::of(record), gone, (record.wire_in, record.wire_out), at);
        cut.pauses = pauses;
        // A connection that ended well and an exchange on it that did not: it left in the middle of it.
        let reason = if record.end.reason == Reason::Ok { Reason::Abort } else { record.end.reason };
        (cut.end, cut.phase) = (End { who: record.end.who, reason }, phase);
        cut
    }

    fn first(&self, role: Role) -> Option<Moment> {
        match role {
            Role::Server => self.out.as_ref().and_then(|out| out.begun).map(|mark| mark.at),
            Role::Client => self.first_in,
        }
    }

    fn known(&self, on: On, gone: u64, wire: (u64, u64), at: Moment) -> ExchangeRecord {
        let (head_in, head_out) = (self.head_in.min(self.bytes_in), self.head_out.min(gone));
        let came = (head_in, self.bytes_in - head_in);
        let went = (head_out, gone - head_out);
        let (request, reply) = match on.role {
            Role::Server => (came, went),
            Role::Client => (went, came),
        };
        let (wire_in, wire_out) = match self.wire_before {
            Some(before) => (wire.0.saturating_sub(before.0), wire.1.saturating_sub(before.1)),
            None => (self.bytes_in, gone),
        };
        ExchangeRecord {
            conn_id: on.conn_id,
            exchange_id: self.id,
            first_byte: self.first(on.role).map(|first| first - self.started),
            peer: on.peer,
            role: on.role,
            words: self.words.clone(),
            status: self.status,
            req_header_bytes: request.0,
            req_body_bytes: request.1,
            resp_header_bytes: reply.0,
            resp_body_bytes: reply.1,
            wire_in,
            wire_out,
            started: self.wall,
            transfer: None,
            total: (at - self.started).max(Duration::from_nanos(1)),
            pauses: Pauses::default(),
            end: End::local(Reason::Internal),
            phase: "request",
            events: None,
            client: self.client.clone(),
        }
    }
}

impl Out {
    /// From the moment the gate reached the message until its last byte had gone.
    fn pauses(&self, now: &Pauses, at: Moment) -> Pauses {
        let (since, before) = self.since();
        match self.sent {
            Some(sent) => {
                let gap = sent.sums.gap_since_mark_ns.min(sent.at.nanos_since(since));
                between(&before, &sent.sums.pauses, gap)
            }
            None => between(&before, now, at.nanos_since(since)),
        }
    }

    fn pauses_at_cut(&self, closed: &Pauses, gap: u64, at: Moment) -> Pauses {
        let (since, before) = self.since();
        match self.sent {
            Some(_) => self.pauses(closed, at),
            None if self.begun.is_some() => between(&before, closed, gap.min(at.nanos_since(since))),
            None => between(&before, closed, at.nanos_since(since)),
        }
    }

    fn since(&self) -> (Moment, Pauses) {
        self.begun.map_or(self.queued, |begun| (begun.reached, begun.sums.pauses))
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
