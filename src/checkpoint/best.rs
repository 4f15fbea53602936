//! `best/` after a step back: it may hold an adapter that the resumed run has not trained yet.

use std::fs;
use std::path::Path;

use super::verify::sha256;
use super::{Best, Checkpoint, RunDir};
use crate::{Error, Result};

/// Names and contents.
type Files = Vec<(String, Vec<u8>)>;

impl Best {
    /// `files` are those of `best/`.
    pub fn new(loss: f64, step: usize, files: &[(String, Vec<u8>)]) -> Self {
        Self { loss, step, sha256: fingerprint(files) }
    }
}

/// sha256 over names and contents, whatever their order.
fn fingerprint(files: &[(String, Vec<u8>)]) -> String {
    let mut lines: Vec<_> = files.iter().map(|(name, bytes)| format!("{} {name}\n", sha256(bytes))).collect();
    lines.sort();
    sha256(lines.concat().as_bytes())
}

/// What is the best so far of a run that goes on from `checkpoint`, or from step 0. `best/` holds that adapter
/// afterwards, put back from the checkpoint of its step if need be, or it is gone. The note says so.
pub fn settle_best(run: &RunDir, checkpoint: Option<&Checkpoint>) -> Result<(Option<Best>, Option<String>)> {
    let best = checkpoint.and_then(|checkpoint| checkpoint.state.best.clone());
    let found = read(&run.best_dir())?;
    let is_best = |files: &Files| best.as_ref().is_some_and(|best| best.sha256 == fingerprint(files));
    if found.as_ref().is_some_and(is_best) {
        return Ok((best, None));
    }
    let earlier = best.as_ref().and_then(|best| match checkpoint {
        Some(checkpoint) if checkpoint.state.step == best.step => Some(checkpoint.adapter_files.clone()),
        _ => Some(Checkpoint::load(&run.checkpoint(best.step)).ok()?.adapter_files),
    });
    if let Some(files) = earlier.filter(is_best) {
        run.save_best(&files)?;
        return Ok((best, None));
    }
    if found.is_none() && best.is_none() {
        return Ok((None, None));
    }
    run.remove_best()?;
    Ok((None, Some("best/ was of a later step and is gone: the next evaluation starts it again".into())))
}

fn read(directory: &Path) -> Result<Option<Files>> {
    if !directory.exists() {
        return Ok(None);
    }
    let entries = directory.read_dir().map_err(Error::io(directory))?.flatten();
    let read = |path: &Path| fs::read(path).map_err(Error::io(path));
    entries
        .map(|entry| Ok((entry.file_name().to_string_lossy().into_owned(), read(&entry.path())?)))
        .collect::<Result<_>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::store::tests::sample;

    /// A checkpoint of `step` whose best is that of `best`.
    fn checkpoint(step: usize, best: usize) -> Checkpoint {
        let mut checkpoint = sample(step, step as u8);
        checkpoint.state.best = Some(Best::new(0.5, best, &sample(best, best as u8).adapter_files));
        checkpoint
    }

    #[test]
    fn a_step_back_brings_back_the_best_of_then_or_drops_what_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDir::create(Some(&parent.path().join("run")), "r").unwrap();
        let files = |step: usize| sample(step, step as u8).adapter_files;
        let settle = |checkpoint: &Checkpoint| settle_best(&run, Some(checkpoint)).unwrap();
        let held = || read(&run.best_dir()).unwrap().map(|files| fingerprint(&files));

        // best/ is what the checkpoint says.
        run.save_best(&files(10)).unwrap();
        assert_eq!(settle(&checkpoint(20, 10)), (checkpoint(20, 10).state.best, None));
        // It has gone on since, and the checkpoint of then is that of the best.
        run.save_best(&files(40)).unwrap();
        assert_eq!(settle(&checkpoint(20, 20)), (checkpoint(20, 20).state.best, None));
        assert_eq!(held(), Some(fingerprint(&files(20))));
        // The best of then lies in an earlier checkpoint.
        run.save_best(&files(40)).unwrap();
        checkpoint(10, 10).save(&run).unwrap();
        assert_eq!(settle(&checkpoint(20, 10)), (checkpoint(20, 10).state.best, None));
        assert_eq!(held(), Some(fingerprint(&files(10))));
        // It lies nowhere.
        run.save_best(&files(40)).unwrap();
        let (best, note) = settle(&checkpoint(20, 15));
        assert!(best.is_none() && note.is_some_and(|note| note.contains("best/")) && held().is_none());
        // There was none, and there is none.
        assert_eq!(settle(&sample(20, 1)), (None, None));
        run.save_best(&files(40)).unwrap();
        assert!(settle_best(&run, None).unwrap().1.is_some() && held().is_none());
    }
}
