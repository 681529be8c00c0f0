//! An HTTP connection: requests are read and answered one after another, in order.
//!
//! Driven by the poller. Two sides run apart. The reading side finds heads in what arrives and has each answered:
//!
//! ```text
//! Head ──complete──▶ (Body ──read──▶) handler ──reply queued──▶ Head
//!   │                                    └─tasks─▶ Handler ──series ended──▶ reply queued ▶ Head
//!   └──refused, last one, peer finished──▶ Shut: what still arrives is not looked at
//! ```
//!
//! A handler that reads the body as a stream is called before it: then Body lasts until both the body is here and, if that
//! is later, the reply is queued. A reply that is there first does not wait; what comes of the body then is in `bodies`.
//!
//! The writing side is the socket's outbox: each reply lies in it between two marks, and the exchange is recorded
//! when its second mark is passed, or when the connection is gone before that.
//!
//! A client may send requests ahead. At most 16 replies wait, none behind a stream or a reply with a pace of its own, and
//! none is added while the outbox is above its high watermark: then nothing is read either, and the client's window closes. An idle connection has no
//! buffer at all: what a request needs is in [`Work`], lent by the service while there is something to do. Where nobody
//! records, most exchanges leave nothing there at all: see `at_once`.

mod answer;
mod at_once;
mod bodies;
mod patience;
mod replies;
mod requests;

use std::time::Duration;

use tidegate_poller::moment::Moment;
use tidegate_poller::record::ConnectionRecord;
use tidegate_poller::{Edge, Io, Passed, Session, TimerId, sys};

use crate::http::server::exchange::Phase;
use crate::http::server::service::Seat;
use crate::http::server::work::Work;
use requests::worth_a_look;

/// What timers are for.
const PATIENCE: u32 = 0;
const LAST_LOOK: u32 = 1;

/// One connection.
pub(in crate::http) struct HttpSession {
    seat: Seat,
    /// Here only while something is under way.
    work: Option<Box<Work>>,
    /// Since when bytes can be exchanged: it was made, and its handshake, where there is one, was done.
    ready: Moment,
    /// When patience with the peer ends. The timer may be armed for earlier: it is set anew when it fires, so that
    /// a request costs no timer.
    deadline: Option<Moment>,
    timer: Option<TimerId>,
    /// For when it is armed: milliseconds after `ready`, rounded up. After 49 days on one connection it stands
    /// still, and a deadline that comes nearer is noticed when the timer fires for the one before.
    timer_at_ms: u32,
    exchanges: u32,
    reading: Reading,
    reading_paused: bool,
    /// The peer will send no more.
    peer_finished: bool,
    /// Handlers have left something with the connection; the service keeps it.
    has_data: bool,
    /// The next reply is the last: the server is stopping, or what follows could be a body or a request.
    last_next: bool,
    /// A reply has freed bytes of its connection's limit: some may be left, which are not the next one's.
    has_freed: bool,
    /// The phase in which the end was decided on, once it was.
    ended_in: Option<Phase>,
}

// Ten thousand idle connections have one each.
const _: () = assert!(size_of::<HttpSession>() <= 56);

/// What the reading side waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// A head.
    Head,
    /// The rest of a body.
    Body,
    /// The job that answers the request at hand.
    Handler,
    /// Nothing more.
    Shut,
}

impl HttpSession {
    pub(in crate::http) fn new(seat: Seat) -> HttpSession {
        HttpSession {
            seat,
            work: None,
            has_data: false,
            ready: Moment::FIRST,
            deadline: None,
            timer: None,
            timer_at_ms: 0,
            exchanges: 0,
            reading: Reading::Head,
            reading_paused: false,
            peer_finished: false,
            last_next: false,
            has_freed: false,
            ended_in: None,
        }
    }

    #[inline]
    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_with(|| self.seat.take_work())
    }
}

