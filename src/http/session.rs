//! An HTTP connection: requests are read and answered one after another, in order.
//!
//! Driven by the poller. Two sides run apart. The reading side finds heads in what arrives and has each answered:
//!
//! ```text
//! Head ──complete──▶ (Body ──read──▶) handler ──reply queued──▶ Head
//!   │                                    └─later─▶ Handler ──job done──▶ reply queued ▶ Head
//!   └──refused, last one, peer finished──▶ Shut: what still arrives is not looked at
//! ```
//!
//! The writing side is the socket's outbox: each reply lies in it between two marks, and the exchange is recorded
//! when its second mark is passed, or when the connection is gone before that.
//!
//! A client may send requests ahead. At most [`AHEAD_MAX`] replies wait, and none is added while the outbox is above
//! its high watermark: then nothing is read either, and the client's window closes. An idle connection has no
//! buffer at all: what a request needs is in [`Work`], lent by the service while there is something to do.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_poller::moment::Moment;
use tidegate_poller::record::{ConnectionRecord, End, Pauses, Reason};
use tidegate_poller::{Edge, Io, Mark, Passed, Session, TimerId, sys};

use crate::http::exchange::{Asked, Connection, Exchange, ReplyFacts};
use crate::http::handler::Answer;
use crate::http::reply::{Body, Persistence, Reply, sends_body, write_head};
use crate::http::request::{HEAD_MAX, Method, Parsed, Refused, Request, parse};
use crate::http::service::Seat;
use crate::http::status::Status;

/// The most replies queued at a time.
const AHEAD_MAX: usize = 16;
/// The most of a request body that is read, to be thrown away, so that the connection can go on after it.
const BODY_MAX: u64 = 64 * 1024;
/// What of a buffer is kept for the next request.
const BUFFER_KEPT: usize = 4 * 1024;
/// A body in memory up to this size goes into the buffer of its head: one piece for the kernel instead of two.
const BODY_INLINE_MAX: usize = 4 * 1024;

/// One connection.
pub(super) struct HttpSession {
    seat: Seat,
    /// Here only while something is under way.
    work: Option<Box<Work>>,
    opened: Moment,
    /// When patience with the peer ends. The timer may be armed for earlier: it is set anew when it fires, so that
    /// a request costs no timer.
    deadline: Option<Moment>,
    timer: Option<TimerId>,
    timer_at: Option<Moment>,
    exchanges: u32,
    reading: Reading,
    reading_paused: bool,
    /// The peer will send no more.
    peer_finished: bool,
    /// The next reply is the last: the server is stopping, or what follows could be a body or a request.
    last_next: bool,
    /// The phase in which the end was decided on, once it was.
    ended_in: Option<&'static str>,
}

// Ten thousand idle connections have one each.
const _: () = assert!(size_of::<HttpSession>() <= 104);

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

/// What a connection needs while it is not idle.
#[derive(Default)]
pub(super) struct Work {
    /// What arrived and is not used yet.
    input: Vec<u8>,
    /// The head in `input` is incomplete, and was looked at when it had so many bytes.
    partial: Option<usize>,
    /// When the first byte of the head at hand arrived, and the latest bytes.
    head_since: Option<Moment>,
    latest: Option<Moment>,
    /// Bytes of body still to come.
    body_left: u64,
    /// In order. All but the last have their reply in the outbox.
    exchanges: VecDeque<Exchange>,
    /// What had been added up when the gate was done with the exchange before, or this one came first.
    pauses_before: Pauses,
}

impl Work {
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.input.shrink_to(BUFFER_KEPT);
        self.exchanges.clear();
        *self = Work {
            input: std::mem::take(&mut self.input),
            exchanges: std::mem::take(&mut self.exchanges),
            ..Work::default()
        };
    }

    /// Bytes of a head that is not complete, line ends before it apart.
    fn partial_head(&self) -> Option<&[u8]> {
        let start = self.input.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
        self.partial.map(|_| &self.input[start..])
    }
}

