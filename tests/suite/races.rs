//! Variants that race over one base.

use std::path::Path;

use lowrank::compare::{Comparison, Judged};
use lowrank::events::{Bus, Control, Event, Record, Request, Sink};
use lowrank::recipe::Shipped;
use lowrank::runtime::Runtime;
use lowrank::tensors::{HostTensors, decode};
use lowrank::train::{Contest, Entry, Job, Options, Place, Target};

use super::golden::{assert_same, e2e};

/// Two methods, a quantised base, a start that owns its base, a model that trains whole, and the base as it is.
const VARIANTS: &str = r#"
[[variant]]
name = "lora"
[[variant]]
name = "adalora"
[variant.adapter.adalora]
init_rank = 4
target_rank = 2
warmup_steps = 1
final_steps = 2
interval = 1
[[variant]]
name = "nf4"
[variant.base]
quant = { nf4 = { block = 64, double = true } }
[[variant]]
name = "full"
[variant.adapter.full]
[[variant]]
name = "none"
[variant.adapter.none]
"#;

fn recipe(dir: &Path) -> String {
    let text = format!(
        "version = 1\n[model]\npath = {:?}\n[adapter.lora]\nrank = 4\ndropout = 0.1\n[data]\ntrain = \"synthetic:menu\"\nmax_rows = 24\n\
         eval = {{ fraction = 0.25 }}\n[optim]\nadamw = {{ lr = 1e-2 }}\nclip = 0.0\n[train]\nbatch = 2\nmax_steps = 5\nsave_every = 2\n\
         [compare]\nseeds = 1\n{VARIANTS}",
        e2e("llama").join("base"),
    );
    let path = dir.join("race.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn target(runtime: &'static dyn Runtime) -> Target {
    Target { runtime, index: 0, device: runtime.devices().remove(0) }
}

fn race(
    runtime: &'static dyn Runtime,
    recipe: &str,
    options: &Options,
    listen: &dyn Fn(Bus) -> Bus,
    control: &Control,
) -> Vec<Entry> {
    let comparison = Shipped(&[]).load_comparison(recipe, &[]).unwrap();
    let mut contest = Contest::prepare(comparison, target(runtime)).unwrap();
    let place = Place::take(options, "race").unwrap();
    contest.run(&place, listen, control).unwrap()
}

fn into(dir: &Path) -> Options {
    Options { out: Some(dir.into()), resume: None }
}

fn trained(dir: &Path) -> HostTensors {
    let file = |name: &str| std::fs::read(dir.join("final").join(name));
    let bytes = file("adapter_model.safetensors").or_else(|_| file("model.safetensors")).unwrap();
    decode(&bytes, dir).unwrap()
}

fn assert_alike(runtime: &dyn Runtime, dir: &Path, alone: &Path, what: &str) {
    assert_same(runtime, &trained(dir), &trained(alone), what);
}

/// Asks for a stop when a run has taken a step.
struct StopAt(usize, Control);

impl Sink for StopAt {
    fn record(&mut self, record: &Record) {
        if matches!(&record.event, Event::Step(step) if step.step == self.0) {
            self.1.request(Request::Stop);
        }
    }
}

/// Whoever else runs, and however often all are stopped: a variant ends as it does alone.
pub fn a_race_changes_nothing_for_its_members(runtime: &'static dyn Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, whole, halved) = (recipe(dir.path()), dir.path().join("whole"), dir.path().join("halved"));
    let entries = race(runtime, &recipe, &into(&whole), &|bus| bus, &Control::new());
    assert_eq!(entries.len(), 5);
    entries.iter().for_each(|entry| assert!(matches!(entry.came, Some(Ok(_))), "{}", entry.variant));

    let stop = Control::new();
    race(runtime, &recipe, &into(&halved), &|bus| bus.with(StopAt(3, stop.clone())), &stop);
    assert!(!halved.join("lora/seed-0/final").exists());
    let again = Options { out: None, resume: Some(Some(halved.clone())) };
    race(runtime, &recipe, &again, &|bus| bus, &Control::new());

    for variant in Shipped(&[]).load_comparison(&recipe, &[]).unwrap().variants {
        if variant.name == "none" {
            continue;
        }
        let alone = dir.path().join(&variant.name);
        let mut job = Job::prepare(&variant.resolved, &target(runtime)).unwrap();
        let run = job.begin(&into(&alone)).unwrap().run.unwrap();
        let bus = run.bus().unwrap();
        run.train(&bus, &Control::new()).unwrap();
        let seeded = |root: &Path| root.join(&variant.name).join("seed-0");
        assert_alike(runtime, &seeded(&whole), &alone, "not as alone");
        assert_alike(runtime, &seeded(&halved), &alone, "not as if it had not been stopped");
    }

    // What has finished is not run again, and what the race wrote is a comparison.
    let metrics = std::fs::read(halved.join("lora/seed-0/metrics.jsonl")).unwrap();
    let entries = race(runtime, &recipe, &again, &|bus| bus, &Control::new());
    assert!(entries.iter().all(|entry| entry.came.is_none()));
    assert!(std::fs::read(halved.join("lora/seed-0/metrics.jsonl")).unwrap() == metrics);
    let summary = Comparison::read(&[halved], Judged::default()).unwrap().summary;
    assert_eq!(summary.variants.len(), 5);
    assert!(summary.race.is_some());
}
