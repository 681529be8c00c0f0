//! Errors that are answers.

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::http::body::BodyError;
use crate::http::codec::fields::{FieldValue, Fields};
use crate::http::codec::status::{advice, phrase};
use crate::http::{Reply, StatusCode};
use crate::task::{self, Dropped};

/// What a handler answers instead of what was asked for: a status, a line for the person who reads it, and fields.
///
/// It is an [`Error`](std::error::Error), so that `?` gives it to whoever answers: a handler, a callback of a task, what
/// runs before a handler. The group's [page](super::Routes::errors) for it is sent.
#[derive(Debug)]
pub struct HttpError {
    status: StatusCode,
    advice: Cow<'static, str>,
    headers: Fields,
    /// A bound of the server was in the way.
    pub(super) denied: bool,
}

impl HttpError {
    /// An error with what there is to say of its status.
    pub fn new(status: StatusCode) -> HttpError {
        HttpError::explained(status, advice(status))
    }

    /// An error with a line of advice of its own.
    pub fn explained(status: StatusCode, advice: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError { status, advice: advice.into(), headers: Fields::default(), denied: false }
    }

    /// 400, with what is wrong.
    pub fn bad_request(advice: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::explained(StatusCode::BAD_REQUEST, advice)
    }

    /// With one more field in the reply.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<str>, value: impl FieldValue) -> HttpError {
        self.headers.add(name, value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The line of advice.
    pub fn advice(&self) -> &str {
        &self.advice
    }

    /// The fields that go with it; a page of one's own is given them, too.
    pub fn headers(&self) -> &Fields {
        &self.headers
    }

    /// The page that is sent where a group has none of its own: plain text.
    pub fn page(&self) -> Reply {
        Reply::explained(self.status, &self.advice)
    }

    /// The error that a page of the library says, without its words.
    pub(super) fn of_reply(reply: &Reply) -> HttpError {
        let mut error = HttpError::new(reply.status);
        for (name, value) in
            reply.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"))
        {
            error.headers.add(name, value);
        }
        error
    }

    /// Something went wrong that is nobody else's business: 500, and the log has more.
    fn internal(error: &dyn fmt::Display) -> HttpError {
        log::error!("a handler failed: {error}");
        HttpError::new(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<StatusCode> for HttpError {
    fn from(status: StatusCode) -> HttpError {
        HttpError::new(status)
    }
}

impl From<BodyError> for HttpError {
    fn from(error: BodyError) -> HttpError {
        let status = match error {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
            BodyError::Malformed | BodyError::Disconnected | BodyError::Abandoned => StatusCode::BAD_REQUEST,
            BodyError::NoRoom => {
                let busy = HttpError::new(StatusCode::SERVICE_UNAVAILABLE).header("Retry-After", 1);
                return HttpError { denied: true, ..busy };
            }
        };
        HttpError::explained(status, error.to_string())
    }
}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> HttpError {
        HttpError::internal(&error)
    }
}

impl From<Dropped> for HttpError {
    fn from(error: Dropped) -> HttpError {
        HttpError::internal(&error)
    }
}

/// An [`HttpError`] in a box is that error again, and one of a body is what becomes of it; any other is answered with 500,
/// and logged.
impl From<task::Error> for HttpError {
    fn from(error: task::Error) -> HttpError {
        match error.downcast::<HttpError>() {
            Ok(error) => *error,
            Err(error) => match error.downcast_ref::<BodyError>() {
                Some(error) => HttpError::from(*error),
                None => HttpError::internal(&error),
            },
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), phrase(self.status))?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, ": {}", self.advice) }
    }
}

impl std::error::Error for HttpError {}
