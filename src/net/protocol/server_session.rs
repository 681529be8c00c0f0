//! A server's connection: requests are served one after another, in order, each by a series.
//!
//! ```text
//! idle ─first byte─▶ request ─whole─▶ handler ─series ended─▶ reply queued ─▶ idle, or the next request
//!   └──── late, malformed, peer gone, stopping: finish ────────────────────▶ closed: what was cut is recorded
//! ```
//!
//! While a series runs, or the outbox is above its high watermark, the next request waits; what the peer sends ahead is
//! read up to a bound, so that its end is noticed, then its window closes.

use std::any::Any;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tidegate_poller::record::{ConnectionRecord, End};
use tidegate_poller::{Edge, Io, Mark, Moment, Passed, Poller, Reason, Session, SocketHandle, Sums, sys};

use super::codec::{Codec, Outgoing};
use super::inbound::{Fault, Inbound};
use super::server::{Exchange, ExchangeContext, Seat, Service};
use crate::net::account::{Account, On};
use crate::net::patience::{PATIENCE, Patience};
use crate::record::Words;
use crate::runtime::work::{Receive, panic_message};
use crate::runtime::{Running, RuntimeHandle};
use crate::task::{Continuation, Ended, Outcome, Receiver, Series, SeriesError, Token, start};

/// Bytes read ahead of the request that is served.
const AHEAD_MAX: usize = 64 * 1024;
/// A connection that was quiet for so long has nothing under way in either direction: closing it needs no FIN to be
/// awaited in return.
const QUIET: Duration = Duration::from_secs(1);
/// The reason of the timer after which no further request is served; that of the patience has another.
const LAST_LOOK: u32 = PATIENCE + 1;
/// Replies that wait in the outbox; the next request waits for them.
const REPLIES_MAX: usize = 64;

pub(super) struct ServerSession<C: Codec, D, S> {
    service: Arc<Service<C, D, S>>,
    _seat: Seat,
    poller: usize,
    codec: C,
    inbound: Inbound,
    /// Absent while a series has it.
    connection: Option<D>,
    /// The series that runs.
    running: Option<(u64, Arc<Token>)>,
    /// In order. All but that of the series that runs have their reply in the outbox.
    accounts: VecDeque<Account>,
    exchanges: u64,
    /// When the first byte of the request at hand came.
    since: Option<Moment>,
    patience: Patience<Why>,
    reading_paused: bool,
    peer_finished: bool,
    /// The request at hand, which has not come whole, is the last one.
    last_next: bool,
    /// No further request is served.
    last: bool,
    /// The end was decided on.
    shut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Idle,
    Request,
    Series,
}