impl Session for HttpSession {
    fn opened(&mut self, io: &mut Io<'_>) {
        self.ready = io.now();
        io.set_send_timeout(Some(self.seat.settings.send_timeout));
        self.seat.settings.pacing.join(io);
        if io.is_shutting_down() {
            self.last_next = true;
        }
    }

    /// A handshake has its own time; that of the first head begins now.
    fn ready(&mut self, io: &mut Io<'_>) {
        self.ready = io.now();
        self.wait(io);
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        if self.reading == Reading::Shut {
            return;
        }
        let mut first = None;
        if self.is_at_rest(io) {
            match self.answer_at_once(io, bytes) {
                Some(read) => first = Some(read),
                None => return,
            }
        }
        let now = io.now();
        let work = self.work();
        work.latest = Some(now);
        if work.input.is_empty() {
            work.head_since = Some(now);
            let used = self.advance(io, bytes, first);
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                self.work().input.extend_from_slice(rest);
            }
        } else {
            let head_max = self.seat.settings.head_limits.bytes;
            let work = self.work();
            let more = worth_a_look(work.partial, work.input.len(), bytes, head_max);
            work.input.extend_from_slice(bytes);
            if more {
                self.advance_input(io);
            }
        }
        self.settle(io);
    }

    fn passed(&mut self, io: &mut Io<'_>, mark: Passed) {
        let Some(work) = &mut self.work else { return };
        match mark.edge {
            Edge::Begin { .. } => {
                let recorded = !self.seat.settings.sinks.is_empty();
                let exchange = work.exchanges.iter_mut().find(|exchange| exchange.id == mark.id);
                if let Some(exchange) = exchange.filter(|_| recorded) {
                    let at = moment_after(exchange.latest(), &mark);
                    exchange.begin(&mark, at);
                }
            }
            Edge::End => self.reply_has_gone(io, mark),
        }
    }

    fn drained(&mut self, io: &mut Io<'_>) {
        self.go_on(io);
    }

    fn timer(&mut self, io: &mut Io<'_>, reason: u32) {
        if reason == LAST_LOOK {
            return self.settle(io);
        }
        self.timer = None;
        match self.deadline {
            Some(deadline) if deadline <= io.now() => self.out_of_time(io),
            later => self.set_deadline(io, later),
        }
    }

    fn peer_finished(&mut self, io: &mut Io<'_>) {
        self.peer_finished = true;
        self.look_for_peer(io);
        self.settle(io);
    }

    fn shutdown(&mut self, io: &mut Io<'_>) {
        self.last_next = true;
        if let Some(reins) = self.work.as_ref().and_then(|work| work.reins.as_ref()) {
            reins.shut_down();
            io.wake_source();
        }
        // Not at once: what the kernel holds already is read first, so that a request that has arrived is answered,
        // and a peer that has left is seen to have left.
        io.start_timer(Duration::ZERO, LAST_LOOK);
    }

    fn wants_figures(&self) -> bool {
        !self.seat.settings.sinks.is_empty()
    }

    fn phase(&self) -> &'static str {
        self.current_phase().as_str()
    }

    fn closed(mut self: Box<Self>, record: ConnectionRecord) {
        if self.has_data {
            let gone = self.seat.data.borrow_mut().remove(&record.conn_id);
            // With nothing borrowed: it may be the last to hold it.
            drop(gone);
        }
        if let Some(mut work) = self.work.take() {
            let answering = work.answering.take();
            let in_handler = answering.is_some() && self.reading != Reading::Body;
            self.record_cut(&mut work, &record, in_handler);
            if let Some(token) = answering {
                token.cancel();
            }
            self.seat.give_back(work);
        }
        self.seat.settings.sinks.connection(record, u64::from(self.exchanges));
    }
}

/// When a mark was passed. All that happens in a turn of the poller has the turn's moment; an exchange that is over
/// within one would be said to have taken no time, so then the clock is read.
fn moment_after(latest: Moment, mark: &Passed) -> Moment {
    if mark.at > latest { mark.at } else { sys::now().max(latest) }
}
