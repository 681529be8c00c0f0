//! What answers requests.

use std::sync::Arc;
use std::time::SystemTime;

use crate::http::reply::Reply;
use crate::http::request::Request;

/// Answers requests; lives on one poller's thread.
pub trait Handler {
    /// Answers a request, or says how it can be answered off the poller. Must not block. `now` is the wall clock.
    fn answer(&self, request: &Arc<Request>, now: SystemTime) -> Answer;
}

/// What a handler says at once.
pub enum Answer {
    /// The reply.
    Reply(Reply),
    /// A job that makes it, and may block.
    Later(Box<dyn FnOnce() -> Reply + Send>),
}
