//! A data file: opened with care, read in bounded pieces, hashed on the way.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::MAX_ROW_BYTES;
use crate::error::InputError;
use crate::{Error, Result};

pub(super) struct Source<'a> {
    pub origin: Origin,
    pub reader: BufReader<Hashing<'a>>,
    line: usize,
}

/// The file a row came from, for messages.
pub(super) struct Origin {
    pub path: PathBuf,
}

pub(super) struct Hashing<'a> {
    file: File,
    hash: &'a mut Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl<'a> Source<'a> {
    /// Refuses what is not a regular file before opening it: a pipe would block for ever.
    pub fn open(path: &Path, hash: &'a mut Sha256) -> Result<Self> {
        let unreadable = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::input("no such file").file(path),
            _ => Error::input(format!("cannot be read: {error}")).file(path),
        };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a directory" } else { "a pipe or device" };
            return Err(Error::input("not a regular file").file(path).found(found).into());
        }
        let file = File::open(path).map_err(unreadable)?;
        let mut reader = BufReader::with_capacity(1 << 16, Hashing { file, hash });
        let start = reader.fill_buf().map_err(Error::io(path))?;
        if start.is_empty() {
            return Err(Error::input("the file is empty").file(path).into());
        }
        check_encoding(start).map_err(|error| error.file(path))?;
        let mark = if start.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
        reader.consume(mark);
        Ok(Self { origin: Origin { path: path.to_path_buf() }, reader, line: 0 })
    }

    /// The next line with its number from 1, without its line break.
    pub fn next_line(&mut self) -> Result<Option<(usize, String)>> {
        let mut line = Vec::new();
        let limit = MAX_ROW_BYTES as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut line).map_err(Error::io(&self.origin.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if read > MAX_ROW_BYTES {
            return Err(self.origin.too_long(self.line).into());
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Some((self.line, text.to_owned()))),
            Err(error) => Err(self.origin.not_utf8(self.line, text[error.valid_up_to()]).into()),
        }
    }

    /// Everything that is left, as text.
    pub fn read_all(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).map_err(Error::io(&self.origin.path))?;
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            self.origin.not_utf8(line, error.as_bytes()[at]).into()
        })
    }
}

impl Origin {
    pub fn error(&self, line: usize, what: impl Into<String>) -> InputError {
        Error::input(what).file(&self.path).line(line)
    }

    pub fn not_utf8(&self, line: usize, byte: u8) -> InputError {
        self.error(line, "not UTF-8 text").found(format!("byte 0x{byte:02X}"))
    }

    pub fn too_long(&self, line: usize) -> InputError {
        self.error(line, "the row is too long").expected(format!("at most {} MiB", MAX_ROW_BYTES >> 20))
    }
}

fn check_encoding(start: &[u8]) -> Result<(), InputError> {
    let utf16 =
        start.starts_with(b"\xFF\xFE") || start.starts_with(b"\xFE\xFF") || start.iter().take(2).any(|&b| b == 0);
    if utf16 {
        return Err(Error::input("the file is UTF-16, not UTF-8").hint("convert it: iconv -f UTF-16 -t UTF-8"));
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err(Error::input("a Git LFS pointer instead of the data").hint("fetch it: git lfs pull"));
    }
    if start.starts_with(b"\x1F\x8B") {
        return Err(Error::input("the file is gzip-compressed").hint("unpack it: gunzip"));
    }
    Ok(())
}
