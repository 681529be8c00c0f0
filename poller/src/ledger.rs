//! The account of one socket.
//!
//! A ledger owns the facts of a connection while it lives: bytes, first and last moments, and the time spent not
//! writing, by cause. The gate and the loop write them down as they happen; [`Ledger::into_record`] consumes it in
//! the one teardown path. It reads no clock and decides nothing. Every transition may be told twice.
//!
//! There is one a socket, idle ones included, so it is kept small: a span of time costs one number, not two, and what
//! only a socket has that was kept from writing once, or whose transport changes the bytes, is in `Rare`.

use std::time::{Duration, SystemTime};

use crate::moment::Moment;
use crate::record::{ConnectionRecord, End, Handshake, Pauses, Peer, Role, TcpFigures};

/// The account of one socket.
#[derive(Clone, Debug)]
pub struct Ledger {
    started: Moment,
    connected: Option<Moment>,
    first_in: Option<Moment>,
    last_in: Option<Moment>,
    first_out: Option<Moment>,
    last_out: Option<Moment>,
    wire_in: u64,
    wire_out: u64,
    /// Since when no byte went although some were queued. Absent when none are queued.
    quiet_since: Option<Moment>,
    longest_gap_ns: u64,
    /// The latest mark, and the longest gap after it.
    mark: Moment,
    gap_since_mark_ns: u64,
    rare: Option<Box<Rare>>,
}

/// What a socket has that was kept from writing or reading once, or whose transport changes the bytes.
#[derive(Clone, Debug, Default)]
struct Rare {
    spans: [Span; CAUSES],
    /// Bytes in, by which the wire had more than there were above the transport (fewer, when the top bit is set).
    surplus_in: u64,
    /// The same of the bytes out.
    surplus_out: u64,
    throttle_count: u32,
    /// A bit for each span that runs.
    running: u8,
}

/// What a ledger has added up so far, spans that still run included.
///
/// Two of them, taken at two marks, give by subtraction what happened in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Bytes read from the socket.
    pub wire_in: u64,
    /// Bytes the kernel took from us.
    pub wire_out: u64,
    /// Bytes above the transport, in.
    pub plain_in: u64,
    /// Bytes above the transport, out.
    pub plain_out: u64,
    /// Egress pauses; the longest gap is that of the whole connection.
    pub pauses: Pauses,
    /// The longest gap since the latest [`Ledger::start_span`], in nanoseconds.
    pub gap_since_mark_ns: u64,
    /// Nanoseconds during which an ingress budget kept us from reading.
    pub ingress_throttled_ns: u64,
}

/// What a [`ConnectionRecord`] holds that the ledger does not know.
#[derive(Clone, Debug)]
pub struct Teardown {
    /// The moment of the close.
    pub now: Moment,
    /// Unique in this process.
    pub conn_id: u64,
    /// The other end.
    pub peer: Peer,
    /// Our role.
    pub role: Role,
    /// Wall-clock time of the start, read when the ledger was made: durations come from the monotonic clock only.
    pub started: SystemTime,
    /// How it ended.
    pub end: End,
    /// In which phase.
    pub phase: &'static str,
    /// Bytes that were queued and never written.
    pub dropped_out: u64,
    /// What the kernel knew.
    pub tcp: Option<TcpFigures>,
    /// What the transport agreed on.
    pub handshake: Option<Box<Handshake>>,
}

impl Ledger {
    /// Opens the account, at accept or at the start of our connect.
    pub fn new(now: Moment) -> Ledger {
        Ledger {
            started: now,
            connected: None,
            first_in: None,
            last_in: None,
            first_out: None,
            last_out: None,
            wire_in: 0,
            wire_out: 0,
            quiet_since: None,
            longest_gap_ns: 0,
            mark: now,
            gap_since_mark_ns: 0,
            rare: None,
        }
    }

    /// The moment the account was opened.
    pub fn started(&self) -> Moment {
        self.started
    }

