//! Requests, as tasks to be described and started.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidegate_poller::{Budget, Direction, Limit};

use super::client::Client;
use super::error::ClientError;
use super::progress::UploadProgress;
use super::proxy::{Proxy, basic};
use super::response::Response;
use super::settings::ClientSettings;
use super::url::{BadUrl, Url};
use crate::http::body::Framing;
use crate::http::{Body, HeaderMap, HeaderName, HeaderValue, Method, StreamBody, header};
use crate::task::{Continuation, Task};

/// GET, by the client that the runtime keeps for all.
///
/// ```no_run
/// use tidegate::http;
/// use tidegate::runtime::Runtime;
/// use tidegate::task::Series;
///
/// let runtime = Runtime::new()?;
/// let series = Series::new(String::new()).then(http::get("http://127.0.0.1:8080/"), |page, series| {
///     series.context = page?.text();
///     Ok(())
/// });
/// println!("{}", runtime.run(series)?.into_result()?);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn get(url: impl AsRef<str>) -> RequestTask {
    request(Method::GET, url)
}

/// POST with this body, by the client that the runtime keeps for all.
pub fn post(url: impl AsRef<str>, body: impl Into<Body>) -> RequestTask {
    request(Method::POST, url).body(body)
}

/// Any method, by the client that the runtime keeps for all.
pub fn request(method: Method, url: impl AsRef<str>) -> RequestTask {
    RequestTask::new(None, method, url.as_ref())
}

/// A request to be made; a task whose output is the response. Cancelled, it closes the connection it is on, for what would
/// still come on that is of no use.
#[must_use = "a task does nothing until it is started"]
pub struct RequestTask {
    client: Option<Client>,
    pub(super) url: Result<Url, BadUrl>,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Upload,
    pub(super) options: Options,
    /// What cannot be sent, found while it was described.
    fault: Option<&'static str>,
}

/// What one request has of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) total_timeout: Option<Duration>,
    pub(super) stream: bool,
    pub(super) max_body: Option<u64>,
    pub(super) max_redirects: Option<u32>,
    pub(super) max_retries: Option<u32>,
    pub(super) decompress: Option<bool>,
    pub(super) limits: [Option<Limit>; 2],
    pub(super) budgets: Vec<(Direction, Budget, u32)>,
    pub(super) progress: Option<UploadProgress>,
}

/// The body of a request, kept so that it can be sent again if need be.
#[derive(Debug, Default)]
pub(super) enum Upload {
    #[default]
    Empty,
    Static(&'static [u8]),
    Shared(Arc<[u8]>),
    File {
        file: Arc<File>,
        offset: u64,
        len: u64,
    },
    Stream(StreamBody),
    /// A stream that was sent: it cannot be sent again.
    Sent,
}

impl RequestTask {
    pub(super) fn new(client: Option<Client>, method: Method, url: &str) -> RequestTask {
        RequestTask::of_url(client, method, url.parse())
    }

    pub(super) fn of_url(client: Option<Client>, method: Method, url: Result<Url, BadUrl>) -> RequestTask {
        // Its answer would make a tunnel of a connection that others use.
        let fault = (method == Method::CONNECT)
            .then_some("CONNECT is for proxies, and said to them where that is needed");
        RequestTask {
            client,
            url,
            method,
            headers: HeaderMap::new(),
            body: Upload::Empty,
            options: Options::default(),
            fault,
        }
    }

    /// With one more field. What frames the message and keeps its connection is the client's to say, and not taken.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> RequestTask {
        let name = HeaderName::from_bytes(name.as_ref().as_bytes());
        match (name, HeaderValue::from_bytes(value.as_ref())) {
            (Ok(name), Ok(value)) => drop(self.headers.append(name, value)),
            _ => self.fault = Some("a field has a character that cannot stand there"),
        }
        self
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Body>) -> RequestTask {
        self.body = Upload::from(body.into());
        self
    }

