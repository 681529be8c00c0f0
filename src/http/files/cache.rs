//! Files kept in memory.
//!
//! Pure: bytes, versions and the time are given. It holds so many bytes and no more; what was asked for longest ago goes
//! first. An entry that was looked at on disk a moment ago is good without a look, an older one is good if the file there
//! is of the same version still. It must not touch the disk itself: [`Files`](super::Files) does.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileVersion {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) length: u64,
    /// When it was modified: seconds since 1970, and nanoseconds.
    pub(super) seconds: i64,
    pub(super) nanos: i64,
}

impl FileVersion {
    pub(super) fn of(metadata: &Metadata) -> FileVersion {
        FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            seconds: metadata.mtime(),
            nanos: metadata.mtime_nsec(),
        }
    }
}

/// A file in memory.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) bytes: Arc<[u8]>,
    /// Of the bytes.
    pub(super) hash: u64,
    pub(super) version: FileVersion,
    /// When the disk was last asked.
    looked_at: SystemTime,
    used: u64,
}

/// Files by their paths.
#[derive(Debug)]
pub(super) struct Cache {
    max_bytes: u64,
    good_for: Duration,
    bytes: u64,
    kept: HashMap<Box<[u8]>, Kept>,
    /// By when they were last asked for.
    order: BTreeMap<u64, Box<[u8]>>,
    uses: u64,
}

/// What an entry takes besides its bytes and its path, about.
const ENTRY_BYTES: u64 = 256;
/// Larger files go by `sendfile`, for which they need not be here.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

impl Cache {
    pub(super) fn new(max_bytes: u64, good_for: Duration) -> Cache {
        let (kept, order) = (HashMap::new(), BTreeMap::new());
        Cache { max_bytes, good_for, bytes: 0, kept, order, uses: 0 }
    }

    /// Whether a file of this length is worth keeping: an eighth of all there is room for, at most.
    pub(super) fn takes(&self, length: u64) -> bool {
        length <= FILE_BYTES_MAX.min(self.max_bytes / 8)
    }

    /// A file that is good without a look at the disk.
    pub(super) fn fresh(&mut self, path: &[u8], now: SystemTime) -> Option<Kept> {
        let age = now.duration_since(self.kept.get(path)?.looked_at).ok()?;
        if age < self.good_for { self.used(path) } else { None }
    }

    /// A file, if the one on disk, just looked at, is the same.
    pub(super) fn same(&mut self, path: &[u8], version: &FileVersion, now: SystemTime) -> Option<Kept> {
        let kept = self.kept.get_mut(path).filter(|kept| kept.version == *version)?;
        kept.looked_at = now;
        self.used(path)
    }

    /// Keeps a file, in the place of what was kept of it before.
    pub(super) fn keep(
        &mut self,
        path: &[u8],
        bytes: Arc<[u8]>,
        version: FileVersion,
        now: SystemTime,
    ) -> Kept {
        self.forget(path);
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        self.uses += 1;
        let kept = Kept { bytes, hash: hasher.finish(), version, looked_at: now, used: self.uses };
        let size = size(path, &kept);
        while self.bytes + size > self.max_bytes
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            self.forget(&oldest.clone());
        }
        self.bytes += size;
        self.order.insert(self.uses, path.into());
        self.kept.insert(path.into(), kept.clone());
        kept
    }

    fn forget(&mut self, path: &[u8]) {
        if let Some(kept) = self.kept.remove(path) {
            self.order.remove(&kept.used);
            self.bytes -= size(path, &kept);
        }
    }

    fn used(&mut self, path: &[u8]) -> Option<Kept> {
        let kept = self.kept.get_mut(path)?;
        self.uses += 1;
        if let Some(path) = self.order.remove(&kept.used) {
            self.order.insert(self.uses, path);
        }
        kept.used = self.uses;
        Some(kept.clone())
    }
}

fn size(path: &[u8], kept: &Kept) -> u64 {
    kept.bytes.len() as u64 + path.len() as u64 + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const GOOD_FOR: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_000_000 + millis)
    }

    fn version(inode: u64) -> FileVersion {
        FileVersion { device: 1, inode, length: 100, seconds: 5, nanos: 6 }
    }

    fn bytes(count: usize) -> Arc<[u8]> {
        vec![7; count].into()
    }

    #[test]
    fn a_file_is_good_for_a_while_and_then_if_it_is_the_same() {
        let mut cache = Cache::new(100_000, GOOD_FOR);
        cache.keep(b"a", bytes(100), version(1), at(0));
        assert!(cache.fresh(b"a", at(999)).is_some() && cache.fresh(b"b", at(0)).is_none());
        assert!(cache.fresh(b"a", at(1_000)).is_none());
        assert!(cache.same(b"a", &version(2), at(1_500)).is_none());
        assert!(cache.same(b"a", &version(1), at(1_500)).is_some());
        assert!(cache.fresh(b"a", at(2_400)).is_some());
        // A clock that was set back says nothing.
        assert!(cache.fresh(b"a", at(0)).is_none());
        cache.keep(b"a", bytes(50), version(2), at(3_000));
        assert_eq!((cache.fresh(b"a", at(3_000)).unwrap().bytes.len(), cache.kept.len()), (50, 1));
    }

    #[test]
    fn what_was_asked_for_longest_ago_goes_first() {
        let mut cache = Cache::new(8 * 1_257, GOOD_FOR);
        for n in 0..8 {
            cache.keep(&[n], bytes(1_000), version(1), at(0));
        }
        assert!(cache.fresh(&[0], at(0)).is_some());
        cache.keep(b"x", bytes(1_000), version(1), at(0));
        assert!(cache.fresh(&[0], at(0)).is_some() && cache.fresh(&[1], at(0)).is_none());
        assert!(cache.takes(1_257) && !cache.takes(1_258) && !Cache::new(u64::MAX, GOOD_FOR).takes(1 << 30));
    }

    #[test]
    fn whatever_is_kept_it_is_never_more_than_its_bound() {
        let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        println!("TIDEGATE_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cache = Cache::new(20_000, GOOD_FOR);
        for step in 0..5_000 {
            let path = [random.u8(..40)];
            match random.u8(..3) {
                0 => drop(cache.fresh(&path, at(step))),
                1 => drop(cache.same(&path, &version(random.u64(..2)), at(step))),
                _ => drop(cache.keep(&path, bytes(random.usize(..2_500)), version(1), at(step))),
            }
            assert!(cache.bytes <= 20_000);
            assert_eq!(cache.bytes, cache.kept.iter().map(|(path, kept)| size(path, kept)).sum::<u64>());
            assert_eq!(cache.order.len(), cache.kept.len());
        }
    }
}