impl HttpSession {
    pub(super) fn new(seat: Seat) -> HttpSession {
        HttpSession {
            seat,
            work: None,
            opened: Moment::FIRST,
            deadline: None,
            timer: None,
            timer_at: None,
            exchanges: 0,
            reading: Reading::Head,
            reading_paused: false,
            peer_finished: false,
            last_next: false,
            ended_in: None,
        }
    }

    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_with(|| self.seat.take_work())
    }
}

impl Session for HttpSession {
    fn opened(&mut self, io: &mut Io<'_>) {
        self.opened = io.now();
        io.set_send_timeout(Some(self.seat.settings.send_timeout));
        self.seat.settings.pacing.join(io);
        if io.is_shutting_down() {
            self.last_next = true;
        }
        self.set_deadline(io, Some(self.opened + self.seat.settings.header_timeout));
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        if self.reading == Reading::Shut {
            return;
        }
        let now = io.now();
        let work = self.work();
        work.latest = Some(now);
        work.head_since.get_or_insert(now);
        if work.input.is_empty() {
            let used = self.advance(io, bytes);
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                self.work().input.extend_from_slice(rest);
            }
        } else {
            let more = worth_a_look(work.partial, work.input.len(), bytes);
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
                if let Some(exchange) = work.exchanges.iter_mut().find(|exchange| exchange.id == mark.id) {
                    let at = moment_after(exchange.latest(), &mark);
                    exchange.begin(&mark, at);
                }
            }
            Edge::End => {
                let Some(exchange) = work.exchanges.pop_front() else { return };
                debug_assert_eq!(exchange.id, mark.id, "replies go in order");
                work.pauses_before = mark.sums.pauses;
                let at = moment_after(exchange.latest(), &mark);
                let connection = Connection { conn_id: io.conn_id(), peer: io.peer(), role: io.role() };
                let seat = &self.seat;
                seat.wall(io.now());
                seat.sinks.exchange(|| exchange.complete(connection, &mark, at, &seat.clock.borrow()));
                self.go_on(io);
            }
        }
    }

    fn drained(&mut self, io: &mut Io<'_>) {
        self.go_on(io);
    }

    fn offloaded(&mut self, io: &mut Io<'_>, result: Box<dyn Any + Send>) {
        if self.reading != Reading::Handler {
            return;
        }
        let reply = match result.downcast::<Reply>() {
            Ok(reply) => *reply,
            Err(_) => Reply::error(Status::INTERNAL_ERROR),
        };
        self.reply(io, reply);
        self.go_on(io);
    }

    fn timer(&mut self, io: &mut Io<'_>, _: u32) {
        (self.timer, self.timer_at) = (None, None);
        match self.deadline {
            Some(deadline) if deadline <= io.now() => self.out_of_time(io),
            later => self.set_deadline(io, later),
        }
    }

    fn peer_finished(&mut self, io: &mut Io<'_>) {
        self.peer_finished = true;
        self.settle(io);
    }

    fn shutdown(&mut self, io: &mut Io<'_>) {
        self.last_next = true;
        self.settle(io);
    }

    fn phase(&self) -> &'static str {
        let Some(work) = &self.work else { return self.ended_in.unwrap_or("idle") };
        match work.exchanges.front() {
            Some(exchange) => exchange.phase(self.reading == Reading::Handler),
            None => self.ended_in.unwrap_or(if work.partial_head().is_some() { "request" } else { "idle" }),
        }
    }

    fn closed(mut self: Box<Self>, record: ConnectionRecord) {
        if let Some(mut work) = self.work.take() {
            self.record_cut(&mut work, &record);
            self.seat.give_back(work);
        }
        self.seat.sinks.connection(record, u64::from(self.exchanges));
    }
}

