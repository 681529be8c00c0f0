//! A server of a protocol: each exchange is a series.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_poller::record::{ConnectionRecord, End, Peer, Refusal};
use tidegate_poller::{Acceptor, Admission, Io, ListenerId, Poller, Reason, SocketHandle, sys};

use super::builder::ServerBuilder;
use super::codec::Codec;
use super::server_session::ServerSession;
use crate::net::Spending;
use crate::record::Sinks;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{Later, Ready};
use crate::task::{Continuation, Error, Parked, Series, Task};

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Connections at once; more are closed as they come, and recorded. Default: 100,000.
    pub max_connections: usize,
    /// The most bytes a request may have. Default: 16 MiB.
    pub max_request: usize,
    /// From the first byte of a request to its last. Default: 30 s.
    pub request_timeout: Duration,
    /// Between a reply and the next request, and before the first. Default: 75 s.
    pub idle_timeout: Duration,
    /// How long the series of an exchange may take; then it is cancelled and the connection closed. Default: none.
    pub series_timeout: Option<Duration>,
    /// How long a peer may take nothing of what could go. Pauses by a budget do not count. Default: 60 s.
    pub send_timeout: Duration,
    /// Whether a peer that has closed its direction still wants its replies. By default it does not: the series is
    /// cancelled and the connection closed.
    pub half_close: bool,
    /// What the connections spend through.
    pub spending: Spending,
    /// Where the records go.
    pub sinks: Sinks,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            max_connections: 100_000,
            max_request: 16 * 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            series_timeout: None,
            send_timeout: Duration::from_secs(60),
            half_close: false,
            spending: Spending::default(),
            sinks: Sinks::default(),
        }
    }
}

/// An exchange is a series, whose context holds what was asked and what will be answered.
pub type Exchange<C, D = (), S = ()> = Series<ExchangeContext<C, D, S>>;

/// The context of an exchange's series. `D` is the connection's data, `S` the exchange's own.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExchangeContext<C: Codec, D = (), S = ()> {
    /// What was asked.
    pub request: C::Request,
    /// What will be answered when the series has ended. Left empty, nothing is.
    pub reply: Option<C::Reply>,
    /// The data of the connection: made when it was accepted, handed from exchange to exchange, dropped with it.
    pub connection: D,
    /// Data of this exchange.
    pub data: S,
    /// Who asks.
    pub peer: Peer,
    /// The connection's number, unique in this process; its records have it.
    pub conn_id: u64,
    /// The number of the exchange on its connection, from 1.
    pub exchange_id: u64,
    /// Whether the connection ends after this reply, whatever the client wants.
    pub close: bool,
}

/// A server that runs, until it is [shut down](Server::shutdown) or its runtime is; dropping this changes nothing.
pub struct Server {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<State>,
}

