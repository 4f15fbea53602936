//! A file system that fails or dies at its n-th call, for the crash tests.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::commit::parent;
use super::{Disk, Fs};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The call reports a full disk; later calls work.
    Error,
    /// The process dies in the call; what it did before stays.
    Kill,
    /// The machine dies in the call; entries of directories that were not flushed come undone.
    PowerLoss,
}

impl Fault {
    pub const ALL: [Fault; 3] = [Fault::Error, Fault::Kill, Fault::PowerLoss];
}

/// Something a directory holds in memory only, as long as it is not flushed.
enum Change {
    Created(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    /// Kept in the grave, in case the removal comes undone.
    Removed {
        path: PathBuf,
        grave: PathBuf,
    },
}

pub struct FaultFs {
    fault: Fault,
    at: usize,
    calls: Cell<usize>,
    dead: Cell<bool>,
    unflushed: RefCell<Vec<Change>>,
    graves: tempfile::TempDir,
}

impl FaultFs {
    pub fn new(fault: Fault, at: usize) -> Self {
        let graves = tempfile::tempdir().unwrap();
        Self { fault, at, calls: Cell::new(0), dead: Cell::new(false), unflushed: RefCell::default(), graves }
    }

    /// Whether the fault has happened.
    pub fn struck(&self) -> bool {
        self.calls.get() > self.at
    }

    /// The process is over; with a power loss, whatever was not flushed goes too.
    pub fn shut_down(&self) {
        if !self.dead.replace(true) && self.fault == Fault::PowerLoss {
            self.lose_unflushed();
        }
    }

    /// Counts a call; at the fatal one runs `half` of it and fails.
    fn enter(&self, half: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.dead.get() {
            return Err(io::Error::other("dead"));
        }
        let call = self.calls.replace(self.calls.get() + 1);
        if call != self.at {
            return Ok(());
        }
        half()?;
        match self.fault {
            Fault::Error => Err(io::ErrorKind::StorageFull.into()),
            Fault::Kill | Fault::PowerLoss => {
                self.shut_down();
                Err(io::Error::other("killed"))
            }
        }
    }

    fn lose_unflushed(&self) {
        let mut changes = self.unflushed.take();
        while let Some(change) = changes.pop() {
            match change {
                Change::Created(path) => match Disk.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
                    _ => {}
                },
                Change::Removed { path, grave } => fs::rename(grave, path).unwrap(),
                Change::Renamed { from, to } => {
                    fs::rename(&to, &from).unwrap();
                    follow(&mut changes, &to, &from);
                }
            }
        }
    }

    fn bury(&self, path: &Path) -> io::Result<()> {
        let grave = self.graves.path().join(self.calls.get().to_string());
        fs::rename(path, &grave)?;
        self.unflushed.borrow_mut().push(Change::Removed { path: path.into(), grave });
        Ok(())
    }
}

/// A renamed directory takes the unflushed changes inside it along.
fn follow(changes: &mut [Change], from: &Path, to: &Path) {
    let moved = |path: &mut PathBuf| {
        if let Ok(rest) = path.strip_prefix(from) {
            *path = if rest == Path::new("") { to.into() } else { to.join(rest) };
        }
    };
    for change in changes {
        if let Change::Created(path) = change {
            moved(path);
        }
    }
}

impl Fs for FaultFs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(|| Ok(()))?;
        self.unflushed.borrow_mut().push(Change::Created(path.into()));
        Disk.create_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let existed = path.exists();
        let note = || {
            if !existed {
                self.unflushed.borrow_mut().push(Change::Created(path.into()))
            }
        };
        self.enter(|| {
            note();
            Disk.write(path, &bytes[..bytes.len() / 2])
        })?;
        note();
        Disk.write(path, bytes)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(|| Ok(()))?;
        self.unflushed.borrow_mut().retain(|change| match change {
            Change::Created(changed) | Change::Renamed { to: changed, .. } | Change::Removed { path: changed, .. } => {
                parent(changed) != path
            }
        });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter(|| Ok(()))?;
        if to.is_dir() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if to.exists() {
            self.bury(to)?;
        }
        fs::rename(from, to)?;
        let mut changes = self.unflushed.borrow_mut();
        follow(&mut changes, from, to);
        changes.push(Change::Renamed { from: from.into(), to: to.into() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.enter(|| match path.read_dir().ok().and_then(|mut entries| entries.next()) {
            Some(entry) => self.bury(&entry?.path()),
            None => Ok(()),
        })?;
        self.bury(path)
    }
}
