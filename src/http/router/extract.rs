//! What a request says, as values.
//!
//! Each of these reads one part of a request. What cannot be read is an [`HttpError`] with a line that names it: 400 for the
//! path, the query and fields, 415 for a body of another media type, 422 for a body that is well-formed and says the wrong
//! thing.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use form_urlencoded::Serializer;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::{Cookies, HttpError};
#[cfg(feature = "json")]
use crate::http::Reply;
use crate::http::body::RequestBody;
use crate::http::codec::target::split;
use crate::http::{ExchangeContext, StatusCode};

/// With the feature `router`: what the request says, and what is answered instead of what was asked for.
impl ExchangeContext {
    /// A parameter of the path, its escapes undone.
    ///
    /// It may hold any character, slashes that were escaped and dots included: it is no safe file name. A name that the
    /// route does not have is an error of the program, and answered with 500.
    ///
    /// # Errors
    /// 400 where it is no `T`.
    pub fn path<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, HttpError> {
        let Some(written) = self.matched.parameters.as_ref().and_then(|parameters| parameters.get(name))
        else {
            log::error!("the path has no parameter {name:?}");
            return Err(HttpError::new(StatusCode::INTERNAL_SERVER_ERROR));
        };
        let text = decoded(name, written)?;
        text.parse().map_err(|why| HttpError::bad_request(format!("{name} in the path: {why}")))
    }

