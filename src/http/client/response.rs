//! What comes of a request.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::url::Url;
use crate::http::codec::response::Head;
use crate::http::{BodyReader, Fields, HeaderMap, StatusCode, Version};
use crate::record::ExchangeRecord;

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status. A response with an error status is a response.
    pub status: StatusCode,
    /// The version the server speaks.
    pub version: Version,
    /// The fields of its head. Where a content coding was taken away, Content-Encoding and Content-Length are, too.
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: Url,
    /// The body.
    pub body: ResponseBody,
    /// The fields that followed a body taken whole; those of a stream are its reader's.
    pub trailers: Option<Fields>,
    /// Redirects that were followed.
    pub redirects: u32,
    /// Attempts before that failed.
    pub retries: u32,
    /// From the start of the task to that of the exchange this is the response to.
    pub elapsed_before: Duration,
    pub(super) record: RecordSlot,
}

/// The body of a response.
#[derive(Debug)]
pub enum ResponseBody {
    /// All of it.
    Whole(Vec<u8>),
    /// To be read while it arrives. Dropped early, it closes the connection.
    Stream(BodyReader),
}

/// Where the record of an exchange appears once that has ended.
#[derive(Clone, Default)]
pub(super) struct RecordSlot(Arc<OnceLock<Arc<ExchangeRecord>>>);

impl Response {
    pub(super) fn new(head: Head, url: Url, body: ResponseBody, record: RecordSlot) -> Response {
        Response {
            status: head.status,
            version: head.version,
            headers: head.headers,
            url,
            body,
            trailers: None,
            redirects: 0,
            retries: 0,
            elapsed_before: Duration::ZERO,
            record,
        }
    }

    /// The record of the exchange: its sizes, its times, how it ended. Where the body is read as a stream it is there once
    /// the stream has ended.
    pub fn record(&self) -> Option<&Arc<ExchangeRecord>> {
        self.record.0.get()
    }

    /// The bytes of a body that was taken whole; none of a stream's.
    pub fn bytes(&self) -> &[u8] {
        match &self.body {
            ResponseBody::Whole(bytes) => bytes,
            ResponseBody::Stream(_) => &[],
        }
    }

    /// The same, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.body {
            ResponseBody::Whole(bytes) => bytes,
            ResponseBody::Stream(_) => Vec::new(),
        }
    }

    /// The same, read as JSON.
    ///
    /// # Errors
    /// It is not JSON, or not of this type; or the body is a stream, which is empty here.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.bytes())
    }

    /// The same as text; what is no UTF-8 becomes U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

impl RecordSlot {
    pub(super) fn fill(&self, record: Arc<ExchangeRecord>) {
        // The first one counts; there is no other.
        let _ = self.0.set(record);
    }
}

impl fmt::Debug for RecordSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordSlot").field(&self.0.get().is_some()).finish()
    }
}