/// The reading side.
impl HttpSession {
    /// Uses what it can of `input`; says how much.
    fn advance(&mut self, io: &mut Io<'_>, input: &[u8]) -> usize {
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

    fn advance_input(&mut self, io: &mut Io<'_>) {
        let mut input = std::mem::take(&mut self.work().input);
        self.work().partial = None;
        let used = self.advance(io, &input);
        input.drain(..used);
        self.work().input = input;
    }

    /// Room was made: what waits is looked at.
    fn go_on(&mut self, io: &mut Io<'_>) {
        if self.work.as_ref().is_some_and(|work| !work.input.is_empty() && work.partial.is_none()) {
            self.advance_input(io);
        }
        self.settle(io);
    }

    /// Whether another reply may be queued.
    fn may_answer(&self, io: &Io<'_>) -> bool {
        self.work.as_ref().is_none_or(|work| work.exchanges.len() < AHEAD_MAX) && !io.above_high()
    }

    fn open_exchange(&mut self, asked: Asked, head_in: usize, now: Moment) {
        self.exchanges += 1;
        let id = u64::from(self.exchanges);
        let work = self.work();
        let started = work.head_since.take().unwrap_or(now);
        // What is left of the latest bytes belongs to the next head.
        work.head_since = work.latest;
        work.partial = None;
        work.exchanges.push_back(Exchange::new(id, asked, started, head_in as u64));
    }

    fn begin(&mut self, io: &mut Io<'_>, request: Request, head_in: usize) {
        let body = request.body_length();
        let (method, unread) = (request.method(), body > BODY_MAX || request.expects_continue());
        self.open_exchange(Asked::Request(Arc::new(request)), head_in, io.now());
        if body == 0 {
            self.handle(io);
        } else if !unread {
            self.work().body_left = body;
            self.reading = Reading::Body;
        } else if method == Method::Other {
            // It will be refused for its method, which says more than its size does.
            self.last_next = true;
            self.handle(io);
        } else if body > BODY_MAX {
            self.last_reply(io, Reply::error(Status::CONTENT_TOO_LARGE), Reason::Denied, "request");
        } else {
            // A client that waits for "100 Continue" may send the body after all: no telling what comes next.
            self.last_next = true;
            self.handle(io);
        }
    }

    /// The request is here: has it answered.
    fn handle(&mut self, io: &mut Io<'_>) {
        let Some(Asked::Request(request)) = self.work().exchanges.back().map(|exchange| &exchange.asked)
        else {
            return;
        };
        let request = request.clone();
        let now = self.seat.wall(io.now());
        match self.seat.handler.answer(&request, now) {
            Answer::Reply(reply) => self.reply(io, reply),
            Answer::Later(job) => match io.offload(move || Box::new(job())) {
                Ok(()) => self.reading = Reading::Handler,
                Err(_) => self.reply(io, Reply::error(Status::UNAVAILABLE)),
            },
        }
    }

    fn refuse(&mut self, io: &mut Io<'_>, refused: Refused) {
        let reason = match refused.status {
            Status::BAD_REQUEST | Status::VERSION_NOT_SUPPORTED => Reason::ProtocolError,
            Status::CONTENT_TOO_LARGE | Status::URI_TOO_LONG | Status::FIELDS_TOO_LARGE => Reason::Denied,
            _ => Reason::LocalClose,
        };
        let asked = match refused.request {
            Some(request) => Asked::Request(Arc::new(*request)),
            None => Asked::Broken(refused.line),
        };
        self.open_exchange(asked, refused.consumed, io.now());
        self.last_reply(io, Reply::explained(refused.status, refused.advice), reason, "request");
    }
}

/// The writing side.
impl HttpSession {
    /// Queues the reply to the latest request.
    fn reply(&mut self, io: &mut Io<'_>, reply: Reply) {
        let last = reply.close || self.last_next;
        let Some(exchange) = self.work().exchanges.back() else { return };
        let persistence = match &exchange.asked {
            Asked::Request(request) if !last => Persistence::asked_by(request),
            _ => Persistence::Closed,
        };
        self.reading = Reading::Head;
        self.queue(io, reply, persistence, End::local(Reason::Ok), "reply");
        if persistence == Persistence::Closed {
            let stopping = io.is_shutting_down();
            self.finish(io, End::local(if stopping { Reason::Shutdown } else { Reason::Ok }), "reply");
        }
    }

