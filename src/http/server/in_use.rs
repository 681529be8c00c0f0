//! What replies under way on this poller hold, so that a thousand downloads of one file hold one descriptor, and a
//! thousand of one page hold it in memory once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// Things by their names, while somebody holds them. It keeps none itself.
#[derive(Debug)]
pub(super) struct InUse<K, T: ?Sized> {
    held: HashMap<K, Weak<T>>,
    /// Entries that nobody holds any more are swept out at this many.
    sweep_at: usize,
}

const SWEEP_AT_LEAST: usize = 64;

impl<K, T: ?Sized> Default for InUse<K, T> {
    fn default() -> InUse<K, T> {
        InUse { held: HashMap::new(), sweep_at: 0 }
    }
}

impl<K: Eq + Hash, T: ?Sized> InUse<K, T> {
    /// What is held by this name already if it is the `same`, or else `fresh`.
    pub(super) fn share(&mut self, name: K, fresh: Arc<T>, same: impl FnOnce(&T, &T) -> bool) -> Arc<T> {
        if let Some(held) = self.held.get(&name).and_then(Weak::upgrade)
            && same(&held, &fresh)
        {
            return held;
        }
        if self.held.len() >= self.sweep_at {
            self.held.retain(|_, held| held.strong_count() > 0);
            self.held.shrink_to(SWEEP_AT_LEAST);
            // Twice what is held: sweeping costs a constant part of sharing.
            self.sweep_at = (self.held.len() * 2).max(SWEEP_AT_LEAST);
        }
        self.held.insert(name, Arc::downgrade(&fresh));
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::http::body::FileId;

    fn file() -> Arc<File> {
        Arc::new(File::open("/dev/null").unwrap())
    }

    #[test]
    fn one_descriptor_for_one_file() {
        let mut open = InUse::default();
        let id = FileId { device: 1, inode: 2 };
        let mut share = |id, file| open.share(id, file, |_, _| true);
        let first = share(id, file());
        let second = share(id, file());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &share(FileId { device: 2, inode: 2 }, file())));
        drop((first, second));
        let fresh = file();
        assert!(Arc::ptr_eq(&fresh, &share(id, fresh.clone())));
    }

    #[test]
    fn pages_are_shared_only_while_they_are_the_same() {
        let mut pages = InUse::default();
        let mut share = |text: &str| pages.share(7, Arc::<[u8]>::from(text.as_bytes()), |a, b| a == b);
        let first = share("old");
        assert!(Arc::ptr_eq(&first, &share("old")));
        let second = share("new");
        assert_eq!(&*second, b"new");
        assert!(Arc::ptr_eq(&second, &share("new")));
    }

    #[test]
    fn what_nobody_holds_is_swept_out() {
        let mut open = InUse::default();
        let id = |inode| FileId { device: 1, inode };
        let kept: Vec<_> = (0..10).map(|inode| open.share(id(inode), file(), |_, _| true)).collect();
        for inode in 100..5_000 {
            open.share(id(inode), file(), |_, _| true);
        }
        assert!(open.held.len() <= SWEEP_AT_LEAST, "{}", open.held.len());
        assert!(Arc::ptr_eq(&kept[3], &open.share(id(3), file(), |_, _| true)));
    }
}
