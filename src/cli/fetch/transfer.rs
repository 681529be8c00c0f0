//! One transfer from start to end: a future whose steps are tasks.
//!
//! It is polled on the computing threads; files are written on the threads for what blocks, a piece at a time, and while a
//! piece is written no further one is taken, so that a slow disk holds the server back.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::args::FetchArgs;
use super::outcome::{Failed, Kind, Outcome};
use super::place::{Left, Note, Place, content_range};
use super::progress::Progress;
use crate::http::body::FileId;
use crate::http::client::Url;
use crate::http::{
    Body, BodyError, BodyReader, Client, HeaderMap, Method, RequestTask, Response, ResponseBody, StatusCode,
    header,
};
use crate::runtime::RuntimeHandle;
use crate::task::{Task, blocking, sleep, write_at};
use tidegate_poller::Limit;

/// Before a transfer goes on that was cut: a server that comes up again is there by then.
const PAUSE: Duration = Duration::from_millis(500);

/// What all transfers share.
pub(super) struct Common {
    pub(super) args: FetchArgs,
    pub(super) client: Client,
    pub(super) runtime: RuntimeHandle,
    pub(super) progress: Progress,
}

/// Where a body goes.
pub(super) enum Target {
    /// Into a file.
    File(Place),
    /// Into what is no file that could be made anew: a device, a pipe.
    Straight(PathBuf),
    /// To standard output.
    Stdout,
    /// Nowhere.
    Dropped,
}

/// A transfer under way.
pub(super) struct Transfer {
    common: Arc<Common>,
    target: Target,
    outcome: Outcome,
    limit: Option<Limit>,
    began: Instant,
}

/// What writes a body.
enum Writer {
    File { file: Arc<File>, at: u64 },
    Straight(Arc<File>),
    Stdout,
    Dropped,
}

impl Transfer {
    pub(super) fn new(common: Arc<Common>, url: Url, target: Target) -> Transfer {
        let limit = common.args.rate.map(|rate| Limit::new("transfer", Some(rate)));
        let outcome = Outcome {
            url,
            effective: None,
            status: None,
            file: None,
            bytes: 0,
            resumed_from: 0,
            record: None,
            failure: None,
        };
        Transfer { common, target, outcome, limit, began: Instant::now() }
    }

    /// Runs it.
    pub(super) async fn run(mut self) -> Outcome {
        self.began = Instant::now();
        let ended = match &self.target {
            Target::File(place) if self.common.args.resume && is_whole(place) => {
                self.outcome.file = Some(place.whole.display().to_string());
                self.outcome.bytes = std::fs::metadata(&place.whole).map_or(0, |whole| whole.len());
                self.outcome.resumed_from = self.outcome.bytes;
                Ok(())
            }
            _ => self.try_and_try_again().await,
        };
        self.common.progress.done.fetch_add(1, Ordering::Relaxed);
        self.outcome.failure = ended.err();
        self.outcome
    }

    async fn try_and_try_again(&mut self) -> Result<(), Failed> {
        let mut may_resume = self.common.args.resume;
        let mut tries_left = self.common.args.retry;
        loop {
            let Err(failed) = self.attempt(may_resume).await else { return Ok(()) };
            // What was written elsewhere cannot be taken back.
            let goes_on = matches!(self.target, Target::File(_)) && self.may_go_on();
            let late = self.time_left().is_some_and(|left| left <= PAUSE);
            if !goes_on || !failed.is_within_the_body || tries_left == 0 || late {
                return Err(self.say_what_is_kept(failed));
            }
            log::info!("{}: {}; going on", self.outcome.url, failed.message);
            self.await_task(sleep(PAUSE)).await?;
            tries_left -= 1;
            may_resume = true;
        }
    }

    /// Of the time that the whole transfer may take.
    fn time_left(&self) -> Option<Duration> {
        self.common.args.timeout.map(|all| all.saturating_sub(self.began.elapsed()))
    }