    /// The connection is established. Only the first time counts.
    pub fn connected(&mut self, now: Moment) {
        self.connected.get_or_insert(now);
    }

    /// When the connection was established.
    pub fn connected_at(&self) -> Option<Moment> {
        self.connected
    }

    /// Bytes were read: `wire` from the socket, which gave `plain` above the transport.
    pub fn note_in(&mut self, wire: u64, plain: u64, now: Moment) {
        self.wire_in += wire;
        if wire != plain {
            let surplus = &mut self.rare().surplus_in;
            *surplus = surplus.wrapping_add(wire).wrapping_sub(plain);
        }
        if wire > 0 {
            self.first_in.get_or_insert(now);
            self.last_in = Some(now);
        }
    }

    /// Bytes went out: the kernel took `wire`, the transport `plain`. Only wire bytes end a gap: what the transport
    /// keeps has not moved.
    pub fn note_out(&mut self, wire: u64, plain: u64, now: Moment) {
        self.wire_out += wire;
        if wire != plain {
            let surplus = &mut self.rare().surplus_out;
            *surplus = surplus.wrapping_add(wire).wrapping_sub(plain);
        }
        if wire > 0 {
            self.first_out.get_or_insert(now);
            self.last_out = Some(now);
            if self.quiet_since.is_some() {
                self.end_gap(now);
                self.quiet_since = Some(now);
            }
        }
    }

    /// A budget keeps the gate closed, or no longer. Each closing counts as one pause.
    pub fn set_paused(&mut self, paused: bool, now: Moment) {
        if self.set(THROTTLED, paused, now) && paused {
            let count = &mut self.rare().throttle_count;
            *count = count.saturating_add(1);
        }
    }

