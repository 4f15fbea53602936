//! The five writes a commit is made of, behind a trait so that tests can fail or kill each one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// A file system, as far as [`commit`](super::commit) needs one.
pub trait Fs {
    /// Creates one directory whose parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates or empties the file, writes all of `bytes` and flushes them to the disk.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Flushes a directory's entries: until then, what was created, renamed or removed in it may come undone.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Atomic within one file system; replaces a file, never a directory that holds something.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, or a directory with everything in it.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

impl Fs for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Windows cannot open a directory as a file and orders its metadata by itself.
        if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    }
}
