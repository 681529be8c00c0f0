//! What a caller gets when the server is full: a reply that says so, and the end.

use tidegate_poller::record::{ConnectionRecord, End, Reason};
use tidegate_poller::{Io, Session};

use crate::http::Body;
use crate::http::body::Framing;
use crate::http::server::reply::{Persistence, Reply, write_head};
use crate::http::server::service::Seat;

/// Answers 503 whatever is asked, without waiting for it.
pub(super) struct Busy {
    seat: Seat<true>,
}

impl Busy {
    pub(super) fn new(seat: Seat<true>) -> Busy {
        Busy { seat }
    }
}

impl Session for Busy {
    fn opened(&mut self, io: &mut Io<'_>) {
        let reply = Reply::no_room();
        let mut out = io.buffer();
        self.seat.refresh(io.now());
        let framing = Framing::Length(reply.body.len().unwrap_or_default());
        write_head(
            &mut out,
            &reply,
            (&mut self.seat.clock.borrow_mut(), io.now()),
            framing,
            Persistence::Closed,
        );
        if let Body::Bytes(bytes) = &reply.body {
            out.extend_from_slice(bytes);
        }
        io.send(out);
        io.set_send_timeout(Some(self.seat.settings.send_timeout));
        io.finish(End::local(Reason::Denied));
    }

    fn received(&mut self, _: &mut Io<'_>, _: &[u8]) {}

    fn phase(&self) -> &'static str {
        "accept"
    }

    fn closed(self: Box<Self>, record: ConnectionRecord) {
        self.seat.settings.sinks.connection(record, 0);
    }
}
