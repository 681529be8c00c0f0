//! A client of a protocol: requests as tasks.
//!
//! A request is a [`Call`] until it has its reply: it has its addresses found, waits at an endpoint, and goes from
//! connection to connection if it must. Whoever holds it when it is dropped ends the task.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_poller::record::End;
use tidegate_poller::{Io, Moment, Poller, Reason, Sums, sys};

use super::client_session::ClientSession;
use super::codec::Codec;
use super::error::ClientError;
use crate::net::Spending;
use crate::net::Waited;
use crate::net::account::{Account, On};
use crate::net::call::Pledge;
use crate::net::pool::{self, Bounds, Endpoints, Pooled, Refused};
use crate::net::{Resolve, Resolving, SystemResolver};
use crate::record::Sinks;
use crate::runtime::RuntimeHandle;
use crate::task::{Continuation, Task};

/// How a client goes about its requests. Connections are counted for each address apart.
#[derive(Clone)]
pub struct ClientSettings {
    /// Connections to one address, at most. Default: 16.
    pub max_connections: usize,
    /// Of those, how many are kept while they have nothing to do. Default: 16.
    pub max_idle: usize,
    /// How long they are kept. Default: 60 s.
    pub idle_timeout: Duration,
    /// Requests that wait for a connection to one address, at most; one more fails at once. Default: 1,024.
    pub max_waiting: usize,
    /// How long they wait. Default: 10 s.
    pub wait_timeout: Duration,
    /// How long a new connection may take; that of the poller's settings holds too. Default: 10 s.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the first of the reply. Default: 60 s.
    pub first_byte_timeout: Duration,
    /// Between bytes of the reply, and how long the peer may take no byte of the request. Default: 60 s. What a budget of
    /// ours holds up does not count.
    pub next_byte_timeout: Duration,
    /// From the start of the task to its end. Default: none.
    pub total_timeout: Option<Duration>,
    /// The most bytes a reply may have. Default: 16 MiB.
    pub max_reply: usize,
    /// Whether a request is sent again, once and on another connection, when the one it went out on had been idle and the
    /// peer closed it without a byte of a reply: mostly the peer had closed it before the request came. Default: yes.
    pub retry_stale: bool,
    /// What the connections spend through.
    pub spending: Spending,
    /// Where the records go.
    pub sinks: Sinks,
    /// What finds the addresses of names. Default: the C library.
    pub resolver: Arc<dyn Resolve>,
}

impl Default for ClientSettings {
    fn default() -> ClientSettings {
        ClientSettings {
            max_connections: 16,
            max_idle: 16,
            idle_timeout: Duration::from_secs(60),
            max_waiting: 1_024,
            wait_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(60),
            next_byte_timeout: Duration::from_secs(60),
            total_timeout: None,
            max_reply: 16 * 1024 * 1024,
            retry_stale: true,
            spending: Spending::default(),
            sinks: Sinks::default(),
            resolver: Arc::new(SystemResolver),
        }
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("max_connections", &self.max_connections)
            .field("max_idle", &self.max_idle)
            .field("max_waiting", &self.max_waiting)
            .finish_non_exhaustive()
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A host by its name, and a port.
    Name(String, u16),
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target::Address(address)
    }
}

impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Target {
        Target::Name(host.to_owned(), port)
    }
}

impl From<(String, u16)> for Target {
    fn from((host, port): (String, u16)) -> Target {
        Target::Name(host, port)
    }
}

/// Makes requests, on connections that it keeps for the next ones; cheap to clone. When the last clone is dropped the idle
/// connections are closed; requests under way go on. See [`Server::builder`](super::Server::builder) for an example with both ends.
pub struct Client<C: Codec> {
    shared: Arc<Shared<C>>,
    open: Arc<Open<C>>,
}

impl<C: Codec> Client<C> {
    /// A client whose connections live on this runtime's pollers.
    pub fn new(runtime: &RuntimeHandle, codec: C, settings: ClientSettings) -> Client<C> {
        let shared =
            Arc::new(Shared { runtime: runtime.clone(), codec, settings, endpoints: Endpoints::default() });
        Client { open: Arc::new(Open(shared.clone())), shared }
    }

