//! One process to a run directory: an advisory lock that the kernel releases however its holder ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::{env, fs, process};

use crate::{Error, Result};

pub(super) const LOCK: &str = ".lock";

/// Held as long as this value lives. The file stays, since removing it would let two processes lock two files of
/// one name; its text only tells others who holds it.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// # Errors
    /// An input error naming pid and host when another process holds the lock.
    pub fn acquire(run: &Path) -> Result<Self> {
        let path = run.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(run, &path)),
            Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
        }
        let owner = format!("pid {} on {}\n", process::id(), host());
        file.set_len(0).and_then(|()| file.write_all(owner.as_bytes())).map_err(Error::io(&path))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    /// Closing would not be enough: a process forked meanwhile has the file open until it executes its program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn in_use(run: &Path, path: &Path) -> Error {
    let owner = fs::read_to_string(path).unwrap_or_default();
    let owner = if owner.is_empty() { "another process" } else { owner.trim() };
    Error::input(format!("the run directory is in use by {owner}"))
        .file(run)
        .hint("wait for it to end, or choose another directory with --out")
        .into()
}

fn host() -> String {
    let from_file =
        ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|path| fs::read_to_string(path).ok());
    let from_env = || ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| env::var(name).ok());
    from_file.or_else(from_env).map_or_else(|| "an unknown host".into(), |name| name.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::crash::{Child, child_directory};

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let run = tempfile::tempdir().unwrap();
        let first = Lock::acquire(run.path()).unwrap();
        let error = Lock::acquire(run.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(&format!("pid {} on ", process::id())), "{error}");
        drop(first);
        Lock::acquire(run.path()).unwrap();
    }

    #[test]
    fn a_killed_process_leaves_no_lock() {
        let run = tempfile::tempdir().unwrap();
        let child = Child::spawn("checkpoint::lock::tests::hold_until_killed", run.path());
        child.wait_for("held");
        let error = Lock::acquire(run.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("pid {} on ", child.id())), "{error}");
        child.kill();
        Lock::acquire(run.path()).unwrap();
    }

    /// Body of the child process above.
    #[test]
    fn hold_until_killed() {
        if let Some(run) = child_directory() {
            let _lock = Lock::acquire(&run).unwrap();
            fs::write(run.join("held"), "").unwrap();
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }
}
