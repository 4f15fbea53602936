//! Crash tests: a save interrupted at every call it makes, and processes killed while they save.

use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use super::fault::{Fault, FaultFs};
use super::store::tests::sample;
use super::{Checkpoint, Newest, RunDir, list, newest};

const DIRECTORY: &str = "LOWRANK_CRASH_TEST_DIRECTORY";

/// This test program again, running one test of it in a directory; killed when dropped.
pub struct Child {
    process: process::Child,
    directory: PathBuf,
}

/// Where a child process is to work; `None` in an ordinary test run.
pub fn child_directory() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(PathBuf::from)
}

impl Child {
    pub fn spawn(test: &str, directory: &Path) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test]).env(DIRECTORY, directory).stdout(Stdio::null()).stderr(Stdio::null());
        Self { process: command.spawn().unwrap(), directory: directory.into() }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn wait_for(&self, file: &str) {
        let start = Instant::now();
        while !self.directory.join(file).exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "the child process never wrote {file}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn load_newest(run: &RunDir) -> Checkpoint {
    let Newest { checkpoint, warnings } = newest(&run.checkpoints()).unwrap();
    assert!(warnings.is_empty(), "torn: {warnings:?}");
    checkpoint.expect("no checkpoint is left").1
}

/// Interrupts the save of `new`, after `old` has been saved, at its first call, its second, and so on.
fn old_or_new_survives(old: &Checkpoint, new: &Checkpoint) {
    for fault in Fault::ALL {
        for at in 0.. {
            let parent = tempfile::tempdir().unwrap();
            let root = parent.path().join("run");
            let run = RunDir::create(Some(&root), "test").unwrap();
            old.save_as(&FaultFs::sound(), &run.checkpoint(old.state.step), 0).unwrap();
            let fs = FaultFs::new(fault, at);
            let outcome = new.save_as(&fs, &run.checkpoint(new.state.step), 1);
            fs.shut_down();
            drop(run);

            let run = RunDir::open(&root).unwrap();
            let found = load_newest(&run);
            assert!(found == *new || found == *old, "a mixture after {fault:?} at call {at}");
            assert!(found == *new || outcome.is_err(), "{fault:?} at call {at} lost what was reported as saved");
            let left = run.checkpoints().read_dir().unwrap().count();
            assert_eq!(left, list(&run.checkpoints()).unwrap().complete.len(), "rubbish after {fault:?} at call {at}");
            if !fs.struck() {
                assert!(at >= 9, "a save makes more calls than {at}");
                break;
            }
        }
    }
}

#[test]
fn a_save_interrupted_anywhere_leaves_the_old_or_the_new_checkpoint() {
    old_or_new_survives(&sample(50, 1), &sample(100, 2));
}

#[test]
fn saving_a_step_again_leaves_the_old_or_the_new_checkpoint() {
    old_or_new_survives(&sample(50, 1), &sample(50, 2));
}

#[test]
fn a_process_killed_at_any_moment_can_be_resumed() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("run");
    drop(RunDir::create(Some(&root), "test").unwrap());
    let mut last = 0;
    for round in 0..12 {
        let child = Child::spawn("checkpoint::crash::save_until_killed", &root);
        child.wait_for("saving");
        thread::sleep(Duration::from_millis(1 + 7 * round % 31));
        child.kill();
        fs::remove_file(root.join("saving")).unwrap();
        let run = RunDir::open(&root).unwrap();
        let step = load_newest(&run).state.step;
        assert!(step >= last, "went back from step {last} to {step}");
        last = step;
    }
    assert!(last >= 12, "each child process saves at least one step before it is killed");
}

/// Body of the child process above: saves each step twice, rotating in between.
#[test]
fn save_until_killed() {
    let Some(root) = child_directory() else { return };
    let run = RunDir::open(&root).unwrap();
    let start = newest(&run.checkpoints()).unwrap().checkpoint.map_or(0, |(_, checkpoint)| checkpoint.state.step);
    // Ends by itself should the parent be gone.
    for step in start + 1..start + 5_000 {
        for salt in [1, 2] {
            sample(step, salt).save(&run).unwrap();
            super::rotate(&run.checkpoints(), 2, None).unwrap();
            run.save_best(&sample(step, salt).adapter_files).unwrap();
        }
        fs::write(root.join("saving"), "").unwrap();
    }
}
