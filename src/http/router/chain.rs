//! The way of one exchange through a router: what runs before its handler, the handler, and what runs after it.
//!
//! Each of the first may add tasks; then what comes next is a step of the series, behind them, and goes on on a poller.
//!
//! A body that is taken whole is for the handler: what runs before it, and may turn the client away, is asked first. Only
//! a body that is no larger than a head may be is here already by then, for it costs nobody more than a head does.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::table::{Found, Way};
use super::{HttpError, Inner, Matched};
use crate::http::body::{BodyError, BodyReader, Intake, RequestBody};
use crate::http::codec::request::Request;
use crate::http::codec::target::split;
use crate::http::{Exchange, ExchangeContext, Reply, StatusCode};
use crate::task::{Continuation, Outcome, SeriesError, Task, TaskExt as _};

/// Bodies up to this size are here before anything is asked: twice as much as most forms and JSON have, and as much as a
/// head may have.
const BESIDE_HEAD_MAX: u64 = 16 * 1024;

/// What the route wants of the body. Without one there is no need to look.
pub(super) fn intake(inner: &Inner, request: &Request) -> Intake {
    if !request.has_body() {
        return Intake::Discard { max_bytes: 0 };
    }
    match find(inner, request) {
        Ok(Matched { way: Way::Route(route), group, .. }) => match inner.routes[route].intake {
            // Collected when the handler's turn comes.
            Intake::Whole { max_bytes } if !inner.groups[group].before.is_empty() && is_large(request) => {
                Intake::Stream { max_bytes }
            }
            intake => intake,
        },
        // What is refused is refused at once: nobody reads this.
        _ => Intake::Stream { max_bytes: u64::MAX },
    }
}

/// Whether its body may be more than is taken unasked, or its client waits to be asked for it.
fn is_large(request: &Request) -> bool {
    request.expects_continue() || request.body_length().is_none_or(|length| length > BESIDE_HEAD_MAX)
}

/// Finds the way of a request and goes it, as far as it goes at once.
pub(super) fn begin(inner: &Arc<Inner>, exchange: &mut Exchange) {
    match find(inner, exchange.context.request()) {
        Ok(matched) => exchange.context.matched = matched,
        Err(why) => return exchange.context.refuse(HttpError::bad_request(why)),
    }
    if let Way::Route(route) = exchange.context.matched.way {
        if let Some(time) = inner.routes[route].time {
            exchange.context.set_timeout(time);
        }
        if matches!(inner.routes[route].intake, Intake::Whole { .. }) {
            exchange.context.matched.body = std::mem::take(&mut exchange.context.body);
        }
    }
    go_on(inner, exchange, 0);
}

/// The last word on the reply: an error's page, what runs after, and what the route's replies spend through.
pub(super) fn finish(inner: &Inner, context: &mut ExchangeContext, outcome: Outcome) {
    let group = &inner.groups[context.matched.group];
    // Whoever was turned away need not send the rest of it.
    context.matched.body = RequestBody::None;
    match outcome {
        Ok(()) => {}
        Err(SeriesError::Failed(error)) if error.is::<HttpError>() || error.is::<BodyError>() => {
            context.refuse(error.into());
        }
        Err(error) => {
            let status = context.failed(&error).status;
            context.refuse(status.into());
        }
    }
    if let Way::Route(route) = context.matched.way
        && inner.routes[route].makes_pages
        && group.errors.is_some()
        && is_error(context.reply.status)
    {
        context.refuse(HttpError::of_reply(&context.reply));
    }
    if let Some(error) = context.matched.refused.take() {
        let mut page = group.errors.as_ref().map_or_else(|| error.page(), |errors| errors(context, &error));
        for (name, value) in error.headers().iter() {
            page.headers.add(name, value);
        }
        if page.status == StatusCode::OK {
            page.status = error.status();
        }
        page.close |= context.reply.close;
        page.denied |= error.denied;
        context.reply = page;
    }
    for after in &group.after {
        after(context);
    }
    if let Way::Route(route) = context.matched.way {
        inner.routes[route].pacing.apply(context);
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn find(inner: &Inner, request: &Request) -> Result<Matched, &'static str> {
    // "OPTIONS *" is about the server (RFC 9110, section 9.3.7), of which no route knows.
    let (path, _) = split(request.target())?;
    let path = std::str::from_utf8(path).map_err(|_| "The path is not UTF-8; escape what is not.")?;
    let found = inner
        .table
        .find(request.method(), path)
        .ok_or("A percent sign in the path is followed by no byte.")?;
    let Found { group, way, parameters } = found;
    Ok(Matched { group, way, parameters, ..Matched::default() })
}

/// What runs before the handler, from number `next` on, and the handler.
fn go_on(inner: &Arc<Inner>, exchange: &mut Exchange, next: usize) {
    let before = &inner.groups[exchange.context.matched.group].before;
    for (index, before) in before.iter().enumerate().skip(next) {
        match before(exchange) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(reply)) => {
                exchange.context.reply = reply;
                return;
            }
            Err(error) => return exchange.context.refuse(error),
        }
        if exchange.remaining() > 0 {
            return go_on_later(inner.clone(), exchange, index + 1);
        }
    }
    handle(inner, exchange);
}

/// The same, behind the tasks that were added, and those that they add.
fn go_on_later(inner: Arc<Inner>, exchange: &mut Exchange, next: usize) {
    exchange.push(Step.back_on_poller(), move |(), exchange| {
        match exchange.remaining() {
            _ if exchange.context.matched.refused.is_some() => {}
            0 => go_on(&inner, exchange, next),
            _ => go_on_later(inner, exchange, next),
        }
        Ok(())
    });
}

fn handle(inner: &Arc<Inner>, exchange: &mut Exchange) {
    match exchange.context.matched.way {
        Way::Route(route) => match std::mem::take(&mut exchange.context.matched.body) {
            RequestBody::Stream(reader) => collect(inner.clone(), exchange, route, reader),
            RequestBody::Whole(body) => {
                exchange.context.body = RequestBody::Whole(body);
                (inner.routes[route].handler)(exchange);
            }
            RequestBody::None => (inner.routes[route].handler)(exchange),
        },
        Way::Options(place) => {
            exchange.context.reply =
                Reply::new(StatusCode::NO_CONTENT).header("Allow", inner.table.allow(place));
        }
        Way::NotAllowed(place) => {
            let error = HttpError::new(StatusCode::METHOD_NOT_ALLOWED);
            exchange.context.refuse(error.header("Allow", inner.table.allow(place)));
        }
        Way::Missing => exchange.context.refuse(StatusCode::NOT_FOUND.into()),
    }
}

/// Takes a body whole that nothing turned away, and then calls the handler.
fn collect(inner: Arc<Inner>, exchange: &mut Exchange, route: usize, reader: BodyReader) {
    let Intake::Whole { max_bytes } = inner.routes[route].intake else { return };
    if let Err(error) = reader.may_be_collected() {
        return exchange.context.refuse(error.into());
    }
    let collects = reader.collect_with_trailers(max_bytes).back_on_poller();
    exchange.push(collects, move |collected, exchange| {
        let (body, trailers) = collected.map_err(HttpError::from)?;
        exchange.context.body = RequestBody::Whole(body);
        exchange.context.trailers = trailers.map(Box::new);
        (inner.routes[route].handler)(exchange);
        Ok(())
    });
}

/// A task that is done at once.
struct Step;

impl Task for Step {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        done.complete(());
    }
}
