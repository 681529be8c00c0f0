//! Requests for streams of events, and the head of their replies.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::http::codec::target::Target;
use crate::http::{Reply, Request, StatusCode, StreamBody};

/// The last event that a client has: its `Last-Event-ID`, or else the parameter `lastEventId` of the query. Empty ones are
/// none.
pub fn last_event_id(request: &Request) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let field = request.header("last-event-id").map(text);
    let given = field.or_else(|| {
        let query = Target::parse(request.target()).ok()?.query()?;
        let mut pairs = query.split(|&b| b == b'&');
        let value = pairs.find_map(|pair| pair.strip_prefix(b"lastEventId="))?;
        let value: Cow<'_, [u8]> = match value.contains(&b'+') {
            true => value.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect::<Vec<u8>>().into(),
            false => value.into(),
        };
        Some(text(&percent_decode(&value).collect::<Vec<u8>>()))
    });
    given.filter(|id| !id.is_empty())
}

/// The reply that a stream of events is the body of. No cache keeps it, and nginx, which would gather it first, sends it on
/// at once.
pub(super) fn stream_reply(body: StreamBody) -> Reply {
    Reply::new(StatusCode::OK)
        .header("Content-Type", "text/event-stream")
        .header("Cache-Control", "no-cache")
        .header("X-Accel-Buffering", "no")
        .body(body)
}
