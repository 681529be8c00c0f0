//! Bodies that are made while they are sent.

use std::fmt;

use tidegate_poller::{Pull, SocketHandle};

use crate::http::codec::fields::Fields;
use crate::record::EventFacts;

/// Makes a body while it is sent.
///
/// It may be made on any thread; once a session has it, it is pulled on that session's poller and must not block. It is
/// dropped when it has ended, and also when its connection has: that is how it learns that the peer left.
pub trait BodySource: Send {
    /// A session has it, and is about to pull. `waker` tells that session that there is something again. Called once.
    fn attach(&mut self, waker: BodyWaker);

    /// Appends at most `max` bytes to `out`, which need not be empty. Asked only when the gate can let bytes out. After
    /// [`Pull::Starved`] it is asked again when the waker was used; [`Pull::Failed`] cuts the message, so that the peer
    /// cannot take it for whole.
    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull;

    /// The server is shutting down: what has not ended at its deadline is cut. Whoever has a good way to end does so; the
    /// default goes on. Called once at most, between two pulls, and the source is pulled again after it.
    fn shutting_down(&mut self) {}

    /// What became of its events, where it is made of events: for the record of its exchange. Asked once, when it has ended or
    /// was cut.
    fn events(&self) -> Option<EventFacts> {
        None
    }

    /// Fields that follow the body. Asked once, after [`Pull::End`]; sent where the message is chunked.
    fn trailers(&mut self) -> Option<Fields> {
        None
    }
}

/// Tells a session that a source it pulls has something again; from any thread. To be used once each time the source was
/// starved: no wake is refused, however many there are.
#[derive(Clone)]
pub struct BodyWaker(SocketHandle);

impl BodyWaker {
    pub(in crate::http) fn new(socket: SocketHandle) -> BodyWaker {
        BodyWaker(socket)
    }

    /// Has the session pull again. Of a socket that is gone nothing comes.
    pub fn wake(&self) {
        let _ = self.0.wake_source();
    }

    /// The socket that the body goes out on.
    pub fn socket(&self) -> &SocketHandle {
        &self.0
    }
}

impl fmt::Debug for BodyWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWaker").finish_non_exhaustive()
    }
}

/// A stream as a body.
pub struct StreamBody {
    source: Box<dyn BodySource>,
    len: Option<u64>,
}

impl StreamBody {
    /// A body of a length that nobody knows beforehand. HTTP/1.1 sends it chunked; to an HTTP/1.0 client it ends with
    /// the connection.
    pub fn new(source: impl BodySource + 'static) -> StreamBody {
        StreamBody { source: Box::new(source), len: None }
    }

    /// Says how many bytes will come. A source that makes fewer, or more, cuts the message.
    #[must_use]
    pub fn with_len(mut self, bytes: u64) -> StreamBody {
        self.len = Some(bytes);
        self
    }

    /// How many bytes will come, if that is known.
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// Whether it is known that none will.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// What makes it.
    pub fn into_source(self) -> Box<dyn BodySource> {
        self.source
    }
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody").field("len", &self.len).finish_non_exhaustive()
    }
}
