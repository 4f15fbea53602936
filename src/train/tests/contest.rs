//! Comparisons over learners that compute nothing.

use std::path::{Path, PathBuf};

use super::still::Still;
use crate::compare::Plan;
use crate::events::{Bus, Control, Event, Status};
use crate::recipe::Shipped;
use crate::runtime::{DeviceInfo, Processor};
use crate::train::{Contest, Entry, Options, Place, Target};
use crate::{Error, Result};

fn prepare(folder: &Path, compare: &str, sets: &[&str]) -> Result<Contest> {
    std::fs::write(folder.join("rows.csv"), "prompt,completion\na, b\nc, d\n").unwrap();
    let text = format!(
        "version = 1\n[model]\npath = \"tiny\"\n[adapter.full]\n[data]\ntrain = \"rows.csv\"\neval = \"rows.csv\"\n\
         [train]\nbatch = 2\nmax_steps = 8\nsave_every = 0\n{compare}"
    );
    let path = folder.join("race.toml");
    std::fs::write(&path, text).unwrap();
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let recipe = Shipped(&[]).load_comparison(&path.display().to_string(), &sets)?;
    let device = DeviceInfo { name: "still".into(), ..DeviceInfo::default() };
    Contest::prepare(recipe, Target { runtime: &Still(Processor::Cpu), index: 0, device })
}

/// Runs it in a new directory.
fn run(folder: &Path, compare: &str) -> (PathBuf, Vec<Entry>) {
    let mut contest = prepare(folder, compare, &[]).unwrap();
    let place = Place::take(&Options { out: Some(folder.join("out")), resume: None }, "race").unwrap();
    let entries = contest.run(&place, &|bus: Bus| bus, &Control::new()).unwrap();
    (place.dir().into(), entries)
}

fn steps(run: &Path) -> usize {
    let records = crate::events::read(run.join("metrics.jsonl")).unwrap();
    records.iter().filter(|record| matches!(record.event, Event::Step(_))).count()
}

#[test]
fn who_diverges_drops_out_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let variants = "[[variant]]\nname = \"wild\"\noptim.adamw.lr = 2.0\n[[variant]]\nname = \"calm\"\n";
    let (dir, entries) = run(folder.path(), variants);
    let came = |variant: &str| entries.iter().find(|entry| entry.variant == variant).unwrap().came.as_ref().unwrap();
    assert!(matches!(came("wild"), Err(Error::Diverged { step: 6, .. })));
    assert_eq!(came("calm").as_ref().unwrap().status, Status::Finished);
    assert_eq!(["wild", "calm"].map(|variant| steps(&dir.join(variant).join("seed-0"))), [6, 8]);
}

#[test]
fn a_sweep_takes_what_evaluates_best_and_writes_down_what_it_tried() {
    let folder = tempfile::tempdir().unwrap();
    let variants = "[[variant]]\nname = \"a\"\nsweep = { \"optim.adamw.lr\" = [0.5, 2.0, 0.1] }\n\
                    [[variant]]\nname = \"b\"\nsweep = { \"optim.adamw.lr\" = [3.0] }\n[[variant]]\nname = \"c\"\n";
    let (dir, entries) = run(folder.path(), variants);
    let sweeps = Plan::read(&dir).unwrap().sweeps;
    assert_eq!(
        sweeps.iter().map(|sweep| (sweep.variant.as_str(), sweep.chosen)).collect::<Vec<_>>(),
        [("a", Some(2)), ("b", None)]
    );
    let tried = &sweeps[0].tried;
    assert_eq!(
        (tried[2].settings.as_str(), tried[2].steps, tried[1].eval_loss.is_nan()),
        ("optim.adamw.lr=0.1", 2, true)
    );
    assert!(sweeps[0].sentence().contains("optim.adamw.lr=0.1 was chosen"), "{}", sweeps[0].sentence());
    let recipe = |variant: &str| std::fs::read_to_string(dir.join(variant).join("seed-0/recipe.resolved.toml"));
    assert!(recipe("a").unwrap().contains("lr = 0.1"));
    // Of b no setting came to its end.
    assert!(recipe("b").is_err() && recipe("c").is_ok());
    let failed: Vec<_> = entries.iter().filter(|entry| matches!(entry.came, Some(Err(_)))).collect();
    assert!(failed.len() == 1 && failed[0].variant == "b");
}

#[test]
fn ranks_are_chosen_so_that_variants_cost_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let variants = "[[variant]]\nname = \"lora\"\nadapter.lora = { targets = \"all-linear\" }\n[[variant]]\nname = \"fa\"\nadapter.lora_fa = { targets = \"all-linear\" }\n\
                    [[variant]]\nname = \"none\"\nadapter.none = {}\n";
    let cost = |matched: &str, of: fn(&crate::train::Job) -> u64| {
        let contest = prepare(folder.path(), variants, &[&format!("compare.match={matched}")]).unwrap();
        let jobs = contest.jobs(0).unwrap();
        assert_eq!(jobs[2].trainable, 0);
        [of(&jobs[0]), of(&jobs[1])]
    };
    // A rank of LoRA-FA trains 5,120 parameters here.
    let [lora, fa] = cost("params", |job| job.trainable as u64);
    assert!(lora == 77_824 && lora.abs_diff(fa) <= 5_120 / 2, "{fa}");
    let [lora, fa] = cost("memory", |job| job.memory.peak);
    assert!(lora.abs_diff(fa) * 100 < lora, "{lora} {fa}");
    let told = prepare(folder.path(), &format!("{variants}[compare]\nreference = \"none\"\nmatch = \"params\"\n"), &[]);
    assert!(told.is_err(), "a variant without a rank is no measure");
}
