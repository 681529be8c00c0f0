//! A client's connection: one request at a time, each with its response.
//!
//! ```text
//! dialing ─opened─▶ sending ─sent─▶ waiting ─first byte─▶ receiving ─end─▶ idle ─start─▶ sending …
//!    └────────────────┴── failed, cancelled, late, peer gone ──┴─────────────┴──▶ closed
//! ```
//!
//! Whatever ends a connection, the call on it gets its end in [`Session::closed`], or goes on elsewhere. A body that nobody
//! reads keeps us from reading the socket; a body that nobody wants closes it.

mod end;
mod prepare;
mod receive;
mod send;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_poller::record::{ConnectionRecord, End};
use tidegate_poller::{Edge, Io, Moment, Passed, Reason, Session};

use super::attempt::Attempt;
use super::client::{Call, Endpoint, Shared};
use super::dial::{Dial, NEXT_ADDRESS_AFTER};
use super::error::ClientError;
use super::url::Scheme;
use crate::net::Waited;
use crate::net::patience::Patience;
use prepare::Tunnel;
pub(super) use send::LOOK;

/// How long a connection of no use has until what makes it so was read: more than a turn of the poller.
const UNREAD_PATIENCE: Duration = Duration::from_millis(10);

pub(super) struct ClientSession {
    endpoint: Arc<Endpoint>,
    /// Its number at the endpoint.
    connection: u64,
    /// Until it has the call it was made for.
    dial: Option<Arc<Dial>>,
    address: SocketAddr,
    /// A call that has its connection, until requests can go on that.
    first: Option<Call>,
    tunnel: Tunnel,
    tls_began: Option<Moment>,
    current: Option<Box<Attempt>>,
    exchanges: u64,
    patience: Patience<Why>,
    /// Why the current call fails, where it is not the connection's end that tells.
    failure: Option<ClientError>,
    /// It is to be closed when the current call is done.
    last: bool,
    /// There is no room for the body, and the socket is not read.
    paused: bool,
    /// The server's end came with bytes for which there was no room; it counts when they are used.
    peer_has_finished: bool,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Late(Waited),
    Idle,
    NextAddress,
    Leave,
}

impl ClientSession {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        connection: u64,
        dial: Arc<Dial>,
        address: SocketAddr,
    ) -> ClientSession {
        ClientSession {
            endpoint,
            connection,
            dial: Some(dial),
            address,
            first: None,
            tunnel: Tunnel::None,
            tls_began: None,
            current: None,
            exchanges: 0,
            patience: Patience::default(),
            failure: None,
            last: false,
            paused: false,
            peer_has_finished: false,
        }
    }

    /// The connect is under way.
    pub(super) fn connecting(&mut self, io: &mut Io<'_>) {
        let total = self.dial.as_ref().and_then(|dial| dial.deadline().1);
        let total = total.map(|at| (at, Why::Late(Waited::Total)));
        self.patience.set(io, Some((io.now() + NEXT_ADDRESS_AFTER, Why::NextAddress)), total);
    }

    /// Another attempt was quicker, or nobody waits any more.
    pub(super) fn lose(&mut self, io: &mut Io<'_>) {
        if self.dial.is_some() {
            io.abort(End::local(Reason::LocalClose));
        }
    }

    /// Serves a further call. Gives it back where the server has ended the connection, or has said something on it that
    /// nobody asked for, and that must not be taken for the answer to this.
    pub(super) fn start(&mut self, io: &mut Io<'_>, mut call: Call) -> Option<Call> {
        if io.has_unread() {
            // The next visit reads it, and closes. Where it was nothing, a ticket of TLS, the connection is closed all the same.
            self.patience.set(io, Some((io.now() + UNREAD_PATIENCE, Why::Idle)), None);
            return Some(call);
        }
        call.stop_timer(&self.shared().runtime);
        call.work.facts.pool_wait = Some(io.now().max(call.work.attempt_began) - call.work.attempt_began);
        self.begin(io, call, true);
        None
    }

    /// Nobody waits for the response any more.
    pub(super) fn cancelled(&mut self, io: &mut Io<'_>, id: u64) {
        // What was delivered as a stream is its reader's.
        let here =
            self.current.as_ref().is_some_and(|current| current.call.id == id && !current.is_delivered());
        if here || self.first.as_ref().is_some_and(|call| call.id == id) {
            io.abort(End::local(Reason::LocalClose));
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.endpoint.place().shared
    }
}

impl Session for ClientSession {
    fn opened(&mut self, io: &mut Io<'_>) {
        let Some(call) = self.dial.as_ref().and_then(|dial| dial.win(io)) else {
            return io.abort(End::local(Reason::LocalClose));
        };
        self.dial = None;
        let settings = &self.shared().settings;
        io.set_send_timeout(Some(settings.next_byte_timeout));
        settings.spending.join(io);
        self.first = Some(call);
        if self.endpoint.place().key.scheme == Scheme::Https && self.endpoint.place().key.proxy.is_none() {
            self.tls_began = Some(io.now());
            self.wait_for(io, Waited::Tls);
        }
    }

