//! Files, read and written off the pollers.
//!
//! A task here is a closure for the runtime's [`Offload`](tidegate_poller::offload::Offload): a few threads for what
//! waits for a disk, behind a bounded queue. It knows no socket and no session. What comes of it goes on on a poller's
//! thread, so that nothing but files keeps those few threads.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_poller::offload::Full;
use tidegate_poller::sys;

use super::Task;
use super::blocking::Finish;
use super::continuation::Continuation;

/// Largest file that [`read`] takes, unless told otherwise: 64 MiB.
const READ_MAX: u64 = 64 << 20;

/// Which file.
#[derive(Clone, Debug)]
pub enum Place {
    /// The one with this name; it is opened for the task, and closed after it.
    Path(PathBuf),
    /// This one.
    File(Arc<File>),
}

/// Reads a whole file, of at most 64 MiB, from its start: pipes and the like have none, and are an error. A larger one is an error of kind
/// [`FileTooLarge`](io::ErrorKind::FileTooLarge), and not read further; [`read_up_to`] has another bound.
///
/// ```
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Series, read, write};
///
/// let path = std::env::temp_dir().join(format!("tidegate-doc-read-{}", std::process::id()));
/// let runtime = Runtime::new()?;
/// let series = Series::new(Vec::new())
///     .then(write(&path, "every byte"), |written, _| written.map(drop).map_err(Into::into))
///     .then(read(&path), |bytes, series| {
///         series.context = bytes?;
///         Ok(())
///     });
/// assert_eq!(runtime.run(series)?.into_result()?, b"every byte");
/// # std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn read(place: impl Into<Place>) -> FileTask<(), Vec<u8>> {
    read_up_to(place, READ_MAX)
}

/// [`read`] with a bound of its own, in bytes.
pub fn read_up_to(place: impl Into<Place>, most: u64) -> FileTask<(), Vec<u8>> {
    let place = place.into();
    let read = move |(): &mut ()| {
        let file = place.open(OpenOptions::new().read(true))?;
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, TooLarge { most });
        // What a file says of its length is a hint: it may grow meanwhile, or say nothing.
        let expected = file.metadata()?.len();
        if expected > most {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(usize::try_from(expected).unwrap_or(usize::MAX))?;
        FromStart { file: &file, at: 0 }.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
    };
    task((), read, |bytes, ()| bytes)
}

/// Makes a file of these bytes, in the place of what it held. Gives the bytes back.
pub fn write<B>(place: impl Into<Place>, bytes: B) -> FileTask<B, B>
where
    B: AsRef<[u8]> + Send + 'static,
{
    let place = place.into();
    let write = move |bytes: &mut B| {
        let file = place.open(OpenOptions::new().write(true).create(true).truncate(true))?;
        if matches!(place, Place::File(_)) {
            file.set_len(0)?;
        }
        file.write_all_at((*bytes).as_ref(), 0)
    };
    task(bytes, write, |(), bytes| bytes)
}

/// Reads into `buffer` from an offset until the buffer is full or the file ends. Gives back how many bytes came, and the
/// buffer.
pub fn read_at<B>(place: impl Into<Place>, buffer: B, offset: u64) -> FileTask<B, (usize, B)>
where
    B: AsMut<[u8]> + Send + 'static,
{
    let place = place.into();
    let read = move |buffer: &mut B| {
        let file = place.open(OpenOptions::new().read(true))?;
        fill(&mut [IoSliceMut::new(buffer.as_mut())], &file, offset)
    };
    task(buffer, read, |count, buffer| (count, buffer))
}

/// As [`read_at`], into one buffer after the other.
pub fn read_vectored_at<B>(
    place: impl Into<Place>,
    buffers: Vec<B>,
    offset: u64,
) -> FileTask<Vec<B>, (usize, Vec<B>)>
where
    B: AsMut<[u8]> + Send + 'static,
{
    let place = place.into();
    let read = move |buffers: &mut Vec<B>| {
        let file = place.open(OpenOptions::new().read(true))?;
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer.as_mut())).collect();
        fill(&mut slices, &file, offset)
    };
    task(buffers, read, |count, buffers| (count, buffers))
}

/// Writes all of `bytes` at an offset; what lies elsewhere in the file stays. Gives the bytes back.
pub fn write_at<B>(place: impl Into<Place>, bytes: B, offset: u64) -> FileTask<B, B>
where
    B: AsRef<[u8]> + Send + 'static,
{
    let place = place.into();
    let write = move |bytes: &mut B| {
        let file = place.open(OpenOptions::new().write(true).create(true).truncate(false))?;
        file.write_all_at((*bytes).as_ref(), offset)
    };
    task(bytes, write, |(), bytes| bytes)
}

/// As [`write_at`], one piece after the other.
pub fn write_vectored_at<B>(place: impl Into<Place>, pieces: Vec<B>, offset: u64) -> FileTask<Vec<B>, Vec<B>>
where
    B: AsRef<[u8]> + Send + 'static,
{
    let place = place.into();
    let write = move |pieces: &mut Vec<B>| {
        let file = place.open(OpenOptions::new().write(true).create(true).truncate(false))?;
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
        drain(&mut slices, &file, offset)
    };
    task(pieces, write, |(), pieces| pieces)
}

/// Has what was written to a file reach the disk, its length and times included.
pub fn sync(place: impl Into<Place>) -> FileTask<(), ()> {
    let place = place.into();
    task((), move |()| place.open(OpenOptions::new().read(true))?.sync_all(), |(), ()| ())
}

