//! The client: what its requests share, and a request's way from endpoint to endpoint.
//!
//! A request is a [`Call`] until it has its response: it has its addresses found, waits at an endpoint, is sent, and goes
//! elsewhere or once more if need be. Whoever holds the call when it is dropped ends the task.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tidegate_poller::record::{End, Reason};
use tidegate_poller::{Io, Moment, Poller, Sums, sys};

use super::again::{self, Redirect};
use super::dial::Dial;
use super::error::ClientError;
use super::proxy::Proxy;
use super::request::{Options, RequestTask, Upload};
use super::response::Response;
use super::session::ClientSession;
use super::settings::ClientSettings;
use super::url::{Scheme, Url};
use crate::http::{Body, HeaderMap, HeaderValue, Method, StatusCode};
use crate::net::Waited;
use crate::net::account::{Account, On};
use crate::net::call::Pledge;
use crate::net::pool::{self, Bounds, Endpoints, Pooled, Refused};
#[cfg(feature = "tls")]
use crate::net::tls::ClientTls;
use crate::record::{ClientFacts, Words};
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Later;
use crate::task::Continuation;

/// Makes requests, on connections that it keeps for the next ones; cheap to clone. When the last clone is dropped the idle
/// connections are closed; requests under way go on.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

impl Client {
    /// A client whose connections live on this runtime's pollers.
    pub fn new(runtime: &RuntimeHandle, mut settings: ClientSettings) -> Client {
        if HeaderValue::from_str(&settings.user_agent).is_err() {
            // A line end in it would begin a field of its own.
            log::warn!("the user agent {:?} cannot stand in a field; it is left out", settings.user_agent);
            settings.user_agent.clear();
        }
        let shared = Arc::new(Shared {
            runtime: runtime.clone(),
            settings,
            endpoints: Endpoints::default(),
            #[cfg(feature = "tls")]
            tls: std::sync::OnceLock::new(),
        });
        Client { _open: Arc::new(Open(shared.clone())), shared }
    }

    /// GET.
    pub fn get(&self, url: impl AsRef<str>) -> RequestTask {
        self.request(Method::GET, url)
    }

    /// HEAD.
    pub fn head(&self, url: impl AsRef<str>) -> RequestTask {
        self.request(Method::HEAD, url)
    }

    /// POST, with this body.
    pub fn post(&self, url: impl AsRef<str>, body: impl Into<Body>) -> RequestTask {
        self.request(Method::POST, url).body(body)
    }

    /// PUT, with this body.
    pub fn put(&self, url: impl AsRef<str>, body: impl Into<Body>) -> RequestTask {
        self.request(Method::PUT, url).body(body)
    }

    /// Any method.
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> RequestTask {
        RequestTask::new(Some(self.clone()), method, url.as_ref())
    }

    /// Any method, for a URL that was read already.
    pub fn request_url(&self, method: Method, url: Url) -> RequestTask {
        RequestTask::of_url(Some(self.clone()), method, Ok(url))
    }

    pub(super) fn start(&self, task: RequestTask, done: Continuation<Outcome>) {
        let RequestTask { url: Ok(url), method, headers, body, options, .. } = task else { return };
        let shared = &self.shared;
        let proxy = match shared.settings.proxies.of(&url) {
            Ok(proxy) => proxy,
            Err(error) => return done.complete(Err(ClientError::BadProxy(error))),
        };
        let began = sys::now();
        let timeout = options.total_timeout.or(shared.settings.total_timeout);
        let call = Call {
            id: shared.endpoints.next_call(),
            pledge: Pledge::new(done),
            deadline: timeout.map(|timeout| began + timeout),
            retried: false,
            timer: None,
            work: Errand {
                proxy,
                url,
                method,
                headers,
                body,
                options,
                began,
                asks_leave: true,
                attempt_began: began,
                facts: ClientFacts::default(),
                visited: Vec::new(),
            },
        };
        shared.enter(call);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.shared.endpoints.len()).finish_non_exhaustive()
    }
}

/// Closes what is idle when the last client is gone.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.endpoints.close();
    }
}

pub(super) type Call = crate::net::call::Call<Origin>;
pub(super) type Endpoint = pool::Endpoint<Origin>;
pub(super) type Outcome = Result<Response, ClientError>;

/// What a call is about.
pub(super) struct Errand {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Upload,
    pub(super) options: Options,
    pub(super) proxy: Option<Arc<Proxy>>,
    /// The task's start.
    pub(super) began: Moment,
    /// Whether a large body waits for the server's leave.
    pub(super) asks_leave: bool,
    /// The start of the attempt at hand: an exchange that gets a record.
    pub(super) attempt_began: Moment,
    pub(super) facts: ClientFacts,
    /// Where redirects came from.
    visited: Vec<(Method, Url)>,
}

