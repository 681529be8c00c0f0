//! The file server: a request in, a file, a page or an error out.
//!
//! A file whose path is in the kernel's cache is opened on the poller; anything that may go to the disk is opened,
//! and every directory is read, by a job off it. What is served: regular files below the root, and pages of
//! directories. What is not, and answers 404: names that start with a dot (save `/.well-known`), pipes, sockets,
//! devices, and links that lead out of the root.

mod cache;
pub mod conditional;
pub mod listing;
pub mod mime;
pub mod range;

use std::ffi::OsStr;
use std::fs::{self, File, FileType};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tidegate_poller::file::Root;
use tidegate_poller::offload::Full;

use crate::http::Method;
use crate::http::Reply;
use crate::http::StatusCode;
use crate::http::body::{Body, FileId, Intake};
use crate::http::codec::coding::{Coding, accepted, gets_smaller};
use crate::http::codec::request::Request;
use crate::http::codec::target::{Target, encode_path};
use crate::http::{Exchange, Handler};
use crate::task::blocking;
use cache::{Cache, FileVersion, Kept};
use conditional::{Validators, Verdict};
use listing::Entry;
use mime::MediaType;
use range::Asked;

/// Serves what is below a root.
#[derive(Clone, Debug)]
pub struct Files {
    root: Arc<Root>,
    /// Where the root is in the paths that are asked for: decoded, without slashes around it.
    folder: Arc<[u8]>,
    /// Shared by all pollers; locked for a look-up, never while the disk is asked.
    cache: Option<Arc<Mutex<Cache>>>,
    precompressed: bool,
    /// What is written in a roundabout way is not here.
    straight_only: bool,
}

impl Files {
    /// Serves what is below `root`.
    pub fn new(root: impl Into<Arc<Root>>) -> Files {
        Files {
            root: root.into(),
            folder: Arc::default(),
            cache: None,
            precompressed: false,
            straight_only: false,
        }
    }

    /// Has the root stand below a path: `/static` serves `/static/a` from `a`. What is not below it is 404.
    #[must_use]
    pub fn below(mut self, path: &str) -> Files {
        self.folder = path.trim_matches('/').as_bytes().into();
        self
    }

    /// Keeps files in memory that are asked for, so many bytes of them at most; of them, those that were asked for longest
    /// ago go first. Files of up to 1 MiB, or an eighth of the bound, are kept. Each is looked at on disk once a second at
    /// most, so that a file that has changed is served as it was for so long.
    ///
    /// For crowds of small files: it saves opening them. Large ones go by `sendfile` from the kernel's own cache, which
    /// needs no help.
    #[must_use]
    pub fn cached(mut self, max_bytes: u64) -> Files {
        self.cache = Some(Arc::new(Mutex::new(Cache::new(max_bytes, GOOD_FOR))));
        self
    }

    /// Looks for a file beside the one that is asked for which is that one in a coding the client likes: `a.js.zst`, `a.js.br`,
    /// `a.js.gz`. It has validators and ranges of its own. Where there is none, the look costs up to three system calls.
    #[must_use]
    pub fn precompressed(mut self) -> Files {
        self.precompressed = true;
        self
    }

    /// Answers 404 where dots, empty parts or escaped slashes would have to be resolved. Whoever chose this handler by the
    /// path as it was written would have been told of another file than is served: `/open/../closed/file` must not go around
    /// what guards `/closed`.
    #[cfg(feature = "router")]
    pub(in crate::http) fn straight_only(mut self) -> Files {
        self.straight_only = true;
        self
    }

    /// What it wants of the body of a request that it answers.
    pub(in crate::http) fn wants() -> Intake {
        Intake::Discard { max_bytes: BODY_MAX }
    }
}

impl From<Root> for Files {
    fn from(root: Root) -> Files {
        Files::new(root)
    }
}

/// How long what is in memory is served without a look at the disk.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The most of a request body that is read, to be thrown away.
const BODY_MAX: u64 = 64 * 1024;

impl Handler for Files {
    fn intake(&self, request: &Request) -> Intake {
        match *request.method() {
            Method::GET | Method::HEAD | Method::OPTIONS => Files::wants(),
            // Refused for its method, which says more than the size does of what would come.
            _ => Intake::Stream { max_bytes: u64::MAX },
        }
    }