    /// Whether a part can be asked for. Something else than the plain file may not be the same the next time, or may not
    /// be asked for twice; a range of one's own says where it begins itself.
    fn may_go_on(&self) -> bool {
        let args = &self.common.args;
        let plain = args.method.as_deref().is_none_or(|method| method == "GET");
        let ranged = args.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("range"));
        plain && !ranged && args.upload.is_none() && !args.compressed
    }

    fn say_what_is_kept(&self, mut failed: Failed) -> Failed {
        let Target::File(place) = &self.target else { return failed };
        place.abandon_if_empty();
        if let Some(left) = place.left(&self.outcome.url).filter(|_| !place.is_taken()) {
            let part = place.part();
            failed.message +=
                &format!("; {} bytes are kept in {}: go on with --resume", left.bytes, part.display());
        }
        failed
    }

    async fn attempt(&mut self, may_resume: bool) -> Result<(), Failed> {
        let left = match &self.target {
            Target::File(place) if may_resume && self.may_go_on() => place.left(&self.outcome.url),
            _ => None,
        };
        let request = self.request(left.as_ref()).await?;
        let response = self.await_task(request).await?.map_err(|error| Failed::request(&error))?;
        self.outcome.status = Some(response.status);
        self.outcome.effective = Some(response.url.clone());
        match (response.status, left) {
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(left)) => {
                self.beyond_the_end(&response.headers, left).await
            }
            (status, _) if status.is_client_error() || status.is_server_error() => {
                Err(Failed::status(status))
            }
            (StatusCode::PARTIAL_CONTENT, Some(left)) => match continues(&response.headers, &left) {
                true => self.take(response, left.bytes, Some(left.note)).await,
                // Not what we asked for. What is there is of no use.
                false => self.start_over().await,
            },
            _ => self.take(response, 0, None).await,
        }
    }

    /// The server has nothing beyond what we have: all of it is there, or it is another file.
    async fn beyond_the_end(&mut self, headers: &HeaderMap, left: Left) -> Result<(), Failed> {
        let total = content_range(headers).and_then(|(_, total)| total);
        if total == Some(left.bytes) && left.note.total == total {
            (self.outcome.bytes, self.outcome.resumed_from) = (left.bytes, left.bytes);
            let _locked = self.open(left.note, left.bytes).await?;
            return self.finish().await;
        }
        self.start_over().await
    }

    async fn start_over(&mut self) -> Result<(), Failed> {
        log::warn!("{}: the file has changed; it is fetched from the start", self.outcome.url);
        Box::pin(self.attempt(false)).await
    }

    async fn request(&self, left: Option<&Left>) -> Result<RequestTask, Failed> {
        let args = &self.common.args;
        let default = if args.upload.is_some() { "PUT" } else { "GET" };
        let method = args.method.as_deref().unwrap_or(default);
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Failed::new(Kind::Other, format_args!("{method:?} is no method")))?;
        let mut request = self.common.client.request_url(method, self.outcome.url.clone()).stream();
        request = request.decompress(args.compressed);
        if let Some(left) = self.time_left() {
            request = request.timeout(left);
        }
        for (name, value) in &args.headers {
            request = request.header(name, value);
        }
        if let Some(limit) = &self.limit {
            request = request.limit(limit).upload_limit(limit);
        }
        if let Some(left) = left {
            request = request.header("Range", format!("bytes={}-", left.bytes));
            if let Some(validator) = left.note.validator() {
                request = request.header("If-Range", validator);
            }
        }
        match args.upload.clone() {
            Some(path) => {
                let body = self.off_poller(path.clone(), move || open_upload(&path)).await?;
                let progress = &self.common.progress;
                progress.expected.fetch_add(body.len().unwrap_or(0), Ordering::Relaxed);
                Ok(request.body(body).upload_progress(&progress.upload))
            }
            None => Ok(request),
        }
    }

    /// Writes a body to its place, after so many bytes that are there.
    async fn take(&mut self, response: Response, offset: u64, note: Option<Note>) -> Result<(), Failed> {
        let length = response.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length: Option<u64> = length.and_then(|length| length.parse().ok());
        let total = length.map(|length| offset.saturating_add(length));
        // Of the rest of a file a server may send less than was asked for (RFC 9110, section 14.4).
        let whole = note
            .as_ref()
            .and_then(|note| content_range(&response.headers).and_then(|(_, total)| total).or(note.total));
        let note = match note {
            Some(note) => Note { total: whole, ..note },
            None => Note::new(&self.outcome.url, &response.headers, total),
        };
        (self.outcome.bytes, self.outcome.resumed_from) = (offset, offset);
        let mut writer = self.open(note, offset).await?;
        let progress = &self.common.progress;
        progress.there.fetch_add(offset, Ordering::Relaxed);
        progress.expected.fetch_add(total.unwrap_or(0), Ordering::Relaxed);
        let ResponseBody::Stream(reader) = &response.body else { return Ok(()) };
        let copied = self.copy(reader, &mut writer).await;
        self.outcome.record = response.record().cloned();
        let came = self.outcome.bytes;
        let copied = copied.and_then(|()| match whole {
            Some(whole) if whole != came => Err(Failed::of_another_size(came, whole)),
            _ => Ok(()),
        });
        if copied.is_err() {
            // The next try counts anew.
            progress_back(&self.common.progress, self.outcome.bytes, total.unwrap_or(0));
        }
        copied?;
        let finished = self.finish().await;
        // Only now: what it locks is the part.
        drop(writer);
        finished
    }

    async fn copy(&mut self, reader: &BodyReader, writer: &mut Writer) -> Result<(), Failed> {
        while let Some(chunk) =
            self.await_task(reader.next()).await?.map_err(|error| self.body_failed(error))?
        {
            let bytes = chunk.len() as u64;
            let chunk = match chunk {
                tidegate_poller::Chunk::Owned(bytes) => bytes,
                other => other.as_slice().to_vec(),
            };
            match writer {
                Writer::File { file, at } => {
                    let written = self.await_task(write_at(file.clone(), chunk, *at)).await?;
                    written.map_err(|error| {
                        let file = self.outcome.file.as_deref().unwrap_or_default();
                        Failed::new(Kind::File, format_args!("{file}: {error}"))
                    })?;
                    *at += bytes;
                }
                Writer::Straight(file) => {
                    let file = file.clone();
                    let shown = self.outcome.file.clone().unwrap_or_default();
                    self.off_poller(shown.into(), move || (&*file).write_all(&chunk)).await?;
                }
                Writer::Stdout => {
                    let write = move || {
                        let mut stdout = io::stdout().lock();
                        stdout.write_all(&chunk).and_then(|()| stdout.flush())
                    };
                    self.off_poller("stdout".into(), write).await?;
                }
                Writer::Dropped => {}
            }
            self.outcome.bytes += bytes;
            self.common.progress.add(bytes);
        }
        Ok(())
    }

    fn body_failed(&self, error: BodyError) -> Failed {
        match self.time_left() {
            Some(Duration::ZERO) if error == BodyError::TimedOut => {
                Failed { message: "it took longer than --timeout".to_owned(), ..Failed::body(error) }
            }
            _ => Failed::body(error),
        }
    }

    async fn open(&mut self, note: Note, offset: u64) -> Result<Writer, Failed> {
        let place = match &self.target {
            Target::File(place) => place.clone(),
            Target::Straight(path) => {
                let path = path.clone();
                self.outcome.file = Some(path.display().to_string());
                let open = move || File::options().write(true).open(&path);
                let file =
                    self.off_poller(self.outcome.file.clone().unwrap_or_default().into(), open).await?;
                return Ok(Writer::Straight(Arc::new(file)));
            }
            Target::Stdout => {
                self.outcome.file = Some("-".to_owned());
                return Ok(Writer::Stdout);
            }
            Target::Dropped => return Ok(Writer::Dropped),
        };
        self.outcome.file = Some(place.part().display().to_string());
        let file = self.off_poller(place.part(), move || place.open(&note, offset)).await?;
        Ok(Writer::File { file: Arc::new(file), at: offset })
    }

    async fn finish(&mut self) -> Result<(), Failed> {
        let Target::File(place) = &self.target else { return Ok(()) };
        let (place, shown) = (place.clone(), place.whole.clone());
        self.off_poller(shown.clone(), move || place.finish()).await?;
        self.outcome.file = Some(shown.display().to_string());
        Ok(())
    }

    /// Does what may block with this file.
    async fn off_poller<R: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> Result<R, Failed> {
        match self.await_task(blocking(work)).await? {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Failed::file(&path, &error)),
            Err(full) => Err(Failed::new(Kind::File, full)),
        }
    }

    async fn await_task<T: Task>(&self, task: T) -> Result<T::Output, Failed> {
        // Where nothing comes of a task the runtime is stopping.
        self.common.runtime.spawn(task).await.map_err(|_| Failed::interrupted())
    }
}

