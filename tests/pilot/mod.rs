//! A run whose recipe a pilot completes: once, whatever becomes of the process.

use std::path::{Path, PathBuf};

use lowrank::adapters::AdapterConfig;
use lowrank::checkpoint::{Layout, RunStatus};
use lowrank::events::{Bus, Control, Event, ModuleRank, Record, Request, RunStarted, Sink, Status, read};
use lowrank::recipe::load;
use lowrank::train::{Begun, Job, Options, Outcome, Target};
use lowrank::{Error, Result};

const RECIPE: &str = r#"
    [model]
    path = "tiny"
    [adapter.lora_drop]
    targets = "all-linear"
    rank = 2
    sample = 0.5
    pilot_steps = 4
    [data]
    train = "synthetic:menu"
    max_rows = 48
    [optim]
    adamw = { lr = 5e-3 }
    [train]
    batch = 8
    max_steps = 4
    save_every = 3
"#;

/// A folder with the recipe, and `run` for the run.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::write(folder.recipe(), RECIPE).unwrap();
        folder
    }

    fn recipe(&self) -> PathBuf {
        self.0.path().join("recipe.toml")
    }

    fn run(&self) -> Layout {
        Layout::of(&self.0.path().join("run")).unwrap()
    }

    fn job(&self, recipe: &Path, sets: &[&str]) -> Job {
        let runtime = lowrank_flex::RUNTIME;
        let target = Target { runtime, index: 0, device: runtime.devices().remove(0) };
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Job::prepare(&load(recipe, &sets).unwrap(), &target).unwrap()
    }

    fn start(&self, sets: &[&str], listen: impl FnOnce(Bus, &Control) -> Bus) -> Result<Outcome> {
        let options = Options { out: Some(self.0.path().join("run")), resume: None };
        train(self.job(&self.recipe(), sets), &options, listen)
    }

    fn resume(&self, recipe: &Path, sets: &[&str]) -> Outcome {
        let options = Options { out: None, resume: Some(Some(self.run().path().to_path_buf())) };
        train(self.job(recipe, sets), &options, |bus, _| bus).unwrap()
    }

    fn keep(&self) -> Vec<String> {
        match self.run().read_recipe().unwrap().adapter {
            AdapterConfig::LoraDrop(config) => config.keep,
            other => panic!("{other:?}"),
        }
    }

    fn events(&self) -> Vec<Event> {
        read(self.run().metrics()).unwrap().into_iter().map(|record| record.event).collect()
    }

    fn final_files(&self) -> [Vec<u8>; 2] {
        ["adapter_config.json", "adapter_model.safetensors"]
            .map(|name| std::fs::read(self.run().final_dir().join(name)).unwrap())
    }
}

fn train(mut job: Job, options: &Options, listen: impl FnOnce(Bus, &Control) -> Bus) -> Result<Outcome> {
    let Begun { run, .. } = job.begin(options)?;
    let (run, control) = (run.expect("something to do"), Control::new());
    let bus = listen(run.bus()?, &control);
    run.train(&bus, &control)
}

fn kind(event: &Event) -> String {
    serde_json::to_value(event).unwrap()["event"].as_str().unwrap().into()
}

fn count(events: &[Event], name: &str) -> usize {
    events.iter().filter(|event| kind(event) == name).count()
}

fn starts(events: &[Event]) -> Vec<&RunStarted> {
    events.iter().filter_map(|event| if let Event::RunStarted(start) = event { Some(&**start) } else { None }).collect()
}

/// Asks for a stop at the second step of the pilot.
struct Stopper(Control);

impl Sink for Stopper {
    fn record(&mut self, record: &Record) {
        if matches!(&record.event, Event::Pilot(pilot) if pilot.step == 2) {
            self.0.request(Request::Stop);
        }
    }
}

#[test]
fn a_pilot_decides_once_and_the_run_keeps_to_it() {
    let folder = Folder::new();
    let outcome = folder.start(&[], |bus, _| bus).unwrap();
    assert_eq!((outcome.status, outcome.step), (Status::Finished, 4));
    // The file is plain LoRA with a copy for each module.
    assert!(outcome.verify.unwrap().max_abs_logit_diff < 1e-5);

    let events = folder.events();
    let kinds: Vec<String> = events.iter().map(kind).take(8).collect();
    assert_eq!(kinds, ["run_started", "pilot", "pilot", "pilot", "pilot", "run_started", "ranks", "step"]);
    let Event::Ranks { step: 0, budget, modules } = &events[6] else { panic!("{:?}", events[6]) };
    let own: Vec<&ModuleRank> = modules.iter().filter(|module| module.active > 0).collect();
    let keep = folder.keep();
    assert!(own.iter().map(|module| &module.name).eq(&keep), "{own:?}");
    assert!((1..modules.len()).contains(&own.len()) && *budget == 2 * own.len());
    assert!((modules.iter().map(|module| module.importance).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(own.iter().map(|module| module.importance).sum::<f64>() >= 0.9);

    // Before the decision every module may have its own; after it the count is exact.
    let job = folder.job(&folder.run().recipe(), &[]);
    let [before, after] = starts(&events)[..] else { panic!() };
    assert_eq!(after.params_trainable, job.trainable);
    assert_eq!(job.trainable, size(job.recipe.adapter.spec().unwrap().trains(&job.selected)));
    assert!(after.params_trainable < before.params_trainable);
    assert_eq!(after.plan["adapter"]["lora_drop"]["keep"], serde_json::json!(keep));

    // Named or not, the recipe goes on with what was decided.
    folder.resume(&folder.recipe(), &["train.max_steps=5"]);
    folder.resume(&folder.run().recipe(), &["train.max_steps=6"]);
    let events = folder.events();
    assert_eq!((count(&events, "pilot"), count(&events, "step")), (4, 6));
    assert!(starts(&events)[2..].iter().all(|start| start.params_trainable == job.trainable));
    assert_eq!(folder.keep(), keep);
}

#[test]
fn a_stopped_pilot_leaves_nothing_and_starts_over() {
    let (untouched, stopped) = (Folder::new(), Folder::new());
    untouched.start(&[], |bus, _| bus).unwrap();
    let outcome = stopped.start(&[], |bus, control| bus.with(Stopper(control.clone()))).unwrap();
    assert_eq!((outcome.status, outcome.step), (Status::Interrupted, 0));
    assert!(stopped.keep().is_empty());
    assert_eq!(std::fs::read_dir(stopped.run().checkpoints()).unwrap().count(), 0);
    assert_eq!(count(&stopped.events(), "pilot"), 2);
    let outcome = stopped.resume(&stopped.recipe(), &[]);
    assert_eq!((outcome.status, count(&stopped.events(), "pilot")), (Status::Finished, 4));
    assert_eq!(stopped.keep(), untouched.keep());
    assert_eq!(stopped.final_files(), untouched.final_files());
}

#[test]
fn a_pilot_that_moves_nothing_is_an_error() {
    let folder = Folder::new();
    // The one step comes at the foot of the warm-up.
    let sets = ["adapter.lora_drop.pilot_steps=1", "optim.schedule.constant.warmup=2"];
    let error = folder.start(&sets, |bus, _| bus).unwrap_err();
    assert!(matches!(&error, Error::Input(error) if error.what.contains("nothing tells them apart")), "{error}");
    assert_eq!(folder.run().read_info().unwrap().status, RunStatus::Failed);
}

fn size(trains: indexmap::IndexMap<String, Vec<usize>>) -> usize {
    trains.values().map(|shape| shape.iter().product::<usize>()).sum()
}
