//! Why a request has no reply.

use std::fmt;
use std::io;

use tidegate_poller::Reason;

use super::codec::Malformed;
use crate::net::Waited;

/// Why a request has no reply. A request that is cancelled has no error: nothing comes of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The host's name could not be resolved.
    Resolve(io::Error),
    /// No connection: none of the addresses let us in. The reason is that of the last one's record.
    Connect(Reason),
    /// Too late, and for what.
    Timeout(Waited),
    /// Too many requests wait for a connection to this endpoint already.
    QueueFull,
    /// The connection ended before the reply was whole. The reason is that of its record.
    Closed(Reason),
    /// What came is not the protocol.
    Malformed(Malformed),
    /// The reply is longer than it may be.
    TooLong,
    /// The codec cannot express the request.
    Encode(Malformed),
    /// The runtime is shutting down.
    ShuttingDown,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Resolve(error) => write!(f, "the name could not be resolved: {error}"),
            ClientError::Connect(reason) => write!(f, "cannot connect: {}", reason.as_str()),
            ClientError::Timeout(waited) => write!(f, "timed out waiting for {waited}"),
            ClientError::QueueFull => f.write_str("too many requests wait for a connection"),
            ClientError::Closed(reason) => {
                write!(f, "the connection ended before the reply was whole: {}", reason.as_str())
            }
            ClientError::Malformed(error) => write!(f, "the reply is malformed: {error}"),
            ClientError::TooLong => f.write_str("the reply is too long"),
            ClientError::Encode(error) => write!(f, "the request cannot be sent: {error}"),
            ClientError::ShuttingDown => f.write_str("the runtime is shutting down"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClientError::Resolve(error) => Some(error),
            ClientError::Malformed(error) | ClientError::Encode(error) => Some(error),
            _ => None,
        }
    }
}
