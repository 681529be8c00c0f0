//! A client's connection: one request at a time, each with its reply.
//!
//! ```text
//! connecting ─opened─▶ sending ─sent─▶ waiting ─first byte─▶ receiving ─reply─▶ idle ─start─▶ sending …
//!      └──────────────────┴───── failed, cancelled, late, peer gone ──┴──────────┴──▶ closed: the call has its end
//! ```
//!
//! Whatever ends a connection, the call on it gets its end in [`Session::closed`], or goes to another connection.

use std::sync::Arc;

use tidegate_poller::record::{ConnectionRecord, End, Who};
use tidegate_poller::{Edge, Io, Mark, Moment, Passed, Reason, Session};

use super::client::{Call, ClientSettings, Endpoint, Shared};
use super::codec::{Codec, Malformed, Outgoing};
use super::error::ClientError;
use super::inbound::{Fault, Inbound};
use crate::net::Waited;
use crate::net::account::{Account, On};
use crate::net::patience::Patience;
use crate::net::pool::Next;

pub(super) struct ClientSession<C: Codec> {
    endpoint: Arc<Endpoint<C>>,
    /// Its number at the endpoint.
    connection: u64,
    codec: C,
    inbound: Inbound,
    current: Option<Attempt<C>>,
    exchanges: u64,
    patience: Patience<Why>,
    /// Why the current call fails, where it is not the connection's end that tells.
    failure: Option<ClientError>,
    peer_finished: bool,
    /// It is to be closed when the current call is done.
    last: bool,
}

/// A call on a connection.
struct Attempt<C: Codec> {
    call: Call<C>,
    account: Account,
    /// The connection has served another one before.
    reused: bool,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Late(Waited),
    Idle,
}

impl<C: Codec> ClientSession<C> {
    pub(super) fn new(
        endpoint: Arc<Endpoint<C>>,
        connection: u64,
        call: Call<C>,
        now: Moment,
    ) -> ClientSession<C> {
        let codec = endpoint.place().shared.codec.clone();
        let mut session = ClientSession {
            endpoint,
            connection,
            codec,
            inbound: Inbound::default(),
            current: None,
            exchanges: 0,
            patience: Patience::default(),
            failure: None,
            peer_finished: false,
            last: false,
        };
        session.current = Some(session.attempt(call, now, false));
        session
    }

    fn shared(&self) -> &Arc<Shared<C>> {
        &self.endpoint.place().shared
    }

    /// The connect is under way.
    pub(super) fn connecting(&mut self, io: &mut Io<'_>) {
        self.wait_for(io, Waited::Connect);
    }

    /// Has an idle connection serve a call.
    pub(super) fn start(&mut self, io: &mut Io<'_>, mut call: Call<C>) {
        call.stop_timer(&self.shared().runtime);
        self.current = Some(self.attempt(call, io.now(), true));
        self.send(io);
    }

    /// Nobody waits for the reply any more.
    pub(super) fn cancelled(&mut self, io: &mut Io<'_>, id: u64) {
        if self.current.as_ref().is_some_and(|current| current.call.id == id) {
            io.abort(End::local(Reason::LocalClose));
        }
    }

    fn attempt(&mut self, call: Call<C>, now: Moment, reused: bool) -> Attempt<C> {
        self.exchanges += 1;
        let words = self.codec.words(&call.work.request);
        Attempt { account: Account::new(self.exchanges, words, now), call, reused }
    }

    fn send(&mut self, io: &mut Io<'_>) {
        let Some(current) = &mut self.current else { return };
        let mut out = Outgoing::with_buffer(io.buffer());
        let encoded = self.codec.encode_request(&current.call.work.request, &mut out).and_then(|()| {
            let refused = || Malformed::new("a request cannot end with its connection");
            (!out.ends_connection()).then_some(()).ok_or_else(refused)
        });
        if let Err(error) = encoded {
            // The codec may have changed its mind half-way: nothing of it has gone, but its state is not to be trusted.
            return self.fail(io, ClientError::Encode(error), End::local(Reason::Internal));
        }
        let id = current.account.id;
        current.account.queued(io, out.len() as u64);
        io.mark(Mark { id, edge: Edge::Begin { free: 0 } });
        for chunk in out.into_chunks() {
            io.send(chunk);
        }
        io.mark(Mark { id, edge: Edge::End });
        self.wait_for(io, Waited::Total);
    }

