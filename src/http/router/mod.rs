//! Routes: which handler answers what is asked for, what runs before and after it, and what it is given.
//!
//! A [`Router`] is a [`Handler`], built once by [`Router::build`] and shared by all pollers. It owns the routes and their
//! settings; it keeps no state of requests, which lies in the exchange's context. It runs on the poller, within the
//! session's call, and must not block.
//!
//! ```no_run
//! use tidegate::http::router::{HttpError, Router};
//! use tidegate::http::Server;
//! use tidegate::net::Listeners;
//! use tidegate::poller::Budget;
//!
//! let downloads = Budget::builder("downloads").rate(10_000_000).build();
//! let router = Router::build(|routes| {
//!     routes.get("/", |_| "hello\n");
//!     routes.get("/square/{n}", |exchange| {
//!         let n: u64 = exchange.context.path("n")?;
//!         let square = n.checked_mul(n).ok_or(HttpError::bad_request("n is too large"))?;
//!         Ok::<_, HttpError>(format!("{square}\n"))
//!     });
//!     routes.get("/zeros", |_| vec![0; 50_000_000]).budget(&downloads);
//! })?;
//! let listeners = Listeners::bind(([127, 0, 0, 1], 8080).into(), 1)?;
//! Server::builder(router).start(listeners)?.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod auth;
mod chain;
#[cfg(feature = "compression")]
mod compression;
mod cookies;
mod cors;
mod error;
mod extract;
#[cfg(feature = "multipart")]
mod multipart;
mod pacing;
mod routes;
mod table;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::http::body::{Intake, RequestBody};
use crate::http::codec::request::Request;
use crate::http::{Exchange, ExchangeContext, Handler, Reply};
use crate::task::Outcome;

pub use answer::{Answer, GoesOn, asynchronous};
pub use auth::BasicUser;
#[cfg(feature = "compression")]
pub use compression::Compression;
pub use cookie::Cookie;
pub use cookies::Cookies;
pub use cors::Cors;
pub use error::HttpError;
#[cfg(feature = "json")]
pub use extract::Json;
#[cfg(feature = "multipart")]
pub use multipart::{Form, UploadedFile, Uploads};
pub use pacing::{by_address, by_header, by_path};
pub use routes::{Route, Routes};
pub use table::RouteError;

use pacing::RoutePacing;
use table::{Parameters, Table, Way};

/// Has each request answered by the handler of its route. Cheap to clone.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    table: Table,
    routes: Vec<RouteEntry>,
    groups: Vec<GroupEntry>,
}

struct RouteEntry {
    handler: Box<dyn Fn(&mut Exchange) + Send + Sync>,
    intake: Intake,
    pacing: RoutePacing,
    time: Option<Duration>,
    /// The handler makes pages of its own for errors, which the group's go before.
    makes_pages: bool,
}

/// What is done for all routes of a group, its own and what it has from the groups around it.
#[derive(Default)]
struct GroupEntry {
    /// The outermost group's first.
    before: Vec<Before>,
    /// The innermost group's first.
    after: Vec<After>,
    errors: Option<ErrorPage>,
}

type Before = Arc<dyn Fn(&mut Exchange) -> Result<ControlFlow<Reply>, HttpError> + Send + Sync>;
type After = Arc<dyn Fn(&mut ExchangeContext) + Send + Sync>;
type ErrorPage = Arc<dyn Fn(&ExchangeContext, &HttpError) -> Reply + Send + Sync>;

/// What a router notes in an exchange's context.
#[derive(Debug)]
pub(in crate::http) struct Matched {
    group: usize,
    way: Way,
    parameters: Option<Box<Parameters>>,
    /// What is answered instead of what was asked for.
    refused: Option<Box<HttpError>>,
    /// The body, until the handler's turn comes, where that takes it whole.
    body: RequestBody,
}

impl Router {
    /// Builds a router: `describe` adds the routes. Two routes for one thing, or a path that is none, are an error.
    pub fn build(describe: impl FnOnce(&mut Routes<'_>)) -> Result<Router, RouteError> {
        routes::build(describe).map(|inner| Router(Arc::new(inner)))
    }
}

impl Handler for Router {
    fn handle(&self, exchange: &mut Exchange) {
        chain::begin(&self.0, exchange);
    }

    fn finish(&self, context: &mut ExchangeContext, outcome: Outcome) {
        chain::finish(&self.0, context, outcome);
    }

    fn intake(&self, request: &Request) -> Intake {
        chain::intake(&self.0, request)
    }
}

impl Default for Matched {
    fn default() -> Matched {
        let (parameters, refused, body) = (None, None, RequestBody::None);
        Matched { group: 0, way: Way::Missing, parameters, refused, body }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("routes", &self.0.routes.len()).finish_non_exhaustive()
    }
}