    /// With this value as its body, in JSON.
    #[cfg(feature = "json")]
    pub fn json(mut self, value: &impl serde::Serialize) -> RequestTask {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.header(header::CONTENT_TYPE, "application/json").body(bytes),
            Err(_) => {
                self.fault = Some("the value cannot be said in JSON");
                self
            }
        }
    }

    /// Gives it at most so long in all, whatever the client's settings say.
    pub fn timeout(mut self, total: Duration) -> RequestTask {
        self.options.total_timeout = Some(total);
        self
    }

    /// Has the body read as a stream while it arrives, instead of taken whole: the task is done when the head is here.
    pub fn stream(mut self) -> RequestTask {
        self.options.stream = true;
        self
    }

    /// Takes a body of at most so many bytes, decoded; a stream has no bound unless this gives it one.
    pub fn max_body(mut self, bytes: u64) -> RequestTask {
        self.options.max_body = Some(bytes);
        self
    }

    /// Follows at most so many redirects. With 0 a redirect is a response like any other.
    pub fn max_redirects(mut self, redirects: u32) -> RequestTask {
        self.options.max_redirects = Some(redirects);
        self
    }

    /// Is made again at most so often; see [`ClientSettings::max_retries`].
    pub fn max_retries(mut self, retries: u32) -> RequestTask {
        self.options.max_retries = Some(retries);
        self
    }

    /// Whether to ask for a compressed body, and decompress it.
    pub fn decompress(mut self, yes: bool) -> RequestTask {
        self.options.decompress = Some(yes);
        self
    }

    /// A rate of its own for what it brings, in place of its connection's. Changing it while bytes flow changes the rate.
    pub fn limit(mut self, limit: &Limit) -> RequestTask {
        self.options.limits[1] = Some(limit.clone());
        self
    }

    /// The same for what it sends.
    pub fn upload_limit(mut self, limit: &Limit) -> RequestTask {
        self.options.limits[0] = Some(limit.clone());
        self
    }

    /// Has what it brings spend through one more budget, besides the client's, with weight 1.
    pub fn budget(self, budget: &Budget) -> RequestTask {
        self.budget_weighted(budget, 1)
    }

    /// The same, with a weight among those who share the budget.
    pub fn budget_weighted(mut self, budget: &Budget, weight: u32) -> RequestTask {
        self.options.budgets.push((Direction::Ingress, budget.clone(), weight));
        self
    }

    /// Has what it sends spend through one more budget, with weight 1.
    pub fn upload_budget(self, budget: &Budget) -> RequestTask {
        self.upload_budget_weighted(budget, 1)
    }

    /// The same, with a weight among those who share the budget.
    pub fn upload_budget_weighted(mut self, budget: &Budget, weight: u32) -> RequestTask {
        self.options.budgets.push((Direction::Egress, budget.clone(), weight));
        self
    }

    /// Has it be seen how far its body has gone.
    pub fn upload_progress(mut self, progress: &UploadProgress) -> RequestTask {
        self.options.progress = Some(progress.clone());
        self
    }
}

impl Task for RequestTask {
    type Output = Result<Response, ClientError>;

    fn dispatch(mut self, done: Continuation<Self::Output>) {
        let client = self.client.take().unwrap_or_else(|| {
            let runtime = done.runtime().clone();
            runtime
                .extension::<Shared>()
                .0
                .get_or_init(|| Client::new(&runtime, ClientSettings::default()))
                .clone()
        });
        match (self.fault, &self.url) {
            (Some(fault), _) => done.complete(Err(ClientError::Request(fault))),
            (None, Err(error)) => {
                let error = ClientError::Url(error.clone());
                done.complete(Err(error));
            }
            (None, Ok(_)) => client.start(self, done),
        }
    }
}

/// The client that a runtime keeps.
#[derive(Default)]
struct Shared(OnceLock<Client>);

impl fmt::Debug for RequestTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_ref().map(Url::to_string);
        f.debug_struct("RequestTask").field("method", &self.method).field("url", &url).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn can_be_sent(&self) -> bool {
        !matches!(self, Upload::Sent)
    }

    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Upload::Empty | Upload::Sent => Some(0),
            Upload::Static(bytes) => Some(bytes.len() as u64),
            Upload::Shared(bytes) => Some(bytes.len() as u64),
            Upload::File { len, .. } => Some(*len),
            Upload::Stream(stream) => stream.len(),
        }
    }

    pub(super) fn framing(&self) -> Framing {
        self.len().map_or(Framing::Chunked, Framing::Length)
    }
}

