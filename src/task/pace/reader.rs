//! What is read from a source that may block, as a budget lets it go.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_poller::Budget;

use super::Spender;
use super::chunks::Carry;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::Receive;
use crate::task::continuation::{Continuation, Receiver};
use crate::task::file::{FileError, FileTask, task};
use crate::task::token::Token;
use crate::task::{Error, Series, Task};

/// Reads chunks from a source, each given out when a budget has let it go. It is read off the pollers, on the threads
/// for files, a chunk at a time: no more than one is held.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::PacedReader;
/// use tidegate_poller::Budget;
///
/// let budget = Budget::builder("upload").rate(10_000_000).build();
/// let file = std::fs::File::open("Cargo.toml")?;
/// let runtime = Runtime::new()?;
/// let chunks = PacedReader::new(file, 512, &budget).for_each(|chunk| Ok(assert!(chunk.len() <= 512)));
/// let reader = runtime.run(chunks)?.into_result()?;
/// # let _ = reader;
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub struct PacedReader<R> {
    source: Arc<Mutex<R>>,
    chunk: usize,
    spender: Spender,
}

impl<R: Read + Send + 'static> PacedReader<R> {
    /// Chunks of at most `chunk` bytes (at least 1), by a line of its own at `budget`.
    pub fn new(source: R, chunk: usize, budget: &Budget) -> PacedReader<R> {
        PacedReader::by(source, chunk, &Spender::new(budget))
    }

    /// Chunks of at most `chunk` bytes (at least 1), spent by `spender`.
    pub fn by(source: R, chunk: usize, spender: &Spender) -> PacedReader<R> {
        PacedReader { source: Arc::new(Mutex::new(source)), chunk: chunk.max(1), spender: spender.clone() }
    }

    /// A task for the next chunk; `None` at the end. A chunk whose task is dropped or cancelled is lost.
    pub fn next_chunk(&mut self) -> NextChunk {
        let (source, most) = (self.source.clone(), self.chunk);
        let read = move |(): &mut ()| {
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = Vec::new();
            (&mut *source).take(most as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        NextChunk { read: task((), read, |bytes, ()| bytes), spender: self.spender.clone() }
    }

    /// A series that hands each chunk to `each`; an error of that, or of the source, ends it.
    pub fn for_each(
        self,
        each: impl FnMut(Vec<u8>) -> Result<(), Error> + Send + 'static,
    ) -> Series<PacedReader<R>> {
        let mut series = Series::new(self);
        go_on(&mut series, each);
        series
    }
}

fn go_on<R: Read + Send + 'static>(
    series: &mut Series<PacedReader<R>>,
    mut each: impl FnMut(Vec<u8>) -> Result<(), Error> + Send + 'static,
) {
    let next = series.context.next_chunk();
    series.push_front(next, move |chunk, series| {
        if let Some(chunk) = chunk? {
            each(chunk)?;
            go_on(series, each);
        }
        Ok(())
    });
}

impl<R> fmt::Debug for PacedReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedReader")
            .field("chunk", &self.chunk)
            .field("spender", &self.spender)
            .finish_non_exhaustive()
    }
}

/// Reads the next chunk and waits for its bytes; see [`PacedReader::next_chunk`].
#[derive(Debug)]
#[must_use = "a task does nothing until it is started"]
pub struct NextChunk {
    read: FileTask<(), Vec<u8>>,
    spender: Spender,
}

impl Task for NextChunk {
    type Output = io::Result<Option<Vec<u8>>>;

    fn dispatch(self, done: Continuation<Self::Output>) {
        let way = Way { spender: self.spender, done };
        self.read.dispatch(Continuation::new(Box::new(way)));
    }
}

/// Has what was read wait for its turn.
struct Way {
    spender: Spender,
    done: Continuation<io::Result<Option<Vec<u8>>>>,
}

impl Receiver<Result<Vec<u8>, FileError<()>>> for Way {
    fn runtime(&self) -> &RuntimeHandle {
        self.done.runtime()
    }

    fn token(&self) -> Option<&Arc<Token>> {
        self.done.token()
    }
}

impl Receive<Result<Vec<u8>, FileError<()>>> for Way {
    fn receive(self: Box<Self>, read: Result<Vec<u8>, FileError<()>>) {
        let Way { spender, done } = *self;
        match read {
            Err(error) => done.complete(Err(error.into())),
            Ok(bytes) if bytes.is_empty() => done.complete(Ok(None)),
            Ok(bytes) => {
                let acquire = spender.acquire(bytes.len() as u64);
                acquire.dispatch(Continuation::new(Box::new(Carry { output: Ok(Some(bytes)), done })));
            }
        }
    }
}