    /// Sets the deadline of what is waited for now, or that of the whole call if it comes first.
    fn wait_for(&mut self, io: &mut Io<'_>, what: Waited) {
        let settings = &self.shared().settings;
        let patience = match what {
            Waited::Connect => Some(settings.connect_timeout),
            Waited::FirstByte => Some(settings.first_byte_timeout),
            Waited::NextByte => Some(settings.next_byte_timeout),
            _ => None,
        };
        let total = self.current.as_ref().and_then(|current| current.call.deadline);
        let now = io.now();
        self.patience.set(
            io,
            patience.map(|patience| (now + patience, Why::Late(what))),
            total.map(|total| (total, Why::Late(Waited::Total))),
        );
    }

    fn look_for_reply(&mut self, io: &mut Io<'_>) {
        let max = self.shared().settings.max_reply;
        let codec = &mut self.codec;
        match self.inbound.next(max, |bytes| codec.decode_reply(bytes)) {
            Ok(Some((reply, length))) => self.complete(io, reply, length),
            Ok(None) => self.wait_for(io, Waited::NextByte),
            Err(Fault::TooLong) => self.fail(io, ClientError::TooLong, End::local(Reason::Denied)),
            Err(Fault::Malformed(error)) => {
                self.fail(io, ClientError::Malformed(error), End::peer(Reason::ProtocolError));
            }
        }
    }

    /// The peer sends no more: what is there may be a reply that ends so.
    fn finish_reply(&mut self, io: &mut Io<'_>) {
        match self.codec.finish_reply(self.inbound.rest()) {
            Ok(Some(reply)) => {
                let length = self.inbound.partial();
                self.inbound = Inbound::default();
                self.complete(io, reply, length);
            }
            Ok(None) => io.abort(End::peer(Reason::Abort)),
            Err(error) => self.fail(io, ClientError::Malformed(error), End::peer(Reason::ProtocolError)),
        }
    }

    fn complete(&mut self, io: &mut Io<'_>, reply: C::Reply, length: usize) {
        let Some(current) = self.current.take() else { return };
        let Attempt { call, mut account, .. } = current;
        account.status = self.codec.status(&reply);
        account.bytes_in = length as u64;
        let sent = account.is_sent();
        let extra = self.inbound.partial() > 0;
        let (sums, now) = (io.sums(), io.now());
        let end = (End::peer(Reason::Ok), "reply");
        let sinks = &self.shared().settings.sinks;
        sinks.exchange(|| account.complete(On::this(io), now, &sums, end));
        self.endpoint.done(call.id);
        call.pledge.complete(Ok(reply));
        drop(call);
        if extra {
            // More than was asked for: what else it says cannot be told from a reply.
            self.last = true;
            io.abort(End::peer(Reason::ProtocolError));
        } else if self.peer_finished {
            io.abort(End::peer(Reason::Ok));
        } else if !sent || self.last || io.is_shutting_down() {
            // The rest of a request that the peer did not wait for would be taken for the next one.
            self.last = true;
            io.abort(End::local(if io.is_shutting_down() { Reason::Shutdown } else { Reason::Ok }));
        } else {
            match self.endpoint.next(self.connection, io) {
                Next::Call(call) => self.start(io, call),
                Next::Idle => {
                    let until = io.now() + self.shared().settings.idle_timeout;
                    self.patience.set(io, Some((until, Why::Idle)), None);
                }
                Next::Close => io.abort(End::local(Reason::Ok)),
            }
        }
    }

    fn fail(&mut self, io: &mut Io<'_>, error: ClientError, end: End) {
        self.failure.get_or_insert(error);
        io.abort(end);
    }

    /// Closes a connection that has nothing to do.
    fn close_idle(&mut self, io: &mut Io<'_>, end: End) {
        self.endpoint.leave(self.connection);
        io.abort(end);
    }

