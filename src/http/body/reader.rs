//! Streams that tasks read.

use std::fmt;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;

use tidegate_poller::{Chunk, Pull};

use crate::http::body::pipe::{Pipe, Taken, Wake};
use crate::http::body::room::Room;
use crate::http::body::{BodyError, BodySource, BodyWaker, StreamBody, WholeBody};
use crate::http::codec::fields::Fields;
use crate::task::{Continuation, Task, TaskExt as _, repeat};

/// Reads a body while it arrives, from any thread. While it is not read, the peer is not read from either: beyond a
/// bounded number of bytes TCP's window closes. Dropped early, the rest is not wanted.
pub struct BodyReader {
    pipe: Pipe,
    /// Where it counts, if it is collected.
    room: Option<Arc<Room>>,
    /// How long it is, if that is known.
    len: Option<u64>,
}

impl BodyReader {
    /// The next bytes, as they came; `None` at the end.
    pub fn next(&self) -> NextChunk {
        NextChunk { pipe: self.pipe.clone() }
    }

    /// All that is left of it, up to so many bytes: a task.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] where there is more, or more than all whole bodies of the server may take together;
    /// [`BodyError::NoRoom`] where others have taken that; what else may befall a body.
    pub fn collect(self, max_bytes: u64) -> impl Task<Output = Result<WholeBody, BodyError>> {
        self.collect_with_trailers(max_bytes).map_ok(|(bytes, _)| bytes)
    }

    /// The same, and the fields that followed it.
    pub(in crate::http) fn collect_with_trailers(
        self,
        max_bytes: u64,
    ) -> impl Task<Output = Result<(WholeBody, Option<Fields>), BodyError>> {
        let max_bytes = self.room.as_ref().map_or(max_bytes, |room| max_bytes.min(room.max()));
        let most = self.len.map_or(max_bytes, |len| len.min(max_bytes));
        let body = WholeBody::none_of(self.room.clone());
        repeat(
            (self, body),
            |(reader, _)| reader.next(),
            move |next, (reader, body)| match next {
                Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > max_bytes => {
                    Break(Err(BodyError::TooLarge { max_bytes }))
                }
                Ok(Some(chunk)) => match body.push(chunk.as_slice(), most) {
                    Ok(()) => Continue(()),
                    Err(error) => Break(Err(error)),
                },
                Ok(None) => Break(Ok((std::mem::take(body), reader.take_trailers()))),
                Err(error) => Break(Err(error)),
            },
        )
    }

    /// Whether it could be collected as things stand, for all that is known of its length. Where it could not, it is to be
    /// refused, before its client is asked for it.
    #[cfg(feature = "router")]
    pub(in crate::http) fn may_be_collected(&self) -> Result<(), BodyError> {
        match &self.room {
            Some(room) if self.len.is_some_and(|len| len > room.max()) => {
                Err(BodyError::TooLarge { max_bytes: room.max() })
            }
            Some(room) if !room.is_there_for(self.len) => Err(BodyError::NoRoom),
            _ => Ok(()),
        }
    }

    /// Where it counts, if it is collected.
    #[cfg(feature = "multipart")]
    pub(in crate::http) fn room(&self) -> Option<&Arc<Room>> {
        self.room.as_ref()
    }

    /// The fields that followed the body; to be asked for once, at its end.
    pub fn take_trailers(&self) -> Option<Fields> {
        self.pipe.take_trailers()
    }

    /// Sends on what arrives as a body, without a task between: the one is read as fast as the other goes out.
    pub fn into_body(self) -> StreamBody {
        StreamBody::new(ReaderSource { reader: self, waker: None })
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        self.pipe.leave();
    }
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").finish_non_exhaustive()
    }
}

/// See [`BodyReader::next`].
#[must_use = "a task does nothing until it is started"]
pub struct NextChunk {
    pipe: Pipe,
}

impl Task for NextChunk {
    type Output = Taken;

    fn dispatch(self, done: Continuation<Taken>) {
        self.pipe.take(done);
    }
}

impl fmt::Debug for NextChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextChunk").finish_non_exhaustive()
    }
}

/// What arrives, as something to be sent.
struct ReaderSource {
    reader: BodyReader,
    waker: Option<Wake>,
}

impl BodySource for ReaderSource {
    fn attach(&mut self, waker: BodyWaker) {
        self.waker = Some(Arc::new(move || waker.wake()));
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let Some(waker) = &self.waker else { return Pull::Failed };
        self.reader.pipe.pull(max, out, || waker.clone())
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.reader.take_trailers()
    }
}

/// The session's end of a stream that tasks read. Dropped before the end, it cuts the body.
pub struct BodyFeed {
    pipe: Pipe,
}

impl BodyFeed {
    /// A stream of which at most `capacity` bytes, and what one read brings, wait to be read.
    pub fn new(capacity: usize) -> (BodyFeed, BodyReader) {
        BodyFeed::with_room(capacity, None, None)
    }

    /// The same, of a body that has so many bytes, if that is known, and counts in a room if it is collected.
    pub(in crate::http) fn with_room(
        capacity: usize,
        len: Option<u64>,
        room: Option<Arc<Room>>,
    ) -> (BodyFeed, BodyReader) {
        let pipe = Pipe::new(capacity);
        (BodyFeed { pipe: pipe.clone() }, BodyReader { pipe, room, len })
    }

    /// Hands on bytes. False: that is enough for now; `wake` is called, once and on any thread, when there is room.
    pub fn push(&self, bytes: impl Into<Chunk>, wake: impl FnOnce() -> Wake) -> bool {
        self.pipe.feed(bytes.into(), wake)
    }

