//! A client's connection: one request at a time, each with its response.
//!
//! ```text
//! dialing ─opened─▶ sending ─sent─▶ waiting ─first byte─▶ receiving ─end─▶ idle ─start─▶ sending …
//!    └────────────────┴── failed, cancelled, late, peer gone ──┴─────────────┴──▶ closed
//! ```
//!
//! Whatever ends a connection, the call on it gets its end in [`Session::closed`], or goes on elsewhere. A body that nobody
//! reads keeps us from reading the socket; a body that nobody wants closes it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_poller::record::{ConnectionRecord, End, Who};
use tidegate_poller::{Direction, Edge, Io, Mark, Moment, Passed, Reason, Session};

use super::attempt::Attempt;
use super::client::{Call, Endpoint, Origin, Shared};
use super::dial::{Dial, NEXT_ADDRESS_AFTER};
use super::error::ClientError;
use super::intake::Room;
use super::request::{Upload, field, write_head};
use super::url::Scheme;
use crate::http::body::{BodyWaker, Outgoing, Wake};
use crate::http::codec::response::{Decoder, Fault, Piece};
use crate::http::{Method, StatusCode};
use crate::net::patience::Patience;
use crate::net::pool::Next;
use crate::net::protocol::Waited;
#[cfg(feature = "tls")]
use crate::net::tls::PeerName;

/// How long a body waits for the server's leave: some never give it (RFC 9110, section 10.1.1). As long as curl does.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// A body in memory up to this size goes into the buffer of its head: one piece for the kernel instead of two.
const BODY_INLINE_MAX: usize = 4 * 1024;

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
}