    fn ready(&mut self, io: &mut Io<'_>) {
        self.prepare(io);
    }

    fn received(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        if self.last || self.failure.is_some() {
            return;
        }
        let now = io.now();
        if self.first.is_some() {
            return self.tunnel_answered(io, bytes);
        }
        let Some(current) = &mut self.current else {
            return self.close_idle(io, End::peer(Reason::ProtocolError));
        };
        if !current.account.has_begun() {
            // It answers what has not been asked yet.
            return self.fail(
                io,
                ClientError::Closed(Reason::ProtocolError),
                End::peer(Reason::ProtocolError),
            );
        }
        current.account.received(bytes.len(), now);
        if self.paused {
            return self.keep(bytes);
        }
        let used = self.advance(io, bytes);
        self.keep(&bytes[used..]);
        self.wait_for_more(io);
    }

    fn passed(&mut self, io: &mut Io<'_>, mark: Passed) {
        let Some(current) = self.current.as_mut().filter(|current| current.account.id == mark.id) else {
            return;
        };
        match mark.edge {
            Edge::Begin { .. } => current.account.begun(mark),
            Edge::End => {
                current.account.sent(mark);
                current.all_sent(io);
                self.wait_for_more(io);
            }
        }
    }

    fn timer(&mut self, io: &mut Io<'_>, reason: u32) {
        if reason == LOOK {
            return self.current.as_mut().map_or((), |current| current.look_again(io));
        }
        let Some(why) = self.patience.fired(io) else { return };
        match why {
            Why::NextAddress => {
                let Some(dial) = &self.dial else { return };
                dial.try_beside();
                let (connect, total) = dial.deadline();
                self.patience.set(
                    io,
                    connect.map(|at| (at, Why::Late(Waited::Connect))),
                    total.map(|at| (at, Why::Late(Waited::Total))),
                );
            }
            Why::Idle if self.current.is_none() => self.close_idle(io, End::local(Reason::Timeout)),
            Why::Idle => {}
            Why::Leave if self.current.as_ref().is_some_and(|current| current.awaits_leave) => {
                self.send_body(io, Vec::new());
            }
            Why::Leave => {}
            Why::Late(waited @ (Waited::FirstByte | Waited::NextByte)) => {
                if !self.patience.make_up(io) {
                    self.fail(io, ClientError::Timeout(waited), End::local(Reason::Timeout));
                }
            }
            Why::Late(waited) => self.fail(io, ClientError::Timeout(waited), End::local(Reason::Timeout)),
        }
    }

    fn peer_finished(&mut self, io: &mut Io<'_>) {
        if self.first.is_some() {
            return io.abort(End::peer(Reason::Abort));
        }
        if self.paused {
            self.peer_has_finished = true;
            return;
        }
        let truncated = io.is_truncated();
        let Some(current) = &mut self.current else {
            return self.close_idle(io, End::peer(Reason::Ok));
        };
        // An end that TLS does not vouch for may be somebody else's (RFC 9112, section 9.8).
        if !truncated && current.decoder.ends_with_connection() {
            self.last = true;
            self.complete(io, None, &[]);
        } else {
            io.abort(End::peer(Reason::Abort));
        }
    }

    fn shutdown(&mut self, io: &mut Io<'_>) {
        self.last = true;
        if self.current.is_none() && self.first.is_none() {
            self.close_idle(io, End::local(Reason::Shutdown));
        }
    }

    fn phase(&self) -> &'static str {
        match &self.current {
            None if self.dial.is_some() => "connect",
            None if self.first.is_some() => "proxy",
            None => "idle",
            Some(current) if current.account.bytes_in > 0 => "reply",
            Some(current) if current.account.is_sent() => "wait",
            Some(_) => "request",
        }
    }

    fn closed(mut self: Box<Self>, record: ConnectionRecord) {
        let endpoint = self.endpoint.clone();
        let sinks = &endpoint.place().shared.settings.sinks;
        if let Some(dial) = self.dial.take() {
            let error = self.failure.take().unwrap_or(match record.end.reason {
                Reason::Shutdown => ClientError::ShuttingDown,
                Reason::Timeout => ClientError::Timeout(Waited::Connect),
                reason => ClientError::Connect(reason),
            });
            sinks.connection(record, 0);
            return dial.lost(self.address, error);
        }
        let current = self.current.as_ref().map(|attempt| attempt.call.id);
        let call = current.or(self.first.as_ref().map(|call| call.id));
        let stopping = record.end.reason == Reason::Shutdown;
        if let Some(attempt) = self.current.take() {
            // Counted with those that are open until it is settled where its call goes.
            let _visit = endpoint.visit();
            self.settle(*attempt, &record);
        } else if let Some(call) = self.first.take() {
            let _visit = endpoint.visit();
            self.unprepared(call, &record);
        }
        sinks.connection(record, self.exchanges);
        endpoint.gone(self.connection, call, stopping);
    }
}