    /// A request to `target`. What comes of the task is the reply, or why there is none. Cancelled, it closes the
    /// connection it is on, for what would still come on that is of no use.
    pub fn request(&self, target: impl Into<Target>, request: C::Request) -> RequestTask<C> {
        RequestTask {
            total_timeout: self.shared.settings.total_timeout,
            shared: self.shared.clone(),
            target: target.into(),
            request,
        }
    }
}

impl<C: Codec> Clone for Client<C> {
    fn clone(&self) -> Client<C> {
        Client { shared: self.shared.clone(), open: self.open.clone() }
    }
}

impl<C: Codec> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.shared.endpoints.len()).finish_non_exhaustive()
    }
}

/// See [`Client::request`].
#[must_use = "a task does nothing until it is started"]
pub struct RequestTask<C: Codec> {
    shared: Arc<Shared<C>>,
    target: Target,
    request: C::Request,
    total_timeout: Option<Duration>,
}

impl<C: Codec> RequestTask<C> {
    /// Gives it at most so long in all, whatever the client's settings say.
    pub fn timeout(self, total: Duration) -> RequestTask<C> {
        RequestTask { total_timeout: Some(total), ..self }
    }
}

impl<C: Codec> fmt::Debug for RequestTask<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTask").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<C: Codec> Task for RequestTask<C> {
    type Output = Result<C::Reply, ClientError>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let RequestTask { shared, target, request, total_timeout } = self;
        let began = sys::now();
        let call = Call {
            id: shared.endpoints.next_call(),
            pledge: Pledge::new(done),
            deadline: total_timeout.map(|timeout| began + timeout),
            retried: false,
            timer: None,
            work: Work { request, others: Vec::new(), began },
        };
        match target {
            Target::Address(address) => shared.enter(address, call),
            Target::Name(host, port) => shared.resolve(&host, port, call),
        }
    }
}

/// Closes what is idle when the last client is gone.
struct Open<C: Codec>(Arc<Shared<C>>);

impl<C: Codec> Drop for Open<C> {
    fn drop(&mut self) {
        self.0.endpoints.close();
    }
}

/// What a client's endpoints share.
pub(super) struct Shared<C: Codec> {
    pub(super) runtime: RuntimeHandle,
    pub(super) codec: C,
    pub(super) settings: ClientSettings,
    endpoints: Endpoints<SocketAddr, AtAddress<C>>,
}

impl<C: Codec> Shared<C> {
    fn resolve(self: Arc<Self>, host: &str, port: u16, mut call: Call<C>) {
        let shared = self.clone();
        if let Some(deadline) = call.deadline {
            // A resolver has its own time; ours does not wait for it.
            let late = call.pledge.clone();
            let fire = crate::runtime::work::Later(move || {
                late.complete(Err(ClientError::Timeout(Waited::Total)));
            });
            call.timer = Some(self.runtime.start_keyed_timer(deadline, Box::new(fire)));
        }
        let resolving = Resolving::new(self.runtime.clone(), move |found| shared.resolved(port, found, call));
        self.settings.resolver.resolve(host, port, resolving);
    }

    fn resolved(self: Arc<Self>, port: u16, found: io::Result<Vec<SocketAddr>>, mut call: Call<C>) {
        call.stop_timer(&self.runtime);
        match found {
            Ok(mut addresses) => {
                addresses.reverse();
                match addresses.pop() {
                    Some(first) => {
                        call.work.others = addresses;
                        self.enter(first, call);
                    }
                    None => {
                        self.fail(nowhere(port), call, ClientError::Resolve(io::ErrorKind::NotFound.into()))
                    }
                }
            }
            Err(error) => self.fail(nowhere(port), call, ClientError::Resolve(error)),
        }
    }

    /// Has a call served at an address.
    pub(super) fn enter(self: &Arc<Self>, address: SocketAddr, call: Call<C>) {
        self.endpoints.visit(address, || AtAddress { shared: self.clone(), address }).accept(call);
    }

