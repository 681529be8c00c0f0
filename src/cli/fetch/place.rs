//! Where a download goes, what an earlier try left there, and whether that can be gone on with.
//!
//! Two programs that fetch into the same file would make a mixture of it: the part is locked while it is written.
//!
//! What blocks here runs on the threads for what blocks; see [`transfer`](super::transfer).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::http::client::Url;
use crate::http::{HeaderMap, header};

/// A download's files: the whole one, the one in the making, and the note of what that is of.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) whole: PathBuf,
}

/// What `NAME.part.json` remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) url: String,
    /// How large the whole file is, where that was said.
    pub(super) total: Option<u64>,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) bytes: u64,
    pub(super) note: Note,
}

/// Names longer than this most file systems do not take, with what is put behind them.
const NAME_MAX: usize = 200;

impl Place {
    pub(super) fn part(&self) -> PathBuf {
        self.with(".part")
    }

    /// Whether it is there, and no file: a device or a pipe has nothing put in its place.
    pub(super) fn is_straight(&self) -> bool {
        fs::metadata(&self.whole).is_ok_and(|about| !about.is_file() && !about.is_dir())
    }

    fn note(&self) -> PathBuf {
        self.with(".part.json")
    }

    fn files(&self) -> [PathBuf; 3] {
        [self.whole.clone(), self.part(), self.note()]
    }

    fn with(&self, end: &str) -> PathBuf {
        let mut path = self.whole.clone().into_os_string();
        path.push(end);
        path.into()
    }

    /// What an earlier try of the same URL left.
    pub(super) fn left(&self, url: &Url) -> Option<Left> {
        let bytes = fs::metadata(self.part()).ok().filter(fs::Metadata::is_file)?.len();
        let note: Note = serde_json::from_slice(&fs::read(self.note()).ok()?).ok()?;
        (bytes > 0 && note.url == url.to_string() && note.total.is_none_or(|total| bytes <= total))
            .then_some(Left { bytes, note })
    }

    /// Opens the file in the making, to be gone on with after so many bytes that are there, and notes what it is of. It is
    /// locked until it is closed.
    ///
    /// # Errors
    /// Where another fetch has it, or has written to it since it was looked at; what else may befall a file.
    pub(super) fn open(&self, note: &Note, bytes: u64) -> io::Result<File> {
        if self.whole.is_dir() {
            // Now, and not when all of it is here.
            return Err(io::Error::other(format!("{} is a folder", self.whole.display())));
        }
        let file = self.lock()?;
        if bytes == 0 {
            // Before the note: bytes that belong to an older one would be gone on with.
            file.set_len(0)?;
        } else if file.metadata()?.len() != bytes {
            return Err(io::Error::other("another fetch has written to it meanwhile"));
        }
        fs::write(self.note(), serde_json::to_vec(note)?)?;
        Ok(file)
    }

    /// Makes the file in the making, if there is none, and locks it.
    fn lock(&self) -> io::Result<File> {
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.part())?;
            match lock(&file) {
                Lock::Ours if self.is_part(&file) => return Ok(file),
                // Whoever had it gave it its name in between: it is no part any more, but a whole file.
                Lock::Ours => {}
                Lock::Theirs => {
                    return Err(io::Error::new(
                        io::ErrorKind::ResourceBusy,
                        "another fetch is at work on it",
                    ));
                }
            }
        }
    }

    /// Whether another fetch is at work on it.
    pub(super) fn is_taken(&self) -> bool {
        File::open(self.part()).is_ok_and(|file| lock(&file) == Lock::Theirs)
    }

    /// Whether the part is this file, and not another one by now.
    fn is_part(&self, file: &File) -> bool {
        let place = |about: fs::Metadata| (about.dev(), about.ino());
        file.metadata().map(place).ok() == fs::metadata(self.part()).map(place).ok()
    }

    /// The file is whole: gives it its name.
    pub(super) fn finish(&self) -> io::Result<()> {
        fs::rename(self.part(), &self.whole)?;
        fs::remove_file(self.note())
    }

    /// Leaves nothing behind of a try that brought nothing.
    pub(super) fn abandon_if_empty(&self) {
        let Ok(file) = File::open(self.part()) else { return };
        let empty = file.metadata().is_ok_and(|part| part.len() == 0);
        // Another fetch may just have made it.
        if empty && lock(&file) == Lock::Ours && self.is_part(&file) {
            let _ = fs::remove_file(self.part()).and_then(|()| fs::remove_file(self.note()));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// Until the file is closed.
    Ours,
    Theirs,
}

fn lock(file: &File) -> Lock {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock::Ours,
        Err(Errno::WOULDBLOCK) => Lock::Theirs,
        Err(error) => {
            // Some file systems have no locks.
            log::debug!("a file cannot be locked: {error}");
            Lock::Ours
        }
    }
}

impl Note {
    /// What a response says of the whole file.
    pub(super) fn new(url: &Url, headers: &HeaderMap, total: Option<u64>) -> Note {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let date = |text: &Option<String>| httpdate::parse_http_date(text.as_deref()?).ok();
        let (etag, modified) = (text(header::ETAG), text(header::LAST_MODIFIED));
        // A weak ETag, or a date of the same second, may stand for two different files (RFC 9110, section 8.8.2.2).
        let settled = match (date(&text(header::DATE)), date(&modified)) {
            (Some(now), Some(then)) => now.duration_since(then).is_ok_and(|age| age.as_secs() >= 1),
            _ => false,
        };
        Note {
            url: url.to_string(),
            total,
            etag: etag.filter(|etag| !etag.starts_with("W/")),
            last_modified: modified.filter(|_| settled),
        }
    }

