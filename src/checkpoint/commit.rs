//! Replacing a directory or a file so that a reader, or the next start, finds the old one or the new one.
//!
//! Beside a target `NAME` there may be `.NAME.tmp`, which is never worth anything, and `.NAME.old`, which is the
//! previous target while it is being replaced. [`settle`] decides from these two alone, so recovery after a kill,
//! roll-back after an error and cleaning up after success are the same few lines.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::Fs;
use crate::{Error, Result};

/// A file to be written: its name, without a path, and its contents.
pub type NamedBytes<'a> = (&'a str, &'a [u8]);

/// Makes `target` a directory of exactly these files, written in this order, or leaves what was there before.
///
/// # Errors
/// [`Error::Io`] names the path that failed; a full disk says how many bytes were needed.
pub fn commit(fs: &dyn Fs, target: &Path, files: &[NamedBytes]) -> Result<()> {
    settle(fs, target)?;
    let outcome = stage(fs, target, files).and_then(|()| publish(fs, target));
    // Not fatal: what it cannot remove or restore now, the next commit or start settles.
    let _ = settle(fs, target);
    outcome.map_err(|error| explain_full_disk(error, files.iter().map(|(_, bytes)| bytes.len()).sum()))
}

/// Replaces one file as a whole.
pub fn write_file(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = beside(path, ".tmp");
    fs.write(&temporary, bytes)
        .and_then(|()| fs.rename(&temporary, path))
        .and_then(|()| fs.sync_dir(parent(path)))
        .map_err(Error::io(path))
        .map_err(|error| explain_full_disk(error, bytes.len()))
}

/// Removes a directory so that a kill half-way leaves nothing that looks like one.
pub(super) fn discard(fs: &dyn Fs, target: &Path) -> Result<()> {
    let doomed = beside(target, ".tmp");
    fs.rename(target, &doomed).and_then(|()| fs.remove(&doomed)).map_err(Error::io(target))
}

/// Settles every interrupted commit in a directory that holds nothing but what is committed here. Only the holder
/// of the run's lock may call this.
pub(super) fn sweep(fs: &dyn Fs, directory: &Path) -> Result<()> {
    for entry in directory.read_dir().map_err(Error::io(directory))? {
        let name = entry.map_err(Error::io(directory))?.file_name();
        let target = name.to_str().and_then(|name| name.strip_prefix('.'));
        if let Some(target) = target.and_then(|name| name.strip_suffix(".tmp").or(name.strip_suffix(".old"))) {
            settle(fs, &directory.join(target))?;
        }
    }
    Ok(())
}

fn stage(fs: &dyn Fs, target: &Path, files: &[NamedBytes]) -> Result<()> {
    let staging = beside(target, ".tmp");
    fs.create_dir(&staging).map_err(Error::io(&staging))?;
    for (name, bytes) in files {
        if !is_file_name(name) {
            return Err(Error::Failed(format!("{}: `{name}` is not a file name", target.display())));
        }
        let path = staging.join(name);
        fs.write(&path, bytes).map_err(Error::io(&path))?;
    }
    fs.sync_dir(&staging).map_err(Error::io(&staging))
}

fn publish(fs: &dyn Fs, target: &Path) -> Result<()> {
    if exists(target) {
        fs.rename(target, &beside(target, ".old")).map_err(Error::io(target))?;
    }
    fs.rename(&beside(target, ".tmp"), target).and_then(|()| fs.sync_dir(parent(target))).map_err(Error::io(target))
}

/// Ends an interrupted replacement: backwards while `target` is missing, forwards once it is there.
pub(super) fn settle(fs: &dyn Fs, target: &Path) -> Result<()> {
    let (staging, previous) = (beside(target, ".tmp"), beside(target, ".old"));
    if exists(&previous) {
        if !exists(target) {
            fs.rename(&previous, target).map_err(Error::io(target))?;
        }
        // The target must be on the disk before the only other copy goes.
        fs.sync_dir(parent(target)).map_err(Error::io(target))?;
        if exists(&previous) {
            fs.remove(&previous).map_err(Error::io(&previous))?;
        }
    }
    if exists(&staging) {
        fs.remove(&staging).map_err(Error::io(&staging))?;
    }
    Ok(())
}

fn explain_full_disk(error: Error, bytes: usize) -> Error {
    match error {
        Error::Io { path, source }
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) =>
        {
            Error::Failed(format!(
                "{}: {source}; {bytes} bytes are needed, and what was saved before is intact\n\
                 hint: free some space, then continue with --resume",
                path.display()
            ))
        }
        other => other,
    }
}