    /// All parameters of the path, as a struct with fields of their names.
    ///
    /// # Errors
    /// 400 where one is not what its field takes, or is missing.
    pub fn path_as<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let mut pairs = Serializer::new(String::new());
        for (name, written) in self.matched.parameters.iter().flat_map(|parameters| parameters.iter()) {
            pairs.append_pair(name, &decoded(name, written)?);
        }
        let wrong = |why| HttpError::bad_request(format!("the path: {why}"));
        urlencoded(pairs.finish().as_bytes()).map_err(wrong)
    }

    /// What stands after the `?`, as a struct. A field that may be absent is an `Option`, one that may come often a `Vec`.
    ///
    /// # Errors
    /// 400 where it is not what its field takes, or is missing.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        let (_, query) = split(self.request().target()).map_err(HttpError::bad_request)?;
        let wrong = |why| HttpError::bad_request(format!("the query: {why}"));
        urlencoded(query.unwrap_or_default()).map_err(wrong)
    }

    /// A field of the request, if there is one: the first of this name.
    ///
    /// # Errors
    /// 400 where it is no `T`.
    pub fn header<T: FromStr<Err: Display>>(&self, name: impl AsRef<str>) -> Result<Option<T>, HttpError> {
        let name = name.as_ref();
        let Some(value) = self.request().header(name) else { return Ok(None) };
        let text = std::str::from_utf8(value);
        let text = text.map_err(|_| HttpError::bad_request(format!("the field {name}: it is not UTF-8")))?;
        match text.trim().parse() {
            Ok(value) => Ok(Some(value)),
            Err(why) => Err(HttpError::bad_request(format!("the field {name}: {why}"))),
        }
    }

    /// The cookies that the client sent.
    pub fn cookies(&self) -> Cookies<'_> {
        Cookies::of(self.request())
    }

    /// A form in the body (`application/x-www-form-urlencoded`), as a struct. The route takes bodies whole.
    ///
    /// # Errors
    /// 415 where the body is of another type, 422 where it is not what the fields take. 500 where the route takes a
    /// stream, which is an error of the program.
    pub fn form<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        self.expect_media(&["application/x-www-form-urlencoded"])?;
        urlencoded(self.whole_body()?).map_err(|why| unprocessable(format!("the form: {why}")))
    }

    /// JSON in the body (`application/json`, or any type that ends in `+json`), as any type. The route takes bodies whole.
    ///
    /// # Errors
    /// 415 where the body is of another type, 400 where it is no JSON, 422 where it is not what the type takes. 500
    /// where the route takes a stream, which is an error of the program.
    #[cfg(feature = "json")]
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        self.expect_media(&["application/json", "+json"])?;
        let mut json = serde_json::Deserializer::from_slice(self.whole_body()?);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let said = format!("the JSON: {}", named(&error));
            // What is no JSON is malformed; what is, and says something else, cannot be processed.
            match error.inner().is_data() {
                true => unprocessable(said),
                false => HttpError::bad_request(said),
            }
        })?;
        json.end().map_err(|error| HttpError::bad_request(format!("the JSON: {error}")))?;
        Ok(value)
    }

    /// Has the exchange answered with an error. What would still run before the handler does not, nor does the handler.
    pub fn refuse(&mut self, error: HttpError) {
        self.matched.refused = Some(Box::new(error));
    }

    /// The media type of the body, without its parameters, if it says one.
    pub fn media_type(&self) -> Option<&str> {
        let value = std::str::from_utf8(self.request().header("content-type")?).ok()?;
        value.split(';').next().map(str::trim).filter(|media| !media.is_empty())
    }

    /// 415 unless the body's type is one of these, or ends in one that starts with a plus.
    fn expect_media(&self, taken: &[&str]) -> Result<(), HttpError> {
        let media = self.media_type().unwrap_or("nothing").to_ascii_lowercase();
        let is_taken = taken.iter().any(|taken| match taken.starts_with('+') {
            true => media.ends_with(taken),
            false => media == *taken,
        });
        if is_taken {
            return Ok(());
        }
        let said = format!("The Content-Type is {media}; {} is taken here.", taken[0]);
        Err(HttpError::explained(StatusCode::UNSUPPORTED_MEDIA_TYPE, said))
    }

    fn whole_body(&self) -> Result<&[u8], HttpError> {
        if !matches!(self.matched.body, RequestBody::None) {
            log::error!("the body is read by what runs before the handler, which alone has it");
            return Err(HttpError::new(StatusCode::INTERNAL_SERVER_ERROR));
        }
        match &self.body {
            RequestBody::None => Ok(&[]),
            RequestBody::Whole(bytes) => Ok(bytes),
            RequestBody::Stream(_) => {
                log::error!("a route that takes its body as a stream cannot have it whole");
                Err(HttpError::new(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    }
}

/// A value as JSON, as an answer.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

#[cfg(feature = "json")]
impl<T: serde::Serialize> Json<T> {
    /// The reply that carries it; 500 where it cannot be written as JSON (a map whose keys are no text), and the log says
    /// why.
    pub fn into_reply(self) -> Reply {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => Reply::new(StatusCode::OK).header("Content-Type", "application/json").body(bytes),
            Err(error) => {
                log::error!("an answer cannot be written as JSON: {error}");
                Reply::error(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

#[cfg(feature = "json")]
impl<T: serde::Serialize> super::Answer for Json<T> {
    fn answer(self, context: &mut ExchangeContext) {
        context.reply = self.into_reply();
    }
}

fn decoded<'a>(name: &str, written: &'a str) -> Result<Cow<'a, str>, HttpError> {
    let decoded = percent_decode_str(written).decode_utf8();
    decoded.map_err(|_| HttpError::bad_request(format!("{name} in the path: it is not UTF-8")))
}

/// Names and values as a struct; else what is wrong with which.
fn urlencoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let pairs = serde_html_form::Deserializer::new(form_urlencoded::parse(bytes));
    serde_path_to_error::deserialize(pairs).map_err(|error| named(&error))
}

/// An error, and the place of it where there is one.
fn named<E: Display>(error: &serde_path_to_error::Error<E>) -> String {
    match error.path().iter().next() {
        Some(_) => format!("{}: {}", error.path(), error.inner()),
        None => error.inner().to_string(),
    }
}

fn unprocessable(advice: String) -> HttpError {
    HttpError::explained(StatusCode::UNPROCESSABLE_ENTITY, advice)
}