    /// What the If-Range field says; without one, only the size tells whether the file is still the same.
    pub(super) fn validator(&self) -> Option<&str> {
        self.etag.as_deref().or(self.last_modified.as_deref())
    }
}

/// The first byte of a Content-Range, and the size of the whole: `bytes 5-9/10`, `bytes */10`.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let first = match range.split_once('-') {
        Some((first, _)) => Some(first.trim().parse().ok()?),
        None => None,
    };
    Some((first, total.trim().parse().ok()))
}

/// The files of some URLs: `output` is one, or the folder for all.
pub(super) fn places(urls: &[Url], output: Option<&Path>) -> Result<Vec<Place>, String> {
    let is_folder = |path: &Path| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let folder = match output {
        Some(path) if is_folder(path) => path,
        Some(path) if urls.len() == 1 => return Ok(vec![Place { whole: path.to_path_buf() }]),
        Some(path) => {
            let path = path.display();
            return Err(format!("several URLs do not go into one file; write -o {path}/ for a folder"));
        }
        None => Path::new(""),
    };
    let mut places: Vec<Place> = Vec::new();
    for url in urls {
        let name = safe_name(&url.file_name());
        let numbered = (1..).map(|n| folder.join(format!("{name}.{n}")));
        let mut names = std::iter::once(folder.join(&name)).chain(numbered);
        // With what goes beside it while it is made: one's part may have the other's name.
        let is_free = |place: &Place| {
            let files = place.files();
            places.iter().flat_map(Place::files).all(|taken| !files.contains(&taken))
        };
        let place = names.by_ref().map(|whole| Place { whole }).find(is_free);
        places.extend(place);
    }
    Ok(places)
}

/// A name that stays in its folder, is seen there, and does nothing to a terminal.
fn safe_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    let clean: String = last.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    let mut clean = clean.trim_start_matches('.').to_owned();
    while clean.len() > NAME_MAX {
        clean.pop();
    }
    if clean.is_empty() { "index.html".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::http::{HeaderName, HeaderValue};

    fn fields(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn names_stay_in_their_folder() {
        for (url, name) in [
            ("http://x/a/b.txt?c", "b.txt"),
            ("http://x/", "index.html"),
            ("http://x/..%2f..%2fetc%2fpasswd", "passwd"),
            ("http://x/%2e%2e", "index.html"),
            ("http://x/.bashrc", "bashrc"),
            ("http://x/a%1b[2Jb", "a_[2Jb"),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!(places(&[url], None).unwrap()[0].whole, Path::new(name));
        }
        let twice: Vec<Url> = ["http://x/a", "http://y/a"].map(|url| url.parse().unwrap()).into();
        let names: Vec<_> =
            places(&twice, Some(Path::new("d/"))).unwrap().into_iter().map(|p| p.whole).collect();
        assert_eq!(names, [Path::new("d/a"), Path::new("d/a.1")]);
        let beside: Vec<Url> = ["http://x/a.part", "http://x/a"].map(|url| url.parse().unwrap()).into();
        let names: Vec<_> = places(&beside, None).unwrap().into_iter().map(|p| p.whole).collect();
        assert_eq!(names, [Path::new("a.part"), Path::new("a.1")]);
        assert!(places(&twice, Some(Path::new("no-folder"))).unwrap_err().contains("no-folder/"));
    }

    #[test]
    fn a_part_is_written_by_one_at_a_time() {
        let folder = std::env::temp_dir().join(format!("tidegate-place-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (place, note) =
            (Place { whole: folder.join("a") }, Note { url: "http://x/a".into(), ..Note::default() });
        let url = "http://x/a".parse().unwrap();
        let first = place.open(&note, 0).unwrap();
        assert!(place.is_taken());
        // It is empty, but somebody's.
        place.abandon_if_empty();
        let error = place.open(&note, 0).unwrap_err();
        assert!(error.to_string().contains("another fetch is at work on it"), "{error}");
        (&first).write_all(b"12345").unwrap();
        assert_eq!(place.left(&url).unwrap().bytes, 5);
        drop(first);
        assert!(!place.is_taken());
        // What was looked at is not what is there now.
        assert!(place.open(&note, 4).unwrap_err().to_string().contains("meanwhile"));
        assert!(place.open(&note, 6).unwrap_err().to_string().contains("meanwhile"));
        let second = place.open(&note, 5).unwrap();
        place.finish().unwrap();
        assert!(!place.is_part(&second) && fs::read(&place.whole).unwrap() == b"12345");
        // The next one has a part of its own.
        drop(place.open(&note, 0).unwrap());
        drop(second);
        assert_eq!(fs::read(&place.whole).unwrap(), b"12345");
        place.abandon_if_empty();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_strong_validators_are_kept() {
        let url: Url = "http://x/a".parse().unwrap();
        let strong = Note::new(&url, &fields(&[(header::ETAG, "\"x\"")]), Some(5));
        assert_eq!((strong.validator(), strong.total), (Some("\"x\""), Some(5)));
        assert_eq!(Note::new(&url, &fields(&[(header::ETAG, "W/\"x\"")]), None).validator(), None);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let young = fields(&[(header::LAST_MODIFIED, date), (header::DATE, date)]);
        assert_eq!(Note::new(&url, &young, None).validator(), None);
        let old = fields(&[(header::LAST_MODIFIED, date), (header::DATE, "Sun, 06 Nov 1994 08:49:38 GMT")]);
        assert_eq!(Note::new(&url, &old, None).validator(), Some(date));
    }

    #[test]
    fn ranges_are_read() {
        let range = |text| content_range(&fields(&[(header::CONTENT_RANGE, text)]));
        assert_eq!(range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(range("bytes */10"), Some((None, Some(10))));
        assert_eq!((range("lines 1-2/3"), range("bytes x-2/3")), (None, None));
    }
}
