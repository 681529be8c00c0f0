//! Having a request answered: each exchange is a series.
//!
//! The handler is called on the poller, within the session's call. Where it leaves no task, the reply goes at once, and
//! the series was only a value on the stack. Else the series starts, ends on whatever thread, and its end comes back to
//! this poller as a job.
//!
//! What users wrote may panic. Their client is told 500, as of any other failure, and the connection goes on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tidegate_poller::{Io, Poller, Session, SocketHandle};

use super::{HttpSession, Reading};
use crate::http::StatusCode;
use crate::http::body::RequestBody;
use crate::http::codec::fields::Fields;
use crate::http::codec::request::Request;
use crate::http::server::exchange::Asked;
use crate::http::server::handler::{ConnectionData, ExchangeContext};
use crate::http::server::reply::Reply;
use crate::runtime::work::{Receive, panic_message};
use crate::runtime::{Running, RuntimeHandle};
use crate::task::{
    Continuation, Ended, Outcome, Receiver, Series, SeriesError, SeriesHandle, Token, sleep, start,
};

impl HttpSession {
    /// The request is here, or its head is and its body may be read: has it answered.
    pub(super) fn handle(&mut self, io: &mut Io<'_>, body: RequestBody, trailers: Option<Fields>) {
        let Some(exchange) = self.work().exchanges.back() else { return };
        let Asked::Request(request) = &exchange.asked else { return };
        let request = request.clone();
        let mut series = self.series(io, request, body);
        series.context.trailers = trailers.map(Box::new);
        if !self.call_handler(io, &mut series) {
            return self.end_panicked(io, series);
        }
        if series.is_over() {
            // Most are: the reply is taken from where it lies.
            self.finish_series(&mut series);
            return self.reply_by(io, &mut series.context.reply);
        }
        self.go_on_with(io, series);
    }

    /// A series for a request.
    #[inline]
    pub(super) fn series(
        &self,
        io: &Io<'_>,
        request: Arc<Request>,
        body: RequestBody,
    ) -> Series<ExchangeContext> {
        self.seat.refresh(io.now());
        let now = (io.now(), self.seat.clock.borrow().pair());
        let fields = Fields::in_memory(self.seat.take_lines());
        let data = self.data(io.conn_id());
        Series::new(ExchangeContext::new(request, body, fields, io.peer(), now, data))
    }

    /// False where it panicked.
    #[inline]
    pub(super) fn call_handler(&mut self, io: &Io<'_>, series: &mut Series<ExchangeContext>) -> bool {
        if let Some(time) = self.seat.settings.series_timeout {
            series.context.set_timeout(time);
        }
        let handled = contained("a handler", || self.seat.handler.handle(series));
        // Also where the exchange is cut later, the next one finds what it left.
        self.keep(io.conn_id(), series.context.connection.as_ref());
        handled.is_some()
    }

    /// Has the last word on a series that is over said.
    #[inline]
    pub(super) fn finish_series(&self, series: &mut Series<ExchangeContext>) {
        series.context.body = RequestBody::None;
        self.finish_answer(&mut series.context, Ok(()));
    }

    /// Ends the series of a handler that panicked, and has the latest request answered so.
    pub(super) fn end_panicked(&mut self, io: &mut Io<'_>, series: Series<ExchangeContext>) {
        let ended = contained("the end of a series", || series.end(Err(SeriesError::Panicked)));
        self.ended(io, ended);
    }

    /// Starts what the handler has left to be done for the latest request.
    pub(super) fn go_on_with(&mut self, io: &mut Io<'_>, series: Series<ExchangeContext>) {
        let Some(id) = self.work().exchanges.back().map(|exchange| exchange.id) else { return };
        #[expect(clippy::result_large_err, reason = "one that goes on is moved, as it was made")]
        let ended = contained("the end of a series", || series.end_now());
        match ended {
            None => self.ended(io, None),
            Some(Ok(ended)) => self.answered(io, ended),
            Some(Err(series)) => {
                let token = Arc::<Token>::default();
                let runtime = self.seat.runtime.clone();
                let cut = {
                    let token = token.clone();
                    Box::new(move || token.cancel())
                };
                // Counted, so that a runtime that stops waits for it.
                let Some(running) = runtime.begin_for_caller(cut) else {
                    return self.reply(io, Reply::error(StatusCode::SERVICE_UNAVAILABLE).closing());
                };
                self.work().answering = Some(token.clone());
                if self.reading != Reading::Body {
                    self.reading = Reading::Handler;
                }
                let poller = runtime.poller_here_or_next();
                let running = Some(running);
                let alarm = series.context.time_limit.map(|(time, _)| {
                    let token = token.clone();
                    let cancel = Series::new(()).then(sleep(time), move |(), _| Ok(token.cancel()));
                    runtime.start(cancel)
                });
                let back =
                    Back { socket: io.socket(), poller, id, token, runtime, running, alarm, gone: false };
                // In its turn, not within this call: a panic of a callback is not the connection's.
                start(series, Continuation::new(Box::new(back)));
            }
        }
    }

