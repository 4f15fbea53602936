//! The run directory: where everything of a run lies, and who may write there.

use std::fs;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::commit::{commit, parent, settle, sweep, write_file};
use super::lock::{LOCK, Lock};
use super::store::borrowed;
use super::{Disk, Fs, RunInfo};
use crate::recipe::Recipe;
use crate::{Error, Result};

/// Paths inside a run directory, for readers and writers alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// # Errors
    /// An input error when `root` is not the directory of a run.
    pub fn of(root: &Path) -> Result<Self> {
        let layout = Self { root: root.into() };
        if layout.info().is_file() {
            return Ok(layout);
        }
        let what = if root.exists() { "not a run directory: it has no run.json" } else { "there is no such run" };
        Err(Error::input(what).file(root).into())
    }
    pub fn path(&self) -> &Path {
        &self.root
    }
    /// One JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
    /// `checkpoints/step-000050`.
    pub fn checkpoint(&self, step: usize) -> PathBuf {
        self.checkpoints().join(format!("step-{step:06}"))
    }
    /// The adapter after the last step.
    pub fn final_dir(&self) -> PathBuf {
        self.root.join("final")
    }
    /// The adapter with the lowest evaluation loss.
    pub fn best_dir(&self) -> PathBuf {
        self.root.join("best")
    }
    /// The recipe with every default written out.
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.resolved.toml")
    }
    pub fn info(&self) -> PathBuf {
        self.root.join("run.json")
    }
    pub fn read_info(&self) -> Result<RunInfo> {
        RunInfo::read(&self.info())
    }
    pub fn read_recipe(&self) -> Result<Recipe> {
        let path = self.recipe();
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        toml::from_str(&text)
            .map_err(|error| Error::input("not a resolved recipe").file(&path).found(error.message()).into())
    }
}

/// A run directory that this process alone writes to, until the value is dropped.
#[derive(Debug)]
pub struct RunDir {
    layout: Layout,
    _lock: Lock,
}

impl Deref for RunDir {
    type Target = Layout;
    fn deref(&self) -> &Layout {
        &self.layout
    }
}

impl RunDir {
    /// A directory for a new run: `out`, or `runs/<date>-<recipe>` with a number behind it where that is taken.
    ///
    /// # Errors
    /// An input error when `out` is a file, holds something, cannot be written or is in use.
    pub fn create(out: Option<&Path>, recipe_name: &str) -> Result<Self> {
        let root = new_directory(out, recipe_name)?;
        let lock = Lock::acquire(&root).map_err(unusable)?;
        // Again under the lock: another run may have come and gone since.
        refuse_occupied(&root)?;
        let run = Self { layout: Layout { root }, _lock: lock };
        run.write_info(&RunInfo::new(recipe_name))?;
        let checkpoints = run.checkpoints();
        fs::create_dir(&checkpoints).map_err(Error::io(&checkpoints))?;
        for directory in [run.path(), parent(run.path())] {
            Disk.sync_dir(directory).map_err(Error::io(directory))?;
        }
        Ok(run)
    }

    /// The directory of an earlier run, to go on with; settles what a kill left half-done.
    ///
    /// # Errors
    /// An input error when it is not a run directory or is in use.
    pub fn open(root: &Path) -> Result<Self> {
        let layout = Layout::of(root)?;
        let run = Self { _lock: Lock::acquire(root).map_err(unusable)?, layout };
        let checkpoints = run.checkpoints();
        fs::create_dir_all(&checkpoints).map_err(Error::io(&checkpoints))?;
        for target in [run.final_dir(), run.best_dir(), run.recipe(), run.info()] {
            settle(&Disk, &target)?;
        }
        sweep(&Disk, &checkpoints)?;
        Ok(run)
    }

    pub fn write_info(&self, info: &RunInfo) -> Result<()> {
        write_file(&Disk, &self.info(), &info.to_bytes()?)
    }

    /// Writes `recipe.resolved.toml`.
    pub fn write_recipe(&self, toml: &str) -> Result<()> {
        write_file(&Disk, &self.recipe(), toml.as_bytes())
    }

    /// Replaces `final/`.
    pub fn save_final(&self, adapter_files: &[(String, Vec<u8>)]) -> Result<()> {
        commit(&Disk, &self.final_dir(), &borrowed(adapter_files))
    }

    /// Replaces `best/`.
    pub fn save_best(&self, adapter_files: &[(String, Vec<u8>)]) -> Result<()> {
        commit(&Disk, &self.best_dir(), &borrowed(adapter_files))
    }

    /// Removes `best/`, if there is one.
    pub fn remove_best(&self) -> Result<()> {
        match fs::remove_dir_all(self.best_dir()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(&self.best_dir())(error)),
            _ => Ok(()),
        }
    }
}

/// A directory that nothing is in yet: `out`, or `runs/<date>-<name>` with a number behind it where that is taken.
///
/// # Errors
/// An input error when `out` is a file, holds something or cannot be written.
pub fn new_directory(out: Option<&Path>, name: &str) -> Result<PathBuf> {
    match out {
        Some(path) => claim(path),
        None => claim_new(Path::new("runs"), name),
    }
}

fn claim(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Err(Error::input("the run directory is a file").file(path).expected("a directory").into());
    }
    fs::create_dir_all(path).map_err(Error::io(path)).map_err(unusable)?;
    refuse_occupied(path)?;
    Ok(path.into())
}

