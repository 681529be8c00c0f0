//! Streams that tasks write to.

use std::fmt;

use tidegate_poller::{Chunk, Pull};

use crate::http::body::pipe::{Given, Pipe, Wake};
use crate::http::body::{BodySource, BodyWaker, StreamBody};
use crate::http::codec::fields::Fields;
use crate::task::{Continuation, Task};

/// A stream to be written by tasks, and the body that carries it. At most `capacity` bytes, and a chunk more, lie
/// between the two.
pub fn body_stream(capacity: usize) -> (BodyWriter, StreamBody) {
    let pipe = Pipe::new(capacity);
    let source = PipeSource { pipe: pipe.clone(), waker: None };
    (BodyWriter { pipe: Some(pipe) }, StreamBody::new(source))
}

/// Writes a stream, from any thread. Dropped before it has [finished](BodyWriter::finish), it cuts the message.
pub struct BodyWriter {
    /// Until it has finished.
    pipe: Option<Pipe>,
}

/// Nobody reads any more: the peer has left, or the body was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderGone;

/// Bytes that could not be written without waiting.
#[derive(Debug)]
pub enum TrySendError {
    /// There is no room now.
    Full(Chunk),
    /// Nobody reads any more.
    Gone(Chunk),
}

impl BodyWriter {
    /// Writes bytes, once there is room. Tasks that wait do so in their order.
    pub fn send(&self, bytes: impl Into<Chunk>) -> SendChunk {
        SendChunk { pipe: self.pipe().clone(), chunk: bytes.into() }
    }

    /// Writes bytes if there is room.
    ///
    /// # Errors
    /// There is none, or nobody reads any more; the bytes come back.
    pub fn try_send(&self, bytes: impl Into<Chunk>) -> Result<(), TrySendError> {
        self.pipe().try_give(bytes.into()).map_err(|(chunk, gone)| match gone {
            true => TrySendError::Gone(chunk),
            false => TrySendError::Full(chunk),
        })
    }

    /// That was all. What waits to be written goes before the end.
    pub fn finish(mut self) {
        if let Some(pipe) = self.pipe.take() {
            pipe.end(None);
        }
    }

    /// That was all, and these fields follow it, where the message is chunked.
    pub fn finish_with(mut self, trailers: Fields) {
        if let Some(pipe) = self.pipe.take() {
            pipe.end(Some(trailers));
        }
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.pipe().is_taker_gone()
    }

    /// Waits until nobody reads any more: the peer has left, or has it all.
    pub fn closed(&self) -> Left {
        Left { pipe: self.pipe().clone() }
    }

    /// Waits until the server is shutting down, or nobody reads any more: what is not finished soon will be cut.
    pub fn shutting_down(&self) -> ShuttingDown {
        ShuttingDown { pipe: self.pipe().clone() }
    }

    /// Whether the server is shutting down, or nobody reads any more.
    pub fn is_shutting_down(&self) -> bool {
        self.pipe().is_stopping()
    }

    fn pipe(&self) -> &Pipe {
        self.pipe.as_ref().expect("it has not finished")
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            pipe.cut(super::BodyError::Abandoned);
        }
    }
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").finish_non_exhaustive()
    }
}

/// See [`BodyWriter::send`].
#[must_use = "a task does nothing until it is started"]
pub struct SendChunk {
    pipe: Pipe,
    chunk: Chunk,
}

impl Task for SendChunk {
    type Output = Given;

    fn dispatch(self, done: Continuation<Given>) {
        self.pipe.give(self.chunk, done);
    }
}

impl fmt::Debug for SendChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendChunk").field("bytes", &self.chunk.len()).finish_non_exhaustive()
    }
}

/// See [`BodyWriter::closed`].
#[must_use = "a task does nothing until it is started"]
pub struct Left {
    pipe: Pipe,
}

impl Task for Left {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        self.pipe.watch(done);
    }
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Left").finish_non_exhaustive()
    }
}

/// See [`BodyWriter::shutting_down`].
#[must_use = "a task does nothing until it is started"]
pub struct ShuttingDown {
    pipe: Pipe,
}

impl Task for ShuttingDown {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        self.pipe.watch_stop(done);
    }
}

impl fmt::Debug for ShuttingDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShuttingDown").finish_non_exhaustive()
    }
}

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the stream any more")
    }
}

impl std::error::Error for ReaderGone {}

/// The session's end of a stream that tasks write.
struct PipeSource {
    pipe: Pipe,
    waker: Option<Wake>,
}

impl BodySource for PipeSource {
    fn attach(&mut self, waker: BodyWaker) {
        self.waker = Some(std::sync::Arc::new(move || waker.wake()));
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let Some(waker) = &self.waker else { return Pull::Failed };
        self.pipe.pull(max, out, || waker.clone())
    }

    fn shutting_down(&mut self) {
        self.pipe.stop_soon();
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.pipe.take_trailers()
    }
}

impl Drop for PipeSource {
    fn drop(&mut self) {
        self.pipe.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;

    const LONG: Duration = Duration::from_secs(10);

    fn source(pipe: &BodyWriter) -> PipeSource {
        PipeSource { pipe: pipe.pipe().clone(), waker: Some(std::sync::Arc::new(|| ())) }
    }

    #[test]
    fn who_writes_waits_for_room_and_the_bytes_come_in_order() {
        let runtime = Runtime::new().unwrap();
        let (writer, _body) = body_stream(4);
        let mut source = source(&writer);
        writer.try_send("abcd").unwrap();
        assert!(matches!(writer.try_send("x"), Err(TrySendError::Full(_))));
        let waits = runtime.spawn(writer.send("ef"));
        let gives_up = runtime.spawn(writer.send("never"));
        assert!(!waits.is_done());
        gives_up.cancel();
        let mut out = Vec::new();
        assert_eq!(source.pull(3, &mut out), Pull::More);
        waits.wait_for(LONG).unwrap().unwrap().unwrap();
        assert_eq!(source.pull(100, &mut out), Pull::Starved);
        writer.finish();
        assert_eq!(source.pull(100, &mut out), Pull::End);
        assert_eq!(out, b"abcdef");
    }

    #[test]
    fn who_writes_learns_that_the_reader_left() {
        let runtime = Runtime::new().unwrap();
        let (writer, body) = body_stream(1);
        writer.try_send("ab").unwrap();
        let (waits, watches) = (runtime.spawn(writer.send("c")), runtime.spawn(writer.closed()));
        assert!(!writer.is_closed() && !watches.is_done());
        drop(body);
        assert_eq!(waits.wait_for(LONG).unwrap().unwrap(), Err(ReaderGone));
        watches.wait_for(LONG).unwrap().unwrap();
        assert!(writer.is_closed() && matches!(writer.try_send("d"), Err(TrySendError::Gone(_))));
    }

    #[test]
    fn a_stream_that_is_given_up_is_not_taken_for_whole() {
        let (writer, _body) = body_stream(10);
        let mut source = source(&writer);
        writer.try_send("ab").unwrap();
        drop(writer);
        let mut out = Vec::new();
        assert_eq!((source.pull(1, &mut out), source.pull(9, &mut out)), (Pull::More, Pull::Failed));
        assert_eq!(out, b"ab");
    }
}