    /// Queues a reply after which nothing that arrives can be understood.
    fn last_reply(&mut self, io: &mut Io<'_>, reply: Reply, reason: Reason, phase: &'static str) {
        self.queue(io, reply, Persistence::Closed, End::local(reason), phase);
        self.finish(io, End::local(reason), phase);
    }

    fn queue(
        &mut self,
        io: &mut Io<'_>,
        reply: Reply,
        persistence: Persistence,
        end: End,
        phase: &'static str,
    ) {
        let mut out = io.buffer();
        let now = io.now();
        self.seat.wall(now);
        write_head(&mut out, &reply, self.seat.clock.borrow_mut().date(now), persistence);
        let head_len = out.len() as u64;
        let free = self.seat.settings.rate_after;
        let Some(exchange) = self.work().exchanges.back_mut() else { return };
        let method = match &exchange.asked {
            Asked::Request(request) => Some(request.method()),
            Asked::Broken(_) => None,
        };
        let with_body = sends_body(method, reply.status);
        let body_len = if with_body { reply.body.len() } else { 0 };
        exchange.reply = Some(ReplyFacts { status: reply.status, head_len, body_len, end, phase });
        let id = exchange.id;
        if let Some(work) = self.work.as_mut().filter(|work| work.exchanges.len() == 1) {
            work.pauses_before = io.sums().pauses;
        }
        io.mark(Mark { id, edge: Edge::Begin { free } });
        match reply.body {
            Body::Bytes(bytes) if with_body && bytes.len() <= BODY_INLINE_MAX => {
                out.extend_from_slice(&bytes);
                io.send(out);
            }
            Body::Bytes(bytes) if with_body => {
                io.send(out);
                io.send(bytes);
            }
            Body::File { file, id, offset, len } if with_body => {
                io.send(out);
                io.send_file(self.seat.open_files.borrow_mut().share(id, file), offset, len);
            }
            _ => io.send(out),
        }
        io.mark(Mark { id, edge: Edge::End });
    }
}

/// Patience and the end.
impl HttpSession {
    /// Brings everything in line with what just happened.
    fn settle(&mut self, io: &mut Io<'_>) {
        self.end_if_due(io);
        let Some(work) = &self.work else { return self.wait(io) };
        let waiting = !work.input.is_empty() && work.partial.is_none() && self.reading != Reading::Shut;
        if waiting != self.reading_paused {
            self.reading_paused = waiting;
            if waiting { io.pause_reading() } else { io.resume_reading() }
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
                    "request"
                } else if busy {
                    "reply"
                } else {
                    "idle"
                };
                let reason = if partial { Reason::Abort } else { Reason::Ok };
                self.finish(io, End::peer(reason), phase);
            }
            Reading::Body if self.peer_finished => self.finish(io, End::peer(Reason::Abort), "request"),
            // A request that is half here is waited for, as long as its timeout and the grace period allow.
            Reading::Head if self.last_next && !partial => {
                let phase = if busy { "reply" } else { "idle" };
                self.finish(io, End::local(Reason::Shutdown), phase);
            }
            Reading::Head | Reading::Body => {}
        }
    }

    /// Closes when the outbox is empty; nothing is read any more.
    fn finish(&mut self, io: &mut Io<'_>, end: End, phase: &'static str) {
        if self.reading != Reading::Shut {
            self.reading = Reading::Shut;
            self.ended_in = Some(phase);
            io.finish(end);
        }
    }

    /// Decides how long to wait for the peer.
    fn wait(&mut self, io: &mut Io<'_>) {
        let timeouts = &self.seat.settings;
        let deadline = match (&self.work, self.reading) {
            (_, Reading::Shut | Reading::Handler) => None,
            (Some(work), Reading::Body) => {
                work.exchanges.back().map(|exchange| exchange.started() + timeouts.header_timeout)
            }
            (Some(work), Reading::Head) if work.partial.is_some() => {
                let since = work.head_since.filter(|_| self.exchanges > 0).unwrap_or(self.opened);
                Some(since + timeouts.header_timeout)
            }
            (Some(_), Reading::Head) => None,
            (None, _) if self.exchanges == 0 => Some(self.opened + timeouts.header_timeout),
            (None, _) => Some(io.now() + timeouts.idle_timeout),
        };
        self.set_deadline(io, deadline);
    }

    /// Moves the deadline. The timer is touched only when it would fire too late.
    fn set_deadline(&mut self, io: &mut Io<'_>, deadline: Option<Moment>) {
        self.deadline = deadline;
        let Some(deadline) = deadline else { return };
        if self.timer_at.is_some_and(|at| at <= deadline) {
            return;
        }
        if let Some(timer) = self.timer.take() {
            io.cancel_timer(timer);
        }
        self.timer = Some(io.start_timer(deadline - io.now(), 0));
        self.timer_at = Some(deadline);
    }

    /// The peer let the deadline pass.
    fn out_of_time(&mut self, io: &mut Io<'_>) {
        self.deadline = None;
        let partial = self.work.as_ref().and_then(|work| work.partial_head());
        if self.reading == Reading::Body {
            self.last_reply(io, Reply::error(Status::REQUEST_TIMEOUT), Reason::Timeout, "request");
        } else if let Some(partial) = partial {
            let (line, head_in) =
                (first_line(partial), self.work.as_ref().map_or(0, |work| work.input.len()));
            self.work().input.clear();
            self.open_exchange(Asked::Broken(line), head_in, io.now());
            self.last_reply(io, Reply::error(Status::REQUEST_TIMEOUT), Reason::Timeout, "request");
        } else {
            self.finish(io, End::local(Reason::Timeout), "idle");
        }
        self.settle(io);
    }

    /// Records what the connection's end cut: replies under way, requests not answered, a head that never came whole.
    fn record_cut(&mut self, work: &mut Work, record: &ConnectionRecord) {
        let closed = self.opened + record.duration;
        self.seat.wall(closed);
        if let Some(partial) = work.partial_head().map(first_line) {
            self.exchanges += 1;
            let (head_in, since) = (work.input.len() as u64, work.head_since.unwrap_or(closed));
            let id = u64::from(self.exchanges);
            work.exchanges.push_back(Exchange::new(id, Asked::Broken(partial), since, head_in));
        }
        let in_handler = self.reading == Reading::Handler;
        let before = work.pauses_before;
        let clock = self.seat.clock.borrow();
        for (place, exchange) in work.exchanges.drain(..).enumerate() {
            let in_front = (place == 0).then_some(&before);
            self.seat.sinks.exchange(|| exchange.cut(record, self.opened, &clock, in_front, in_handler));
        }
    }
}

/// When a mark was passed. All that happens in a turn of the poller has the turn's moment; an exchange that is over
/// within one would be said to have taken no time, so then the clock is read.
fn moment_after(latest: Moment, mark: &Passed) -> Moment {
    if mark.at > latest { mark.at } else { sys::now().max(latest) }
}

/// Whether bytes that came after an incomplete head may have completed it: looking again at every byte of a head
/// that comes one byte at a time would cost the square of its length.
fn worth_a_look(partial: Option<usize>, held: usize, fresh: &[u8]) -> bool {
    match partial {
        Some(looked_at) => {
            let length = held + fresh.len();
            fresh.contains(&b'\n') || length >= looked_at * 2 || length >= HEAD_MAX
        }
        None => false,
    }
}

fn first_line(bytes: &[u8]) -> Vec<u8> {
    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    line[..line.len().min(256)].to_vec()
}