/// Has what was written to a file reach the disk, and of what is known about it only what is needed to read it again.
pub fn sync_data(place: impl Into<Place>) -> FileTask<(), ()> {
    let place = place.into();
    task((), move |()| place.open(OpenOptions::new().read(true))?.sync_data(), |(), ()| ())
}

/// Something with a file; see [`read`], [`write()`], [`read_at`], [`write_at`], [`sync`].
///
/// Cancelled while it waits for a thread, nothing is done. Cancelled while it runs, the series ends at once, what comes
/// of it is dropped with the buffer, and what it does to the file it does.
#[must_use = "a task does nothing until it is started"]
pub struct FileTask<B, R> {
    buffer: B,
    call: Call<B, R>,
}

type Call<B, R> = Box<dyn FnOnce(B) -> Result<R, FileError<B>> + Send>;

/// Why something with a file did not succeed; the buffer comes back.
#[derive(Debug)]
pub struct FileError<B> {
    /// What was wrong. Of kind [`ResourceBusy`](io::ErrorKind::ResourceBusy), it was not begun: too many jobs wait for a
    /// thread ([`Full`]).
    pub error: io::Error,
    /// The buffer. What is in it, where it was to be read into, is not told.
    pub buffer: B,
}

impl<B: Send + 'static, R: Send + 'static> Task for FileTask<B, R> {
    type Output = Result<R, FileError<B>>;

    fn dispatch(self, mut done: Continuation<Self::Output>) {
        let runtime = done.runtime().clone();
        let cancellation = done.cancellation();
        let done = done.park();
        // Where a job that is refused, and so dropped, leaves the buffer; and a cancel finds it.
        let waiting = Arc::new(Mutex::new(Some(self)));
        // In the place of what parking said of it: this gives up the buffer too.
        let cancelled = (waiting.clone(), done.clone());
        cancellation.on_cancel(move || {
            let (waiting, done) = cancelled;
            drop(take(&waiting));
            drop(done.take());
        });
        let (job, after) = ((waiting.clone(), done.clone()), runtime.clone());
        let poller = runtime.poller_here_or_next();
        let submitted = runtime.offload().submit(Box::new(move || {
            let (waiting, done) = job;
            if let Some(task) = take(&waiting) {
                // A buffer of the program's own may panic.
                let output = catch_unwind(AssertUnwindSafe(|| (task.call)(task.buffer)));
                after.ready_on_poller(poller, Finish::new(output, done));
            }
        }));
        if let Err(full) = submitted
            && let Some(FileTask { buffer, .. }) = take(&waiting)
        {
            let error = io::Error::new(io::ErrorKind::ResourceBusy, full);
            let _cancelled = done.complete(Err(FileError { error, buffer }));
        }
    }
}

fn take<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A task that has `call` called on a thread for files, and then gives out what `give` makes of it.
pub(super) fn task<B, N, R>(
    buffer: B,
    call: impl FnOnce(&mut B) -> io::Result<N> + Send + 'static,
    give: fn(N, B) -> R,
) -> FileTask<B, R>
where
    B: 'static,
    N: 'static,
    R: 'static,
{
    let call = move |mut buffer| match call(&mut buffer) {
        Ok(result) => Ok(give(result, buffer)),
        Err(error) => Err(FileError { error, buffer }),
    };
    FileTask { buffer, call: Box::new(call) }
}

/// Reads until the slices are full or the file ends.
fn fill(mut slices: &mut [IoSliceMut<'_>], file: &File, offset: u64) -> io::Result<usize> {
    let mut count = 0;
    // An empty slice at the front would look like the end of the file.
    IoSliceMut::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match sys::read_vectored_at(file, slices, after(offset, count)?) {
            Ok(0) => break,
            Ok(read) => {
                count += read;
                IoSliceMut::advance_slices(&mut slices, read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn drain(mut slices: &mut [IoSlice<'_>], file: &File, offset: u64) -> io::Result<()> {
    let mut count = 0;
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match sys::write_vectored_at(file, slices, after(offset, count)?) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                count += written;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn after(offset: u64, count: usize) -> io::Result<u64> {
    offset.checked_add(count as u64).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Reads a file from its start, wherever its own position is.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Place {
    fn open(&self, options: &OpenOptions) -> io::Result<Arc<File>> {
        match self {
            Place::Path(path) => options.open(path).map(Arc::new),
            Place::File(file) => Ok(file.clone()),
        }
    }
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Place {
        Place::Path(path.into())
    }
}

impl From<&str> for Place {
    fn from(path: &str) -> Place {
        Place::Path(path.into())
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Place {
        Place::Path(path)
    }
}

impl From<&PathBuf> for Place {
    fn from(path: &PathBuf) -> Place {
        Place::Path(path.clone())
    }
}

impl From<Arc<File>> for Place {
    fn from(file: Arc<File>) -> Place {
        Place::File(file)
    }
}

impl From<&Arc<File>> for Place {
    fn from(file: &Arc<File>) -> Place {
        Place::File(file.clone())
    }
}

impl<B, R> fmt::Debug for FileTask<B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTask").finish_non_exhaustive()
    }
}

impl<B> FileError<B> {
    /// Whether it was not begun, because too many jobs wait for a thread.
    pub fn is_full(&self) -> bool {
        self.error.get_ref().is_some_and(|inner| inner.is::<Full>())
    }
}

impl<B> From<FileError<B>> for io::Error {
    fn from(error: FileError<B>) -> io::Error {
        error.error
    }
}

impl<B> fmt::Display for FileError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B: fmt::Debug> std::error::Error for FileError<B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

#[derive(Debug)]
struct TooLarge {
    most: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the file has more than {} bytes", self.most)
    }
}

impl std::error::Error for TooLarge {}
