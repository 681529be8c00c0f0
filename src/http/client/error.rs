//! Why a request has no response.

use std::fmt;
use std::io;

use tidegate_poller::Reason;

use super::proxy::BadProxy;
use super::url::BadUrl;
use crate::http::codec::response::Fault;
use crate::http::{BodyError, StatusCode};
use crate::net::Waited;

/// Why a request has no response. A request that is cancelled has no error: nothing comes of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL cannot be read.
    Url(BadUrl),
    /// The request cannot be said in HTTP/1.1: a field's name or value, a body that was sent already.
    Request(&'static str),
    /// What should name the proxy of this URL names none that can be used. Nothing was sent.
    BadProxy(BadProxy),
    /// The host's name could not be resolved.
    Resolve(io::Error),
    /// No connection: none of the host's addresses let us in. The reason is that of the last one's record.
    Connect(Reason),
    /// TLS could not be agreed on, or the server is not who it should be.
    Tls(String),
    /// The proxy would not connect us.
    Proxy(StatusCode),
    /// Too late, and for what.
    Timeout(Waited),
    /// Too many requests wait for a connection to this endpoint already.
    QueueFull,
    /// The connection ended before the response was whole. The reason is that of its record.
    Closed(Reason),
    /// What came is no response.
    Malformed(Fault),
    /// The body has more bytes than are taken, decoded or not.
    BodyTooLarge {
        /// How many are.
        max_bytes: u64,
    },
    /// The body is not in the content coding that it says.
    Coding(&'static str),
    /// A redirect leads nowhere we can go; which.
    Redirect(String),
    /// More redirects than are followed, or in a circle.
    TooManyRedirects,
    /// The body to send failed underneath: a file got shorter, whoever wrote the stream gave it up.
    Body,
    /// The runtime is shutting down.
    ShuttingDown,
}

impl ClientError {
    /// Whether the same request may well succeed a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            ClientError::Timeout(waited) => *waited != Waited::Total,
            ClientError::Resolve(_) | ClientError::Connect(_) | ClientError::Closed(_) => true,
            ClientError::Proxy(status) => status.is_server_error(),
            _ => false,
        }
    }

    /// What whoever reads the body as a stream is told.
    pub(super) fn as_body_error(&self) -> BodyError {
        match self {
            ClientError::Timeout(_) => BodyError::TimedOut,
            ClientError::Malformed(_) | ClientError::Coding(_) => BodyError::Malformed,
            ClientError::BodyTooLarge { max_bytes } => BodyError::TooLarge { max_bytes: *max_bytes },
            _ => BodyError::Disconnected,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Url(error) => write!(f, "the URL is no good: {error}"),
            ClientError::Request(why) => write!(f, "the request cannot be sent: {why}"),
            ClientError::BadProxy(error) => write!(f, "the proxy cannot be used: {error}"),
            ClientError::Resolve(error) => write!(f, "the name could not be resolved: {error}"),
            ClientError::Connect(Reason::ConnectFailed) => {
                f.write_str("cannot connect: it was refused, or there is no way there")
            }
            ClientError::Connect(reason) => write!(f, "cannot connect: {}", reason.as_str()),
            ClientError::Tls(why) => write!(f, "TLS failed: {why}"),
            ClientError::Proxy(status) => write!(f, "the proxy would not connect us: {status}"),
            ClientError::Timeout(waited) => write!(f, "timed out waiting for {waited}"),
            ClientError::QueueFull => f.write_str("too many requests wait for a connection"),
            ClientError::Closed(reason) => {
                write!(f, "the connection ended before the response was whole: {}", reason.as_str())
            }
            ClientError::Malformed(fault) => write!(f, "the response is malformed: {fault}"),
            ClientError::BodyTooLarge { max_bytes } => write!(f, "the body has more than {max_bytes} bytes"),
            ClientError::Coding(coding) => write!(f, "the body is not the {coding} it says it is"),
            ClientError::Redirect(why) => write!(f, "a redirect leads nowhere: {why}"),
            ClientError::TooManyRedirects => f.write_str("too many redirects, or in a circle"),
            ClientError::Body => f.write_str("the body to send could not be made"),
            ClientError::ShuttingDown => f.write_str("the runtime is shutting down"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClientError::Url(error) => Some(error),
            ClientError::BadProxy(error) => Some(error),
            ClientError::Resolve(error) => Some(error),
            ClientError::Malformed(fault) => Some(fault),
            _ => None,
        }
    }
}
