//! What answers requests, and what it is given for that.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tidegate_poller::moment::Moment;
use tidegate_poller::record::Peer;

use crate::http::StatusCode;
use crate::http::body::{BodyError, Intake, RequestBody};
use crate::http::codec::fields::Fields;
use crate::http::codec::request::Request;
use crate::http::server::clock::WallClock;
use crate::http::server::reply::Reply;
use crate::task::{Outcome, Series, SeriesError};

/// Answers requests; lives on one poller's thread. A closure will do.
///
/// ```no_run
/// use tidegate::http::{Body, Exchange, Server};
/// use tidegate::net::Listeners;
/// use tidegate::task::go;
///
/// let handler = |exchange: &mut Exchange| {
///     exchange.push(go(|| (1..=20_u64).product::<u64>()), |product, exchange| {
///         exchange.context.reply.body = Body::Bytes(format!("{product}\n").into_bytes());
///         Ok(())
///     });
/// };
/// let listeners = Listeners::bind(([127, 0, 0, 1], 8080).into(), 1)?;
/// Server::builder(handler).start(listeners)?.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Handler: 'static {
    /// Answers a request. It is called on the poller's thread and must not block: it sets the reply, or adds the tasks
    /// that will, and may have the poller for a few milliseconds at most.
    ///
    /// The reply goes when the series has ended well, as the context has it then. A series that ends with an error is
    /// answered with 500, and the error is logged. When the client leaves before that, the series is cancelled.
    fn handle(&self, exchange: &mut Exchange);

    /// Has the last word on a reply: called on the poller's thread when the exchange has ended, however it did, and before
    /// its reply goes. By default an exchange that failed gets the reply of [`ExchangeContext::failed`]. Not called for
    /// what is refused before it has come to a handler.
    fn finish(&self, context: &mut ExchangeContext, outcome: Outcome) {
        if let Err(error) = outcome {
            context.reply = context.failed(&error);
        }
    }

    /// What it wants of a request's body: asked when the head is there. By default all of it, up to 1 MiB.
    fn intake(&self, request: &Request) -> Intake {
        let _ = request;
        Intake::Whole { max_bytes: BODY_MAX }
    }
}

/// What a handler that does not say takes.
const BODY_MAX: u64 = 1024 * 1024;

impl<F: Fn(&mut Exchange) + 'static> Handler for F {
    fn handle(&self, exchange: &mut Exchange) {
        self(exchange);
    }
}

/// An exchange is a series, whose context holds the request, and the reply that will go when the series has ended.
pub type Exchange = Series<ExchangeContext>;

/// What belongs to one exchange: the context of its series.
#[derive(Debug)]
pub struct ExchangeContext {
    pub(super) request: Arc<Request>,
    /// The request's body.
    pub body: RequestBody,
    /// What will be answered; 200 without a body until a handler says otherwise.
    pub reply: Reply,
    /// Data of this exchange, kept until it has been answered.
    pub data: Extensions,
    /// What followed a chunked body that was read whole.
    pub(in crate::http) trailers: Option<Box<Fields>>,
    peer: Peer,
    now: Moment,
    clock: WallClock,
    pub(super) connection: Option<Arc<ConnectionData>>,
    /// For how long the series may run, and when that is over.
    pub(super) time_limit: Option<(Duration, Instant)>,
    /// Where a router has found the way.
    #[cfg(feature = "router")]
    pub(in crate::http) matched: crate::http::router::Matched,
}

impl ExchangeContext {
    pub(super) fn new(
        request: Arc<Request>,
        body: RequestBody,
        fields: Fields,
        peer: Peer,
        (now, clock): (Moment, WallClock),
        connection: Option<Arc<ConnectionData>>,
    ) -> ExchangeContext {
        ExchangeContext {
            request,
            body,
            reply: Reply { headers: fields, ..Reply::new(StatusCode::OK) },
            data: Extensions::default(),
            trailers: None,
            peer,
            now,
            clock,
            connection,
            time_limit: None,
            #[cfg(feature = "router")]
            matched: Default::default(),
        }
    }