    /// What becomes of a call whose connection has ended.
    fn settle(&mut self, attempt: Attempt<C>, record: &ConnectionRecord) {
        let Attempt { mut call, account, reused } = attempt;
        let shared = self.shared().clone();
        let connecting = record.connected.is_none();
        let untouched = account.bytes_in == 0;
        shared.settings.sinks.exchange(|| account.cut(record, record.phase, true));
        if !call.pledge.is_waiting() {
            return;
        }
        let stale = reused && untouched && record.end.who == Who::Peer && self.failure.is_none();
        if stale && !call.retried && shared.settings.retry_stale {
            call.retried = true;
            return shared.enter(self.endpoint.place().address, call);
        }
        let error = self.failure.take().unwrap_or_else(|| error_of(record, connecting));
        let next_may_do = matches!(error, ClientError::Connect(_) | ClientError::Timeout(Waited::Connect));
        match call.work.others.pop() {
            Some(other) if next_may_do => shared.enter(other, call),
            _ => call.pledge.complete(Err(error)),
        }
    }
}

impl<C: Codec> Session for ClientSession<C> {
    fn opened(&mut self, io: &mut Io<'_>) {
        let settings: &ClientSettings = &self.shared().settings;
        io.set_send_timeout(Some(settings.next_byte_timeout));
        settings.spending.join(io);
        self.send(io);
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        if self.last || self.failure.is_some() {
            return;
        }
        let now = io.now();
        match &mut self.current {
            Some(current) => {
                current.account.received(bytes.len(), now);
                self.inbound.push(bytes);
                self.look_for_reply(io);
            }
            None => self.close_idle(io, End::peer(Reason::ProtocolError)),
        }
    }

    fn passed(&mut self, io: &mut Io<'_>, mark: Passed) {
        let Some(current) = self.current.as_mut().filter(|current| current.account.id == mark.id) else {
            return;
        };
        match mark.edge {
            Edge::Begin { .. } => current.account.begun(mark),
            Edge::End => {
                current.account.sent(mark);
                if current.account.bytes_in == 0 {
                    self.wait_for(io, Waited::FirstByte);
                }
            }
        }
    }

    fn timer(&mut self, io: &mut Io<'_>, _: u32) {
        let Some(why) = self.patience.fired(io) else { return };
        match why {
            Why::Idle if self.current.is_none() => self.close_idle(io, End::local(Reason::Timeout)),
            Why::Idle => {}
            Why::Late(waited @ (Waited::FirstByte | Waited::NextByte)) => {
                if !self.patience.make_up(io) {
                    self.fail(io, ClientError::Timeout(waited), End::local(Reason::Timeout));
                }
            }
            Why::Late(waited) => self.fail(io, ClientError::Timeout(waited), End::local(Reason::Timeout)),
        }
    }

    fn peer_finished(&mut self, io: &mut Io<'_>) {
        self.peer_finished = true;
        match self.current {
            Some(_) => self.finish_reply(io),
            None => self.close_idle(io, End::peer(Reason::Ok)),
        }
    }

    fn shutdown(&mut self, io: &mut Io<'_>) {
        self.last = true;
        if self.current.is_none() {
            self.close_idle(io, End::local(Reason::Shutdown));
        }
    }

    fn phase(&self) -> &'static str {
        match &self.current {
            None => "idle",
            Some(current) if current.account.bytes_in > 0 => "reply",
            Some(current) if current.account.is_sent() => "wait",
            Some(_) => "request",
        }
    }

    fn closed(mut self: Box<Self>, record: ConnectionRecord) {
        let attempt = self.current.take();
        let call = attempt.as_ref().map(|attempt| attempt.call.id);
        let stopping = record.end.reason == Reason::Shutdown;
        let endpoint = self.endpoint.clone();
        if let Some(attempt) = attempt {
            // Counted with those that are open until it is settled where its call goes.
            let _visit = endpoint.visit();
            self.settle(attempt, &record);
        }
        endpoint.place().shared.settings.sinks.connection(record, self.exchanges);
        endpoint.gone(self.connection, call, stopping);
    }
}

/// Why a call has no reply whose connection ended so.
fn error_of(record: &ConnectionRecord, connecting: bool) -> ClientError {
    match record.end.reason {
        Reason::Shutdown => ClientError::ShuttingDown,
        Reason::Timeout if connecting => ClientError::Timeout(Waited::Connect),
        // The only other timer that is not ours.
        Reason::Timeout => ClientError::Timeout(Waited::Send),
        reason if connecting => ClientError::Connect(reason),
        reason => ClientError::Closed(reason),
    }
}
