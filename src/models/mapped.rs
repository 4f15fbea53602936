//! A checkpoint file as bytes: mapped read-only, or compiled into the program.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

pub(super) enum FileBytes {
    /// The file must not be shortened while it is mapped: reading past its new end kills the process.
    /// Nothing here writes over a mapped file, savers write beside it and rename.
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Deref for FileBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Embedded(bytes) => bytes,
        }
    }
}

impl FileBytes {
    /// Maps a regular file; pipes, devices and directories are refused before they are opened.
    pub(super) fn map(path: &Path) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::input("no such file").file(path).into(),
            _ => Error::io(path)(source),
        })?;
        if !meta.is_file() {
            return Err(Error::input("not a regular file").file(path).into());
        }
        if meta.len() == 0 {
            return Ok(FileBytes::Embedded(&[]));
        }
        let file = File::open(path).map_err(Error::unreadable(path))?;
        // SAFETY: the mapping is private and read-only; see the variant for what a concurrent truncation does.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(FileBytes::Mapped(map))
    }
}

impl FileBytes {
    /// Gives back the pages that were read: until then they count as memory of this process. Read again, they come from the
    /// system's cache of the file.
    pub(super) fn release(&self) {
        #[cfg(unix)]
        if let FileBytes::Mapped(map) = self {
            // SAFETY: nothing writes to the mapping, so there is nothing in it that the file does not hold.
            // A system that will not take the advice costs memory, not correctness.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// Reads a small text file whole, or `None` if there is none. Longer than `limit` bytes is an input error.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(path)(source)),
        Ok(meta) if !meta.is_file() => Err(Error::input("not a regular file").file(path).into()),
        Ok(meta) if meta.len() > limit => {
            let size = format!("{} bytes", meta.len());
            Err(Error::input("file too large").file(path).found(size).expected(format!("at most {limit}")).into())
        }
        Ok(_) => fs::read(path).map(Some).map_err(Error::unreadable(path)),
    }
}

/// Refuses what people most often have where the weights should be; `Ok` means "try to parse it".
pub(super) fn refuse_look_alikes(bytes: &[u8], path: &Path) -> Result<()> {
    let start = bytes.get(..64).unwrap_or(bytes);
    let text = start.trim_ascii_start();
    let (found, hint) = if start.starts_with(b"version https://git-lfs") {
        ("a Git LFS pointer", "the weights were not downloaded: run `git lfs pull` there, or download the file itself")
    } else if text.starts_with(b"<") {
        ("a web page", "the download fetched an HTML page (a log-in or error page?), fetch the file itself")
    } else if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x80\x02") {
        ("a pickle archive", "pickles can run code and are never opened: convert to safetensors first")
    } else {
        return Ok(());
    };
    Err(Error::input("these are not weights").file(path).found(found).hint(hint).into())
}

/// Whether `path`, links resolved, lies in `dir`. A hub cache is the exception that is let through:
/// its `snapshots/REVISION/` holds links into the `blobs/` beside `snapshots`.
pub(super) fn stays_inside(path: &Path, dir: &Path) -> bool {
    let (Ok(path), Ok(dir)) = (path.canonicalize(), dir.canonicalize()) else { return false };
    let blobs =
        dir.parent().filter(|up| up.ends_with("snapshots")).and_then(Path::parent).map(|repo| repo.join("blobs"));
    path.starts_with(&dir) || blobs.is_some_and(|blobs| path.starts_with(blobs))
}