    /// The pause that just ended took no time (a turn that was given at once): it does not count.
    pub fn uncount_pause(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.throttle_count = rare.throttle_count.saturating_sub(1);
        }
    }

    /// The kernel takes no more, or does again.
    pub fn set_blocked(&mut self, blocked: bool, now: Moment) {
        self.set(BLOCKED, blocked, now);
    }

    /// The program holds the socket, or no longer.
    pub fn set_held(&mut self, held: bool, now: Moment) {
        self.set(HELD, held, now);
    }

    /// A source or a cold file has nothing ready, or has again.
    pub fn set_starved(&mut self, starved: bool, now: Moment) {
        self.set(STARVED, starved, now);
    }

    /// Nothing keeps the gate from writing now.
    pub fn goes_on(&mut self, now: Moment) {
        if self.rare.as_ref().is_some_and(|rare| rare.running & STOPS != 0) {
            for cause in [THROTTLED, BLOCKED, HELD, STARVED] {
                self.set(cause, false, now);
            }
        }
    }

    /// An ingress budget keeps us from reading, or no longer.
    pub fn set_ingress_paused(&mut self, paused: bool, now: Moment) {
        self.set(INGRESS, paused, now);
    }

    /// Bytes are queued, or none. Silence is a gap only while some are.
    pub fn set_pending(&mut self, pending: bool, now: Moment) {
        if pending {
            self.quiet_since.get_or_insert(now);
        } else if self.quiet_since.is_some() {
            self.end_gap(now);
            self.quiet_since = None;
        }
    }

    /// Sets a mark: [`Sums::gap_since_mark_ns`] starts anew. Of a gap that runs, only what comes after counts.
    pub fn start_span(&mut self, now: Moment) {
        self.mark = now;
        self.gap_since_mark_ns = 0;
    }

    /// What has been added up until `now`.
    pub fn sums(&self, now: Moment) -> Sums {
        let (gap, since_mark) = self.running_gap(now);
        let mut sums = Sums {
            wire_in: self.wire_in,
            wire_out: self.wire_out,
            plain_in: self.wire_in,
            plain_out: self.wire_out,
            pauses: Pauses { longest_gap_ns: self.longest_gap_ns.max(gap), ..Pauses::default() },
            gap_since_mark_ns: self.gap_since_mark_ns.max(since_mark),
            ingress_throttled_ns: 0,
        };
        if let Some(rare) = &self.rare {
            rare.add_to(&mut sums, now);
        }
        sums
    }

    /// Bytes above the transport, out, so far.
    pub fn plain_out(&self) -> u64 {
        let surplus = self.rare.as_ref().map_or(0, |rare| rare.surplus_out);
        self.wire_out.wrapping_sub(surplus)
    }

    /// Closes the account.
    pub fn into_record(self, teardown: Teardown) -> ConnectionRecord {
        let Teardown { now, conn_id, peer, role, started, end, phase, dropped_out, tcp, handshake } =
            teardown;
        let sums = self.sums(now);
        let since_start = |moment: Option<Moment>| moment.map(|moment| moment - self.started);
        ConnectionRecord {
            conn_id,
            peer,
            role,
            started,
            wire_in: sums.wire_in,
            wire_out: sums.wire_out,
            plain_in: sums.plain_in,
            plain_out: sums.plain_out,
            dropped_out,
            connected: since_start(self.connected),
            first_in: since_start(self.first_in),
            last_in: since_start(self.last_in),
            first_out: since_start(self.first_out),
            last_out: since_start(self.last_out),
            duration: Duration::from_nanos(now.nanos_since(self.started)),
            pauses: sums.pauses,
            gap_since_mark_ns: sums.gap_since_mark_ns,
            ingress_throttled_ns: sums.ingress_throttled_ns,
            end,
            phase,
            tcp,
            handshake,
        }
    }

    /// Starts or stops a span; says whether that changed anything.
    fn set(&mut self, cause: usize, on: bool, now: Moment) -> bool {
        match &mut self.rare {
            Some(rare) => rare.set(cause, on, now),
            None => on && self.rare().set(cause, on, now),
        }
    }

    #[inline]
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn end_gap(&mut self, now: Moment) {
        let (gap, since_mark) = self.running_gap(now);
        self.longest_gap_ns = self.longest_gap_ns.max(gap);
        self.gap_since_mark_ns = self.gap_since_mark_ns.max(since_mark);
    }

    /// The length of the gap that runs, in all and after the mark.
    fn running_gap(&self, now: Moment) -> (u64, u64) {
        match self.quiet_since {
            Some(since) => (now.nanos_since(since), now.nanos_since(since.max(self.mark))),
            None => (0, 0),
        }
    }
}

impl Rare {
    fn set(&mut self, cause: usize, on: bool, now: Moment) -> bool {
        let changed = on != self.runs(cause);
        if changed {
            self.running ^= 1 << cause;
            self.spans[cause] = if on { self.spans[cause].begin(now) } else { self.spans[cause].finish(now) };
        }
        changed
    }

    fn runs(&self, cause: usize) -> bool {
        self.running >> cause & 1 == 1
    }

    fn total(&self, cause: usize, now: Moment) -> u64 {
        if self.runs(cause) { self.spans[cause].finish(now).0 } else { self.spans[cause].0 }
    }

    fn add_to(&self, sums: &mut Sums, now: Moment) {
        sums.plain_in = sums.wire_in.wrapping_sub(self.surplus_in);
        sums.plain_out = sums.wire_out.wrapping_sub(self.surplus_out);
        sums.pauses.throttled_ns = self.total(THROTTLED, now);
        sums.pauses.blocked_ns = self.total(BLOCKED, now);
        sums.pauses.held_ns = self.total(HELD, now);
        sums.pauses.starved_ns = self.total(STARVED, now);
        sums.pauses.throttle_count = u64::from(self.throttle_count);
        sums.ingress_throttled_ns = self.total(INGRESS, now);
    }
}

const THROTTLED: usize = 0;
const BLOCKED: usize = 1;
const HELD: usize = 2;
const STARVED: usize = 3;
const INGRESS: usize = 4;
const CAUSES: usize = 5;
/// The bits of what keeps the gate from writing.
const STOPS: u8 = 1 << THROTTLED | 1 << BLOCKED | 1 << HELD | 1 << STARVED;