    /// The request.
    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// Who asks.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The fields that followed a chunked body, where it was taken whole; they are no fields of the head. Those of a stream
    /// are had from its reader.
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    /// The poller's clock when the handler was called: what [`KeyedBudgets`](tidegate_poller::budget::KeyedBudgets) and
    /// their like are asked with.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// The wall clock when the handler was called.
    pub fn system_time(&self) -> SystemTime {
        self.clock.wall(self.now)
    }

    /// Gives the series that answers so much time, from now, in place of the server's
    /// [`series_timeout`](crate::http::ServerSettings::series_timeout); said by the handler, before its first task runs. When the
    /// time is up the series is cancelled, and the reply is 503. A computation that runs is not interrupted: the reply goes when
    /// it is done.
    pub fn set_timeout(&mut self, time: Duration) {
        self.time_limit = Instant::now().checked_add(time).map(|end| (time, end));
    }

    /// What is answered when the series has failed: 503 when its time was up, or with [`BodyError::NoRoom`], else 500. The
    /// log has the error.
    pub fn failed(&self, error: &SeriesError) -> Reply {
        let out_of_time = self.time_limit.is_some_and(|(_, end)| end <= Instant::now());
        let target = String::from_utf8_lossy(self.request.target());
        match error {
            SeriesError::Cancelled if out_of_time => {
                log::warn!("no answer to {target:?} in time");
                return Reply::error(StatusCode::SERVICE_UNAVAILABLE);
            }
            SeriesError::Failed(error) if error.downcast_ref() == Some(&BodyError::NoRoom) => {
                return Reply::no_room();
            }
            SeriesError::Failed(error) => log::error!("no answer to {target:?}: {error}"),
            // Panics have been logged, and who cancels knows of it.
            _ => {}
        }
        Reply::error(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Data of the connection: what one exchange leaves there, the next ones find, until the connection is gone.
    pub fn connection(&mut self) -> &Arc<ConnectionData> {
        self.connection.get_or_insert_default()
    }
}

/// Data that lives as long as a connection.
///
/// ```
/// # use tidegate::http::Exchange;
/// fn count_visits(exchange: &mut Exchange) {
///     let mut data = exchange.context.connection().lock();
///     let visits = data.get::<u64>().copied().unwrap_or(0) + 1;
///     data.insert(visits);
/// }
/// ```
#[derive(Debug, Default)]
pub struct ConnectionData(Mutex<Extensions>);

impl ConnectionData {
    /// Locks it; not to be held across anything that waits.
    pub fn lock(&self) -> MutexGuard<'_, Extensions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values by their type, one of each. Takes no memory while it is empty.
#[derive(Default)]
pub struct Extensions(Option<Box<Values>>);

type Values = HashMap<TypeId, Box<dyn Any + Send>>;

impl Extensions {
    /// Puts a value in; gives back the one that was there.
    pub fn insert<T: Any + Send>(&mut self, value: T) -> Option<T> {
        let old = self.0.get_or_insert_default().insert(TypeId::of::<T>(), Box::new(value))?;
        old.downcast().ok().map(|old| *old)
    }

    /// The value of a type.
    pub fn get<T: Any + Send>(&self) -> Option<&T> {
        self.0.as_ref()?.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// The value of a type, to change it.
    pub fn get_mut<T: Any + Send>(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.get_mut(&TypeId::of::<T>())?.downcast_mut()
    }

    /// Takes a value out.
    pub fn remove<T: Any + Send>(&mut self) -> Option<T> {
        let old = self.0.as_mut()?.remove(&TypeId::of::<T>())?;
        old.downcast().ok().map(|old| *old)
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions").field("len", &self.0.as_ref().map_or(0, |values| values.len())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_type() {
        let mut data = Extensions::default();
        assert_eq!(data.get::<u32>(), None);
        assert_eq!(data.insert(1_u32), None);
        assert_eq!(data.insert(2_u32), Some(1));
        assert_eq!(data.insert(String::from("a")), None);
        if let Some(text) = data.get_mut::<String>() {
            text.push('b');
        }
        assert_eq!(data.remove::<String>().as_deref(), Some("ab"));
        assert_eq!((data.remove::<String>(), data.get::<u32>()), (None, Some(&2)));
    }
}
