//! Files below a directory, opened so that no path leads out of it.
//!
//! Owns the directory's descriptor. Whatever becomes of the path it was opened by, names are looked up from that
//! descriptor: the kernel itself refuses `..`, absolute paths and symbolic links that lead outside.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};

use crate::sys;

/// A directory and what is below it.
#[derive(Debug)]
pub struct Root {
    directory: File,
    /// The kernel has no `openat2` (before 5.6, or a sandbox forbids it): the path is walked by hand.
    walks: bool,
}

impl Root {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// As the kernel's: there is none, it is no directory, or may not be opened.
    pub fn open(path: &Path) -> io::Result<Root> {
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        // A sandbox that does not know the call says EPERM. Asked once and of the root: of a file below it, a file
        // system may mean it.
        let walks = sys::open_beneath(&directory, Path::new("."), false)
            .is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)));
        if walks {
            log::info!("this kernel or sandbox has no openat2: symbolic links are not followed");
        }
        Ok(Root { directory, walks })
    }

    /// Opens what is at `path` below the directory for reading; the empty path is the directory itself. It may be
    /// anything: the caller looks. A pipe or a device does not block the opening.
    ///
    /// `cached_only` fails with [`WouldBlock`](io::ErrorKind::WouldBlock) where the disk would have to be asked for
    /// the path: the caller then opens again, off the poller, without it.
    ///
    /// # Errors
    /// There is none, it lies outside (by whatever link), or may not be opened.
    pub fn file(&self, path: &Path, cached_only: bool) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match (self.walks, cached_only) {
            (false, _) => sys::open_beneath(&self.directory, path, cached_only),
            (true, true) => Err(io::ErrorKind::WouldBlock.into()),
            (true, false) => self.walk(path),
        }
    }

    /// Without the kernel's help: one name at a time, from one directory's descriptor to the next, and no symbolic
    /// link is followed at all. Needs `/proc`, where a descriptor has a name.
    fn walk(&self, path: &Path) -> io::Result<File> {
        let mut names = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => names.push(name),
                Component::CurDir => {}
                _ => return Err(io::Error::from_raw_os_error(libc::EXDEV)),
            }
        }
        let last = names.pop();
        let mut directory = None;
        for name in names {
            directory =
                Some(open_in(directory.as_ref().unwrap_or(&self.directory), name, libc::O_DIRECTORY)?);
        }
        // A slash at the end wants a directory.
        let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let flags = if slash { libc::O_DIRECTORY } else { 0 };
        open_in(directory.as_ref().unwrap_or(&self.directory), last.unwrap_or(OsStr::new(".")), flags)
    }
}

fn open_in(directory: &File, name: &OsStr, flags: libc::c_int) -> io::Result<File> {
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    OpenOptions::new()
        .read(true)
        .custom_flags(flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let path = std::env::temp_dir().join(format!("tidegate-root-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("in/sub")).unwrap();
            fs::write(path.join("secret"), "secret").unwrap();
            fs::write(path.join("in/a"), "a").unwrap();
            fs::write(path.join("in/sub/b"), "b").unwrap();
            symlink("../secret", path.join("in/out")).unwrap();
            symlink("..", path.join("in/up")).unwrap();
            symlink("/etc", path.join("in/etc")).unwrap();
            symlink("/proc/self/root", path.join("in/magic")).unwrap();
            symlink("sub/b", path.join("in/inside")).unwrap();
            symlink("loop", path.join("in/loop")).unwrap();
            Tree(path)
        }

        fn root(&self, walks: bool) -> Root {
            Root { walks, ..Root::open(&self.0.join("in")).unwrap() }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn read(root: &Root, path: &str) -> io::Result<String> {
        let mut text = String::new();
        root.file(Path::new(path), false)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn files_below_open_and_others_do_not() {
        for walks in [false, true] {
            let tree = Tree::new(if walks { "walk" } else { "openat2" });
            let root = tree.root(walks);
            assert_eq!(read(&root, "a").unwrap(), "a");
            assert_eq!(read(&root, "sub/b").unwrap(), "b");
            assert_eq!(read(&root, "./sub/./b").unwrap(), "b");
            assert!(root.file(Path::new(""), false).unwrap().metadata().unwrap().is_dir());
            assert!(root.file(Path::new("sub/"), false).unwrap().metadata().unwrap().is_dir());
            for path in [
                "../secret",
                "/etc/passwd",
                "out",
                "up/secret",
                "etc/passwd",
                "magic/etc/passwd",
                "loop",
                "a/",
                "a/b",
                "none",
            ] {
                assert!(root.file(Path::new(path), false).is_err(), "{path} (walks: {walks})");
            }
            // A link that stays inside is followed by the kernel; walking by hand follows none.
            assert_eq!(read(&root, "inside").is_ok(), !walks);
        }
    }

    #[test]
    fn the_root_is_its_descriptor_whatever_becomes_of_the_path() {
        let tree = Tree::new("moved");
        let root = tree.root(false);
        fs::rename(tree.0.join("in"), tree.0.join("moved")).unwrap();
        assert_eq!(read(&root, "a").unwrap(), "a");
    }

    #[test]
    fn what_is_in_the_cache_opens_without_the_disk() {
        let tree = Tree::new("cached");
        let root = tree.root(false);
        read(&root, "a").unwrap();
        match root.file(Path::new("a"), true) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        let walking = tree.root(true);
        assert_eq!(walking.file(Path::new("a"), true).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_root_is_a_directory() {
        let tree = Tree::new("kind");
        assert!(Root::open(&tree.0.join("secret")).is_err());
        assert!(Root::open(&tree.0.join("none")).is_err());
    }
}