impl Errand {
    /// What the record says was asked.
    pub(super) fn words(&self, agent: &str) -> Words {
        let agent = match self.headers.get(crate::http::header::USER_AGENT) {
            Some(agent) => agent.as_bytes(),
            None => agent.as_bytes(),
        };
        let referer = self.headers.get(crate::http::header::REFERER).map(|referer| referer.as_bytes());
        Words::new(
            self.method.as_str().as_bytes(),
            self.url.target().as_bytes(),
            b"HTTP/1.1",
            referer,
            Some(agent),
        )
    }

    /// Whether it may be made once more after a failure. `sent`: the server may have acted on it.
    pub(super) fn may_be_repeated(&self, sent: bool) -> bool {
        self.body.can_be_sent() && (!sent || again::is_idempotent(&self.method))
    }

    pub(super) fn retries_left(&self, settings: &ClientSettings) -> bool {
        self.facts.retries < self.options.max_retries.unwrap_or(settings.max_retries)
    }
}

/// What a client's endpoints share.
pub(super) struct Shared {
    pub(super) runtime: RuntimeHandle,
    pub(super) settings: ClientSettings,
    endpoints: Endpoints<Key, Origin>,
    /// Made when the first server is to prove who it is.
    #[cfg(feature = "tls")]
    tls: std::sync::OnceLock<Result<ClientTls, String>>,
}

/// What tells endpoints apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) proxy: Option<Arc<Proxy>>,
}

impl Shared {
    /// Has a call served at the endpoint of its URL.
    pub(super) fn enter(self: &Arc<Self>, mut call: Call) {
        let work = &mut call.work;
        let ClientFacts { redirects, retries, .. } = work.facts;
        work.facts = ClientFacts { redirects, retries, ..ClientFacts::default() };
        work.attempt_began = sys::now();
        let key = Key {
            scheme: work.url.scheme(),
            host: work.url.host().to_owned(),
            port: work.url.port(),
            proxy: work.proxy.clone(),
        };
        self.endpoints.visit(key.clone(), || Origin { shared: self.clone(), key }).accept(call);
    }

    /// Makes another attempt, unless nobody waits any more: the attempt before has left the call's last record then.
    fn enter_again(self: &Arc<Self>, call: Call) {
        if call.pledge.is_waiting() {
            self.enter(call);
        }
    }

    /// Goes where a redirect leads.
    pub(super) fn follow(self: &Arc<Self>, mut call: Call, redirect: Redirect) {
        let work = &mut call.work;
        let here = (work.method.clone(), work.url.clone());
        let there = (redirect.method.clone(), redirect.url.clone());
        let most = work.options.max_redirects.unwrap_or(self.settings.max_redirects);
        let circle = there == here || work.visited.contains(&there);
        if work.facts.redirects >= most || circle {
            return call.pledge.complete(Err(ClientError::TooManyRedirects));
        }
        if !redirect.keeps_body {
            work.body = Upload::Empty;
            again::forget_body(&mut work.headers);
        } else if !work.body.can_be_sent() {
            let error = ClientError::Redirect("the body was a stream, which cannot be sent again".to_owned());
            return call.pledge.complete(Err(error));
        }
        if redirect.url.same_origin(&work.url) {
            // The name and password stand for the server, not for the page.
            work.url = redirect.url.with_user_of(&work.url);
        } else {
            again::forget_secrets(&mut work.headers);
            work.headers.remove(crate::http::header::HOST);
            work.url = redirect.url;
        }
        work.method = redirect.method;
        work.proxy = match self.settings.proxies.of(&work.url) {
            Ok(proxy) => proxy,
            Err(error) => return call.pledge.complete(Err(ClientError::BadProxy(error))),
        };
        work.visited.push(here);
        work.facts.redirects += 1;
        call.retried = false;
        self.enter_again(call);
    }

    /// What becomes of a call that failed: it is made once more, or ends. `sent`: the server may have acted on it.
    pub(super) fn failed(self: &Arc<Self>, call: Call, error: ClientError, sent: bool) {
        let work = &call.work;
        if error.is_passing() && work.may_be_repeated(sent) && work.retries_left(&self.settings) {
            let pause = again::back_off(work.facts.retries + 1, luck());
            if call.deadline.is_none_or(|deadline| sys::now() + pause < deadline) {
                return self.repeat(call, pause);
            }
        }
        call.pledge.complete(Err(error));
    }

