//! Deleting old checkpoints, once a newer one is known to be good.

use std::path::Path;

use super::commit::discard;
use super::{Disk, Fs, list, verify};
use crate::Result;

/// Keeps the newest `keep` checkpoints (at least one) and the one of step `best`; deletes the other complete ones.
/// Returns a warning for each that could not be deleted.
///
/// # Errors
/// When the newest checkpoint does not verify; nothing is deleted then.
pub fn rotate(checkpoints: &Path, keep: usize, best: Option<usize>) -> Result<Vec<String>> {
    rotate_on(&Disk, checkpoints, keep, best)
}

fn rotate_on(fs: &dyn Fs, checkpoints: &Path, keep: usize, best: Option<usize>) -> Result<Vec<String>> {
    let complete = list(checkpoints)?.complete;
    let Some(newest) = complete.first() else { return Ok(Vec::new()) };
    let mut surplus = complete.iter().skip(keep.max(1)).filter(|found| Some(found.step) != best).peekable();
    if surplus.peek().is_some() {
        verify(&newest.path)?;
    }
    let failed = surplus.filter_map(|found| discard(fs, &found.path).err());
    Ok(failed.map(|error| format!("old checkpoint not deleted: {error}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::fault::{Fault, FaultFs};
    use crate::checkpoint::store::tests::sample;

    fn saved(steps: &[usize]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (generation, &step) in steps.iter().enumerate() {
            let path = directory.path().join(format!("step-{step}"));
            sample(step, 1).save_as(&FaultFs::sound(), &path, generation as u64).unwrap();
        }
        directory
    }

    fn steps(directory: &Path) -> Vec<usize> {
        list(directory).unwrap().complete.iter().map(|found| found.step).collect()
    }

    #[test]
    fn the_newest_and_the_best_stay() {
        for (order, keep, best, expected) in [
            (vec![10, 20, 30, 40], 2, None, vec![40, 30]),
            (vec![10, 20, 30, 40], 2, Some(10), vec![40, 30, 10]),
            (vec![10, 20, 30, 40], 2, Some(30), vec![40, 30]),
            (vec![10, 20], 0, None, vec![20]),
            (vec![10, 20], 1, Some(99), vec![20]),
            (vec![10, 20], 5, None, vec![20, 10]),
            // A run that went back to an earlier step: what it saved since is the newest.
            (vec![100, 150, 75], 1, None, vec![75]),
        ] {
            let directory = saved(&order);
            assert!(rotate(directory.path(), keep, best).unwrap().is_empty());
            assert_eq!(steps(directory.path()), expected);
            assert_eq!(directory.path().read_dir().unwrap().count(), expected.len());
        }
    }

    #[test]
    fn nothing_goes_while_the_newest_is_damaged() {
        let directory = saved(&[10, 20, 30]);
        std::fs::write(directory.path().join("step-30/adapter_config.json"), "{\"r\": 9}").unwrap();
        assert!(rotate(directory.path(), 1, None).is_err());
        assert_eq!(steps(directory.path()).len(), 3);
    }

    #[test]
    fn a_failed_delete_is_a_warning_and_the_others_go() {
        let directory = saved(&[10, 20, 30, 40]);
        let warnings = rotate_on(&FaultFs::new(Fault::Error, 0), directory.path(), 1, None).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(steps(directory.path()), [40, 30]);
    }

    #[test]
    fn a_kill_while_deleting_leaves_no_torn_checkpoint() {
        for at in 0..4 {
            let directory = saved(&[10, 20, 30]);
            let _ = rotate_on(&FaultFs::new(Fault::Kill, at), directory.path(), 1, None);
            crate::checkpoint::commit::sweep(&FaultFs::sound(), directory.path()).unwrap();
            let listing = list(directory.path()).unwrap();
            assert!(listing.damaged.is_empty() && listing.complete[0].step == 30, "{listing:?} after call {at}");
            assert!(listing.complete.iter().all(|found| verify(&found.path).is_ok()), "torn after call {at}");
        }
    }
}
