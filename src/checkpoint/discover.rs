//! Which checkpoints a run has, newest first, and the newest that can be trusted.

use std::cmp::Reverse;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Checkpoint;
use super::store::Header;
use super::verify::Manifest;
use crate::{Error, Result};

/// A checkpoint whose marker and state are sound; its larger files are not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    pub step: usize,
    /// How many checkpoints the run had committed before this one.
    pub generation: u64,
}

#[derive(Debug, Default)]
pub struct Listing {
    /// Newest first: the last committed, whatever its step, name or time.
    pub complete: Vec<Found>,
    pub damaged: Vec<(PathBuf, Error)>,
}

impl Listing {
    pub(super) fn next_generation(&self) -> u64 {
        self.complete.first().map_or(0, |newest| newest.generation.saturating_add(1))
    }
}

/// The newest checkpoint that loads, and what was wrong with newer ones.
#[derive(Debug)]
pub struct Newest {
    /// `None` when the run has not saved any yet.
    pub checkpoint: Option<(PathBuf, Checkpoint)>,
    pub warnings: Vec<String>,
}

/// Lists the directory `checkpoints`; one that does not exist is empty.
pub fn list(checkpoints: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let entries = match checkpoints.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
        Err(error) => return Err(Error::io(checkpoints)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(checkpoints))?;
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(b"step-") || !path.is_dir() {
            continue;
        }
        match Manifest::read(&path).and_then(|manifest| Header::read(&path, &manifest)) {
            Ok(Header { generation, state }) => listing.complete.push(Found { path, step: state.step, generation }),
            Err(error) => listing.damaged.push((path, error)),
        }
    }
    listing.complete.sort_by_key(|found| Reverse((found.generation, found.step)));
    listing.damaged.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(listing)
}

/// Loads the newest checkpoint, or an older one with a warning when newer ones are damaged.
///
/// # Errors
/// An input error when there are checkpoints and every one of them is damaged.
pub fn newest(checkpoints: &Path) -> Result<Newest> {
    let Listing { complete, damaged } = list(checkpoints)?;
    let mut warnings: Vec<String> = damaged.iter().map(|(_, error)| format!("checkpoint skipped: {error}")).collect();
    for found in complete {
        match Checkpoint::load(&found.path) {
            Ok(checkpoint) => return Ok(Newest { checkpoint: Some((found.path, checkpoint)), warnings }),
            Err(error) => warnings.push(format!("checkpoint skipped: {error}")),
        }
    }
    if warnings.is_empty() {
        return Ok(Newest { checkpoint: None, warnings });
    }
    let hint = "start the run again in another directory, or remove the damaged checkpoints to start it again here";
    Err(Error::input("no checkpoint of this run is intact")
        .file(checkpoints)
        .found(warnings.join("; "))
        .hint(hint)
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::fault::FaultFs;
    use crate::checkpoint::store::tests::sample;
    use std::fs;

    /// Steps in the order they were committed.
    fn saved(steps: &[usize]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (generation, &step) in steps.iter().enumerate() {
            let path = directory.path().join(format!("step-{step}"));
            sample(step, 1).save_as(&FaultFs::sound(), &path, generation as u64).unwrap();
        }
        directory
    }

    fn newest_step(directory: &Path) -> (usize, usize) {
        let Newest { checkpoint, warnings } = newest(directory).unwrap();
        (checkpoint.unwrap().1.state.step, warnings.len())
    }

    #[test]
    fn the_last_committed_is_the_newest() {
        for (steps, expected) in [(vec![9, 10, 100], 100), (vec![50, 100, 150, 75], 75)] {
            let directory = saved(&steps);
            // Neither times nor names decide.
            fs::write(directory.path().join(format!("step-{}/touched", steps[0])), "").unwrap();
            assert_eq!(newest_step(directory.path()), (expected, 0));
            let listed: Vec<usize> = list(directory.path()).unwrap().complete.iter().map(|found| found.step).collect();
            assert_eq!(listed, steps.iter().rev().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn damage_falls_back_with_a_warning() {
        let directory = saved(&[10, 20, 30, 40]);
        fs::remove_file(directory.path().join("step-40/COMPLETE")).unwrap();
        fs::write(directory.path().join("step-30/adapter_model.safetensors"), vec![9; 40]).unwrap();
        assert_eq!(newest_step(directory.path()), (20, 2));
        let error = Checkpoint::load(&directory.path().join("step-30")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "a damaged checkpoint that was asked for by name is an error");
    }

    #[test]
    fn none_is_a_fresh_start_but_none_intact_is_an_error() {
        let directory = saved(&[10]);
        assert!(newest(&directory.path().join("absent")).unwrap().checkpoint.is_none());
        fs::write(directory.path().join("step-10/state.json"), "{}").unwrap();
        let error = newest(directory.path()).unwrap_err();
        assert!(error.to_string().contains("state.json: damaged checkpoint file"), "{error}");
    }

    #[test]
    fn strangers_are_passed_over() {
        let directory = saved(&[10]);
        fs::create_dir(directory.path().join(".step-20.tmp")).unwrap();
        fs::create_dir(directory.path().join("notes")).unwrap();
        fs::write(directory.path().join("step-30"), "a file").unwrap();
        assert_eq!(newest_step(directory.path()), (10, 0));
    }
}
