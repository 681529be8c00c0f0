//! Which files are open on this poller, so that a thousand downloads of one file hold one descriptor.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Weak};

/// Names a file while it is open: device and inode. While somebody has it open, the inode is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// The open files by their names. It keeps none open.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: HashMap<FileId, Weak<File>>,
    /// Entries of closed files are swept out at this many.
    sweep_at: usize,
}

const SWEEP_AT_LEAST: usize = 64;

impl OpenFiles {
    /// The file that is open already, or else this one.
    pub(super) fn share(&mut self, id: FileId, file: Arc<File>) -> Arc<File> {
        if let Some(open) = self.files.get(&id).and_then(Weak::upgrade) {
            return open;
        }
        if self.files.len() >= self.sweep_at {
            self.files.retain(|_, file| file.strong_count() > 0);
            self.files.shrink_to(SWEEP_AT_LEAST);
            // Twice what is open: sweeping costs a constant part of opening.
            self.sweep_at = (self.files.len() * 2).max(SWEEP_AT_LEAST);
        }
        self.files.insert(id, Arc::downgrade(&file));
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<File> {
        Arc::new(File::open("/dev/null").unwrap())
    }

    #[test]
    fn one_descriptor_for_one_file() {
        let mut open = OpenFiles::default();
        let id = FileId { device: 1, inode: 2 };
        let first = open.share(id, file());
        let second = open.share(id, file());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &open.share(FileId { device: 2, inode: 2 }, file())));
        drop((first, second));
        let fresh = file();
        assert!(Arc::ptr_eq(&fresh, &open.share(id, fresh.clone())));
    }

    #[test]
    fn closed_files_are_swept_out() {
        let mut open = OpenFiles::default();
        let kept: Vec<_> = (0..10).map(|inode| open.share(FileId { device: 1, inode }, file())).collect();
        for inode in 100..5_000 {
            open.share(FileId { device: 1, inode }, file());
        }
        assert!(open.files.len() <= SWEEP_AT_LEAST, "{}", open.files.len());
        assert!(Arc::ptr_eq(&kept[3], &open.share(FileId { device: 1, inode: 3 }, file())));
    }
}