/// The way through a proxy to a server that speaks TLS (RFC 9110, section 9.3.6).
#[derive(Debug)]
enum Tunnel {
    /// There is none, or not yet.
    None,
    /// The proxy was asked for it.
    Asked(Box<Decoder>),
    Made,
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
        }
    }

    /// The connect is under way.
    pub(super) fn connecting(&mut self, io: &mut Io<'_>) {
        self.patience.set(io, Some((io.now() + NEXT_ADDRESS_AFTER, Why::NextAddress)), None);
    }

    /// Another attempt was quicker, or nobody waits any more.
    pub(super) fn lose(&mut self, io: &mut Io<'_>) {
        if self.dial.is_some() {
            io.abort(End::local(Reason::LocalClose));
        }
    }

    /// Has an idle connection serve a call.
    pub(super) fn start(&mut self, io: &mut Io<'_>, mut call: Call) {
        call.stop_timer(&self.shared().runtime);
        call.work.facts.pool_wait = Some(io.now().max(call.work.attempt_began) - call.work.attempt_began);
        self.begin(io, call, true);
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

/// Getting ready.
impl ClientSession {
    /// The connection is made: TLS, and before that perhaps a tunnel, is next.
    fn prepare(&mut self, io: &mut Io<'_>) {
        let Origin { key, .. } = self.endpoint.place();
        if key.scheme == Scheme::Http {
            return self.go(io);
        }
        match (&key.proxy, &self.tunnel) {
            (Some(proxy), Tunnel::None) => {
                let mut out = io.buffer();
                let host = self.first.as_ref().map(|call| call.work.url.host_and_port()).unwrap_or_default();
                out.extend_from_slice(format!("CONNECT {host} HTTP/1.1\r\n").as_bytes());
                field(&mut out, "Host", host.as_bytes());
                if let Some(authorization) = &proxy.authorization {
                    field(&mut out, "Proxy-Authorization", authorization.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
                io.send(out);
                let decoder = Decoder::new(Method::CONNECT, self.shared().settings.max_head);
                self.tunnel = Tunnel::Asked(Box::new(decoder));
                self.wait_for(io, Waited::Connect);
            }
            // Without a handshake to show for it nothing is said.
            _ if io.handshake().is_none() => {
                let why = self.why_no_tls();
                self.fail(io, ClientError::Tls(why), End::local(Reason::Denied));
            }
            _ => self.go(io),
        }
    }

    /// The proxy says something.
    fn tunnel_answered(&mut self, io: &mut Io<'_>, bytes: &[u8]) {
        let Tunnel::Asked(decoder) = &mut self.tunnel else { return };
        let mut used = 0;
        loop {
            match decoder.next(&bytes[used..]) {
                Err(fault) => {
                    return self.fail(io, ClientError::Malformed(fault), End::peer(Reason::ProtocolError));
                }
                Ok((n, piece)) => {
                    used += n;
                    match piece {
                        Piece::Nothing => return,
                        Piece::Head(head) if !head.status.is_success() => {
                            return self.fail(io, ClientError::Proxy(head.status), End::peer(Reason::Denied));
                        }
                        Piece::End(_) => break,
                        _ => {}
                    }
                }
            }
        }
        if used < bytes.len() {
            // A server waits for the client's first word.
            let fault = Fault::Malformed("the proxy says more than that there is a tunnel");
            return self.fail(io, ClientError::Malformed(fault), End::peer(Reason::ProtocolError));
        }
        self.tunnel = Tunnel::Made;
        self.start_tls(io);
    }

    #[cfg(feature = "tls")]
    fn start_tls(&mut self, io: &mut Io<'_>) {
        let Origin { shared, key } = self.endpoint.place();
        let (Some(Ok(tls)), Ok(name)) = (shared.tls(), PeerName::new(&key.host)) else {
            return self.prepare(io);
        };
        if io.change_transport(|plain| tls.transport(plain, &name)) {
            self.tls_began = Some(io.now());
            self.wait_for(io, Waited::Tls);
        } else {
            self.fail(io, ClientError::Tls("no descriptor left".to_owned()), End::local(Reason::Descriptors));
        }
    }

    #[cfg(not(feature = "tls"))]
    fn start_tls(&mut self, io: &mut Io<'_>) {
        self.prepare(io);
    }

    fn why_no_tls(&self) -> String {
        let Origin { key, .. } = self.endpoint.place();
        #[cfg(feature = "tls")]
        if let Some(Err(why)) = self.shared().tls() {
            return why.clone();
        }
        format!("{:?} is no name that a server could prove", key.host)
    }

    /// Requests can go.
    fn go(&mut self, io: &mut Io<'_>) {
        let Some(mut call) = self.first.take() else { return };
        if io.handshake().is_some() {
            call.work.facts.tls = self.tls_began.map(|began| io.now().max(began) - began);
        }
        self.begin(io, call, false);
    }
}

/// Sending.
impl ClientSession {
    fn begin(&mut self, io: &mut Io<'_>, call: Call, reused: bool) {
        self.exchanges += 1;
        let options = &call.work.options;
        for (direction, limit) in [Direction::Egress, Direction::Ingress].into_iter().zip(&options.limits) {
            if limit.is_some() {
                io.set_limit(direction, limit.as_ref());
            }
        }
        for (direction, budget) in &options.budgets {
            io.spend_through(*direction, budget, 1);
        }
        self.current = Some(Box::new(Attempt::new(self.exchanges, call, self.shared(), io, reused)));
        self.send(io);
    }

    fn send(&mut self, io: &mut Io<'_>) {
        let shared = self.shared().clone();
        // Through a tunnel a server is spoken to as if there were none.
        let key = &self.endpoint.place().key;
        let proxy = key.proxy.clone().filter(|_| key.scheme == Scheme::Http);
        let Some(current) = &mut self.current else { return };
        let coding = current.accept_encoding(&shared);
        let work = &current.call.work;
        let waits = work.body.len().is_none_or(|len| len > shared.settings.continue_above);
        let mut out = io.buffer();
        let parts = (&work.method, &work.url, &work.headers, &work.body);
        write_head(&mut out, parts, proxy.as_deref(), &shared.settings.user_agent, coding, waits);
        current.account.head_out = out.len() as u64;
        let whole = work.body.len().map_or(u64::MAX, |len| len + out.len() as u64);
        current.account.queued(io, whole);
        current.awaits_leave = waits;
        io.mark(Mark { id: current.account.id, edge: Edge::Begin { free: 0 } });
        if waits {
            io.send(out);
            let until = io.now() + LEAVE_TIMEOUT;
            let total = current.call.deadline.map(|total| (total, Why::Late(Waited::Total)));
            self.patience.set(io, Some((until, Why::Leave)), total);
        } else {
            self.send_body(io, out);
        }
    }

    /// Queues the body after `head`, what of the head has not been queued yet.
    fn send_body(&mut self, io: &mut Io<'_>, mut head: Vec<u8>) {
        let Some(current) = &mut self.current else { return };
        current.awaits_leave = false;
        let body = &mut current.call.work.body;
        let framing = body.framing();
        let inline = match body {
            Upload::Static(bytes) if bytes.len() <= BODY_INLINE_MAX => *bytes,
            Upload::Shared(bytes) if bytes.len() <= BODY_INLINE_MAX => bytes,
            _ => &[],
        };
        head.extend_from_slice(inline);
        let inlined = !inline.is_empty();
        if !head.is_empty() {
            io.send(head);
        }
        match body {
            _ if inlined => {}
            Upload::Static(bytes) => io.send(*bytes),
            Upload::Shared(bytes) => io.send(bytes.clone()),
            Upload::File { file, offset, len } => io.send_file(file.clone(), *offset, *len),
            Upload::Stream(_) => {
                if let Upload::Stream(stream) = std::mem::replace(body, Upload::Sent) {
                    let mut source = stream.into_source();
                    source.attach(BodyWaker::new(io.socket()));
                    io.send_source(Box::new(Outgoing::new(source, framing)));
                }
            }
            Upload::Empty | Upload::Sent => {}
        }
        io.mark(Mark { id: current.account.id, edge: Edge::End });
        self.wait_for(io, Waited::Total);
    }

    /// Sets the deadline of what is waited for now, or that of the whole call if it comes first.
    fn wait_for(&mut self, io: &mut Io<'_>, what: Waited) {
        let settings = &self.shared().settings;
        let patience = match what {
            Waited::FirstByte => Some(settings.first_byte_timeout),
            Waited::NextByte => Some(settings.next_byte_timeout),
            Waited::Connect => Some(settings.connect_timeout),
            Waited::Tls => Some(settings.tls_timeout),
            _ => None,
        };
        let call = self.current.as_ref().map(|current| &current.call).or(self.first.as_ref());
        let total = call.and_then(|call| call.deadline);
        let now = io.now();
        self.patience.set(
            io,
            patience.map(|patience| (now + patience, Why::Late(what))),
            total.map(|total| (total, Why::Late(Waited::Total))),
        );
    }
}

/// Receiving.
impl ClientSession {
    /// Looks at what came, and says how much of it is used: the rest waits for room.
    fn advance(&mut self, io: &mut Io<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(current) = &mut self.current {
            let piece = match current.decoder.next(&bytes[used..]) {
                Ok((n, piece)) => {
                    used += n;
                    piece
                }
                Err(fault) => {
                    self.fail(io, ClientError::Malformed(fault), End::peer(Reason::ProtocolError));
                    return bytes.len();
                }
            };
            let wake = waker(io);
            let room = match piece {
                Piece::Nothing => break,
                Piece::Interim(status) => {
                    if status == StatusCode::CONTINUE && current.awaits_leave {
                        self.send_body(io, Vec::new());
                    }
                    continue;
                }
                Piece::Head(head) => {
                    // A server that has said no does not want the rest of the body (RFC 9112, section 9.5).
                    let refused = !head.status.is_success() && !current.account.is_sent();
                    let shared = self.endpoint.place().shared.clone();
                    current.head_arrived(*head, &shared, wake);
                    if refused {
                        io.hold();
                    }
                    continue;
                }
                Piece::Data(data) => match &mut current.reply {
                    Some(reply) => reply.intake.put(data, wake),
                    None => continue,
                },
                Piece::End(trailers) => {
                    self.complete(io, trailers, &bytes[used..]);
                    return bytes.len();
                }
            };
            if !self.has_room(io, room) {
                break;
            }
        }
        used
    }

    /// What comes of having handed bytes on. Says whether to go on.
    fn has_room(&mut self, io: &mut Io<'_>, room: Result<Room, ClientError>) -> bool {
        match room {
            Ok(Room::More) => return true,
            Ok(Room::Full) => {
                self.paused = true;
                io.pause_reading();
                // It is not the server that is slow.
                self.wait_for(io, Waited::Total);
            }
            Ok(Room::Unwanted) => io.abort(End::local(Reason::LocalClose)),
            Err(error) => {
                if self.current.as_ref().is_some_and(|current| current.is_discarded()) {
                    // It is not worth reading on for the connection's sake.
                    io.abort(End::local(Reason::Ok));
                } else {
                    let who = if matches!(error, ClientError::Coding(_)) {
                        End::peer(Reason::ProtocolError)
                    } else {
                        End::local(Reason::Denied)
                    };
                    self.fail(io, error, who);
                }
            }
        }
        false
    }

    /// There is room for more of the body, or nobody wants it any more.
    fn woken(&mut self, io: &mut Io<'_>) {
        let wake = waker(io);
        let Some(reply) = self.current.as_mut().and_then(|current| current.reply.as_mut()) else { return };
        if reply.intake.is_unwanted() {
            return io.abort(End::local(Reason::LocalClose));
        }
        if !std::mem::take(&mut self.paused) {
            return;
        }
        if reply.intake.is_behind() {
            let room = reply.intake.go_on(wake);
            if !self.has_room(io, room) {
                return;
            }
        }
        let input =
            self.current.as_mut().map(|current| std::mem::take(&mut current.input)).unwrap_or_default();
        let used = self.advance(io, &input);
        self.keep(&input[used..]);
        if !self.paused && self.current.is_some() {
            self.wait_for(io, Waited::NextByte);
            io.resume_reading();
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        if let Some(current) = self.current.as_mut().filter(|_| !rest.is_empty()) {
            current.input.extend_from_slice(rest);
        }
    }

    /// The response is whole; `extra` came after it.
    fn complete(&mut self, io: &mut Io<'_>, trailers: Option<crate::http::Fields>, extra: &[u8]) {
        let Some(current) = &self.current else { return };
        if let Some(Err(error)) = current.reply.as_ref().map(|reply| reply.intake.check_end())
            && !current.is_discarded()
        {
            return self.fail(io, error, End::peer(Reason::ProtocolError));
        }
        let Some(current) = self.current.take() else { return };
        let keeps = current.reply.as_ref().is_some_and(|reply| reply.keep_alive)
            && current.account.is_sent()
            && !current.has_budgets
            && extra.is_empty();
        let (id, limits) = (current.call.id, current.call.work.options.limits.clone());
        let shared = self.shared().clone();
        self.endpoint.done(id);
        current.complete(io, &shared, trailers, (End::peer(Reason::Ok), "reply"));
        if !extra.is_empty() {
            // More than was asked for: what else it says cannot be told from a response.
            self.last = true;
            return io.abort(End::peer(Reason::ProtocolError));
        }
        if !keeps || self.last || io.is_shutting_down() {
            self.last = true;
            return io.abort(End::local(if io.is_shutting_down() { Reason::Shutdown } else { Reason::Ok }));
        }
        let spending = &shared.settings.spending;
        if limits[0].is_some() {
            io.set_limit(Direction::Egress, spending.egress_limit.as_ref().or(spending.pacing.limit()));
        }
        if limits[1].is_some() {
            io.set_limit(Direction::Ingress, spending.ingress_limit.as_ref());
        }
        match self.endpoint.next(self.connection, io) {
            Next::Call(call) => self.start(io, call),
            Next::Idle => {
                let until = io.now() + shared.settings.idle_timeout;
                self.patience.set(io, Some((until, Why::Idle)), None);
            }
            Next::Close => io.abort(End::local(Reason::Ok)),
        }
    }
}

/// Ending.
impl ClientSession {
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
    fn settle(&mut self, attempt: Attempt, record: &ConnectionRecord) {
        let shared = self.shared().clone();
        let (untouched, sent) = (attempt.account.bytes_in == 0, attempt.account.has_begun());
        let stale = attempt.call.work.facts.reused
            && untouched
            && record.end.who == Who::Peer
            && self.failure.is_none()
            && attempt.call.work.may_be_repeated(sent);
        let error = self.failure.take().unwrap_or_else(|| error_of(record));
        let Some(mut call) = attempt.cut(record, &error, &shared) else { return };
        if !call.pledge.is_waiting() {
            return;
        }
        if stale && !call.retried && shared.settings.retry_stale {
            call.retried = true;
            return shared.enter(call);
        }
        shared.failed(call, error, sent);
    }
}

impl ClientSession {
    /// What becomes of a call whose connection has ended before requests could go.
    fn unprepared(&mut self, call: Call, record: &ConnectionRecord) {
        let shared = self.shared().clone();
        let fault = record.handshake.as_ref().and_then(|handshake| handshake.fault.clone());
        let error = self.failure.take().unwrap_or_else(|| match record.end.reason {
            Reason::Shutdown => ClientError::Stopped,
            Reason::Timeout if self.tls_began.is_some() => ClientError::Timeout(Waited::Tls),
            Reason::Timeout => ClientError::Timeout(Waited::Connect),
            reason if self.tls_began.is_some() => ClientError::Tls(
                fault.unwrap_or_else(|| format!("the connection ended: {}", reason.as_str())),
            ),
            reason => ClientError::Connect(reason),
        });
        let waits = call.pledge.is_waiting();
        shared.record_unconnected(Some(self.address), &call, Some(&error).filter(|_| waits));
        if waits {
            shared.failed(call, error, false);
        }
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
        let waits_for_leave = self.current.as_ref().is_none_or(|current| current.awaits_leave);
        if !self.paused && !waits_for_leave {
            self.wait_for(io, Waited::NextByte);
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
                Reason::Shutdown => ClientError::Stopped,
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

/// Wakes the session on this socket.
fn waker(io: &Io<'_>) -> impl Fn() -> Wake + use<> {
    let socket = io.socket();
    move || {
        let socket = socket.clone();
        Arc::new(move || {
            // Of a socket that is gone nothing comes.
            let _ = socket.submit(|session, io| {
                if let Some(session) = (session as &mut dyn std::any::Any).downcast_mut::<ClientSession>() {
                    session.woken(io);
                }
            });
        })
    }
}

/// Why a call has no response whose connection ended so.
fn error_of(record: &ConnectionRecord) -> ClientError {
    match record.end.reason {
        Reason::Shutdown => ClientError::Stopped,
        // The only timer that is not ours.
        Reason::Timeout => ClientError::Timeout(Waited::Send),
        Reason::SourceFailed => ClientError::Body,
        reason => ClientError::Closed(reason),
    }
}