    /// Has `wake` called, once and on any thread, when its reader first asks for bytes.
    pub fn when_wanted(&self, wake: Wake) {
        self.pipe.when_asked(wake);
    }

    /// Whether nobody reads: the rest may be thrown away.
    pub fn is_unwanted(&self) -> bool {
        self.pipe.is_taker_gone()
    }

    /// Has `wake` called, on any thread, once nobody reads any more.
    pub fn wake_when_unwanted(&self, wake: Wake) {
        self.pipe.wake_when_left(wake);
    }

    /// The body is here to its end.
    pub fn end(self, trailers: Option<Fields>) {
        self.pipe.end(trailers);
    }

    /// The rest will not come.
    pub fn cut(self, error: BodyError) {
        self.pipe.cut(error);
    }
}

impl Drop for BodyFeed {
    fn drop(&mut self) {
        self.pipe.cut(BodyError::Disconnected);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::runtime::Runtime;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_session_is_told_once_when_there_is_room() {
        let runtime = Runtime::new().unwrap();
        let (feed, reader) = BodyFeed::new(4);
        let woken = Arc::new(AtomicUsize::new(0));
        let wake = || {
            let woken = woken.clone();
            Arc::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }) as Wake
        };
        let waits = runtime.spawn(reader.next());
        assert!(feed.push("ab", wake));
        let first = waits.wait_for(LONG).unwrap().unwrap().unwrap();
        assert_eq!(first.as_ref().map(Chunk::as_slice), Some(&b"ab"[..]));
        assert!(feed.push("cd", wake) && !feed.push("efgh", wake));
        for left in [4, 0] {
            assert!(runtime.run(reader.next()).unwrap().unwrap().is_some(), "{left}");
        }
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        feed.end(None);
        assert!(runtime.run(reader.next()).unwrap().unwrap().is_none());
    }

    #[test]
    fn many_small_pieces_take_little_more_than_their_bytes() {
        const PIECES: usize = 10_000;
        let runtime = Runtime::new().unwrap();
        let (feed, reader) = BodyFeed::new(PIECES + 1);
        let sent: Vec<u8> = (0..PIECES).map(|n| n as u8).collect();
        for byte in &sent {
            assert!(feed.push(vec![*byte], || Arc::new(|| ())));
        }
        feed.end(None);
        let (mut chunks, mut came) = (0, Vec::new());
        while let Some(chunk) = runtime.run(reader.next()).unwrap().unwrap() {
            chunks += 1;
            came.extend_from_slice(chunk.as_slice());
        }
        assert_eq!(came, sent);
        assert!(chunks <= 3, "{chunks} chunks");
    }

    #[test]
    fn what_arrives_is_sent_on_to_its_end_and_cut_where_it_is_cut() {
        for whole in [true, false] {
            let (feed, reader) = BodyFeed::new(4);
            let mut source = ReaderSource { reader, waker: Some(Arc::new(|| ())) };
            let mut out = Vec::new();
            assert_eq!(source.pull(9, &mut out), Pull::Starved);
            feed.push("abc", || Arc::new(|| ()));
            assert_eq!(source.pull(2, &mut out), Pull::More);
            assert!(!feed.is_unwanted());
            let end = if whole { Pull::End } else { Pull::Failed };
            if whole {
                feed.end(None);
            } else {
                feed.cut(BodyError::Disconnected);
            }
            while source.pull(9, &mut out) == Pull::More {}
            assert_eq!((source.pull(9, &mut out), out.as_slice()), (end, &b"abc"[..]));
        }
    }

    #[test]
    fn a_body_is_collected_up_to_a_bound() {
        let runtime = Runtime::new().unwrap();
        for (max_bytes, expected) in
            [(5, Ok(b"abcde".to_vec())), (4, Err(BodyError::TooLarge { max_bytes: 4 }))]
        {
            let (feed, reader) = BodyFeed::new(4);
            let collects = runtime.spawn(reader.collect(max_bytes));
            for bytes in ["ab", "cd", "e"] {
                feed.push(bytes, || Arc::new(|| ()));
            }
            feed.end(None);
            let collected = collects.wait_for(LONG).unwrap().unwrap();
            assert_eq!(collected.map(WholeBody::into_bytes), expected);
        }
        let (feed, reader) = BodyFeed::new(4);
        feed.cut(BodyError::Malformed);
        assert_eq!(runtime.run(reader.collect(9)).unwrap(), Err(BodyError::Malformed));
    }

    #[test]
    fn a_session_is_told_once_when_somebody_wants_to_read() {
        let runtime = Runtime::new().unwrap();
        let (feed, reader) = BodyFeed::new(4);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        feed.when_wanted(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let (first, second) = (runtime.spawn(reader.next()), runtime.spawn(reader.next()));
        feed.push("ab", || Arc::new(|| ()));
        feed.end(None);
        assert!(first.wait_for(LONG).unwrap().unwrap().unwrap().is_some());
        assert!(second.wait_for(LONG).unwrap().unwrap().unwrap().is_none());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_body_whose_connection_ends_is_cut() {
        let runtime = Runtime::new().unwrap();
        let (feed, reader) = BodyFeed::new(4);
        feed.push("ab", || Arc::new(|| ()));
        drop(feed);
        assert!(runtime.run(reader.next()).unwrap().unwrap().is_some());
        assert_eq!(runtime.run(reader.next()).unwrap().unwrap_err(), BodyError::Disconnected);
    }
}
