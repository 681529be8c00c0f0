//! What a connection needs while it is not idle.
//!
//! Lent by the service while there is something to do, so that an idle connection has no buffer. The session changes it;
//! the service only lends, clears and keeps it.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_poller::moment::Moment;

use crate::http::server::exchange::{Exchange, Front};
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
    /// Bytes of body still to come.
    pub(super) body_left: u64,
    /// What came of it, where the handler wants it whole.
    pub(super) body: Option<Vec<u8>>,
    /// In order. All but the last have their reply in the outbox.
    pub(super) exchanges: VecDeque<Exchange>,
    /// How things stood when the gate was done with the exchange before, or this one came first.
    pub(super) front: Front,
    /// The series that answers the latest exchange can be cancelled by this.
    pub(super) answering: Option<Arc<Token>>,
}

impl Work {
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.input.shrink_to(BUFFER_KEPT);
        self.exchanges.clear();
        *self = Work {
            input: std::mem::take(&mut self.input),
            exchanges: std::mem::take(&mut self.exchanges),
            ..Work::default()
        };
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
