//! What the connections of a whole server come to together, and how much that may be.
//!
//! One for each server, whatever pollers it has. It only counts: who is turned away at the door, and what becomes of a
//! request whose body finds no room, is decided by those who ask it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http::body::Room;
use crate::http::server::service::ServerSettings;

/// How many connections there are in the whole server and what memory whole bodies take there, and how much there may be
/// of either.
#[derive(Debug)]
pub struct Census {
    open: AtomicUsize,
    max: usize,
    /// Callers that are being told to come again later.
    turned_away: AtomicUsize,
    room: Arc<Room>,
}

/// What a server has counted; the names are explained in `docs/metrics.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerFigures {
    /// Bytes of memory that whole bodies take now.
    pub whole_bytes: u64,
    /// The most that they ever took.
    pub whole_bytes_peak: u64,
    /// Requests whose body found no room.
    pub whole_refused: u64,
}

/// Beyond so many of them, callers are closed without a word: telling costs a socket each.
const TURNED_AWAY_MAX: usize = 256;
/// What whole bodies take together, unless told otherwise: 256 of the largest that a handler takes by default at once, or
/// 26 KB for each of the 10,000 connections that there may be by default. It is well below what a small machine has.
pub(super) const WHOLE_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl Census {
    /// As many connections and bytes of whole bodies as the settings say.
    pub fn new(settings: &ServerSettings) -> Arc<Census> {
        let (open, turned_away) = Default::default();
        let room = Room::new(settings.max_whole_bytes);
        Arc::new(Census { open, max: settings.max_connections, turned_away, room })
    }

    /// What has been counted.
    pub fn figures(&self) -> ServerFigures {
        ServerFigures {
            whole_bytes: self.room.held(),
            whole_bytes_peak: self.room.peak(),
            whole_refused: self.room.refused(),
        }
    }

    /// Where whole bodies are counted.
    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Counts one more, if there may be one more.
    pub(super) fn enter(&self, turned_away: bool) -> bool {
        let max = if turned_away { TURNED_AWAY_MAX } else { self.max };
        let one_more = |n| (n < max).then_some(n + 1);
        self.count(turned_away).fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts one less.
    pub(super) fn leave(&self, turned_away: bool) {
        self.count(turned_away).fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self, turned_away: bool) -> &AtomicUsize {
        if turned_away { &self.turned_away } else { &self.open }
    }
}
