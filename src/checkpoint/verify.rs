//! The `COMPLETE` marker: the last file of a checkpoint, with the length and sha256 of every other.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::commit::{NamedBytes, is_file_name};
use crate::{Error, Result};

pub(super) const COMPLETE: &str = "COMPLETE";
const FORMAT: u32 = 1;
const MAX_MARKER_BYTES: u64 = 1 << 20;

/// Contents of the marker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    files: IndexMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// Reads every file of a checkpoint and compares it with the marker.
///
/// # Errors
/// An input error names the file that is missing, short or changed, or the format version found.
pub fn verify(checkpoint: &Path) -> Result<()> {
    let manifest = Manifest::read(checkpoint)?;
    for (name, entry) in &manifest.files {
        let path = checkpoint.join(name);
        let mut file = entry.open(&path)?;
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).map_err(Error::io(&path))?;
        entry.compare(&path, hash)?;
    }
    Ok(())
}

impl Manifest {
    pub fn of(files: &[NamedBytes]) -> Self {
        let entry = |bytes: &[u8]| Entry { bytes: bytes.len() as u64, sha256: sha256(bytes) };
        Self { format: FORMAT, files: files.iter().map(|(name, bytes)| (name.to_string(), entry(bytes))).collect() }
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::Failed(format!("{COMPLETE}: {error}")))
    }

    /// The marker of a directory; its files are not looked at.
    pub fn read(checkpoint: &Path) -> Result<Self> {
        if !checkpoint.is_dir() {
            return Err(Error::input("there is no such checkpoint").file(checkpoint).into());
        }
        let path = checkpoint.join(COMPLETE);
        let length = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => {
                return Err(Error::input("not a complete checkpoint: its COMPLETE is missing").file(checkpoint).into());
            }
        };
        if length > MAX_MARKER_BYTES {
            return Err(Error::input("too large for a checkpoint marker").file(&path).found(length).into());
        }
        Self::parse(&path, &fs::read(&path).map_err(Error::io(&path))?)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let malformed = |error: serde_json::Error| Error::input("malformed checkpoint marker").file(path).found(error);
        // The version first: a later format may well have other fields.
        let Version { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format != FORMAT {
            let error = Error::input("checkpoint of a format this version does not read").file(path);
            return Err(error.found(format).expected(FORMAT).into());
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        match manifest.files.keys().find(|name| !is_file_name(name)) {
            Some(name) => Err(Error::input("checkpoint marker names a file outside").file(path).found(name).into()),
            None => Ok(manifest),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The bytes of one file, verified.
    pub fn file(&self, checkpoint: &Path, name: &str) -> Result<Vec<u8>> {
        let path = checkpoint.join(name);
        let Some(entry) = self.files.get(name) else {
            return Err(Error::input("not listed in the checkpoint's COMPLETE").file(&path).into());
        };
        let mut bytes = Vec::new();
        io::copy(&mut entry.open(&path)?, &mut bytes).map_err(Error::io(&path))?;
        entry.compare(&path, Sha256::new_with_prefix(&bytes))?;
        Ok(bytes)
    }
}

impl Entry {
    /// Opens a file whose length is the recorded one.
    fn open(&self, path: &Path) -> Result<File> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.len() == self.bytes => {
                File::open(path).map_err(Error::io(path))
            }
            Ok(metadata) => {
                let error = Error::input("damaged checkpoint file").file(path);
                Err(error.found(format!("{} bytes", metadata.len())).expected(self.bytes).into())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::input("checkpoint file is missing").file(path).into())
            }
            Err(error) => Err(Error::io(path)(error)),
        }
    }

    fn compare(&self, path: &Path, hash: Sha256) -> Result<()> {
        let found = format!("{:x}", hash.finalize());
        if found == self.sha256 {
            return Ok(());
        }
        let error = Error::input("damaged checkpoint file").file(path);
        Err(error.found(format!("sha256 {found}")).expected(&self.sha256).into())
    }
}

/// Lower-case hexadecimal sha256.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(directory: &Path) {
        let files: [NamedBytes; 2] = [("a.bin", &[1, 2, 3]), ("empty", &[])];
        for (name, bytes) in files {
            fs::write(directory.join(name), bytes).unwrap();
        }
        fs::write(directory.join(COMPLETE), Manifest::of(&files).to_bytes().unwrap()).unwrap();
    }

    fn complaint(spoil: impl FnOnce(&Path)) -> String {
        let directory = tempfile::tempdir().unwrap();
        sealed(directory.path());
        verify(directory.path()).unwrap();
        spoil(directory.path());
        let error = verify(directory.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }

    #[test]
    fn damage_is_named() {
        let rewrite = |from: &'static str, to: &'static str| {
            move |dir: &Path| {
                let text = fs::read_to_string(dir.join(COMPLETE)).unwrap();
                assert!(text.contains(from));
                fs::write(dir.join(COMPLETE), text.replace(from, to)).unwrap();
            }
        };
        let cases: [(String, &str); 8] = [
            (
                complaint(|dir| fs::write(dir.join("a.bin"), [1, 2, 7]).unwrap()),
                "a.bin: damaged checkpoint file; found sha256",
            ),
            (complaint(|dir| fs::write(dir.join("a.bin"), [1, 2]).unwrap()), "found 2 bytes; expected 3"),
            (complaint(|dir| fs::remove_file(dir.join("empty")).unwrap()), "empty: checkpoint file is missing"),
            (complaint(|dir| fs::remove_file(dir.join(COMPLETE)).unwrap()), "COMPLETE is missing"),
            (complaint(|dir| fs::write(dir.join(COMPLETE), "{\"form").unwrap()), "malformed checkpoint marker"),
            (complaint(rewrite("\"format\": 1,", "\"format\": 2, \"new\": 0,")), "found 2; expected 1"),
            (complaint(rewrite("empty", "../empty")), "names a file outside"),
            (complaint(|dir| fs::write(dir.join(COMPLETE), vec![b'['; 2 << 20]).unwrap()), "too large"),
        ];
        for (found, expected) in cases {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn sha256_is_the_standard_one() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
