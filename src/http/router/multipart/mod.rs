//! Forms with files (`multipart/form-data`, RFC 7578), the files streamed to disk.
//!
//! A form is received by a task, whose future is polled on the computing threads: it takes a part of the body, writes it to
//! disk off the pollers, and only then takes the next, so that a form of any size needs little memory, and a slow disk
//! slows the client. Names, counts and sizes are bounded. The syntax is the crate `multer`'s.

mod chunks;
mod file;

use std::path::PathBuf;

use multer::{Constraints, Field, Multipart};

use self::chunks::{Allowance, Chunks};
pub use self::file::UploadedFile;
use self::file::Writing;
use super::HttpError;
use crate::http::body::{BodyError, Held, RequestBody, WholeBody};
use crate::http::{ExchangeContext, StatusCode};
use crate::runtime::RuntimeHandle;
use crate::task::{BoxTask, TaskExt as _, future};

/// How forms with files are received: where the files go, and what is taken.
///
/// ```no_run
/// use tidegate::http::router::{HttpError, Router, Uploads};
///
/// let uploads = Uploads::to_folder("/var/lib/photos").max_file_bytes(10_000_000).max_files(3);
/// let router = Router::build(|routes| {
///     routes
///         .post("/photos", move |exchange| {
///             let form = uploads.receive(&mut exchange.context)?;
///             exchange.push(form, |form, exchange| {
///                 for photo in form?.files {
///                     // A name of our own: the client's may be anything.
///                     let path = photo.path().with_extension("jpg");
///                     exchange.push(photo.keep_as(path), |kept, _| Ok(kept??));
///                 }
///                 Ok(())
///             });
///             Ok::<_, HttpError>(())
///         })
///         .stream(40_000_000);
/// })?;
/// # Ok::<(), tidegate::http::router::RouteError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Uploads {
    folder: PathBuf,
    max_parts: usize,
    max_files: usize,
    max_file_bytes: u64,
    max_text_bytes: usize,
}

/// A form that has come: its texts, and its files on disk. The texts count among the server's
/// [whole bodies](crate::http::ServerSettings::max_whole_bytes) as long as this is there.
#[derive(Debug, Default)]
pub struct Form {
    /// Name and value of each part that is no file, in order.
    pub texts: Vec<(String, String)>,
    /// The files, in order. One that is dropped is removed.
    pub files: Vec<UploadedFile>,
    /// What counts the texts.
    held: Held,
}

/// What the names of a part may have. Longer than any file's name on Linux.
const NAME_BYTES_MAX: usize = 255;

impl Uploads {
    /// Files go into this folder, under names that nobody can guess. Parts: at most 100, of them 20 files of at most
    /// 64 MiB each; texts of at most 1 MiB together. All of it also has to fit what the route takes.
    pub fn to_folder(folder: impl Into<PathBuf>) -> Uploads {
        Uploads {
            folder: folder.into(),
            max_parts: 100,
            max_files: 20,
            max_file_bytes: 64 << 20,
            max_text_bytes: 1 << 20,
        }
    }

    /// Takes at most so many parts, files included; more are 413.
    #[must_use]
    pub fn max_parts(self, max_parts: usize) -> Uploads {
        Uploads { max_parts, ..self }
    }

    /// Takes at most so many files; more are 413.
    #[must_use]
    pub fn max_files(self, max_files: usize) -> Uploads {
        Uploads { max_files, ..self }
    }

    /// Takes files of at most so many bytes each; a larger one is 413.
    #[must_use]
    pub fn max_file_bytes(self, max_file_bytes: u64) -> Uploads {
        Uploads { max_file_bytes, ..self }
    }

    /// Takes texts of at most so many bytes together, their names included; more are 413.
    #[must_use]
    pub fn max_text_bytes(self, max_text_bytes: usize) -> Uploads {
        Uploads { max_text_bytes, ..self }
    }

