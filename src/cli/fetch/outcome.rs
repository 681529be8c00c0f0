//! What became of a transfer, and the exit status that says so.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::http::client::{ClientError, Url};
use crate::http::{BodyError, StatusCode};
use crate::record::ExchangeRecord;

/// A transfer that is over.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) url: Url,
    /// Where it came from in the end.
    pub(super) effective: Option<Url>,
    pub(super) status: Option<StatusCode>,
    /// What it was written to.
    pub(super) file: Option<String>,
    /// Bytes that are there now.
    pub(super) bytes: u64,
    /// Of these, so many were there before.
    pub(super) resumed_from: u64,
    /// The record of the last exchange, if that came to an end.
    pub(super) record: Option<Arc<ExchangeRecord>>,
    pub(super) failure: Option<Failed>,
}

/// Why it failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) kind: Kind,
    pub(super) message: String,
    /// The body was cut: another try can go on there.
    pub(super) is_within_the_body: bool,
}

/// Kinds of failures. Their numbers are the program's exit statuses, which `--help` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Other = 1,
    Name = 3,
    Connect = 4,
    Tls = 5,
    Timeout = 6,
    Status = 7,
    Transfer = 8,
    File = 9,
    Interrupted = 130,
}

impl Kind {
    /// The word in JSON.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Other => "other",
            Kind::Name => "name",
            Kind::Connect => "connect",
            Kind::Tls => "tls",
            Kind::Timeout => "timeout",
            Kind::Status => "status",
            Kind::Transfer => "transfer",
            Kind::File => "file",
            Kind::Interrupted => "interrupted",
        }
    }

    pub(super) fn exit_status(self) -> u8 {
        self as u8
    }
}

impl Failed {
    pub(super) fn new(kind: Kind, message: impl fmt::Display) -> Failed {
        Failed { kind, message: message.to_string(), is_within_the_body: false }
    }

    pub(super) fn file(path: &Path, error: &io::Error) -> Failed {
        Failed::new(Kind::File, format_args!("{}: {error}", path.display()))
    }

    pub(super) fn status(status: StatusCode) -> Failed {
        Failed::new(Kind::Status, format_args!("the server answered {status}"))
    }

    /// The request has no response.
    pub(super) fn request(error: &ClientError) -> Failed {
        let kind = match error {
            ClientError::Resolve(_) => Kind::Name,
            ClientError::Connect(_) | ClientError::Proxy(_) | ClientError::BadProxy(_) => Kind::Connect,
            ClientError::Tls(_) => Kind::Tls,
            ClientError::Timeout(_) => Kind::Timeout,
            ClientError::Body => Kind::File,
            ClientError::Closed(_)
            | ClientError::Malformed(_)
            | ClientError::BodyTooLarge { .. }
            | ClientError::Coding(_)
            | ClientError::Redirect(_)
            | ClientError::TooManyRedirects => Kind::Transfer,
            ClientError::ShuttingDown => Kind::Interrupted,
            _ => Kind::Other,
        };
        Failed::new(kind, error)
    }

    /// The body did not come whole.
    pub(super) fn body(error: BodyError) -> Failed {
        let kind = if error == BodyError::TimedOut { Kind::Timeout } else { Kind::Transfer };
        Failed { is_within_the_body: true, ..Failed::new(kind, error) }
    }

    /// The body came whole, but not the file: so many bytes of so many are there.
    pub(super) fn of_another_size(came: u64, whole: u64) -> Failed {
        let failed = Failed::new(Kind::Transfer, format_args!("{came} bytes came of a file of {whole}"));
        Failed { is_within_the_body: true, ..failed }
    }

    /// The program or the runtime is stopping.
    pub(super) fn interrupted() -> Failed {
        Failed::new(Kind::Interrupted, "interrupted")
    }
}