    /// Ends a call that is on no connection. It leaves its record like any other.
    pub(super) fn fail(&self, address: SocketAddr, mut call: Call<C>, error: ClientError) {
        call.stop_timer(&self.runtime);
        let (phase, reason) = match &error {
            ClientError::Resolve(_) => ("resolve", Reason::ConnectFailed),
            ClientError::Timeout(_) => ("wait", Reason::Timeout),
            ClientError::ShuttingDown => ("wait", Reason::Shutdown),
            _ => ("wait", Reason::Denied),
        };
        self.record_unconnected(address, &call, reason, phase);
        call.pledge.complete(Err(error));
    }

    /// The same for one that was cancelled.
    pub(super) fn give_up(&self, address: SocketAddr, mut call: Call<C>) {
        call.stop_timer(&self.runtime);
        self.record_unconnected(address, &call, Reason::LocalClose, "wait");
    }

    fn record_unconnected(&self, address: SocketAddr, call: &Call<C>, reason: Reason, phase: &'static str) {
        self.settings.sinks.exchange(|| {
            let words = self.codec.words(&call.work.request);
            let account = Account::new(0, words, call.work.began);
            account.complete(On::none(address), sys::now(), &Sums::default(), (End::local(reason), phase))
        });
    }
}

/// In the record of a request whose host has no address.
fn nowhere(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

/// What a call is about.
pub(super) struct Work<C: Codec> {
    pub(super) request: C::Request,
    /// Addresses to try when this one lets us not in, the next one last.
    pub(super) others: Vec<SocketAddr>,
    pub(super) began: Moment,
}

pub(super) type Call<C> = crate::net::call::Call<AtAddress<C>>;
pub(super) type Endpoint<C> = pool::Endpoint<AtAddress<C>>;

/// An address that a client has connections to.
pub(super) struct AtAddress<C: Codec> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) address: SocketAddr,
}

impl<C: Codec> Pooled for AtAddress<C> {
    type Output = Result<C::Reply, ClientError>;
    type Work = Work<C>;
    type Session = ClientSession<C>;

    fn runtime(&self) -> &RuntimeHandle {
        &self.shared.runtime
    }

    fn bounds(&self) -> Bounds {
        let ClientSettings { max_connections, max_idle, max_waiting, wait_timeout, .. } =
            self.shared.settings;
        Bounds { max_connections, max_idle, max_waiting, wait_timeout }
    }

    fn is_closed(&self) -> bool {
        self.shared.endpoints.is_closed()
    }

    fn connect(endpoint: &Arc<Endpoint<C>>, poller: &mut Poller, connection: u64, call: Call<C>) {
        let id = call.id;
        let session = ClientSession::new(endpoint.clone(), connection, call, poller.now());
        // Where it fails at once the session has its record already.
        let Some(socket) = poller.connect(endpoint.place().address, Box::new(session)) else { return };
        endpoint.on_connection(id, socket.clone());
        pool::with_session::<Self>(poller, &socket, ClientSession::connecting);
    }

    fn start(session: &mut ClientSession<C>, io: &mut Io<'_>, call: Call<C>) -> Option<Call<C>> {
        session.start(io, call);
        None
    }

    fn cancelled(session: &mut ClientSession<C>, io: &mut Io<'_>, call: u64) {
        session.cancelled(io, call);
    }

    fn refuse(&self, call: Call<C>, why: Refused) {
        let error = match why {
            Refused::Full => ClientError::QueueFull,
            Refused::Waited => ClientError::Timeout(Waited::Connection),
            Refused::Late => ClientError::Timeout(Waited::Total),
            Refused::ShuttingDown => ClientError::ShuttingDown,
        };
        self.shared.fail(self.address, call, error);
    }

    fn give_up(&self, call: Call<C>) {
        self.shared.give_up(self.address, call);
    }

    fn forget(&self, endpoint: &Arc<Endpoint<C>>) {
        self.shared.endpoints.forget(&self.address, endpoint);
    }
}