    fn handle(&self, exchange: &mut Exchange) {
        let (request, now) = (exchange.context.request().clone(), exchange.context.system_time());
        match self.answer(&request, now, true) {
            Ok(reply) => exchange.context.reply = reply,
            Err(MayBlock) => {
                let files = self.clone();
                // Allowed to wait, it cannot say that it would have to.
                let job = move || files.answer(&request, now, false);
                exchange.push(blocking(job), |answered, exchange| {
                    exchange.context.reply = match answered {
                        Ok(Ok(reply)) => reply,
                        Ok(Err(MayBlock)) | Err(Full) => Reply::error(StatusCode::SERVICE_UNAVAILABLE),
                    };
                    Ok(())
                });
            }
        }
    }
}

/// The disk may have to be asked.
#[derive(Debug)]
struct MayBlock;

const METHODS: &str = "GET, HEAD, OPTIONS";
const INDEX: &[u8] = b"index.html";

impl Files {
    fn answer(&self, request: &Request, now: SystemTime, cached_only: bool) -> Result<Reply, MayBlock> {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Ok(Reply::new(StatusCode::NO_CONTENT).header("Allow", METHODS)),
            _ => return Ok(Reply::error(StatusCode::METHOD_NOT_ALLOWED).header("Allow", METHODS)),
        }
        let mut target = match Target::parse(request.target()) {
            Ok(target) => target,
            Err(why) => return Ok(Reply::explained(StatusCode::BAD_REQUEST, why)),
        };
        if self.straight_only && !target.is_straight()
            || target.is_hidden()
            || !target.strip_folder(&self.folder)
        {
            return Ok(Reply::error(StatusCode::NOT_FOUND));
        }
        match self.find(request, &target, now, cached_only) {
            Ok(Found::File(opened, media)) => Ok(self.file_reply(request, opened, media, now)),
            Ok(Found::Page(page)) => Ok(page_reply(page)),
            Ok(Found::Elsewhere) => Ok(self.redirect(&target)),
            Err(error) if cached_only && error.kind() == io::ErrorKind::WouldBlock => Err(MayBlock),
            Err(error) => Ok(Reply::error(status_of(&error, target.path()))),
        }
    }

    fn redirect(&self, target: &Target<'_>) -> Reply {
        let mut location = target.directory_location();
        if !self.folder.is_empty() {
            location = encode_path(&self.folder) + &location;
        }
        let said = format!("This is a directory: {location}");
        Reply::explained(StatusCode::MOVED_PERMANENTLY, &said).header("Location", location)
    }
}

enum Found {
    File(Opened, MediaType),
    /// A directory without an index.
    Page(String),
    /// A directory, asked for without the slash that makes links in it work.
    Elsewhere,
}

/// A regular file.
struct Opened {
    content: Content,
    version: FileVersion,
    coding: Option<Coding>,
}

/// What a file's reply carries.
enum Content {
    File(File),
    Kept(Kept),
}

