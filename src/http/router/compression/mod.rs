//! Replies in fewer bytes: by zstd, brotli or gzip, whatever the client likes.
//!
//! It runs after the handler, on a reply that is there, and puts an encoder before its body. The poller pays for it in
//! parts of a bounded size; files are encoded on other threads. As many encoders as are at work at a time hold memory, so
//! they are bounded: a reply beyond that goes as it is.

mod encoder;
mod source;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use self::encoder::Encoder;
use super::Routes;
use crate::http::codec::coding::{Coding, accepted, gets_smaller};
use crate::http::{Body, ExchangeContext, Reply, StatusCode, header};

/// What is encoded, and how much of it at a time. Clones share their count.
#[derive(Clone)]
pub struct Compression {
    min_bytes: u64,
    event_streams: bool,
    at_work: Arc<AtWork>,
}

/// The encoders at work.
struct AtWork {
    count: AtomicUsize,
    max: usize,
    /// Replies that went as they are, because there were too many.
    refused: AtomicU64,
}

/// Below this, what is saved is not worth the look-up and the fields.
const MIN_BYTES: u64 = 512;
/// A body in memory up to this size is encoded at once, and then has a length; it takes some 0.3 ms.
const AT_ONCE_MAX: u64 = 16 * 1024;
/// Each holds 0.3 to 1.5 MB.
const AT_WORK_MAX: usize = 256;

impl Compression {
    /// Encodes bodies of at least 512 bytes whose type gets smaller by it, by at most 256 encoders at a time.
    pub fn new() -> Compression {
        Compression {
            min_bytes: MIN_BYTES,
            event_streams: false,
            at_work: Arc::new(AtWork::new(AT_WORK_MAX)),
        }
    }

    /// Leaves smaller bodies as they are.
    #[must_use]
    pub fn min_bytes(mut self, min_bytes: u64) -> Compression {
        self.min_bytes = min_bytes;
        self
    }

    /// Has at most so many encoders at work at a time: a reply beyond goes as it is.
    #[must_use]
    pub fn max_encoders(mut self, max: usize) -> Compression {
        self.at_work = Arc::new(AtWork::new(max));
        self
    }

    /// Encodes event streams, too. Each event is flushed, so that it comes in time; proxies on the way may hold it back.
    #[must_use]
    pub fn event_streams(mut self) -> Compression {
        self.event_streams = true;
        self
    }

    /// How many replies went as they are because too many encoders were at work.
    pub fn refused(&self) -> u64 {
        self.at_work.refused.load(Ordering::Relaxed)
    }

    /// Encodes the reply of an exchange, if the client and the reply are for it.
    pub fn apply(&self, context: &mut ExchangeContext) {
        if !self.may_encode(&context.reply) {
            return;
        }
        // Whether it is encoded or not: another client may get the other.
        vary(&mut context.reply);
        if context.reply.status == StatusCode::NOT_MODIFIED
            || context.reply.body.len().is_some_and(|len| len < self.min_bytes)
        {
            return;
        }
        let Some(coding) = accepted(context.request()).next() else { return };
        let Some(permit) = Permit::take(&self.at_work) else { return };
        let reply = &mut context.reply;
        match encode(std::mem::take(&mut reply.body), coding, permit) {
            Ok(body) => reply.body = body,
            Err(error) => {
                log::error!("a reply cannot be encoded: {error}");
                *reply = Reply::error(StatusCode::INTERNAL_SERVER_ERROR);
                return;
            }
        }
        reply.headers.add("Content-Encoding", coding.name());
        // What was said of the bytes does not hold for these: ranges are of the others, and so is a strong tag.
        reply.headers.remove(header::ACCEPT_RANGES);
        let tag = reply.headers.get(header::ETAG).map(|tag| String::from_utf8_lossy(tag).into_owned());
        if let Some(tag) = tag.filter(|tag| !tag.starts_with("W/")) {
            reply.headers.set("ETag", format_args!("W/{tag}"));
        }
    }

    /// Whether what a reply carries may come in another coding.
    fn may_encode(&self, reply: &Reply) -> bool {
        let fields = &reply.headers;
        match reply.status {
            // It has no type; what it stands for may be encoded for somebody else.
            StatusCode::NOT_MODIFIED => return true,
            StatusCode::PARTIAL_CONTENT | StatusCode::NO_CONTENT => return false,
            _ => {}
        }
        let media = fields.get(header::CONTENT_TYPE).unwrap_or_default();
        let events = media
            .trim_ascii_start()
            .get(..17)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"));
        let says_no_transform = fields.get(header::CACHE_CONTROL).is_some_and(|value| {
            value.split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
        });
        (self.event_streams || !events)
            && gets_smaller(media)
            && !says_no_transform
            && fields.get(header::CONTENT_ENCODING).is_none()
            && fields.get(header::CONTENT_RANGE).is_none()
            && reply.body.len() != Some(0)
    }
}

/// With the feature `compression`.
impl Routes<'_> {
    /// Encodes the replies of the group. It runs [after](Routes::after) what was said before it.
    pub fn compress(&mut self, compression: Compression) {
        self.after(move |context| compression.apply(context));
    }
}

fn encode(body: Body, coding: Coding, permit: Permit) -> std::io::Result<Body> {
    let bytes = match &body {
        Body::Static(bytes) => *bytes,
        Body::Bytes(bytes) => bytes.as_slice(),
        Body::Page { bytes, .. } => bytes,
        Body::Part { bytes, range } => &bytes[range.clone()],
        _ => return source::encoded(body, coding, permit).map(Body::Stream),
    };
    if bytes.len() as u64 > AT_ONCE_MAX {
        return source::encoded(body, coding, permit).map(Body::Stream);
    }
    let mut encoder = Encoder::new(coding)?;
    encoder.write(bytes)?;
    encoder.finish().map(Body::Bytes)
}

fn vary(reply: &mut Reply) {
    let said = reply.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("vary"));
    let is_said = said.flat_map(|(_, value)| value.split(|&b| b == b',')).any(|item| {
        let item = item.trim_ascii();
        item == b"*" || item.eq_ignore_ascii_case(b"accept-encoding")
    });
    if !is_said {
        reply.headers.add("Vary", "Accept-Encoding");
    }
}

/// A place among the encoders at work, given back when it is dropped.
struct Permit(Arc<AtWork>);

impl AtWork {
    fn new(max: usize) -> AtWork {
        AtWork { count: AtomicUsize::new(0), max, refused: AtomicU64::new(0) }
    }
}

impl Permit {
    fn take(at_work: &Arc<AtWork>) -> Option<Permit> {
        let more = |count| (count < at_work.max).then_some(count + 1);
        match at_work.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Some(Permit(at_work.clone())),
            Err(_) => {
                at_work.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Compression {
    fn default() -> Compression {
        Compression::new()
    }
}

impl fmt::Debug for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compression").field("min_bytes", &self.min_bytes).finish_non_exhaustive()
    }
}