fn progress_back(progress: &Progress, there: u64, expected: u64) {
    progress.there.fetch_sub(there, Ordering::Relaxed);
    progress.expected.fetch_sub(expected, Ordering::Relaxed);
}

fn is_whole(place: &Place) -> bool {
    place.whole.is_file() && !place.part().exists()
}

/// Whether a part is the one asked for. Without a validator only the size tells; with one, the server may have overlooked
/// our condition.
fn continues(headers: &HeaderMap, left: &Left) -> bool {
    let differs = |name, noted: &Option<String>| {
        let now = headers.get(name).map(|value| value.as_bytes());
        now.zip(noted.as_deref()).is_some_and(|(now, noted)| now != noted.as_bytes())
    };
    if differs(header::ETAG, &left.note.etag) || differs(header::LAST_MODIFIED, &left.note.last_modified) {
        return false;
    }
    match content_range(headers) {
        Some((Some(first), total)) if first == left.bytes => match (total, left.note.total) {
            (Some(now), Some(noted)) => now == noted,
            _ => left.note.validator().is_some(),
        },
        _ => false,
    }
}

fn open_upload(path: &Path) -> io::Result<Body> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a file can be sent"));
    }
    let id = FileId { device: about.dev(), inode: about.ino() };
    Ok(Body::File { file: Arc::new(file), id, offset: 0, len: about.len() })
}