/// Nanoseconds in all. While it runs, the sum less the moment it began, so that adding a moment gives the sum
/// then; whether it runs is told by the ledger's bit.
#[derive(Clone, Copy, Debug, Default)]
struct Span(u64);

impl Span {
    fn begin(self, now: Moment) -> Span {
        Span(self.0.wrapping_sub(now.as_nanos()))
    }

    /// Sums stay below 292 years, so a set top bit means that time went backwards: nothing is counted then rather
    /// than centuries.
    fn finish(self, now: Moment) -> Span {
        Span(self.0.wrapping_add(now.as_nanos()).cast_signed().max(0).cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::record::Reason;

    // Ten thousand idle sockets have one each.
    const _: () = assert!(size_of::<Ledger>() <= 104);

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(1_000_000 + nanos)
    }

    fn ledger() -> Ledger {
        Ledger::new(at(0))
    }

    fn record(ledger: Ledger, now: u64) -> ConnectionRecord {
        ledger.into_record(Teardown {
            now: at(now),
            conn_id: 7,
            peer: Peer::Inet(SocketAddr::from((Ipv4Addr::LOCALHOST, 80))),
            role: Role::Server,
            started: SystemTime::UNIX_EPOCH,
            end: End::peer(Reason::Abort),
            phase: "reply",
            dropped_out: 5,
            tcp: None,
            handshake: None,
        })
    }

    type Set = fn(&mut Ledger, bool, Moment);
    type Get = fn(Sums) -> u64;
    const SPANS: [(Set, Get); CAUSES] = [
        (Ledger::set_paused, |sums| sums.pauses.throttled_ns),
        (Ledger::set_blocked, |sums| sums.pauses.blocked_ns),
        (Ledger::set_held, |sums| sums.pauses.held_ns),
        (Ledger::set_starved, |sums| sums.pauses.starved_ns),
        (Ledger::set_ingress_paused, |sums| sums.ingress_throttled_ns),
    ];

    #[test]
    fn a_new_ledger_has_zero_sums_and_no_moments() {
        assert_eq!(ledger().sums(at(50)), Sums::default());
        let record = record(ledger(), 50);
        let moments = [record.connected, record.first_in, record.last_in, record.first_out, record.last_out];
        assert_eq!(moments, [None; 5]);
        assert_eq!(record.duration, Duration::from_nanos(50));
        assert_eq!((record.conn_id, record.dropped_out, record.phase), (7, 5, "reply"));
        assert_eq!((record.end, record.end_who()), (End::peer(Reason::Abort), "client"));
    }

    #[test]
    fn bytes_and_moments_are_written_down() {
        let mut ledger = ledger();
        ledger.connected(at(10));
        ledger.connected(at(11));
        ledger.note_in(100, 80, at(20));
        ledger.note_in(0, 20, at(25));
        ledger.note_in(50, 40, at(30));
        ledger.note_out(0, 9, at(35));
        ledger.note_out(60, 50, at(40));
        ledger.note_out(6, 0, at(50));
        ledger.note_out(0, 0, at(60));
        let record = record(ledger, 99);
        assert_eq!((record.wire_in, record.plain_in), (150, 140));
        assert_eq!((record.wire_out, record.plain_out), (66, 59));
        let moments = [record.connected, record.first_in, record.last_in, record.first_out, record.last_out];
        assert_eq!(moments, [10, 20, 30, 40, 50].map(|nanos| Some(Duration::from_nanos(nanos))));
    }

    #[test]
    fn each_span_is_timed_apart_and_told_twice_is_told_once() {
        for (this, (set, get)) in SPANS.into_iter().enumerate() {
            let mut ledger = ledger();
            set(&mut ledger, false, at(5));
            set(&mut ledger, true, at(10));
            set(&mut ledger, true, at(12));
            assert_eq!(get(ledger.sums(at(13))), 3, "a running span counts");
            set(&mut ledger, false, at(15));
            set(&mut ledger, false, at(17));
            assert_eq!(get(ledger.sums(at(100))), 5);
            set(&mut ledger, true, at(100));
            set(&mut ledger, false, at(107));
            let sums = ledger.sums(at(200));
            assert_eq!(get(sums), 12);
            for (_, other) in SPANS.into_iter().enumerate().filter(|(n, _)| *n != this).map(|(_, span)| span)
            {
                assert_eq!(other(sums), 0);
            }
        }
    }

    #[test]
    fn spans_may_overlap() {
        let mut ledger = ledger();
        for (n, (set, _)) in SPANS.into_iter().enumerate() {
            set(&mut ledger, true, at(n as u64));
        }
        ledger.set_blocked(false, at(50));
        let totals = SPANS.map(|(_, get)| get(ledger.sums(at(100))));
        assert_eq!(totals, [100, 49, 98, 97, 96]);
        let record = record(ledger, 110);
        assert_eq!((record.pauses.throttled_ns, record.pauses.blocked_ns), (110, 49));
        assert_eq!(record.ingress_throttled_ns, 106);
    }

    #[test]
    fn only_a_budget_that_closes_the_gate_counts_as_a_pause() {
        let mut ledger = ledger();
        for (set, _) in SPANS {
            for paused in [true, true, false, false, true] {
                set(&mut ledger, paused, at(1));
            }
        }
        assert_eq!(ledger.sums(at(1)).pauses.throttle_count, 2);
    }

    #[test]
    fn a_span_with_time_going_backwards_counts_nothing() {
        let mut ledger = ledger();
        ledger.set_held(true, at(100));
        assert_eq!(ledger.sums(at(90)).pauses.held_ns, 0);
        ledger.set_held(false, at(90));
        assert_eq!(ledger.sums(at(200)).pauses.held_ns, 0);
    }

    #[test]
    fn a_gap_is_silence_while_bytes_are_queued() {
        let gap = |ledger: &Ledger, now| ledger.sums(at(now)).pauses.longest_gap_ns;
        let mut ledger = ledger();
        assert_eq!(gap(&ledger, 1_000), 0, "nothing is queued");
        ledger.set_pending(true, at(1_000));
        ledger.set_pending(true, at(1_050));
        assert_eq!(gap(&ledger, 1_060), 60, "a running gap counts");
        ledger.note_out(1, 1, at(1_100));
        ledger.note_out(0, 1, at(1_120));
        ledger.note_out(1, 1, at(1_130));
        assert_eq!(gap(&ledger, 1_140), 100);
        assert_eq!(gap(&ledger, 1_300), 170);
        ledger.set_pending(false, at(1_250));
        ledger.set_pending(false, at(1_500));
        assert_eq!(gap(&ledger, 9_000), 120, "a gap ends when nothing is queued any more");
        ledger.note_out(1, 1, at(9_500));
        assert_eq!(record(ledger, 9_999).pauses.longest_gap_ns, 120);
    }

    #[test]
    fn a_mark_starts_the_gap_anew_and_cuts_the_running_one() {
        let gap = |ledger: &Ledger, now| ledger.sums(at(now)).gap_since_mark_ns;
        let mut ledger = ledger();
        ledger.set_pending(true, at(100));
        ledger.note_out(1, 1, at(300));
        assert_eq!(gap(&ledger, 300), 200);
        ledger.start_span(at(350));
        assert_eq!(gap(&ledger, 390), 40);
        ledger.note_out(1, 1, at(400));
        ledger.note_out(1, 1, at(430));
        assert_eq!(gap(&ledger, 430), 50);
        assert_eq!(ledger.sums(at(430)).pauses.longest_gap_ns, 200, "the connection's own gap stays");
        ledger.start_span(at(440));
        ledger.set_pending(false, at(445));
        assert_eq!(gap(&ledger, 900), 5);
    }
}
