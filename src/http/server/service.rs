//! What all HTTP connections of a poller share, and the places they have in the [census](Census) of the whole server.
//!
//! It must not know the sessions, which hold on to it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tidegate_poller::moment::Moment;

use crate::http::body::{FileId, Room};
use crate::http::codec::request::{HeadLimits, Request};
use crate::http::server::census::{Census, WHOLE_BYTES_MAX};
use crate::http::server::clock::Clock;
use crate::http::server::handler::{ConnectionData, Handler};
use crate::http::server::in_use::InUse;
use crate::http::server::work::Work;
use crate::net::Pacing;
use crate::record::Sinks;
use crate::runtime::RuntimeHandle;

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Connections at once, each of which takes a descriptor; further callers are told to come again (503). Default: 10,000.
    pub max_connections: usize,
    /// How many bytes of memory request bodies may take that are taken whole, on all connections together; those that are
    /// still coming are in it, streams are not. A request whose body finds no room is answered with 503. `None`: as many as
    /// come. Default: 256 MiB.
    pub max_whole_bytes: Option<u64>,
    /// From the first byte of a request until its head is there. For a connection's first head it runs from
    /// accept, and ends a connection that sends nothing.
    pub header_timeout: Duration,
    /// Between two pieces of a request's body, and before the first, while the session is willing to read it. Time in which
    /// its reader is slow does not count, nor does time before the client was told to send.
    pub body_timeout: Duration,
    /// From the first byte of a request until its body is here, whatever the pace; `None`: however long it takes.
    pub request_timeout: Option<Duration>,
    /// How long the series of an exchange may take, unless its route or handler says otherwise; then it is cancelled and the
    /// reply is 503, see [`ExchangeContext::set_timeout`](crate::http::ExchangeContext::set_timeout). Default: none.
    pub series_timeout: Option<Duration>,
    /// Between a reply and the next request.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of what could go; see
    /// [`Io::set_send_timeout`](tidegate_poller::Io::set_send_timeout). Pauses by a budget do not count.
    pub send_timeout: Duration,
    /// Requests answered on one connection; the last reply says that it is. `None`: as many as come.
    pub max_requests: Option<u32>,
    /// The most that a request's head may have.
    pub head_limits: HeadLimits,
    /// How many bytes of each reply are exempt from the connection's own rate.
    pub rate_after: u64,
    /// What the connections spend through.
    pub pacing: Pacing,
    /// Where the records go. Default: nowhere.
    pub sinks: Sinks,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            max_connections: 10_000,
            max_whole_bytes: Some(WHOLE_BYTES_MAX),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            request_timeout: None,
            series_timeout: None,
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(60),
            max_requests: None,
            head_limits: HeadLimits::default(),
            rate_after: 0,
            pacing: Pacing::default(),
            sinks: Sinks::default(),
        }
    }
}

/// What all HTTP connections of one poller share.
pub struct Service {
    pub(super) handler: Box<dyn Handler>,
    pub(super) runtime: RuntimeHandle,
    pub(super) settings: ServerSettings,
    census: Arc<Census>,
    pub(super) clock: RefCell<Clock>,
    /// What replies under way send.
    pub(super) files: RefCell<InUse<FileId, File>>,
    pub(super) pages: RefCell<InUse<u64, [u8]>>,
    /// What handlers have left with connections, by the connection's number: few do, so that the others pay nothing for it.
    pub(super) data: RefCell<HashMap<u64, Arc<ConnectionData>>>,
    /// Whether an exchange may leave nothing behind but its reply's bytes: nobody records it, and nothing is to be told
    /// when its reply begins to go.
    pub(super) unrecorded: bool,
    /// State of connections that had something to do, kept for the next that has.
    #[expect(clippy::vec_box, reason = "lent as boxes: a session holds a pointer, not the state")]
    spare: RefCell<Vec<Box<Work>>>,
    /// Requests of exchanges that are over, for the next ones to be read into.
    requests: RefCell<Vec<Arc<Request>>>,
    /// Memory that replies' fields were in.
    lines: RefCell<Vec<Vec<u8>>>,
}

/// How many of each are kept.
const SPARE_MAX: usize = 32;
/// The largest memory of fields that is.
const LINES_KEPT: usize = 4 * 1024;

impl Service {
    /// A service that answers by `handler`, whose series run on `runtime`. `now` is the poller's clock.
    pub fn new(
        handler: Box<dyn Handler>,
        runtime: RuntimeHandle,
        settings: ServerSettings,
        census: Arc<Census>,
        now: Moment,
    ) -> Service {
        let has_free_bytes = settings.rate_after > 0 && settings.pacing.limit().is_some();
        Service {
            unrecorded: settings.sinks.is_empty() && settings.max_requests.is_none() && !has_free_bytes,
            handler,
            runtime,
            settings,
            census,
            clock: RefCell::new(Clock::new(now, SystemTime::now())),
            files: RefCell::default(),
            pages: RefCell::default(),
            data: RefCell::default(),
            spare: RefCell::default(),
            requests: RefCell::default(),
            lines: RefCell::default(),
        }
    }

    /// Has the clock be right for this turn.
    pub(super) fn refresh(&self, now: Moment) {
        self.clock.borrow_mut().refresh(now, SystemTime::now);
    }

    /// Where whole bodies are counted.
    pub(super) fn room(&self) -> &Arc<Room> {
        self.census.room()
    }

    pub(super) fn take_work(&self) -> Box<Work> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut work: Box<Work>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            work.clear();
            spare.push(work);
        }
    }

    /// A request for a head to be read into.
    pub(super) fn take_request(&self) -> Arc<Request> {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps the memory of a request that nobody needs any more, unless somebody still has it.
    pub(super) fn give_request(&self, request: Arc<Request>) {
        let mut requests = self.requests.borrow_mut();
        if requests.len() < SPARE_MAX && Arc::strong_count(&request) == 1 {
            requests.push(request);
        }
    }

    /// Memory for the fields of a reply.
    pub(super) fn take_lines(&self) -> Vec<u8> {
        self.lines.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps the memory that a reply's fields were in, unless they were none or unusually many.
    pub(super) fn give_lines(&self, memory: Vec<u8>) {
        let mut lines = self.lines.borrow_mut();
        if lines.len() < SPARE_MAX && (1..=LINES_KEPT).contains(&memory.capacity()) {
            lines.push(memory);
        }
    }
}

/// A place in the census, given back when it is dropped; and the way to the service. A caller that is turned away has
/// one of another kind.
pub(super) struct Seat<const TURNED_AWAY: bool = false>(Rc<Service>);

impl<const TURNED_AWAY: bool> Seat<TURNED_AWAY> {
    /// A place, if one is free.
    pub(super) fn take(service: &Rc<Service>) -> Option<Seat<TURNED_AWAY>> {
        service.census.enter(TURNED_AWAY).then(|| Seat(service.clone()))
    }
}

impl<const TURNED_AWAY: bool> Deref for Seat<TURNED_AWAY> {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}

impl<const TURNED_AWAY: bool> Drop for Seat<TURNED_AWAY> {
    fn drop(&mut self) {
        self.0.census.leave(TURNED_AWAY);
    }
}