/// A single plain path component: nothing that could lead out of the directory.
pub(super) fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(suffix);
    target.with_file_name(name)
}

/// Unlike `Path::exists`, true for what exists but cannot be followed or read.
fn exists(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Disk;
    use crate::checkpoint::fault::{Fault, FaultFs};

    fn files(text: &str) -> [NamedBytes<'_>; 2] {
        [("a", text.as_bytes()), ("b", text.as_bytes())]
    }

    fn read(target: &Path) -> Option<String> {
        let [a, b] = ["a", "b"].map(|name| std::fs::read_to_string(target.join(name)).ok());
        assert_eq!(a, b, "torn");
        a
    }

    #[test]
    fn a_directory_is_replaced_and_nothing_is_left_beside_it() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("final");
        commit(&Disk, &target, &files("old")).unwrap();
        // What an earlier commit could not clean up is no obstacle.
        std::fs::create_dir_all(parent.path().join(".final.tmp/c")).unwrap();
        std::fs::create_dir_all(parent.path().join(".final.old/c")).unwrap();
        commit(&Disk, &target, &files("new")).unwrap();
        assert_eq!(read(&target).as_deref(), Some("new"));
        assert_eq!(parent.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn every_interruption_of_a_plain_commit_settles_to_old_or_new() {
        for fault in Fault::ALL {
            for at in 0.. {
                let parent = tempfile::tempdir().unwrap();
                let target = parent.path().join("best");
                commit(&FaultFs::sound(), &target, &files("old")).unwrap();
                let fs = FaultFs::new(fault, at);
                let outcome = commit(&fs, &target, &files("new"));
                fs.shut_down();
                sweep(&FaultFs::sound(), parent.path()).unwrap();
                let found = read(&target).unwrap_or_else(|| panic!("nothing is left after {fault:?} at call {at}"));
                assert!(found == "new" || outcome.is_err(), "{fault:?} at call {at} lost a committed directory");
                assert_eq!(parent.path().read_dir().unwrap().count(), 1);
                if !fs.struck() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_power_loss_while_recovering_from_a_kill_settles_too() {
        for fault in [Fault::PowerLoss, Fault::ReorderedLoss] {
            for (killed_at, lost_at) in (0..12).flat_map(|killed_at| (0..6).map(move |lost_at| (killed_at, lost_at))) {
                let parent = tempfile::tempdir().unwrap();
                let target = parent.path().join("best");
                commit(&FaultFs::sound(), &target, &files("old")).unwrap();
                let mut fs = FaultFs::new(Fault::Kill, killed_at);
                let _ = commit(&fs, &target, &files("new"));
                fs.restart(fault, lost_at);
                let _ = sweep(&fs, parent.path());
                fs.shut_down();
                sweep(&FaultFs::sound(), parent.path()).unwrap();
                assert!(read(&target).is_some(), "nothing is left after a kill at {killed_at}, {fault:?} at {lost_at}");
            }
        }
    }

    #[test]
    fn every_interruption_of_a_file_replacement_leaves_old_or_new() {
        for fault in Fault::ALL {
            for at in 0.. {
                let parent = tempfile::tempdir().unwrap();
                let path = parent.path().join("run.json");
                write_file(&FaultFs::sound(), &path, b"old").unwrap();
                let fs = FaultFs::new(fault, at);
                let outcome = write_file(&fs, &path, b"new");
                fs.shut_down();
                sweep(&FaultFs::sound(), parent.path()).unwrap();
                let found = std::fs::read_to_string(&path).unwrap();
                assert!(found == "new" || (found == "old" && outcome.is_err()), "{found} after {fault:?} at call {at}");
                assert_eq!(parent.path().read_dir().unwrap().count(), 1);
                if !fs.struck() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_full_disk_says_what_was_needed() {
        let parent = tempfile::tempdir().unwrap();
        let error = commit(&FaultFs::new(Fault::Error, 1), &parent.path().join("x"), &files("12345")).unwrap_err();
        assert!(error.to_string().contains("10 bytes are needed"), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert_eq!(parent.path().read_dir().unwrap().count(), 0, "the staging directory was left behind");
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["../x", "/x", "a/b", "", ".", "..", "x/"] {
            let error = commit(&Disk, &parent.path().join("x"), &[(name, b"")]).unwrap_err();
            assert!(error.to_string().contains("not a file name"), "{name}: {error}");
        }
        assert_eq!(parent.path().read_dir().unwrap().count(), 0);
    }
}