    /// Makes the task that receives the form of a request; to be called by its handler, whose route takes bodies as a
    /// [stream](super::Route::stream). 415 where the body is no such form. What goes wrong with it later is an
    /// [`HttpError`], too, for `?` in the task's callback; whatever ends it, files that were begun are removed.
    pub fn receive(
        &self,
        context: &mut ExchangeContext,
    ) -> Result<BoxTask<Result<Form, HttpError>>, HttpError> {
        let media =
            context.request().header("content-type").and_then(|value| std::str::from_utf8(value).ok());
        let boundary = multer::parse_boundary(media.unwrap_or_default()).map_err(|_| {
            let said = "A form with a boundary, of type multipart/form-data, is taken here.";
            HttpError::explained(StatusCode::UNSUPPORTED_MEDIA_TYPE, said)
        })?;
        let runtime = RuntimeHandle::of_poller().ok_or(HttpError::new(StatusCode::SERVICE_UNAVAILABLE))?;
        let body = std::mem::take(&mut context.body);
        let form = Form { held: Held::none_of(body.room().cloned()), ..Form::default() };
        let receiver = Receiver { uploads: self.clone(), form, text_bytes: 0, runtime };
        Ok(future(receiver.receive(body, boundary)).boxed())
    }
}

impl Form {
    /// The value of the first text of this name.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The first file of this name.
    pub fn file(&self, name: &str) -> Option<&UploadedFile> {
        self.files.iter().find(|file| file.name() == name)
    }
}

/// A form under way.
struct Receiver {
    uploads: Uploads,
    form: Form,
    text_bytes: usize,
    runtime: RuntimeHandle,
}

impl Receiver {
    async fn receive(mut self, body: RequestBody, boundary: String) -> Result<Form, HttpError> {
        let allowance = Allowance::default();
        let chunks = Chunks::new(body, self.runtime.clone(), allowance.clone());
        let mut parts = Multipart::with_constraints(chunks, boundary, Constraints::new());
        loop {
            // The parser keeps a head until all of it is there.
            allowance.limit();
            let Some(part) = parts.next_field().await.map_err(refusal)? else { return Ok(self.form) };
            allowance.lift();
            if self.form.texts.len() + self.form.files.len() == self.uploads.max_parts {
                return Err(too_large(format!("The form has more than {} parts.", self.uploads.max_parts)));
            }
            let name = bounded(part.name().unwrap_or_default())?;
            match part.file_name().map(bounded).transpose()? {
                Some(file_name) => self.file(name, file_name, part).await?,
                None => self.text(name, part).await?,
            }
        }
    }

    async fn text(&mut self, name: String, mut part: Field<'_>) -> Result<(), HttpError> {
        let mut value = WholeBody::none_of(self.form.held.room().cloned());
        self.text_bytes += name.len();
        while let Some(bytes) = part.chunk().await.map_err(refusal)? {
            self.text_bytes += bytes.len();
            if self.text_bytes > self.uploads.max_text_bytes {
                let most = self.uploads.max_text_bytes;
                return Err(too_large(format!("The texts of the form have more than {most} bytes.")));
            }
            value.push(&bytes, self.uploads.max_text_bytes as u64)?;
        }
        let (value, held) = value.into_parts();
        self.form.held.join(held);
        let value = String::from_utf8(value)
            .map_err(|_| HttpError::bad_request(format!("{name} in the form: it is not UTF-8")))?;
        self.form.texts.push((name, value));
        Ok(())
    }

    async fn file(&mut self, name: String, file_name: String, mut part: Field<'_>) -> Result<(), HttpError> {
        if self.form.files.len() == self.uploads.max_files {
            return Err(too_large(format!("The form has more than {} files.", self.uploads.max_files)));
        }
        let media = part.content_type().map(ToString::to_string);
        let folder = self.uploads.folder.clone();
        let mut writing = Writing::create(folder, &self.runtime, name, file_name, media).await?;
        while let Some(bytes) = part.chunk().await.map_err(refusal)? {
            if writing.bytes() + bytes.len() as u64 > self.uploads.max_file_bytes {
                let most = self.uploads.max_file_bytes;
                return Err(too_large(format!("A file of the form has more than {most} bytes.")));
            }
            writing.write(&bytes).await?;
        }
        self.form.files.push(writing.finish().await?);
        Ok(())
    }
}

fn bounded(name: &str) -> Result<String, HttpError> {
    if name.len() > NAME_BYTES_MAX {
        let said = format!("A name in the form has more than {NAME_BYTES_MAX} bytes.");
        return Err(HttpError::bad_request(said));
    }
    Ok(name.to_owned())
}

fn too_large(advice: String) -> HttpError {
    HttpError::explained(StatusCode::PAYLOAD_TOO_LARGE, advice)
}

fn refusal(error: multer::Error) -> HttpError {
    match error {
        multer::Error::StreamReadFailed(why) => match why.downcast::<BodyError>() {
            Ok(why) => HttpError::from(*why),
            Err(why) => HttpError::bad_request(format!("The form: {why}")),
        },
        other => HttpError::bad_request(format!("The form: {other}")),
    }
}
