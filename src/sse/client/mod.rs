//! The client: events as a task, from a server that may come and go.
//!
//! It reads only while somebody asks for the next event: what is not asked for stays with the server, beyond what the HTTP
//! client holds of a stream. It connects again by itself, and goes on after the last event that was complete.

mod reconnect;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_poller::{Moment, sys};

use crate::http::{
    BodyError, BodyReader, ClientError, HeaderValue, RequestTask, Response, ResponseBody, StatusCode, get,
};
use crate::runtime::RuntimeHandle;
use crate::sse::parser::{Message, Parser, ParserLimits, TooLong};
use crate::task::{Continuation, Dropped, Elapsed, Task, TaskExt as _, TaskHandle, future, sleep};
use reconnect::Reconnect;

/// How a client of events goes about it.
#[derive(Clone, Debug)]
pub struct EventSourceSettings {
    /// How long to wait before connecting again, until the server says. Default: 1 s.
    pub retry: Duration,
    /// The wait doubles with each attempt that brings nothing, up to this, and is up to a half longer at random. A stream that
    /// was open for as long as this counts as one that brought something, though no event came. Default: 60 s.
    pub max_retry_wait: Duration,
    /// After so many attempts in a row that brought nothing, that is an error. Default: none, it tries for ever.
    pub max_attempts: Option<u32>,
    /// A stream on which nothing comes for so long, not even a heartbeat, is given up and begun anew. The HTTP client has a
    /// time of its own for that, too, 60 s by default. Default: 45 s, three of the usual heartbeats.
    pub idle_timeout: Option<Duration>,
    /// How long lines and events may get.
    pub limits: ParserLimits,
}

impl Default for EventSourceSettings {
    fn default() -> EventSourceSettings {
        EventSourceSettings {
            retry: Duration::from_secs(1),
            max_retry_wait: Duration::from_secs(60),
            max_attempts: None,
            idle_timeout: Some(Duration::from_secs(45)),
            limits: ParserLimits::default(),
        }
    }
}

/// Why no more events come.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventSourceError {
    /// The server answered with this status, which another attempt will not change.
    Status(StatusCode),
    /// What the server sends is no stream of events, but this.
    ContentType(String),
    /// The request cannot be made; or, after the last attempt, why that one failed.
    Request(ClientError),
    /// A line or an event is too long.
    TooLong(TooLong),
    /// So many attempts in a row brought nothing.
    Attempts(u32),
    /// Somebody else waits for the next event already.
    InUse,
    /// The runtime is shutting down.
    ShuttingDown,
}

/// Events from a server, connected again whenever that is needed.
///
/// ```no_run
/// use tidegate::runtime::Runtime;
/// use tidegate::sse;
///
/// let runtime = Runtime::new()?;
/// let events = sse::connect("http://127.0.0.1:8080/events");
/// while let Some(message) = runtime.run(events.next())?? {
///     println!("{} {}: {}", message.id, message.event, message.data);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventSource(Arc<Slot>);

/// Where the state lies while nobody asks for an event.
type Slot = Mutex<Option<Box<State>>>;

type Make = Box<dyn FnMut() -> RequestTask + Send>;

type Read = Result<Option<tidegate_poller::Chunk>, BodyError>;

struct State {
    make: Make,
    settings: EventSourceSettings,
    parser: Parser,
    ready: VecDeque<Message>,
    reader: Option<BodyReader>,
    /// When the stream at hand was opened.
    opened: Moment,
    /// What was begun goes on where nobody waits for it any more, and is there for who asks next.
    pending: Option<Pending>,
    reconnect: Reconnect,
    /// The next attempt waits for nothing.
    at_once: bool,
    ended: bool,
}

enum Pending {
    Wait(TaskHandle<()>),
    Open(TaskHandle<Result<Response, ClientError>>),
    Read(TaskHandle<Result<Read, Elapsed>>),
}

/// What came of it.
enum Done {
    Waited,
    Opened(Box<Result<Response, ClientError>>),
    Read(Read),
}

/// Listens to a URL, by the client that the runtime keeps for all.
pub fn connect(url: impl Into<String>) -> EventSource {
    let url = url.into();
    EventSource::new(EventSourceSettings::default(), move || get(&url))
}

impl EventSource {
    /// Listens to what the request that `make` makes is answered with: with any method, body, header and client. It is made
    /// anew for each attempt. What streams of events need is added.
    pub fn new(
        settings: EventSourceSettings,
        make: impl FnMut() -> RequestTask + Send + 'static,
    ) -> EventSource {
        EventSource(Arc::new(Mutex::new(Some(Box::new(State {
            make: Box::new(make),
            parser: Parser::new(settings.limits),
            ready: VecDeque::new(),
            reader: None,
            opened: sys::now(),
            reconnect: Reconnect::new(settings.retry, settings.max_retry_wait),
            at_once: true,
            pending: None,
            ended: false,
            settings,
        })))))
    }

