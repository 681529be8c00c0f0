//! A file of a form, on disk.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_poller::offload::Full;

use crate::http::StatusCode;
use crate::http::router::HttpError;
use crate::runtime::RuntimeHandle;
use crate::task::{Blocking, blocking, write_at};

/// A file that came with a form. Unless it is kept, it is removed when this is dropped.
#[derive(Debug)]
pub struct UploadedFile {
    name: String,
    file_name: String,
    media: Option<String>,
    bytes: u64,
    on_disk: OnDisk,
}

impl UploadedFile {
    /// What the form calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the client calls it. Anything may stand there, `../../etc/passwd` too: no name for a file of ours.
    pub fn client_file_name(&self) -> &str {
        &self.file_name
    }

    /// What the client says it is.
    pub fn media_type(&self) -> Option<&str> {
        self.media.as_deref()
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.on_disk.path()
    }

    /// Keeps it where it is.
    pub fn keep(mut self) -> PathBuf {
        self.on_disk.path.take().unwrap_or_default()
    }

    /// Makes the task that gives it a name of its own, in the same file system, and keeps it. What had the name before
    /// is replaced. Off the pollers.
    pub fn keep_as(
        self,
        path: impl Into<PathBuf>,
    ) -> Blocking<impl FnOnce() -> io::Result<()> + Send + 'static> {
        let path = path.into();
        blocking(move || {
            fs::rename(self.path(), path)?;
            self.keep();
            Ok(())
        })
    }
}

/// A file that is being written.
pub(super) struct Writing {
    uploaded: UploadedFile,
    file: Arc<File>,
    /// What has come and is not written yet.
    buffer: Vec<u8>,
    runtime: RuntimeHandle,
}

/// What is written at a time: a thread is asked for it, which costs some ten microseconds.
const WRITE_BYTES: usize = 256 * 1024;
/// Names that are tried. That one is taken already is next to impossible.
const NAMES_MAX: usize = 4;

impl Writing {
    pub(super) async fn create(
        folder: PathBuf,
        runtime: &RuntimeHandle,
        name: String,
        file_name: String,
        media: Option<String>,
    ) -> Result<Writing, HttpError> {
        // The file has its owner from the first: nobody may be left to wait for it.
        let owner = runtime.clone();
        let (on_disk, file) = off(runtime, move || create(&folder, owner)).await?;
        let uploaded = UploadedFile { name, file_name, media, bytes: 0, on_disk };
        Ok(Writing { uploaded, file: Arc::new(file), buffer: Vec::new(), runtime: runtime.clone() })
    }

    /// How many bytes have come.
    pub(super) fn bytes(&self) -> u64 {
        self.uploaded.bytes
    }

    /// Writes, or keeps until there is enough to.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        self.uploaded.bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < WRITE_BYTES { Ok(()) } else { self.flush().await }
    }

    pub(super) async fn finish(mut self) -> Result<UploadedFile, HttpError> {
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        Ok(self.uploaded)
    }

    async fn flush(&mut self) -> Result<(), HttpError> {
        let buffer = std::mem::take(&mut self.buffer);
        let offset = self.uploaded.bytes - buffer.len() as u64;
        let written = self.runtime.spawn(write_at(self.file.clone(), buffer, offset)).await?;
        self.buffer = written.map_err(|error| match error.is_full() {
            true => HttpError::new(StatusCode::SERVICE_UNAVAILABLE),
            false => disk(error.into()),
        })?;
        self.buffer.clear();
        Ok(())
    }
}

/// A file's name, until it is kept; removed when it is dropped.
#[derive(Debug)]
struct OnDisk {
    path: Option<PathBuf>,
    runtime: RuntimeHandle,
}

impl OnDisk {
    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // Removing a large file waits for the disk. Where the job does not run, its drop is what removes.
            let doomed = Doomed(path);
            let _ = self.runtime.offload().submit(Box::new(move || drop(doomed)));
        }
    }
}

/// Removes a file.
struct Doomed(PathBuf);

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            log::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn create(folder: &Path, runtime: RuntimeHandle) -> io::Result<(OnDisk, File)> {
    let mut tries = 0;
    loop {
        // Its keys are random: names cannot be foreseen.
        let random = RandomState::new().build_hasher().finish();
        let path = folder.join(format!("upload-{random:016x}.part"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < NAMES_MAX => tries += 1,
            opened => return opened.map(|file| (OnDisk { path: Some(path), runtime }, file)),
        }
    }
}

/// Has `call` called off the pollers, and waits for it.
async fn off<R: Send + 'static>(
    runtime: &RuntimeHandle,
    call: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> Result<R, HttpError> {
    match runtime.spawn(blocking(call)).await? {
        Ok(done) => done.map_err(disk),
        Err(Full) => Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

/// A full disk is worth saying.
fn disk(error: io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            log::error!("an upload cannot be written: {error}");
            HttpError::explained(StatusCode::INSUFFICIENT_STORAGE, "There is no room left for the file.")
        }
        _ => HttpError::from(error),
    }
}
