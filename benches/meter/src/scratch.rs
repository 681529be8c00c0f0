//! Folders that vanish, and files with bytes that can be checked.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of our own that is removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a fresh folder under the system's place for such.
    pub fn new(name: &str) -> io::Result<Scratch> {
        Scratch::under(&std::env::temp_dir(), name)
    }

    /// Makes a fresh folder under `parent`.
    pub fn under(parent: &Path, name: &str) -> io::Result<Scratch> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let nth = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("tidegate-{name}-{}-{nth}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Scratch { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The byte that stands at `offset` of every file made here. The period is a prime, so that a piece sent twice,
/// left out or swapped shows wherever it is cut.
pub fn pattern_byte(offset: u64) -> u8 {
    let at = offset % PATTERN_PERIOD as u64;
    (at.wrapping_mul(31) ^ (at >> 7)) as u8
}

/// `bytes` of the pattern, from `offset` on.
pub fn pattern(offset: u64, bytes: usize) -> Vec<u8> {
    (offset..offset + bytes as u64).map(pattern_byte).collect()
}

/// Writes a file of `bytes` of the pattern.
pub fn make_file(path: &Path, bytes: u64) -> io::Result<()> {
    let period = pattern(0, PATTERN_PERIOD);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut left = bytes;
    while left > 0 {
        let n = left.min(PATTERN_PERIOD as u64) as usize;
        file.write_all(&period[..n])?;
        left -= n as u64;
    }
    file.into_inner()?.sync_data()
}

/// Writes the file unless it is there with that size.
pub fn keep_file(path: &Path, bytes: u64) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|is| is.len() == bytes) {
        return Ok(());
    }
    // Through another name: a half-written file must not be taken for a whole one by the next run.
    let part = path.with_extension("part");
    make_file(&part, bytes)?;
    fs::rename(part, path)
}

const PATTERN_PERIOD: usize = 65_521;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_pattern_across_periods() {
        let scratch = Scratch::new("pattern").unwrap();
        let path = scratch.path().join("file");
        make_file(&path, 200_000).unwrap();
        assert_eq!(fs::read(&path).unwrap(), pattern(0, 200_000));
        assert_eq!(pattern(70_000, 10), fs::read(&path).unwrap()[70_000..70_010]);
    }

    #[test]
    fn scratch_is_removed() {
        let scratch = Scratch::new("removed").unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("x"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