/// Creating the directory is what claims the name: of two processes, one goes on to the next number.
fn claim_new(runs: &Path, recipe_name: &str) -> Result<PathBuf> {
    fs::create_dir_all(runs).map_err(Error::io(runs)).map_err(unusable)?;
    let name = format!("{}-{}", jiff::Zoned::now().date(), as_file_name(recipe_name));
    let mut path = runs.join(&name);
    let mut number = 1;
    loop {
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                number += 1;
                path = runs.join(format!("{name}-{number}"));
            }
            Err(error) => return Err(unusable(Error::io(&path)(error))),
        }
    }
}

fn refuse_occupied(path: &Path) -> Result<()> {
    let entries = path.read_dir().map_err(Error::io(path)).map_err(unusable)?;
    // All that a run leaves which was killed before it wrote its run.json.
    let traces = [LOCK, ".run.json.tmp"];
    if entries.flatten().all(|entry| traces.iter().any(|name| entry.file_name() == *name)) {
        return Ok(());
    }
    let resume = format!("to continue the run in it use --resume={}, else choose another --out", path.display());
    Err(Error::input("the run directory is not empty").file(path).hint(resume).into())
}

/// Where to write is the user's choice, so what the system says against it is bad input.
fn unusable(error: Error) -> Error {
    match error {
        Error::Io { path, source } => {
            Error::input("the run directory cannot be written").file(path).found(source).into()
        }
        other => other,
    }
}

/// `tiny/lora` becomes `tiny-lora`.
fn as_file_name(recipe_name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    recipe_name.chars().take(100).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RunStatus;

    #[test]
    fn the_layout_is_the_one_promised() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("a/b");
        let run = RunDir::create(Some(&out), "tiny/lora").unwrap();
        run.write_recipe("version = 1\n").unwrap();
        run.save_final(&[("adapter_config.json".into(), b"{}".to_vec())]).unwrap();
        run.save_best(&[("adapter_config.json".into(), b"{}".to_vec())]).unwrap();
        let mut names: Vec<_> =
            out.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, [".lock", "best", "checkpoints", "final", "recipe.resolved.toml", "run.json"]);
        assert_eq!(run.final_dir().read_dir().unwrap().count(), 1, "final/ holds the adapter's files and no other");
        assert!(run.checkpoint(50).ends_with("checkpoints/step-000050"));
    }

    #[test]
    fn run_json_is_there_from_the_start_and_rewritten() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("run");
        let run = RunDir::create(Some(&out), "tiny/lora").unwrap();
        let mut info = Layout::of(&out).unwrap().read_info().unwrap();
        assert_eq!((info.recipe.as_str(), info.status), ("tiny/lora", RunStatus::Running));
        info.status = crate::events::Status::Finished.into();
        info.wall_seconds = 12.5;
        run.write_info(&info).unwrap();
        assert_eq!(run.read_info().unwrap(), info);
    }

    #[test]
    fn a_taken_default_name_gets_a_number() {
        let runs = tempfile::tempdir().unwrap();
        let names = ["tiny/lora", "tiny/lora", "../x y"]
            .map(|recipe| claim_new(runs.path(), recipe).unwrap().file_name().unwrap().to_str().unwrap().to_string());
        assert!(names[0].ends_with("-tiny-lora") && names[0].starts_with("20"), "{names:?}");
        assert_eq!(names[1], format!("{}-2", names[0]));
        assert!(names[2].ends_with("-..-x-y"), "{names:?}");
    }

    #[test]
    fn unusable_directories_are_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let (file, full) = (parent.path().join("file"), parent.path().join("full"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&full).unwrap();
        fs::write(full.join("precious"), "").unwrap();
        for (out, expected) in
            [(file.clone(), "is a file"), (full.clone(), "--resume="), (file.join("below"), "cannot be written")]
        {
            let error = RunDir::create(Some(&out), "r").unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert_eq!(full.read_dir().unwrap().count(), 1, "something was written into a refused directory");
    }

    #[test]
    fn opening_settles_what_a_kill_left_and_nothing_of_others() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("run");
        let run = RunDir::create(Some(&out), "r").unwrap();
        run.save_best(&[("a".into(), b"old".to_vec())]).unwrap();
        drop(run);
        fs::rename(out.join("best"), out.join(".best.old")).unwrap();
        fs::create_dir(out.join(".best.tmp")).unwrap();
        fs::write(out.join(".run.json.tmp"), "{").unwrap();
        fs::write(out.join(".notes.tmp"), "not ours").unwrap();
        let run = RunDir::open(&out).unwrap();
        assert_eq!(fs::read(run.best_dir().join("a")).unwrap(), b"old");
        let gone = [".best.old", ".best.tmp", ".run.json.tmp"].iter().all(|name| !out.join(name).exists());
        assert!(gone && out.join(".notes.tmp").exists());
    }

    #[test]
    fn a_run_in_progress_cannot_be_opened_and_a_stranger_is_no_run() {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("run");
        let run = RunDir::create(Some(&out), "r").unwrap();
        assert!(RunDir::open(&out).unwrap_err().to_string().contains("in use by pid"));
        drop(run);
        RunDir::open(&out).unwrap();
        assert!(RunDir::open(parent.path()).unwrap_err().to_string().contains("has no run.json"));
        assert!(RunDir::open(&parent.path().join("no")).unwrap_err().to_string().contains("no such run"));
        assert!(!parent.path().join(".lock").exists(), "a directory that is no run was locked");
    }
}
