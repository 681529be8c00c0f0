//! What handlers may give back, and handlers that are async.

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::HttpError;
use crate::http::{Exchange, ExchangeContext, Reply, StatusCode};
use crate::runtime::RuntimeHandle;
use crate::task::Lent;

/// What a handler gives back. `()` leaves the reply as the handler has set it, or its tasks will.
pub trait Answer {
    /// Becomes the reply, or the error that is answered.
    fn answer(self, context: &mut ExchangeContext);
}

/// What runs before a handler, a closure, says by this whether the request goes on: `()` and `Ok(())` let it, a
/// [`Reply`] in `Some` or `ControlFlow::Break` answers it at once, and so does an error.
pub trait GoesOn {
    /// Whether it goes on.
    fn goes_on(self) -> Result<ControlFlow<Reply>, HttpError>;
}

/// Makes a handler of an async closure. It is lent the context of the exchange, which it gives back by ending, and gets
/// the runtime to start tasks on. It is polled on the computing threads, as [`future`](crate::task::future) says.
///
/// ```
/// use std::time::Duration;
/// use tidegate::http::router::{HttpError, Router, asynchronous};
/// use tidegate::task::sleep;
///
/// let router = Router::build(|routes| {
///     routes.get("/slow/{name}", asynchronous(|context, runtime| async move {
///         runtime.spawn(sleep(Duration::from_millis(10))).await?;
///         let name: String = context.path("name")?;
///         Ok::<_, HttpError>(format!("hello, {name}\n"))
///     }));
/// })?;
/// # Ok::<(), tidegate::http::router::RouteError>(())
/// ```
pub fn asynchronous<F, T>(make: F) -> impl Fn(&mut Exchange) + Send + Sync + 'static
where
    F: Fn(Lent<ExchangeContext>, RuntimeHandle) -> T + Send + Sync + 'static,
    T: Future + Send + 'static,
    T::Output: Answer + Send + 'static,
{
    let make = Arc::new(make);
    move |exchange| {
        // Handlers run on pollers; elsewhere there would be no runtime to start anything on.
        let Some(runtime) = RuntimeHandle::of_poller() else {
            return exchange.context.refuse(StatusCode::SERVICE_UNAVAILABLE.into());
        };
        let make = make.clone();
        exchange.push_async(
            move |context| make(context, runtime),
            |answer, exchange| Ok(answer.answer(&mut exchange.context)),
        );
    }
}

impl Answer for () {
    fn answer(self, _: &mut ExchangeContext) {}
}

impl Answer for Reply {
    fn answer(self, context: &mut ExchangeContext) {
        context.reply = self;
    }
}

impl Answer for &'static str {
    fn answer(self, context: &mut ExchangeContext) {
        context.reply = Reply::text(self);
    }
}

impl Answer for String {
    fn answer(self, context: &mut ExchangeContext) {
        context.reply = Reply::text(self);
    }
}

/// Bytes of no type that is known.
impl Answer for Vec<u8> {
    fn answer(self, context: &mut ExchangeContext) {
        let reply = Reply::new(StatusCode::OK);
        context.reply = reply.header("Content-Type", "application/octet-stream").body(self);
    }
}

/// A status that is an error has its page; any other is a reply without a body.
impl Answer for StatusCode {
    fn answer(self, context: &mut ExchangeContext) {
        if self.is_client_error() || self.is_server_error() {
            context.refuse(self.into());
        } else {
            context.reply = Reply::new(self);
        }
    }
}

impl Answer for HttpError {
    fn answer(self, context: &mut ExchangeContext) {
        context.refuse(self);
    }
}

/// With another status than what it says by itself.
impl<A: Answer> Answer for (StatusCode, A) {
    fn answer(self, context: &mut ExchangeContext) {
        self.1.answer(context);
        context.reply.status = self.0;
    }
}

impl<A: Answer, E: Into<HttpError>> Answer for Result<A, E> {
    fn answer(self, context: &mut ExchangeContext) {
        match self {
            Ok(answer) => answer.answer(context),
            Err(error) => context.refuse(error.into()),
        }
    }
}

/// Nothing is 404.
impl<A: Answer> Answer for Option<A> {
    fn answer(self, context: &mut ExchangeContext) {
        match self {
            Some(answer) => answer.answer(context),
            None => context.refuse(StatusCode::NOT_FOUND.into()),
        }
    }
}

impl GoesOn for () {
    fn goes_on(self) -> Result<ControlFlow<Reply>, HttpError> {
        Ok(ControlFlow::Continue(()))
    }
}

impl GoesOn for Option<Reply> {
    fn goes_on(self) -> Result<ControlFlow<Reply>, HttpError> {
        Ok(self.map_or(ControlFlow::Continue(()), ControlFlow::Break))
    }
}

impl GoesOn for ControlFlow<Reply> {
    fn goes_on(self) -> Result<ControlFlow<Reply>, HttpError> {
        Ok(self)
    }
}

impl<G: GoesOn, E: Into<HttpError>> GoesOn for Result<G, E> {
    fn goes_on(self) -> Result<ControlFlow<Reply>, HttpError> {
        self.map_err(Into::into)?.goes_on()
    }
}