impl Files {
    fn find(
        &self,
        request: &Request,
        target: &Target<'_>,
        now: SystemTime,
        cached_only: bool,
    ) -> io::Result<Found> {
        let index = target.names_directory().then(|| index_of(target.path()));
        let (path, media) = match &index {
            Some(index) => (index.as_slice(), MediaType::of(INDEX)),
            None => (target.path(), MediaType::of(target.path())),
        };
        if let Some(opened) = self.open_coded(request, path, media, now, cached_only)? {
            return Ok(Found::File(opened, media));
        }
        match self.open(path, now, cached_only) {
            Ok(Ok(opened)) => Ok(Found::File(opened, media)),
            Ok(Err(_)) if index.is_some() => self.list(target, cached_only),
            Ok(Err(kind)) if kind.is_dir() => Ok(Found::Elsewhere),
            Ok(Err(_)) => Err(io::ErrorKind::NotFound.into()),
            Err(error) if index.is_some() && error.kind() == io::ErrorKind::NotFound => {
                self.list(target, cached_only)
            }
            // A folder whose names may not be listed may still be entered, and have an index.
            Err(error) if index.is_none() && error.raw_os_error() == Some(libc::EACCES) => {
                match self.root.file(as_path(&index_of(path)), cached_only) {
                    Ok(_) => Ok(Found::Elsewhere),
                    Err(unknown) if unknown.kind() == io::ErrorKind::WouldBlock => Err(unknown),
                    Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The same file in a coding that the client likes, where there is one beside it.
    fn open_coded(
        &self,
        request: &Request,
        path: &[u8],
        media: MediaType,
        now: SystemTime,
        cached_only: bool,
    ) -> io::Result<Option<Opened>> {
        if !self.precompressed || !gets_smaller(media.essence().as_bytes()) {
            return Ok(None);
        }
        for coding in accepted(request) {
            match self.open(&[path, coding.extension().as_bytes()].concat(), now, cached_only) {
                Ok(Ok(opened)) => return Ok(Some(Opened { coding: Some(coding), ..opened })),
                Err(unknown) if unknown.kind() == io::ErrorKind::WouldBlock => return Err(unknown),
                // Whatever is wrong with it, the file itself is what was asked for.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Ok(None)
    }

    /// A regular file, from memory or open; or what else it is.
    fn open(&self, path: &[u8], now: SystemTime, cached_only: bool) -> io::Result<Result<Opened, FileType>> {
        if let Some(kept) = self.with_cache(|cache| cache.fresh(path, now)) {
            return Ok(Ok(Opened { version: kept.version, content: Content::Kept(kept), coding: None }));
        }
        let file = self.root.file(as_path(path), cached_only)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Err(metadata.file_type()));
        }
        let version = FileVersion::of(&metadata);
        let content = self.content(path, file, &version, now, cached_only)?;
        Ok(Ok(Opened { content, version, coding: None }))
    }

    /// A file that is open, or the same from memory. Reading it to keep it there may block.
    fn content(
        &self,
        path: &[u8],
        file: File,
        version: &FileVersion,
        now: SystemTime,
        cached_only: bool,
    ) -> io::Result<Content> {
        if let Some(kept) = self.with_cache(|cache| cache.same(path, version, now)) {
            return Ok(Content::Kept(kept));
        }
        if self.with_cache(|cache| cache.takes(version.length).then_some(())).is_none() {
            return Ok(Content::File(file));
        }
        if cached_only {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::new();
        // One more, so that one that has grown is noticed.
        (&file).take(version.length + 1).read_to_end(&mut bytes)?;
        // What was written to meanwhile is neither of both versions.
        if bytes.len() as u64 != version.length || FileVersion::of(&file.metadata()?) != *version {
            return Ok(Content::File(file));
        }
        let kept = self.with_cache(|cache| Some(cache.keep(path, bytes.into(), *version, now)));
        Ok(kept.map_or(Content::File(file), Content::Kept))
    }

    fn list(&self, target: &Target<'_>, cached_only: bool) -> io::Result<Found> {
        if cached_only {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let directory = self.root.file(as_path(target.path()), false)?;
        let (entries, truncated) = entries(&self.root, &directory, as_path(target.path()))?;
        Ok(Found::Page(listing::page(target.path(), entries, truncated)))
    }

    fn with_cache<R>(&self, look: impl FnOnce(&mut Cache) -> Option<R>) -> Option<R> {
        look(&mut self.cache.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn index_of(directory: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    [directory, slash, INDEX].concat()
}

/// The names in a directory that would be served.
fn entries(root: &Root, directory: &File, path: &Path) -> io::Result<(Vec<Entry>, bool)> {
    // By descriptor: the path could lead elsewhere by now.
    let names = fs::read_dir(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()))?;
    let mut entries = Vec::new();
    for name in names {
        let name = name?;
        if name.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        let metadata = match name.file_type() {
            // Seen as it would be served, which for a link out of the root is not at all.
            Ok(kind) if kind.is_symlink() => {
                root.file(&path.join(name.file_name()), false).and_then(|file| file.metadata())
            }
            _ => name.metadata(),
        };
        // It went away meanwhile, or is no business of ours.
        let Ok(metadata) = metadata else { continue };
        if !metadata.is_file() && !metadata.is_dir() {
            continue;
        }
        if entries.len() == listing::ENTRIES_MAX {
            return Ok((entries, true));
        }
        entries.push(Entry {
            name: name.file_name().into_vec(),
            directory: metadata.is_dir(),
            size: metadata.len(),
            modified: metadata.mtime(),
        });
    }
    Ok((entries, false))
}

impl Files {
    fn file_reply(&self, request: &Request, opened: Opened, media: MediaType, now: SystemTime) -> Reply {
        let coding = opened.coding;
        let mut reply = file_reply(request, opened, media, now);
        if self.precompressed && gets_smaller(media.essence().as_bytes()) {
            reply.headers.add("Vary", "Accept-Encoding");
        }
        if let Some(coding) = coding.filter(|_| reply.status.is_success()) {
            reply.headers.add("Content-Encoding", coding.name());
        }
        reply
    }
}

fn file_reply(request: &Request, opened: Opened, media: MediaType, now: SystemTime) -> Reply {
    let Opened { content, version, .. } = opened;
    let length = version.length;
    let validators = Validators::new(length, version.inode, version.seconds, version.nanos, now);
    let asked = match conditional::weigh(request, &validators) {
        Verdict::Failed => return Reply::error(StatusCode::PRECONDITION_FAILED),
        Verdict::NotModified => {
            let mut reply = Reply::new(StatusCode::NOT_MODIFIED);
            add_validators(&mut reply, &validators);
            return reply;
        }
        // RFC 9110 section 14.2: a range means something for GET only.
        Verdict::Proceed { ranges: true } if request.method() == Method::GET => {
            request.header("range").map_or(Asked::Whole, |field| range::parse(field, length))
        }
        Verdict::Proceed { .. } => Asked::Whole,
    };
    let (status, part) = match asked {
        Asked::Whole => (StatusCode::OK, 0..length),
        Asked::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Asked::Nothing => {
            let mut reply = Reply::error(StatusCode::RANGE_NOT_SATISFIABLE);
            reply.headers.add("Content-Range", format_args!("bytes */{length}"));
            return reply;
        }
    };
    let mut reply = Reply::new(status);
    reply.headers.add("Content-Type", format_args!("{media}"));
    add_validators(&mut reply, &validators);
    reply.headers.add("Accept-Ranges", "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        reply.headers.add("Content-Range", format_args!("bytes {}-{}/{length}", part.start, part.end - 1));
    }
    reply.body = match content {
        Content::File(file) => {
            let id = FileId { device: version.device, inode: version.inode };
            Body::File { file: Arc::new(file), id, offset: part.start, len: part.end - part.start }
        }
        Content::Kept(Kept { bytes, hash, .. }) if part == (0..length) => Body::Page { bytes, hash },
        Content::Kept(Kept { bytes, .. }) => {
            Body::Part { bytes, range: part.start as usize..part.end as usize }
        }
    };
    reply
}

fn add_validators(reply: &mut Reply, validators: &Validators) {
    reply.headers.add("ETag", validators.etag());
    if let Some(date) = validators.last_modified() {
        reply.headers.add("Last-Modified", date);
    }
}

fn page_reply(page: String) -> Reply {
    let mut reply = Reply::new(StatusCode::OK);
    reply.headers.add("Content-Type", "text/html; charset=utf-8");
    // Names are strangers' text: should the escaping ever fail, nothing runs.
    reply.headers.add("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
    reply.headers.add("Cache-Control", "no-cache");
    reply.body = Body::page(page.into_bytes());
    reply
}

fn status_of(error: &io::Error, path: &[u8]) -> StatusCode {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => StatusCode::FORBIDDEN,
        // A link in circles or out of the root, a name that is too long, a socket: all are "not here".
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV | libc::ENAMETOOLONG) => {
            StatusCode::NOT_FOUND
        }
        Some(libc::ENXIO | libc::ENODEV) => StatusCode::NOT_FOUND,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN) => StatusCode::SERVICE_UNAVAILABLE,
        None if error.kind() == io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
        _ => {
            log::warn!("cannot read {:?}: {error}", PathBuf::from(as_path(path)));
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