impl Server {
    /// A server of a protocol, whose exchanges `handler` answers.
    ///
    /// The handler is called with the series of each exchange, whose context holds the [request](ExchangeContext); it runs on
    /// the poller's thread and must not block, but may push tasks. When the series has ended the reply goes out: that in
    /// [`ExchangeContext::reply`], none if there is none. Where the series failed, the codec may have a reply
    /// ([`Codec::failed`]); if not the connection is closed. Requests of one connection are served one after another, in
    /// order. A connection that ends cancels the series that runs.
    ///
    /// ```
    /// use tidegate::net::Listeners;
    /// use tidegate::net::protocol::{Client, ClientSettings, Exchange, Server};
    /// # use tidegate::net::protocol::{Codec, Decoded, Malformed, Outgoing};
    /// use tidegate::runtime::Runtime;
    /// use tidegate::task::go;
    /// # #[derive(Clone)]
    /// # struct Byte;
    /// # impl Codec for Byte {
    /// #     type Request = u8;
    /// #     type Reply = u8;
    /// #     fn encode_request(&mut self, n: &u8, out: &mut Outgoing) -> Result<(), Malformed> { out.put(&[*n]); Ok(()) }
    /// #     fn decode_request(&mut self, b: &[u8]) -> Result<Decoded<u8>, Malformed> { Ok(Decoded::message(b[0], 1)) }
    /// #     fn encode_reply(&mut self, n: u8, out: &mut Outgoing) -> Result<(), Malformed> { out.put(&[n]); Ok(()) }
    /// #     fn decode_reply(&mut self, b: &[u8]) -> Result<Decoded<u8>, Malformed> { Ok(Decoded::message(b[0], 1)) }
    /// # }
    ///
    /// let runtime = Runtime::new()?;
    /// let listeners = Listeners::bind("127.0.0.1:0".parse()?, 1)?;
    /// // `Byte` is a codec whose messages are single bytes.
    /// let server = Server::builder(Byte, |exchange: &mut Exchange<Byte>| {
    ///     let n = exchange.context.request;
    ///     exchange.push(go(move || n * 2), |double, exchange| {
    ///         exchange.context.reply = Some(double);
    ///         Ok(())
    ///     });
    ///     Ok(())
    /// });
    /// let server = server.start_on(&runtime.handle(), listeners)?;
    /// let client = Client::new(&runtime.handle(), Byte, ClientSettings::default());
    /// assert_eq!(runtime.run(client.request(server.address(), 21))??, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder<C, D, S>(
        codec: C,
        handler: impl Fn(&mut Exchange<C, D, S>) -> Result<(), Error> + Send + Sync + 'static,
    ) -> ServerBuilder<C, D, S>
    where
        C: Codec,
        D: Default + Send + 'static,
        S: Default + Send + 'static,
    {
        ServerBuilder::new(codec, Box::new(handler))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.state.open.load(Ordering::Relaxed)
    }

    /// A task that shuts the server down: no more callers, no more requests; exchanges under way have until `grace` is over,
    /// and are cut then. Done when the last connection is gone and recorded.
    pub fn shutdown(&self, grace: Duration) -> Shutdown {
        Shutdown { state: self.state.clone(), grace }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// See [`Server::shutdown`].
#[must_use = "a task does nothing until it is started"]
pub struct Shutdown {
    state: Arc<State>,
    grace: Duration,
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("grace", &self.grace).finish_non_exhaustive()
    }
}

impl Task for Shutdown {
    type Output = ();

    /// Cancelled, it shuts the server down all the same.
    fn dispatch(self, done: Continuation<()>) {
        let Shutdown { state, grace } = self;
        state.stopping.store(true, Ordering::SeqCst);
        state.lock().stopped.push(done.park());
        for poller in 0..state.runtime.poller_count() {
            // Counted, so that nobody takes the server for ended before its doors are shut.
            let seat = Seat::take_anyway(&state);
            let shut = move |poller_here: &mut Poller| {
                let (listeners, sockets) = seat.0.leave(poller);
                for listener in listeners {
                    poller_here.close_listener(listener);
                }
                for socket in sockets {
                    poller_here.call(&socket, |session, io| session.shutdown(io));
                }
            };
            state.runtime.submit_to(poller, Box::new(shut));
        }
        let cut = state.clone();
        let fire = Later(move || {
            for poller in 0..cut.runtime.poller_count() {
                let (_, sockets) = cut.leave(poller);
                let cut_all = move |poller_here: &mut Poller| {
                    for socket in sockets {
                        poller_here.call(&socket, |_, io| io.abort(End::local(Reason::Shutdown)));
                    }
                };
                cut.runtime.submit_to(poller, Box::new(cut_all));
            }
        });
        state.runtime.start_timer(sys::now() + grace, Ready::Work(Box::new(fire)));
    }
}

pub(super) type Handler<C, D, S> = Box<dyn Fn(&mut Exchange<C, D, S>) -> Result<(), Error> + Send + Sync>;