impl<C, D, S> ServerSession<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    pub(super) fn new(service: Arc<Service<C, D, S>>, seat: Seat, poller: usize) -> ServerSession<C, D, S> {
        ServerSession {
            codec: service.codec.clone(),
            service,
            _seat: seat,
            poller,
            inbound: Inbound::default(),
            connection: Some(D::default()),
            running: None,
            accounts: VecDeque::new(),
            exchanges: 0,
            since: None,
            patience: Patience::default(),
            reading_paused: false,
            peer_finished: false,
            last_next: false,
            last: false,
            shut: false,
        }
    }

    /// Serves what has come, as far as it can be served now.
    fn advance(&mut self, io: &mut Io<'_>) {
        while !self.shut && !self.last && !self.is_busy(io) {
            let (codec, max) = (&mut self.codec, self.service.settings.max_request);
            match self.inbound.next(max, |bytes| codec.decode_request(bytes)) {
                Ok(Some((request, length))) => self.begin(io, request, length),
                Ok(None) => break,
                Err(fault) => {
                    let reason = match fault {
                        Fault::TooLong => End::local(Reason::Denied),
                        Fault::Malformed(error) => {
                            log::debug!("connection {}: {error}", io.conn_id());
                            End::peer(Reason::ProtocolError)
                        }
                    };
                    self.break_off(io, reason);
                }
            }
        }
        if self.peer_finished && !self.shut && !self.last && !self.is_busy(io) {
            self.finish_request(io);
        }
        self.settle(io);
    }

    /// The peer sends no more: what is there may be a request that ends so.
    fn finish_request(&mut self, io: &mut Io<'_>) {
        let length = self.inbound.partial();
        if length == 0 {
            return;
        }
        match self.codec.finish_request(self.inbound.rest()) {
            Ok(Some(request)) => {
                self.inbound = Inbound::default();
                self.last_next = true;
                self.begin(io, request, length);
            }
            // That it was cut short is found by whoever settles.
            Ok(None) => {}
            Err(error) => {
                log::debug!("connection {}: {error}", io.conn_id());
                self.break_off(io, End::peer(Reason::ProtocolError));
            }
        }
    }

    /// Whether the next request has to wait.
    fn is_busy(&self, io: &Io<'_>) -> bool {
        self.running.is_some() || self.accounts.len() >= REPLIES_MAX || io.above_high()
    }

    fn begin(&mut self, io: &mut Io<'_>, request: C::Request, length: usize) {
        let Some(connection) = self.connection.take() else { return };
        let now = io.now();
        self.last |= self.last_next;
        self.exchanges += 1;
        let started = self.since.take().unwrap_or(now);
        self.since = (self.inbound.len() > 0).then_some(now);
        let mut account = Account::new(self.exchanges, self.codec.words(&request), started);
        account.received(length, now);
        self.accounts.push_back(account);
        let mut series = Series::new(ExchangeContext {
            request,
            reply: None,
            connection,
            data: S::default(),
            peer: io.peer(),
            conn_id: io.conn_id(),
            exchange_id: self.exchanges,
            close: false,
        });
        let handler = &self.service.handler;
        let outcome = match catch_unwind(AssertUnwindSafe(|| handler(&mut series))) {
            Ok(Ok(())) => match series.end_now() {
                // The most frequent case: the series was only a value on the stack.
                Ok(Ended { outcome, context }) => return self.answer(io, outcome, context),
                Err(series) => return self.run(io, series),
            },
            Ok(Err(error)) => SeriesError::Failed(error),
            Err(payload) => {
                log::error!("a handler panicked: {}", panic_message(&*payload));
                SeriesError::Panicked
            }
        };
        self.answer(io, Err(outcome), series.context);
    }

    fn run(&mut self, io: &mut Io<'_>, series: Exchange<C, D, S>) {
        let runtime = self.service.state.runtime.clone();
        let token = Arc::<Token>::default();
        let cut = token.clone();
        // Counted, so that a runtime that stops waits for it.
        let running = runtime.begin_for_caller(Box::new(move || cut.cancel()));
        let refused = running.is_none();
        self.running = Some((self.exchanges, token.clone()));
        let back = Back::<C, D, S> {
            poller: self.poller,
            socket: io.socket(),
            id: self.exchanges,
            token,
            runtime,
            running,
            gone: false,
            session: PhantomData,
        };
        match refused {
            true => drop((back, series)),
            // In its turn, not within this call: a panic of a callback is not the connection's.
            false => start(series, Continuation::new(Box::new(back))),
        }
    }

    /// The series of an exchange has ended; `None`: it was cut.
    fn came_back(&mut self, io: &mut Io<'_>, id: u64, ended: Option<Ended<ExchangeContext<C, D, S>>>) {
        if self.running.as_ref().is_none_or(|(running, _)| *running != id) {
            return;
        }
        self.running = None;
        match ended {
            Some(Ended { outcome, context }) => {
                if !self.shut {
                    self.answer(io, outcome, context);
                    self.advance(io);
                }
            }
            None => self.break_down(io),
        }
    }

    /// Queues the reply of the latest exchange.
    fn answer(&mut self, io: &mut Io<'_>, outcome: Outcome, context: ExchangeContext<C, D, S>) {
        let ExchangeContext { reply, connection, close, .. } = context;
        self.connection = Some(connection);
        let reply = match outcome {
            Ok(()) => reply,
            Err(error) => {
                log::debug!("connection {}: an exchange failed: {error}", io.conn_id());
                match self.codec.failed(&error) {
                    Some(reply) => Some(reply),
                    None => return self.break_down(io),
                }
            }
        };
        let mut out = Outgoing::with_buffer(io.buffer());
        let status = reply.as_ref().and_then(|reply| self.codec.status(reply));
        if let Some(reply) = reply
            && let Err(error) = self.codec.encode_reply(reply, &mut out)
        {
            log::error!("connection {}: a reply cannot be sent: {error}", io.conn_id());
            return self.break_down(io);
        }
        let close = close || out.ends_connection();
        let Some(account) = self.accounts.back_mut() else { return };
        account.status = status;
        account.end = Some((End::local(Reason::Ok), "reply"));
        let id = account.id;
        account.queued(io, out.len() as u64);
        if !out.is_empty() {
            io.mark(Mark { id, edge: Edge::Begin { free: 0 } });
        }
        for chunk in out.into_chunks() {
            io.send(chunk);
        }
        io.mark(Mark { id, edge: Edge::End });
        if close {
            self.last = true;
        }
    }

    /// The exchange at hand has no reply, through no fault of the peer's: the connection ends after the replies before.
    fn break_down(&mut self, io: &mut Io<'_>) {
        let stopping = self.service.state.runtime.is_shutting_down();
        let end = End::local(if stopping { Reason::Shutdown } else { Reason::Internal });
        self.end_account(io, end, "handler");
        self.finish(io, end);
    }

    /// What has come is no request: the connection ends after the replies before.
    fn break_off(&mut self, io: &mut Io<'_>, end: End) {
        self.open_broken(io.now());
        self.end_account(io, end, "request");
        self.finish(io, end);
    }

    /// Opens the exchange of a request that did not come whole.
    fn open_broken(&mut self, now: Moment) {
        self.exchanges += 1;
        let mut account = Account::new(self.exchanges, Words::default(), self.since.take().unwrap_or(now));
        account.received(self.inbound.partial(), now);
        self.inbound = Inbound::default();
        self.accounts.push_back(account);
    }

    /// The latest exchange ends without a reply, when the replies before it have gone.
    fn end_account(&mut self, io: &mut Io<'_>, end: End, phase: &'static str) {
        let Some(account) = self.accounts.back_mut() else { return };
        account.end = Some((end, phase));
        account.queued(io, 0);
        io.mark(Mark { id: account.id, edge: Edge::End });
    }

    /// Closes when the outbox is empty; nothing is read any more.
    fn finish(&mut self, io: &mut Io<'_>, end: End) {
        if !self.shut {
            self.shut = true;
            io.finish(end);
        }
    }

    /// Brings everything in line with what just happened.
    fn settle(&mut self, io: &mut Io<'_>) {
        if self.shut {
            return;
        }
        let partial = self.inbound.partial() > 0;
        if self.running.is_none() && !self.is_waiting(io) {
            if self.last {
                let stopping = io.is_shutting_down() || self.service.state.is_shutting_down();
                self.finish(io, End::local(if stopping { Reason::Shutdown } else { Reason::Ok }));
            } else if self.peer_finished && partial {
                self.break_off(io, End::peer(Reason::Abort));
            } else if self.peer_finished {
                self.finish(io, End::peer(Reason::Ok));
            }
        }
        if self.shut {
            return;
        }
        let pause = self.is_busy(io) && self.inbound.len() >= AHEAD_MAX;
        if pause != self.reading_paused {
            self.reading_paused = pause;
            match pause {
                true => io.pause_reading(),
                false => io.resume_reading(),
            }
        }
        self.wait(io);
    }

    /// Whether a request may be there that could not be served yet.
    fn is_waiting(&self, io: &Io<'_>) -> bool {
        !self.last && self.is_busy(io) && self.inbound.is_worth_a_look()
    }

    fn wait(&mut self, io: &mut Io<'_>) {
        let settings = &self.service.settings;
        let now = io.now();
        let deadline = if self.running.is_some() {
            let began = self.accounts.back().map_or(now, |account| account.handed_over());
            settings.series_timeout.map(|timeout| (began + timeout, Why::Series))
        } else if let Some(since) = self.since {
            Some((since + settings.request_timeout, Why::Request))
        } else if !self.accounts.is_empty() {
            // The send timeout looks after these.
            None
        } else {
            Some((now + settings.idle_timeout, Why::Idle))
        };
        self.patience.set(io, deadline, None);
    }
}

