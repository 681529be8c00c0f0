//! Receiving: the response is taken apart, and its body handed on as far as there is room.

use std::sync::Arc;

use tidegate_poller::record::End;
use tidegate_poller::{Direction, Io, Reason, Session as _};

use super::{ClientSession, Why};
use crate::http::body::Wake;
use crate::http::client::client::Origin;
use crate::http::client::error::ClientError;
use crate::http::client::intake::Room;
use crate::http::codec::response::Piece;
use crate::http::{Fields, StatusCode};
use crate::net::Waited;
use crate::net::pool::{Next, with_session};

impl ClientSession {
    /// Looks at what came, and says how much of it is used: the rest waits for room.
    pub(super) fn advance(&mut self, io: &mut Io<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        let wake = self.waker(io);
        while let Some(current) = &mut self.current {
            let piece = match current.decoder.next(&bytes[used..]) {
                Ok((n, piece)) => {
                    used += n;
                    piece
                }
                Err(fault) => {
                    self.fail(io, ClientError::Malformed(fault), End::peer(Reason::ProtocolError));
                    return bytes.len();
                }
            };
            let room = match piece {
                Piece::Nothing => break,
                Piece::Interim(status) => {
                    if status == StatusCode::CONTINUE && current.awaits_leave {
                        self.send_body(io, Vec::new());
                    }
                    continue;
                }
                Piece::Head(head) => {
                    // A server that has said no does not want the rest of the body (RFC 9112, section 9.5).
                    let refused = !head.status.is_success() && !current.account.is_sent();
                    let shared = self.endpoint.place().shared.clone();
                    current.head_arrived(*head, &shared, &wake);
                    if refused {
                        (current.is_refused, current.awaits_leave) = (true, false);
                        io.hold();
                    }
                    continue;
                }
                Piece::Data(data) => match &mut current.reply {
                    Some(reply) => reply.intake.put(data, &wake),
                    None => continue,
                },
                Piece::End(trailers) => {
                    self.complete(io, trailers, &bytes[used..]);
                    return bytes.len();
                }
            };
            if !self.has_room(io, room) {
                break;
            }
        }
        used
    }

    /// What comes of having handed bytes on. Says whether to go on.
    pub(super) fn has_room(&mut self, io: &mut Io<'_>, room: Result<Room, ClientError>) -> bool {
        match room {
            Ok(Room::More) => return true,
            Ok(Room::Full) => {
                self.paused = true;
                io.pause_reading();
                // It is not the server that is slow.
                self.wait_for(io, Waited::Total);
            }
            Ok(Room::Unwanted) => io.abort(End::local(Reason::LocalClose)),
            Err(error) => {
                if self.current.as_ref().is_some_and(|current| current.is_discarded()) {
                    // It is not worth reading on for the connection's sake.
                    io.abort(End::local(Reason::Ok));
                } else {
                    let who = if matches!(error, ClientError::Coding(_)) {
                        End::peer(Reason::ProtocolError)
                    } else {
                        End::local(Reason::Denied)
                    };
                    self.fail(io, error, who);
                }
            }
        }
        false
    }

    /// There is room for more of the body, or nobody wants it any more.
    pub(super) fn woken(&mut self, io: &mut Io<'_>) {
        let wake = self.waker(io);
        let Some(reply) = self.current.as_mut().and_then(|current| current.reply.as_mut()) else { return };
        if reply.intake.is_unwanted() {
            return io.abort(End::local(Reason::LocalClose));
        }
        if !std::mem::take(&mut self.paused) {
            return;
        }
        if reply.intake.is_behind() {
            let room = reply.intake.go_on(wake);
            if !self.has_room(io, room) {
                return;
            }
        }
        let input =
            self.current.as_mut().map(|current| std::mem::take(&mut current.input)).unwrap_or_default();
        let used = self.advance(io, &input);
        self.keep(&input[used..]);
        if !self.paused && self.current.is_some() {
            self.wait_for_more(io);
            if self.peer_has_finished {
                return self.peer_finished(io);
            }
            io.resume_reading();
        }
    }

    pub(super) fn keep(&mut self, rest: &[u8]) {
        if let Some(current) = self.current.as_mut().filter(|_| !rest.is_empty()) {
            current.input.extend_from_slice(rest);
        }
    }

    /// The response is whole; `extra` came after it.
    pub(super) fn complete(&mut self, io: &mut Io<'_>, trailers: Option<Fields>, extra: &[u8]) {
        let Some(current) = &self.current else { return };
        if let Some(Err(error)) = current.reply.as_ref().map(|reply| reply.intake.check_end())
            && !current.is_discarded()
        {
            return self.fail(io, error, End::peer(Reason::ProtocolError));
        }
        let Some(mut current) = self.current.take() else { return };
        let keeps = current.reply.as_ref().is_some_and(|reply| reply.keep_alive)
            && current.account.is_sent()
            && extra.is_empty();
        let (id, limits) = (current.call.id, current.call.work.options.limits.clone());
        let budgets = std::mem::take(&mut current.budgets);
        let shared = self.shared().clone();
        self.endpoint.done(id);
        current.complete(io, &shared, trailers, (End::peer(Reason::Ok), "reply"));
        if !extra.is_empty() {
            // More than was asked for: what else it says cannot be told from a response.
            self.last = true;
            return io.abort(End::peer(Reason::ProtocolError));
        }
        if !keeps || self.last || io.is_shutting_down() {
            self.last = true;
            return io.abort(End::local(if io.is_shutting_down() { Reason::Shutdown } else { Reason::Ok }));
        }
        for (direction, budget) in &budgets {
            io.stop_spending_through(*direction, budget);
        }
        let spending = &shared.settings.spending;
        if limits[0].is_some() {
            io.set_limit(Direction::Egress, spending.egress_limit.as_ref().or(spending.pacing.limit()));
        }
        if limits[1].is_some() {
            io.set_limit(Direction::Ingress, spending.ingress_limit.as_ref());
        }
        match self.endpoint.next(self.connection, io) {
            Next::Call(call) => {
                if let Some(mut call) = self.start(io, call) {
                    call.stop_timer(&shared.runtime);
                    self.endpoint.done(call.id);
                    self.endpoint.visit().accept(call);
                }
            }
            Next::Idle => {
                let until = io.now() + shared.settings.idle_timeout;
                self.patience.set(io, Some((until, Why::Idle)), None);
            }
            Next::Close => io.abort(End::local(Reason::Ok)),
        }
    }

    /// Wakes the session on this socket, once there is room for its body, or nobody wants it.
    pub(super) fn waker(&self, io: &Io<'_>) -> impl Fn() -> Wake + use<> {
        let (endpoint, socket) = (self.endpoint.clone(), io.socket());
        move || {
            let (endpoint, socket) = (endpoint.clone(), socket.clone());
            Arc::new(move || {
                let socket = socket.clone();
                // Of a socket that is gone nothing comes.
                endpoint.submit(move |poller| with_session::<Origin>(poller, &socket, ClientSession::woken));
            })
        }
    }
}