impl From<Body> for Upload {
    fn from(body: Body) -> Upload {
        match body {
            Body::Empty => Upload::Empty,
            Body::Static(bytes) => Upload::Static(bytes),
            Body::Bytes(bytes) => Upload::Shared(bytes.into()),
            Body::Page { bytes, .. } => Upload::Shared(bytes),
            Body::Part { bytes, range } => Upload::Shared(bytes[range].into()),
            Body::File { file, offset, len, .. } => Upload::File { file, offset, len },
            Body::Stream(stream) => Upload::Stream(stream),
        }
    }
}

/// What the client says itself, or what makes no sense in a request of ours.
const RESERVED: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::EXPECT,
];

/// Writes the head of a request.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    (method, url, headers, body): (&Method, &Url, &HeaderMap, &Upload),
    proxy: Option<&Proxy>,
    user_agent: &str,
    accept_encoding: Option<&str>,
    expects_continue: bool,
) {
    // Writing to a Vec cannot fail.
    let _ = match proxy {
        // RFC 9112, section 3.2.2.
        Some(_) => write!(out, "{method} {} HTTP/1.1\r\n", url),
        None => write!(out, "{method} {} HTTP/1.1\r\n", url.target()),
    };
    match headers.get(header::HOST) {
        Some(host) => field(out, "Host", host.as_bytes()),
        None => field(out, "Host", url.authority().as_bytes()),
    }
    if !headers.contains_key(header::USER_AGENT) && !user_agent.is_empty() {
        field(out, "User-Agent", user_agent.as_bytes());
    }
    if !headers.contains_key(header::ACCEPT) {
        field(out, "Accept", b"*/*");
    }
    if let Some(codings) = accept_encoding {
        field(out, "Accept-Encoding", codings.as_bytes());
    }
    if let (Some((name, password)), false) = (url.user(), headers.contains_key(header::AUTHORIZATION)) {
        field(out, "Authorization", basic(name, password).as_bytes());
    }
    if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization.as_ref()) {
        field(out, "Proxy-Authorization", authorization.as_bytes());
    }
    for (name, value) in headers {
        if *name != header::HOST && !RESERVED.contains(name) {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    match body.framing() {
        // RFC 9110, section 8.6: nobody expects a body of the other methods.
        Framing::Length(0) if !matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {}
        Framing::Length(length) => field(out, "Content-Length", length.to_string().as_bytes()),
        Framing::Chunked | Framing::UntilClose => field(out, "Transfer-Encoding", b"chunked"),
    }
    if expects_continue {
        field(out, "Expect", b"100-continue");
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(task: &RequestTask, proxy: Option<&Proxy>) -> String {
        let mut out = Vec::new();
        let parts = (&task.method, task.url.as_ref().unwrap(), &task.headers, &task.body);
        write_head(&mut out, parts, proxy, "us", Some("gzip"), false);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads() {
        let task =
            get("http://x:81/a?b").header("X-A", "1").header("Connection", "x").header("Content-Length", "9");
        assert_eq!(
            head(&task, None),
            "GET /a?b HTTP/1.1\r\nHost: x:81\r\nUser-Agent: us\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nx-a: 1\r\n\r\n"
        );
        let task = post("http://u:p@x/", "hello")
            .header("Host", "y")
            .header("Accept", "a/b")
            .header("User-Agent", "me");
        let proxy = Proxy { host: "p".into(), port: 1, authorization: Some("Basic eA==".into()) };
        assert_eq!(
            head(&task, Some(&proxy)),
            "POST http://x/ HTTP/1.1\r\nHost: y\r\nAccept-Encoding: gzip\r\nAuthorization: Basic dTpw\r\n\
             Proxy-Authorization: Basic eA==\r\naccept: a/b\r\nuser-agent: me\r\nContent-Length: 5\r\n\r\n"
        );
        assert!(head(&post("http://x/", ""), None).contains("Content-Length: 0\r\n"));
        assert!(!head(&request(Method::DELETE, "http://x/"), None).contains("Length"));
    }

    #[test]
    fn what_cannot_be_sent_is_found() {
        assert!(get("http://x/").header("a b", "c").fault.is_some());
        assert!(get("http://x/").header("a", "b\r\nc: d").fault.is_some());
        assert!(get("x").url.is_err());
        assert!(request(Method::CONNECT, "http://x/").fault.is_some());
    }
}
