//! The body of the latest request, while it comes in: collected, handed to who reads it, or thrown away.
//!
//! A reader that is slow has the reading stop, so that the client's window closes; it wakes the session from whatever thread
//! when there is room. Nothing here looks at the socket: what a body's end or fault means for the connection is decided with
//! the same words as for heads and replies.

use std::any::Any;
use std::sync::Arc;

use tidegate_poller::record::{End, Reason};
use tidegate_poller::{Io, Poller, Session};

use super::{HttpSession, Reading};
use crate::http::StatusCode;
use crate::http::body::{BodyError, RequestBody, Wake};
use crate::http::server::exchange::Phase;
use crate::http::server::incoming::Came;
use crate::http::server::reply::Reply;

/// What a client that asked for it is told before it sends the body (RFC 9110, section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What becomes of a body that is still coming when the reply is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There is none.
    Nothing,
    /// Its reader goes on.
    Wanted,
    /// Thrown away.
    Drained,
    /// Not read: the connection ends.
    Left,
}

impl HttpSession {
    /// Uses what it can of a body at the front of `input`; says how much.
    pub(super) fn take_body(&mut self, io: &mut Io<'_>, input: &[u8]) -> usize {
        let Some(mut incoming) = self.work().incoming.take() else { return 0 };
        let mut rest = input;
        let came = incoming.take(&mut rest, || self.waker(io));
        let used = input.len() - rest.len();
        if let Some(exchange) = self.work().exchanges.back_mut() {
            exchange.body_in += used as u64;
        }
        let max_bytes = incoming.max_bytes();
        let called = incoming.is_stream();
        match came {
            Came::More | Came::Full => self.work().incoming = Some(incoming),
            Came::End => {
                let collected = incoming.end();
                if called {
                    self.body_is_over(io);
                } else {
                    let body = collected.body.map_or(RequestBody::None, RequestBody::Whole);
                    self.reading = Reading::Handler;
                    self.handle(io, body, collected.trailers);
                }
            }
            Came::Unwanted if self.is_replied() => self.finish(io, self.good_end(io), Phase::Reply),
            Came::Unwanted => {
                // Until the handler has its reply; then the connection ends.
                incoming.stopped = true;
                self.work().incoming = Some(incoming);
            }
            Came::TooLarge => {
                incoming.cut(BodyError::TooLarge { max_bytes });
                self.give_up_body(io, Reply::error(StatusCode::PAYLOAD_TOO_LARGE), Reason::Denied);
            }
            Came::NoRoom => {
                // Before anything is said of it: who hears it may come again at once.
                drop(incoming);
                self.give_up_body(io, Reply::no_room(), Reason::Denied);
            }
            Came::Broken(error) => {
                incoming.cut(BodyError::Malformed);
                let reply = Reply::explained(StatusCode::BAD_REQUEST, error.as_str());
                self.give_up_body(io, reply, Reason::ProtocolError);
            }
        }
        used
    }

    /// The rest of the body cannot be had: the handler, if it was called, is stopped, and the client is told what can still
    /// be told.
    pub(super) fn give_up_body(&mut self, io: &mut Io<'_>, reply: Reply, reason: Reason) {
        let work = self.work();
        work.incoming = None;
        work.waiting = None;
        if let Some(token) = work.answering.take() {
            token.cancel();
        }
        if self.is_replied() {
            self.finish(io, End::local(reason), Phase::Reply);
        } else {
            self.last_reply(io, reply, reason);
        }
    }

    /// The body was read to its end, beside the handler.
    fn body_is_over(&mut self, io: &mut Io<'_>) {
        let closing = self.work().closing;
        self.reading = if self.is_replied() { Reading::Head } else { Reading::Handler };
        self.record_ended(io);
        if closing && self.reading == Reading::Head {
            self.finish(io, self.good_end(io), Phase::Reply);
        }
    }

    /// What becomes of the body, now that the reply is there.
    pub(super) fn rest_of_body(&self) -> Rest {
        let Some(incoming) = self.work.as_ref().and_then(|work| work.incoming.as_ref()) else {
            return Rest::Nothing;
        };
        if incoming.is_read() {
            Rest::Wanted
        } else if incoming.expected || incoming.stopped || incoming.is_not_worth_draining() {
            Rest::Left
        } else {
            Rest::Drained
        }
    }

    /// Tells the client to send the body. In order: it goes behind the replies before.
    pub(super) fn send_continue(&mut self, io: &mut Io<'_>) {
        let (offset, now) = (io.sums().plain_out + io.queued(), io.now());
        let work = self.work();
        if let Some(incoming) = &mut work.incoming {
            incoming.expected = false;
        }
        // While it is awaited, the client sends nothing.
        work.resumed = Some(now);
        let Some(exchange) = work.exchanges.back_mut() else { return };
        exchange.interim(offset, CONTINUE.len() as u64, now);
        io.send(CONTINUE);
    }

    /// Has the client told to send the body when its reader first asks for it.
    pub(super) fn wake_when_wanted(&mut self, io: &mut Io<'_>) {
        let wake = self.waker(io);
        if let Some(incoming) = &self.work().incoming {
            incoming.when_wanted(wake);
        }
    }

    /// What wakes this session for the body at hand, from any thread.
    fn waker(&self, io: &Io<'_>) -> Wake {
        let (socket, id) = (io.socket(), u64::from(self.exchanges));
        let runtime = self.seat.runtime.clone();
        let poller = runtime.poller_here_or_next();
        Arc::new(move || {
            let socket = socket.clone();
            let job = move |poller: &mut Poller| {
                poller.call(&socket, |session: &mut dyn Session, io| {
                    if let Some(session) = (session as &mut dyn Any).downcast_mut::<HttpSession>() {
                        session.body_is_wanted(io, id);
                    }
                });
            };
            runtime.submit_to(poller, Box::new(job));
        })
    }

    /// There is room for more of the body of exchange `id`, or its first bytes are wanted.
    fn body_is_wanted(&mut self, io: &mut Io<'_>, id: u64) {
        if u64::from(self.exchanges) != id || self.reading != Reading::Body {
            return;
        }
        let replied = self.is_replied();
        let Some(incoming) = &mut self.work().incoming else { return };
        incoming.full = false;
        if incoming.expected && incoming.is_read() && !replied {
            self.send_continue(io);
        }
        self.go_on(io);
    }

    /// Whether the latest exchange has its reply.
    pub(super) fn is_replied(&self) -> bool {
        let latest = self.work.as_ref().and_then(|work| work.exchanges.back());
        latest.is_some_and(|exchange| exchange.reply.is_some())
    }
}