impl<C, D, S> Session for ServerSession<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    fn opened(&mut self, io: &mut Io<'_>) {
        let state = &self.service.state;
        state.opened(io, self.poller);
        io.set_send_timeout(Some(self.service.settings.send_timeout));
        self.service.settings.spending.join(io);
        // Let in while the doors were being shut.
        if io.is_shutting_down() || state.is_shutting_down() {
            self.shutdown(io);
        }
    }

    /// A handshake has its own time; patience with the peer begins now.
    fn ready(&mut self, io: &mut Io<'_>) {
        self.settle(io);
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        if self.shut {
            return;
        }
        if self.inbound.partial() == 0 {
            self.since = Some(io.now());
        }
        self.inbound.push(bytes);
        self.advance(io);
    }

    fn passed(&mut self, io: &mut Io<'_>, mark: Passed) {
        match mark.edge {
            Edge::Begin { .. } => {
                if let Some(account) = self.accounts.iter_mut().find(|account| account.id == mark.id) {
                    account.begun(mark);
                }
            }
            Edge::End => {
                let Some(mut account) = self.accounts.pop_front() else { return };
                debug_assert_eq!(account.id, mark.id, "replies go in order");
                account.sent(mark);
                let end = account.end.unwrap_or((End::local(Reason::Internal), "reply"));
                let sinks = &self.service.settings.sinks;
                sinks.exchange(|| account.complete(On::this(io), mark.at, &Sums::default(), end));
                self.advance(io);
            }
        }
    }

    fn drained(&mut self, io: &mut Io<'_>) {
        self.advance(io);
    }

    fn timer(&mut self, io: &mut Io<'_>, reason: u32) {
        if reason == LAST_LOOK {
            match self.running.is_none() && self.inbound.partial() > 0 {
                true => self.last_next = true,
                false => self.last = true,
            }
            return self.settle(io);
        }
        let Some(why) = self.patience.fired(io) else { return };
        match why {
            Why::Request if self.patience.make_up(io) => {}
            Why::Request => self.break_off(io, End::local(Reason::Timeout)),
            Why::Idle => {
                let end = End::local(Reason::Timeout);
                self.finish(io, end);
                if self.service.settings.idle_timeout >= QUIET {
                    io.abort(end);
                }
            }
            Why::Series => {
                if let Some((_, token)) = self.running.take() {
                    token.cancel();
                    self.end_account(io, End::local(Reason::Timeout), "handler");
                    self.finish(io, End::local(Reason::Timeout));
                }
            }
        }
    }

    fn peer_finished(&mut self, io: &mut Io<'_>) {
        self.peer_finished = true;
        if self.running.is_some() && !self.service.settings.half_close {
            return io.abort(End::peer(Reason::Abort));
        }
        self.advance(io);
    }

    fn shutdown(&mut self, io: &mut Io<'_>) {
        // Not at once: what the kernel holds already is read first, so that a request that has arrived is answered.
        io.start_timer(Duration::ZERO, LAST_LOOK);
    }

    fn phase(&self) -> &'static str {
        match self.accounts.front() {
            Some(account) if account.is_queued() => "reply",
            Some(_) => "handler",
            None if self.inbound.partial() > 0 => "request",
            None => "idle",
        }
    }

    fn closed(mut self: Box<Self>, record: ConnectionRecord) {
        self.service.state.closed(record.conn_id);
        if let Some((_, token)) = self.running.take() {
            token.cancel();
        }
        for (place, account) in std::mem::take(&mut self.accounts).into_iter().enumerate() {
            let phase = if account.is_queued() { "reply" } else { "handler" };
            let sinks = &self.service.settings.sinks;
            sinks.exchange(|| account.cut(&record, phase, place == 0));
        }
        // A request that did not come whole, or was not looked at: what lies behind it cannot be told from it.
        if self.inbound.partial() > 0 && !self.shut {
            self.open_broken(sys::now());
            if let Some(account) = self.accounts.pop_back() {
                self.service.settings.sinks.exchange(|| account.cut(&record, "request", false));
            }
        }
        self.service.settings.sinks.connection(record, self.exchanges);
    }
}

