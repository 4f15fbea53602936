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
    /// The same on a disk that reorders: removals were written out, what came before them was not.
    ReorderedLoss,
}

impl Fault {
    pub const ALL: [Fault; 4] = [Fault::Error, Fault::Kill, Fault::PowerLoss, Fault::ReorderedLoss];
}

/// Something a directory holds in memory only, as long as it is not flushed.
enum Change {
    Created(PathBuf),
    /// What was replaced or removed is kept in a grave, in case that comes undone.
    Renamed {
        from: PathBuf,
        to: PathBuf,
        grave: Option<PathBuf>,
    },
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

    /// Never fails, and is quick since it flushes nothing.
    pub fn sound() -> Self {
        Self::new(Fault::Error, usize::MAX)
    }

    /// Whether the fault has happened.
    pub fn struck(&self) -> bool {
        self.calls.get() > self.at
    }

    /// The process is over; with a power loss, whatever was not flushed goes too.
    pub fn shut_down(&self) {
        if !self.dead.replace(true) && matches!(self.fault, Fault::PowerLoss | Fault::ReorderedLoss) {
            self.lose_unflushed();
        }
    }

    /// A new process on the same machine: what its predecessor did not flush is still unflushed.
    pub fn restart(&mut self, fault: Fault, at: usize) {
        (self.fault, self.at) = (fault, at);
        self.calls.set(0);
        self.dead.set(false);
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
            Fault::Kill | Fault::PowerLoss | Fault::ReorderedLoss => {
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
                Change::Removed { .. } if self.fault == Fault::ReorderedLoss => {}
                Change::Removed { path, grave } => fs::rename(grave, path).unwrap(),
                Change::Renamed { from, to, grave } => {
                    if to.exists() {
                        fs::rename(&to, &from).unwrap();
                        follow(&mut changes, &to, &from);
                    }
                    if let Some(grave) = grave {
                        fs::rename(grave, to).unwrap();
                    }
                }
            }
        }
    }

    fn bury(&self, path: &Path) -> io::Result<PathBuf> {
        let grave = tempfile::tempdir_in(&self.graves)?.keep().join("dead");
        fs::rename(path, &grave)?;
        Ok(grave)
    }

    fn remove_unflushed(&self, path: &Path) -> io::Result<()> {
        let grave = self.bury(path)?;
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
            fs::write(path, &bytes[..bytes.len() / 2])
        })?;
        note();
        fs::write(path, bytes)
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
        let grave = if to.exists() { Some(self.bury(to)?) } else { None };
        fs::rename(from, to)?;
        let mut changes = self.unflushed.borrow_mut();
        follow(&mut changes, from, to);
        changes.push(Change::Renamed { from: from.into(), to: to.into(), grave });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.enter(|| match path.read_dir().ok().and_then(|mut entries| entries.next()) {
            Some(entry) => self.remove_unflushed(&entry?.path()),
            None => Ok(()),
        })?;
        self.remove_unflushed(path)
    }
}
