//! What a connection needs while it is not idle.
//!
//! Lent by the service while there is something to do, so that an idle connection has no buffer. The session changes it;
//! the service only lends, clears and keeps it.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_poller::moment::Moment;
use tidegate_poller::record::Pauses;
use tidegate_poller::{Budget, Passed};

use crate::http::body::Reins;
use crate::http::server::exchange::{Exchange, Front};
use crate::http::server::incoming::Incoming;
use crate::http::server::reply::Reply;
use crate::task::Token;

/// What of a buffer is kept for the next request.
const BUFFER_KEPT: usize = 4 * 1024;

/// What a connection needs while it is not idle.
#[derive(Default)]
pub(super) struct Work {
    /// What arrived and is not used yet.
    pub(super) input: Vec<u8>,
    /// The head in `input` is incomplete, and was looked at when it had so many bytes.
    pub(super) partial: Option<usize>,
    /// When the first byte of the head at hand arrived, and the latest bytes.
    pub(super) head_since: Option<Moment>,
    pub(super) latest: Option<Moment>,
    /// When reading went on, the latest time that it was paused: until then the peer could send no more.
    pub(super) resumed: Option<Moment>,
    /// The body of the latest request, while it comes in.
    pub(super) incoming: Option<Box<Incoming>>,
    /// The connection ends when that body is here: the reply said so.
    pub(super) closing: bool,
    /// In order. All but the last have their reply in the outbox.
    pub(super) exchanges: VecDeque<Exchange>,
    /// How things stood when the gate was done with the exchange before, or this one came first. Where nothing is
    /// recorded, nobody wants to know.
    pub(super) front: Option<Box<Front>>,
    /// The series that answers the latest exchange can be cancelled by this.
    pub(super) answering: Option<Arc<Token>>,
    /// The reply to the latest exchange, while it waits for those before it to be gone: it has a pace of its own.
    pub(super) waiting: Option<Box<Reply>>,
    /// The latest reply goes alone: none is queued behind it.
    pub(super) alone: bool,
    /// What the connection spends through for the latest reply only.
    pub(super) paced: Option<Box<Paced>>,
    /// The stream in the outbox, if there is one.
    pub(super) reins: Option<Reins>,
    /// The latest reply has gone, by this mark, and the body of its request is still coming: it is recorded after that.
    pub(super) ended: Option<Box<Passed>>,
}

/// What a connection spends through for one reply.
pub(super) struct Paced {
    /// Its own limit is another.
    pub(super) limit: bool,
    /// Besides its own.
    pub(super) budgets: Vec<Budget>,
}

impl Work {
    /// Forgets all; keeps some memory.
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.input.shrink_to(BUFFER_KEPT);
        self.exchanges.clear();
        if self.is_fresh() {
            return;
        }
        *self = Work {
            input: std::mem::take(&mut self.input),
            exchanges: std::mem::take(&mut self.exchanges),
            front: self.front.take(),
            ..Work::default()
        };
    }

    /// Whether nothing is left of what few connections need: then only the plain rest is to be reset, and is here.
    fn is_fresh(&mut self) -> bool {
        (self.partial, self.head_since, self.latest, self.resumed) = (None, None, None, None);
        (self.closing, self.alone) = (false, false);
        self.incoming.is_none()
            && self.answering.is_none()
            && self.waiting.is_none()
            && self.paced.is_none()
            && self.reins.is_none()
            && self.ended.is_none()
    }

    /// The gate is done with what lies before the first exchange.
    pub(super) fn set_front(&mut self, since: Moment, pauses: Pauses) {
        **self.front.get_or_insert_default() = Front { since, pauses };
    }

    /// A stream may go on for days: memory that is kept for the next request is not kept for so long.
    pub(super) fn settle_down(&mut self) {
        self.input.shrink_to_fit();
        self.exchanges.shrink_to_fit();
    }

    /// Since when the rest of a request that began then is waited for.
    pub(super) fn awaited_since(&self, began: Moment) -> Moment {
        self.resumed.map_or(began, |resumed| resumed.max(began))
    }

    /// Bytes of a head that is not complete, line ends before it apart.
    pub(super) fn partial_head(&self) -> Option<&[u8]> {
        let start = self.input.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
        self.partial.map(|_| &self.input[start..])
    }
}