    /// What handlers have left with the connection.
    fn data(&self, conn_id: u64) -> Option<Arc<ConnectionData>> {
        self.has_data.then(|| self.seat.data.borrow().get(&conn_id).cloned()).flatten()
    }

    fn keep(&mut self, conn_id: u64, data: Option<&Arc<ConnectionData>>) {
        if let Some(data) = data.filter(|_| !self.has_data) {
            self.has_data = true;
            self.seat.data.borrow_mut().insert(conn_id, data.clone());
        }
    }

    /// The series of an exchange has ended.
    fn answered(&mut self, io: &mut Io<'_>, ended: Ended<ExchangeContext>) {
        let Ended { outcome, mut context } = ended;
        self.keep(io.conn_id(), context.connection.take().as_ref());
        // Before the reply is looked at: whoever reads the body has it by now, or nobody reads it.
        context.body = RequestBody::None;
        self.finish_answer(&mut context, outcome);
        self.reply(io, context.reply);
    }

    /// The same, when it comes back: only if it is still waited for.
    fn came_back(&mut self, io: &mut Io<'_>, id: u64, ended: Option<Ended<ExchangeContext>>) {
        let Some(work) = &mut self.work else { return };
        let latest = work.exchanges.back().map(|exchange| exchange.id);
        if latest != Some(id) || work.answering.take().is_none() {
            return;
        }
        self.ended(io, ended);
        self.go_on(io);
    }

    /// The series of an exchange has ended, and may have taken its context with it.
    fn ended(&mut self, io: &mut Io<'_>, ended: Option<Ended<ExchangeContext>>) {
        match ended {
            Some(ended) => self.answered(io, ended),
            None => self.reply(io, Reply::error(StatusCode::INTERNAL_SERVER_ERROR)),
        }
    }

    /// The handler's last word.
    fn finish_answer(&self, context: &mut ExchangeContext, outcome: Outcome) {
        if contained("what finishes a reply", || self.seat.handler.finish(context, outcome)).is_none() {
            context.reply = Reply::error(StatusCode::INTERNAL_SERVER_ERROR);
        }
        context.reply.make_final();
    }
}

/// Calls what users wrote; nothing comes of it where that panicked.
pub(super) fn contained<R>(what: &str, call: impl FnOnce() -> R) -> Option<R> {
    let outcome = catch_unwind(AssertUnwindSafe(call));
    outcome.map_err(|payload| log::error!("{what} panicked: {}", panic_message(&*payload))).ok()
}

/// Brings the end of a series back to its session.
struct Back {
    socket: SocketHandle,
    poller: usize,
    id: u64,
    token: Arc<Token>,
    runtime: RuntimeHandle,
    running: Option<Running>,
    /// Cancels the series when its time is up.
    alarm: Option<SeriesHandle<()>>,
    gone: bool,
}

impl Back {
    fn bring(&mut self, ended: Option<Ended<ExchangeContext>>) {
        self.gone = true;
        if let Some(alarm) = self.alarm.take() {
            alarm.cancel();
        }
        let (socket, id) = (self.socket.clone(), self.id);
        let job = move |poller: &mut Poller| {
            poller.call(&socket, |session: &mut dyn Session, io| {
                if let Some(session) = (session as &mut dyn Any).downcast_mut::<HttpSession>() {
                    session.came_back(io, id, ended);
                }
            });
        };
        self.runtime.submit_to(self.poller, Box::new(job));
        // Only now: a runtime that stops looks at its pollers next.
        drop(self.running.take());
    }
}

impl Receiver<Ended<ExchangeContext>> for Back {
    fn runtime(&self) -> &RuntimeHandle {
        &self.runtime
    }

    fn token(&self) -> Option<&Arc<Token>> {
        Some(&self.token)
    }
}

impl Receive<Ended<ExchangeContext>> for Back {
    fn receive(mut self: Box<Self>, ended: Ended<ExchangeContext>) {
        self.bring(Some(ended));
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if !self.gone {
            self.bring(None);
        }
    }
}