    /// How long to wait before a request is made once more that was answered so; `None`: the answer counts.
    pub(super) fn pause_after(
        &self,
        call: &Call,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Duration> {
        let work = &call.work;
        if !again::is_passing(status) || !work.may_be_repeated(true) || !work.retries_left(&self.settings) {
            return None;
        }
        let since_1970 = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pause = again::retry_after(headers, since_1970)
            .unwrap_or_else(|| again::back_off(work.facts.retries + 1, luck()));
        let in_time = call.deadline.is_none_or(|deadline| sys::now() + pause < deadline);
        Some(pause).filter(|pause| in_time && *pause <= self.settings.max_retry_wait)
    }

    /// Makes a request once more whose body the server would not give leave to, nor refuse.
    pub(super) fn send_unasked(self: &Arc<Self>, mut call: Call) {
        call.work.asks_leave = false;
        self.enter_again(call);
    }

    /// Makes a request once more, after a pause.
    pub(super) fn repeat(self: &Arc<Self>, mut call: Call, pause: Duration) {
        call.work.facts.retries += 1;
        let pledge = call.pledge.clone();
        // Whoever comes first takes it: the end of the pause, or a cancel.
        let place = Arc::new(Mutex::new(Some(call)));
        let take = |place: &Mutex<Option<Call>>| place.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Not a strong one: it is kept by the call in that place, which would keep itself if the timer never fires.
        let withdrawn = Arc::downgrade(&place);
        pledge.on_cancel(move || drop(withdrawn.upgrade().and_then(|place| take(&place))));
        let shared = self.clone();
        let go_on = Later(move || {
            if let Some(call) = take(&place) {
                shared.enter_again(call);
            }
        });
        self.runtime.start_keyed_timer(sys::now() + pause, Box::new(go_on));
    }

    /// Ends an attempt that got no connection. It leaves its record like any other.
    pub(super) fn record_unconnected(
        &self,
        address: Option<SocketAddr>,
        call: &Call,
        error: Option<&ClientError>,
    ) {
        let (phase, reason) = unconnected(error);
        self.record_attempt(address, call, phase, reason);
    }

    pub(super) fn record_attempt(
        &self,
        address: Option<SocketAddr>,
        call: &Call,
        phase: &'static str,
        reason: Reason,
    ) {
        let work = &call.work;
        let address = address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], work.url.port())));
        self.settings.sinks.exchange(|| {
            let mut account = Account::new(0, work.words(&self.settings.user_agent), work.attempt_began);
            account.client = Some(Box::new(work.facts.clone()));
            account.complete(On::none(address), sys::now(), &Sums::default(), (End::local(reason), phase))
        });
    }
}

#[cfg(feature = "tls")]
impl Shared {
    /// What speaks TLS, if that has been made.
    pub(super) fn tls(&self) -> Option<&Result<ClientTls, String>> {
        self.tls.get()
    }

    /// Makes what speaks TLS. Reads the system's authorities from files.
    pub(super) fn make_tls(&self) -> &Result<ClientTls, String> {
        self.tls.get_or_init(|| match &self.settings.tls {
            Some(tls) => Ok(tls.clone()),
            None => ClientTls::builder().alpn(["http/1.1"]).build().map_err(|error| error.to_string()),
        })
    }
}

/// From 0 to 1. Each hasher has keys of its own, and they are random.
fn luck() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// In which phase an attempt ended that got no connection, and why; without an error it was given up.
pub(super) fn unconnected(error: Option<&ClientError>) -> (&'static str, Reason) {
    match error {
        None => ("wait", Reason::LocalClose),
        Some(ClientError::Resolve(_)) => ("resolve", Reason::ConnectFailed),
        Some(ClientError::Timeout(Waited::Addresses)) => ("resolve", Reason::Timeout),
        Some(ClientError::Timeout(Waited::Connect)) => ("connect", Reason::Timeout),
        Some(ClientError::Timeout(Waited::Tls)) => ("handshake", Reason::Timeout),
        Some(ClientError::Timeout(_)) => ("wait", Reason::Timeout),
        Some(ClientError::Connect(reason)) => ("connect", *reason),
        Some(ClientError::Tls(_)) => ("handshake", Reason::TransportError),
        Some(ClientError::Proxy(_)) => ("proxy", Reason::Denied),
        Some(ClientError::ShuttingDown) => ("wait", Reason::Shutdown),
        Some(_) => ("wait", Reason::Denied),
    }
}

/// An endpoint: a server, seen through a proxy or not.
pub(super) struct Origin {
    pub(super) shared: Arc<Shared>,
    pub(super) key: Key,
}

impl Pooled for Origin {
    type Output = Outcome;
    type Work = Errand;
    type Session = ClientSession;

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

    fn connect(endpoint: &Arc<Endpoint>, poller: &mut Poller, connection: u64, call: Call) {
        Dial::begin(endpoint, poller, connection, call);
    }

    fn start(session: &mut ClientSession, io: &mut Io<'_>, call: Call) -> Option<Call> {
        session.start(io, call)
    }

    fn cancelled(session: &mut ClientSession, io: &mut Io<'_>, call: u64) {
        session.cancelled(io, call);
    }

    fn refuse(&self, mut call: Call, why: Refused) {
        call.stop_timer(&self.shared.runtime);
        let error = match why {
            Refused::Full => ClientError::QueueFull,
            Refused::Waited => ClientError::Timeout(Waited::Connection),
            Refused::Late => ClientError::Timeout(Waited::Total),
            Refused::ShuttingDown => ClientError::ShuttingDown,
        };
        self.shared.record_unconnected(None, &call, Some(&error));
        call.pledge.complete(Err(error));
    }

    fn give_up(&self, mut call: Call) {
        call.stop_timer(&self.shared.runtime);
        self.shared.record_unconnected(None, &call, None);
    }

    fn forget(&self, endpoint: &Arc<Endpoint>) {
        self.shared.endpoints.forget(&self.key, endpoint);
    }
}