    /// Has it go on after an event that is known from before.
    #[must_use]
    pub fn resume_after(self, id: impl Into<String>) -> EventSource {
        self.with(|state| state.parser.set_last_event_id(id));
        self
    }

    /// The id after which it would go on, that of the last event received if not yet handed out; empty: none. While somebody waits for the next event, nobody can tell.
    pub fn last_event_id(&self) -> Option<String> {
        self.with(|state| state.parser.last_event_id().to_owned())
    }

    /// The next event. `None`: the server wants us not to come again (204). Cancelled while it waits, it loses nothing: what
    /// was begun goes on, and is there for the next call. One at a time.
    pub fn next(&self) -> NextEvent {
        NextEvent { slot: self.0.clone() }
    }

    fn with<R>(&self, call: impl FnOnce(&mut State) -> R) -> Option<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_deref_mut().map(call)
    }
}

/// See [`EventSource::next`].
#[must_use = "a task does nothing until it is started"]
pub struct NextEvent {
    slot: Arc<Slot>,
}

impl Task for NextEvent {
    type Output = Result<Option<Message>, EventSourceError>;

    fn dispatch(self, mut done: Continuation<Self::Output>) {
        let taken = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(state) = taken else { return done.complete(Err(EventSourceError::InUse)) };
        let runtime = done.runtime().clone();
        let cancellation = done.cancellation();
        let place = Arc::new(Mutex::new(Some(done)));
        let (mut lent, waits, here) =
            (Lent { state: Some(state), slot: self.slot }, place.clone(), runtime.clone());
        let working = runtime.spawn(future(async move {
            let Some(state) = &mut lent.state else { return };
            let next = state.next(&here).await;
            let Some(done) = take(&waits) else {
                // Too late for whoever waited: it is for who asks next.
                if let Ok(Some(message)) = next {
                    state.ready.push_front(message);
                }
                return;
            };
            // Whoever goes on may ask for the next one at once.
            drop(lent);
            done.complete(next);
        }));
        let (canceller, reached) = (working.canceller(), Arc::downgrade(&place));
        working.detach();
        cancellation.on_cancel(move || {
            let done = reached.upgrade().and_then(|place| take(&place));
            canceller.cancel();
            drop(done);
        });
    }
}

/// Whoever takes the continuation goes on with it, or ends it.
fn take<O>(place: &Mutex<Option<Continuation<O>>>) -> Option<Continuation<O>> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Puts the state back, also where the task is cancelled.
struct Lent {
    state: Option<Box<State>>,
    slot: Arc<Slot>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.state.take();
    }
}