/// Brings what came of a series back to its session, on the session's poller. That of a series that was cut brings nothing.
struct Back<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    poller: usize,
    socket: SocketHandle,
    id: u64,
    token: Arc<Token>,
    runtime: RuntimeHandle,
    running: Option<Running>,
    gone: bool,
    session: PhantomData<fn(C, D, S)>,
}

impl<C, D, S> Back<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    fn bring(&mut self, ended: Option<Ended<ExchangeContext<C, D, S>>>) {
        self.gone = true;
        let (socket, id) = (self.socket.clone(), self.id);
        let job = move |poller: &mut Poller| {
            poller.call(&socket, |session, io| {
                let session = (session as &mut dyn Any).downcast_mut::<ServerSession<C, D, S>>();
                if let Some(session) = session {
                    session.came_back(io, id, ended);
                }
            });
        };
        self.runtime.submit_to(self.poller, Box::new(job));
        // After the job is on its way: a runtime that waits for the last series has it done before it stops its pollers.
        self.running = None;
    }
}

impl<C, D, S> Receiver<Ended<ExchangeContext<C, D, S>>> for Back<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    fn token(&self) -> Option<&Arc<Token>> {
        Some(&self.token)
    }
}

impl<C, D, S> Receive<Ended<ExchangeContext<C, D, S>>> for Back<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    fn receive(mut self: Box<Self>, ended: Ended<ExchangeContext<C, D, S>>) {
        self.bring(Some(ended));
    }
}

impl<C, D, S> Drop for Back<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    fn drop(&mut self) {
        if !self.gone {
            self.bring(None);
        }
    }
}
