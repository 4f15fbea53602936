//! A run that is killed or interrupted and resumed ends with the bytes of one that was left alone.

#![cfg(all(unix, feature = "flex"))]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const STEPS: &str = "train.max_steps=12";

fn lowrank(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn start(out: &Path) -> Child {
    let sets = [STEPS, "train.save_every=2", "train.eval_every=5", "train.eval_generate=2", "adapter.lora.dropout=0.1"];
    let sets = sets.into_iter().chain(["train.batch=8", "train.accumulate=2", "data.max_rows=100"]);
    let mut command = lowrank(&["train", "tiny/lora", "--no-tui", "--device", "flex", "--out"]);
    command.arg(out);
    command.args(sets.flat_map(|set| ["--set", set]));
    command.spawn().unwrap()
}

fn resume(out: &Path) {
    let output = lowrank(&["train", "--no-tui", "--device", "flex", &format!("--resume={}", out.display())]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the run has reported `step`.
fn wait_for(out: &Path, step: usize) {
    let (metrics, wanted) = (out.join("metrics.jsonl"), format!("\"event\":\"step\",\"step\":{step},"));
    let start = Instant::now();
    while !std::fs::read_to_string(&metrics).unwrap_or_default().contains(&wanted) {
        assert!(start.elapsed() < Duration::from_secs(120), "step {step} never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn final_bytes(out: &Path) -> Vec<Vec<u8>> {
    let read = |name| std::fs::read(out.join("final").join(name)).unwrap();
    ["adapter_config.json", "adapter_model.safetensors"].map(read).to_vec()
}

#[test]
fn killed_interrupted_and_untouched_runs_end_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (untouched, killed, interrupted) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
    let output = start(&untouched).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Killed twice, once before and once after a checkpoint of its own.
    let mut child = start(&killed);
    wait_for(&killed, 5);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child =
        lowrank(&["train", "--no-tui", "--device", "flex", &format!("--resume={}", killed.display())]).spawn().unwrap();
    wait_for(&killed, 9);
    child.kill().unwrap();
    child.wait().unwrap();
    resume(&killed);
    assert_eq!(final_bytes(&killed), final_bytes(&untouched));

    let child = start(&interrupted);
    wait_for(&interrupted, 3);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("lowrank train --resume="), "{told}");
    resume(&interrupted);
    assert_eq!(final_bytes(&interrupted), final_bytes(&untouched));

    // Nothing is left to do, and nothing is done.
    let before = std::fs::read(interrupted.join("metrics.jsonl")).unwrap();
    resume(&interrupted);
    assert_eq!(std::fs::read(interrupted.join("metrics.jsonl")).unwrap(), before);
}