impl State {
    async fn next(&mut self, runtime: &RuntimeHandle) -> Result<Option<Message>, EventSourceError> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            if self.pending.is_none() {
                self.pending = Some(self.begin(runtime)?);
            }
            let done = match &mut self.pending {
                Some(Pending::Wait(wait)) => wait.await.map(|()| Done::Waited),
                Some(Pending::Open(open)) => open.await.map(|response| Done::Opened(Box::new(response))),
                // Nothing in time is an end like any other.
                Some(Pending::Read(read)) => {
                    read.await.map(|read| Done::Read(read.unwrap_or(Err(BodyError::TimedOut))))
                }
                None => continue,
            };
            self.pending = None;
            match done.map_err(|Dropped| EventSourceError::ShuttingDown)? {
                Done::Waited => self.at_once = true,
                Done::Read(read) => self.take(read)?,
                Done::Opened(response) => self.opened(*response).inspect_err(|_| self.ended = true)?,
            }
        }
    }

    /// Begins with what has to be done now.
    fn begin(&mut self, runtime: &RuntimeHandle) -> Result<Pending, EventSourceError> {
        if let Some(reader) = &self.reader {
            let time = self.settings.idle_timeout.unwrap_or(FOR_EVER);
            return Ok(Pending::Read(runtime.spawn(reader.next().timeout(time))));
        }
        if std::mem::take(&mut self.at_once) {
            return Ok(Pending::Open(runtime.spawn(self.request())));
        }
        let failures = self.reconnect.failures();
        if self.settings.max_attempts.is_some_and(|max| failures >= max) {
            self.ended = true;
            return Err(EventSourceError::Attempts(failures));
        }
        let wait = self.reconnect.next_wait(fastrand::f64());
        Ok(Pending::Wait(runtime.spawn(sleep(wait))))
    }

    fn request(&mut self) -> RequestTask {
        let request = (self.make)()
            .header("Accept", "text/event-stream")
            .header("Cache-Control", "no-store")
            .decompress(false)
            .max_retries(0)
            .stream();
        match self.parser.last_event_id() {
            "" => request,
            id if HeaderValue::from_bytes(id.as_bytes()).is_ok() => request.header("Last-Event-ID", id),
            id => {
                // A server that makes such ids cannot know what came after them.
                log::warn!(
                    "the id {id:?} cannot stand in a field; the stream begins where the server has it begin"
                );
                request
            }
        }
    }

    fn opened(&mut self, response: Result<Response, ClientError>) -> Result<(), EventSourceError> {
        match response {
            Ok(response) => match judge(response)? {
                Opened::Stream(reader) => (self.reader, self.opened) = (Some(reader), sys::now()),
                Opened::Enough => self.ended = true,
                Opened::NotNow(status) => log::debug!("no stream of events for now: {status}"),
            },
            Err(error) if error.is_passing() => log::debug!("no stream of events for now: {error}"),
            Err(error) => return Err(EventSourceError::Request(error)),
        }
        Ok(())
    }

    fn take(&mut self, read: Read) -> Result<(), EventSourceError> {
        match read {
            Ok(Some(chunk)) => {
                let ready = &mut self.ready;
                let fed = self.parser.feed(chunk.as_slice(), |message| ready.push_back(message));
                if let Some(retry) = self.parser.take_retry() {
                    self.reconnect.set_base(retry);
                }
                if !self.ready.is_empty() {
                    self.reconnect.succeeded();
                }
                if let Err(error) = fed {
                    self.reader = None;
                    self.ended = true;
                    return Err(EventSourceError::TooLong(error));
                }
            }
            Ok(None) | Err(_) => {
                self.reader = None;
                self.parser.restart();
                if sys::now() - self.opened >= self.settings.max_retry_wait {
                    // It was a quiet one.
                    self.reconnect.succeeded();
                }
            }
        }
        Ok(())
    }
}

/// Longer than any program runs.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl Drop for State {
    fn drop(&mut self) {
        match &self.pending {
            None => {}
            Some(Pending::Wait(wait)) => wait.cancel(),
            Some(Pending::Open(open)) => open.cancel(),
            Some(Pending::Read(read)) => read.cancel(),
        }
    }
}

/// What an attempt to connect came to.
enum Opened {
    Stream(BodyReader),
    /// The server wants us not to come again.
    Enough,
    /// It may well succeed later.
    NotNow(StatusCode),
}

fn judge(response: Response) -> Result<Opened, EventSourceError> {
    match response.status {
        StatusCode::OK => {}
        StatusCode::NO_CONTENT => return Ok(Opened::Enough),
        passing if is_passing(passing) => return Ok(Opened::NotNow(passing)),
        other => return Err(EventSourceError::Status(other)),
    }
    let field = response.headers.get("content-type").map_or(&b""[..], |value| value.as_bytes());
    let essence = field.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    if !essence.eq_ignore_ascii_case(b"text/event-stream") {
        return Err(EventSourceError::ContentType(String::from_utf8_lossy(field).into_owned()));
    }
    match response.body {
        ResponseBody::Stream(reader) => Ok(Opened::Stream(reader)),
        ResponseBody::Whole(_) => Ok(Opened::NotNow(response.status)),
    }
}

/// Whether the server, or what lies before it, is not up to it just now. Standards know some such statuses, proxies more.
fn is_passing(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        other => other.is_server_error(),
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource").finish_non_exhaustive()
    }
}

impl fmt::Debug for NextEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextEvent").finish_non_exhaustive()
    }
}

impl fmt::Display for EventSourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventSourceError::Status(status) => write!(f, "the server answered with {status}"),
            EventSourceError::ContentType(other) => {
                write!(f, "what the server sends is no stream of events but {other:?}")
            }
            EventSourceError::Request(error) => error.fmt(f),
            EventSourceError::TooLong(error) => error.fmt(f),
            EventSourceError::Attempts(times) => write!(f, "{times} attempts in a row brought nothing"),
            EventSourceError::InUse => f.write_str("somebody else waits for the next event already"),
            EventSourceError::ShuttingDown => f.write_str("the runtime is shutting down"),
        }
    }
}

impl std::error::Error for EventSourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EventSourceError::Request(error) => Some(error),
            EventSourceError::TooLong(error) => Some(error),
            _ => None,
        }
    }
}