/// What all connections of a server share.
pub(super) struct Service<C: Codec, D, S> {
    pub(super) codec: C,
    pub(super) settings: ServerSettings,
    pub(super) handler: Handler<C, D, S>,
    pub(super) state: Arc<State>,
}

/// The part of it that does not depend on the protocol.
pub(super) struct State {
    pub(super) runtime: RuntimeHandle,
    max: usize,
    open: AtomicUsize,
    stopping: AtomicBool,
    doors: Mutex<Doors>,
}

#[derive(Default)]
struct Doors {
    listeners: Vec<(usize, ListenerId)>,
    sockets: HashMap<u64, (usize, SocketHandle)>,
    stopped: Vec<Parked<()>>,
}

impl State {
    pub(super) fn new(runtime: &RuntimeHandle, max: usize) -> Arc<State> {
        Arc::new(State {
            runtime: runtime.clone(),
            max,
            open: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            doors: Mutex::default(),
        })
    }

    pub(super) fn listens(&self, poller: usize, listener: ListenerId) {
        self.lock().listeners.push((poller, listener));
    }

    /// Closes the listeners that there are.
    pub(super) fn close(&self) {
        for (poller, listener) in std::mem::take(&mut self.lock().listeners) {
            self.runtime.submit_to(poller, Box::new(move |here: &mut Poller| here.close_listener(listener)));
        }
    }

    pub(super) fn has_listeners(&self) -> bool {
        !self.lock().listeners.is_empty()
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn opened(&self, io: &Io<'_>, poller: usize) {
        self.lock().sockets.insert(io.conn_id(), (poller, io.socket()));
    }

    pub(super) fn closed(&self, conn_id: u64) {
        self.lock().sockets.remove(&conn_id);
    }

    /// The listeners of a poller, which are forgotten, and its sockets.
    fn leave(&self, poller: usize) -> (Vec<ListenerId>, Vec<SocketHandle>) {
        let mut doors = self.lock();
        let (ours, others) =
            std::mem::take(&mut doors.listeners).into_iter().partition(|(at, _)| *at == poller);
        doors.listeners = others;
        let ours: Vec<(usize, ListenerId)> = ours;
        let sockets = doors.sockets.values().filter(|(at, _)| *at == poller);
        (ours.into_iter().map(|(_, id)| id).collect(), sockets.map(|(_, socket)| socket.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the connections, given back when it is dropped.
pub(super) struct Seat(Arc<State>);

impl Seat {
    fn take(state: &Arc<State>) -> Option<Seat> {
        state
            .open
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < state.max).then_some(n + 1))
            .is_ok()
            .then(|| Seat(state.clone()))
    }

    fn take_anyway(state: &Arc<State>) -> Seat {
        state.open.fetch_add(1, Ordering::SeqCst);
        Seat(state.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.is_shutting_down() {
            let stopped = std::mem::take(&mut self.0.lock().stopped);
            for waiting in stopped {
                // Unless it was cancelled.
                let _ = waiting.complete(());
            }
        }
    }
}

/// Lets callers in while there is room.
pub(super) struct Door<C: Codec, D, S> {
    pub(super) service: Arc<Service<C, D, S>>,
    pub(super) poller: usize,
}

impl<C, D, S> Acceptor for Door<C, D, S>
where
    C: Codec,
    D: Default + Send + 'static,
    S: Default + Send + 'static,
{
    fn accept(&mut self, _: &Peer) -> Admission {
        let state = &self.service.state;
        if state.is_shutting_down() {
            return Admission::Refuse(Refusal(Reason::Shutdown));
        }
        match Seat::take(state) {
            Some(seat) => {
                Admission::Admit(Box::new(ServerSession::new(self.service.clone(), seat, self.poller)))
            }
            None => Admission::Refuse(Refusal(Reason::Denied)),
        }
    }

    fn refused(&mut self, record: ConnectionRecord) {
        self.service.settings.sinks.connection(record, 0);
    }
}
