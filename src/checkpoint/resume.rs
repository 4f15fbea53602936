//! Going on with a run: from which checkpoint, and whether what it depends on is still the same.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::verify::sha256;
use super::{Checkpoint, Hashes, Layout, Newest, RunDir, RunStatus, newest};
use crate::error::InputError;
use crate::recipe::Recipe;
use crate::{Error, Result};

/// What a resumed run may change: how long it goes on and what it reports and where its moments lie, never what
/// a step computes. A schedule that is laid over all steps follows their new number.
const MAY_GROW: [&str; 2] = ["train.max_steps", "train.epochs"];
const MAY_CHANGE: [&str; 6] =
    ["train.eval_every", "train.eval_generate", "train.save_every", "train.keep", "log.every", "optim.offload"];

/// What the resuming process runs with.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    pub recipe: &'a Recipe,
    pub hashes: &'a Hashes,
    pub device: &'a str,
    pub threads: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
}

/// Which checkpoint to go on from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    Newest,
    /// This one and no other: damage is an error.
    Exactly(&'a Path),
}

#[derive(Debug)]
pub enum Start {
    /// The run never came to its first checkpoint.
    Fresh,
    From(Box<Checkpoint>),
    /// Nothing is left to do.
    Finished {
        step: usize,
    },
}

/// Where a resumed run starts, and what its user should be told.
#[derive(Debug)]
pub struct Resumption {
    pub start: Start,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

/// Decides how `run` goes on under the conditions of now.
///
/// # Errors
/// Input errors naming every recipe key, base, data set or tokenizer that differs and may not, and damaged
/// checkpoints where no other can take their place.
pub fn resume(run: &RunDir, source: Source, now: &Conditions) -> Result<Resumption> {
    // A run killed in its first moments has none, and no checkpoint either.
    let mut notes = if run.recipe().exists() { changes(&run.read_recipe()?, now.recipe)? } else { Vec::new() };
    let Newest { checkpoint, mut warnings } = match source {
        Source::Newest => newest(&run.checkpoints())?,
        Source::Exactly(path) => {
            Newest { checkpoint: Some((path.into(), Checkpoint::load(path)?)), warnings: Vec::new() }
        }
    };
    let Some((path, checkpoint)) = checkpoint else {
        notes.push(format!("{} has no checkpoint yet: starting at step 0", run.path().display()));
        return Ok(Resumption { start: Start::Fresh, notes, warnings });
    };
    let state = &checkpoint.state;
    same_inputs(&path, &state.hashes, now.hashes)?;
    if (state.device.as_str(), state.threads) != (now.device, now.threads) {
        warnings.push(format!(
            "saved on {} with {} threads, continued on {} with {}: the result will not be the same bit for bit",
            state.device, state.threads, now.device, now.threads
        ));
    }
    let step = state.step;
    if now.total_steps < state.total_steps {
        return Err(Error::input("a resumed run may only grow")
            .found(format!("{} steps", now.total_steps))
            .expected(format!("at least {}", state.total_steps))
            .into());
    }
    // The last checkpoint alone does not finish a run: a kill may have come before final/ was written.
    let start = if step >= now.total_steps && run.read_info()?.status == RunStatus::Finished {
        notes.push(format!("{} finished at step {step}: nothing to do", run.path().display()));
        Start::Finished { step }
    } else {
        notes.push(format!("continuing {} after step {step}", run.path().display()));
        Start::From(Box::new(checkpoint))
    };
    Ok(Resumption { start, notes, warnings })
}

/// What differs between the recipe a run was started with and the current one, as sentences.
///
/// # Errors
/// One input error for each key that may not differ.
pub fn changes(saved: &Recipe, current: &Recipe) -> Result<Vec<String>> {
    let (mut notes, mut errors) = (Vec::new(), Vec::new());
    for Difference { key, saved, current } in differences(&as_json(saved)?, &as_json(current)?) {
        if [&MAY_GROW[..], &MAY_CHANGE].concat().contains(&key.as_str()) {
            notes.push(format!("{key} changed from {} to {}", shown(&saved), shown(&current)));
            continue;
        }
        let what = "cannot change when a run is resumed";
        errors.push(Error::input(what).key(key).found(shown(&current)).expected(shown(&saved)));
    }
    let Some(last) = errors.last_mut() else { return Ok(notes) };
    let free = [MAY_GROW.as_slice(), MAY_CHANGE.as_slice()].concat().join(", ");
    last.hint = Some(format!("start a new run, or change only {free}"));
    Err(Error::Inputs(errors))
}

/// sha256 of those parts of a recipe that may not change under a run.
pub fn fingerprint(recipe: &Recipe) -> Result<String> {
    let mut value = as_json(recipe)?;
    for key in MAY_GROW.iter().chain(&MAY_CHANGE) {
        let table_and_name = key.split_once('.').and_then(|(table, name)| Some((value.get_mut(table)?, name)));
        if let Some((Value::Object(table), name)) = table_and_name {
            table.shift_remove(name);
        }
    }
    Ok(sha256(value.to_string().as_bytes()))
}

/// The newest run of a recipe under `runs`, for `--resume` without a directory.
///
/// # Errors
/// An input error when there is none.
pub fn newest_run(runs: &Path, recipe_name: &str) -> Result<PathBuf> {
    let candidates = runs.read_dir().into_iter().flatten().flatten().filter_map(|entry| {
        let info = Layout::of(&entry.path()).and_then(|layout| layout.read_info()).ok()?;
        let started = info.started.parse::<Timestamp>().ok()?;
        (info.recipe == recipe_name).then(|| (started, entry.path()))
    });
    candidates.max().map(|(_, path)| path).ok_or_else(|| {
        Error::input(format!("there is no run of {recipe_name} to resume"))
            .file(runs)
            .hint("leave out --resume to start one, or name its directory: --resume=RUN")
            .into()
    })
}

/// The run, and the checkpoint in it, that the argument of `--resume` means: `RUN` or `RUN/checkpoints/step-000050`.
pub fn locate(argument: &Path) -> (&Path, Source<'_>) {
    match argument.parent().and_then(|checkpoints| Some((checkpoints.file_name()?, checkpoints.parent()?))) {
        Some((name, run)) if name == "checkpoints" => {
            (if run == Path::new("") { Path::new(".") } else { run }, Source::Exactly(argument))
        }
        _ => (argument, Source::Newest),
    }
}

fn same_inputs(checkpoint: &Path, saved: &Hashes, now: &Hashes) -> Result<()> {
    let inputs = [
        ("the base model", &saved.base, &now.base),
        ("the data", &saved.data, &now.data),
        ("the tokenizer", &saved.tokenizer, &now.tokenizer),
        ("the recipe", &saved.recipe, &now.recipe),
    ];
    let errors: Vec<InputError> = inputs
        .iter()
        .filter(|(_, saved, now)| saved != now)
        .map(|(what, saved, now)| {
            Error::input(format!("{what} is not what this checkpoint was trained with"))
                .file(checkpoint)
                .found(format!("sha256 {now}"))
                .expected(format!("sha256 {saved}"))
                .hint("resume with what the run was started with, or start a new run")
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(Error::Inputs(errors)) }
}

struct Difference {
    key: String,
    saved: Value,
    current: Value,
}

/// The keys at which two tables differ, as deep as both have tables.
fn differences(saved: &Value, current: &Value) -> Vec<Difference> {
    let (Value::Object(old), Value::Object(new)) = (saved, current) else {
        let difference = Difference { key: String::new(), saved: saved.clone(), current: current.clone() };
        return if saved == current { Vec::new() } else { vec![difference] };
    };
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    let below = keys.flat_map(|key| {
        let [old, new] = [old, new].map(|table| table.get(key).unwrap_or(&Value::Null));
        differences(old, new).into_iter().map(move |difference| {
            let dot = if difference.key.is_empty() { "" } else { "." };
            Difference { key: format!("{key}{dot}{}", difference.key), ..difference }
        })
    });
    below.collect()
}

fn shown(value: &Value) -> String {
    if value.is_null() { "unset".into() } else { value.to_string() }
}

fn as_json(recipe: &Recipe) -> Result<Value> {
    serde_json::to_value(recipe).map_err(|error| Error::Failed(format!("recipe: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::store::tests::sample;

    const RECIPE: &str = r#"
        version = 1
        seed = 3
        model = { path = "tiny" }
        adapter = { lora = { rank = 8 } }
        data = { train = "synthetic:menu" }
        optim = { adamw = { lr = 2e-4 } }
        train = { max_steps = 100, epochs = 2 }
    "#;

    fn recipe(from: &str, to: &str) -> Recipe {
        assert!(RECIPE.contains(from));
        toml::from_str(&RECIPE.replace(from, to)).unwrap()
    }

    fn hashes(data: &str, recipe: &Recipe) -> Hashes {
        Hashes {
            base: "b".into(),
            data: data.into(),
            tokenizer: "t".into(),
            recipe: fingerprint(recipe).unwrap(),
            adapter: None,
        }
    }

    #[test]
    fn length_and_reporting_may_change() {
        let saved = recipe("", "");
        assert!(changes(&saved, &saved).unwrap().is_empty());
        for (from, to, note) in [
            ("max_steps = 100", "max_steps = 200", "train.max_steps changed from 100 to 200"),
            ("max_steps = 100, ", "", "train.max_steps changed from 100 to unset"),
            ("epochs = 2", "epochs = 3", "train.epochs changed from 2 to 3"),
            ("epochs = 2", "epochs = 2, keep = 1", "train.keep changed from 3 to 1"),
            ("train = {", "log = { every = 1 }\ntrain = {", "log.every changed from 10 to 1"),
            ("2e-4 }", "2e-4 }, offload = \"host\"", "optim.offload changed from \"device\" to \"host\""),
        ] {
            let current = recipe(from, to);
            assert_eq!(changes(&saved, &current).unwrap(), [note]);
            assert_eq!(fingerprint(&current).unwrap(), fingerprint(&saved).unwrap(), "{note}");
        }
    }

    #[test]
    fn what_a_step_computes_may_not_change_and_is_named() {
        let saved = recipe("", "");
        for (from, to, expected) in [
            ("2e-4", "3e-4", "key optim.adamw.lr: cannot change when a run is resumed; found 0.0003; expected 0.0002"),
            ("seed = 3", "seed = 4", "key seed: cannot change"),
            ("rank = 8", "rank = 4", "key adapter.lora.rank: cannot change"),
            ("{ lora = { rank = 8 } }", "{ full = {} }", "key adapter.full: cannot change"),
            ("epochs = 2", "epochs = 2, batch = 8", "key train.batch: cannot change"),
        ] {
            let current = recipe(from, to);
            let error = changes(&saved, &current).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(expected), "{error}");
            assert_ne!(fingerprint(&current).unwrap(), fingerprint(&saved).unwrap(), "{expected}");
        }
        let both = recipe("8 } }", "4, alpha = 1.0 } }");
        assert!(matches!(changes(&saved, &both), Err(Error::Inputs(errors)) if errors.len() == 2));
    }

    struct Fixture {
        recipe: Recipe,
        hashes: Hashes,
        total_steps: usize,
        threads: usize,
    }

    impl Fixture {
        fn new() -> (tempfile::TempDir, RunDir, Self) {
            let parent = tempfile::tempdir().unwrap();
            let run = RunDir::create(Some(&parent.path().join("run")), "tiny/lora").unwrap();
            run.write_recipe(RECIPE).unwrap();
            let recipe = recipe("", "");
            let hashes = hashes("d", &recipe);
            (parent, run, Self { recipe, hashes, total_steps: 100, threads: 2 })
        }
        fn save(&self, run: &RunDir, step: usize) {
            let mut checkpoint = sample(step, 1);
            checkpoint.state.hashes = self.hashes.clone();
            (checkpoint.state.device, checkpoint.state.threads) = ("flex".into(), 2);
            checkpoint.state.total_steps = 100;
            checkpoint.save(run).unwrap();
        }
        fn resume(&self, run: &RunDir, source: Source) -> Result<Resumption> {
            let Self { recipe, hashes, total_steps, threads } = self;
            let now = Conditions { recipe, hashes, device: "flex", threads: *threads, total_steps: *total_steps };
            resume(run, source, &now)
        }
    }

    #[test]
    fn a_run_without_checkpoint_starts_afresh_and_says_so() {
        let (_parent, run, fixture) = Fixture::new();
        let resumption = fixture.resume(&run, Source::Newest).unwrap();
        assert!(matches!(resumption.start, Start::Fresh));
        assert!(resumption.notes[0].contains("starting at step 0"), "{:?}", resumption.notes);
        let missing = run.checkpoint(50);
        let error = fixture.resume(&run, Source::Exactly(&missing)).unwrap_err();
        assert!(error.to_string().contains("no such checkpoint"), "{error}");
    }

    #[test]
    fn the_newest_or_the_named_checkpoint_is_continued() {
        let (_parent, run, mut fixture) = Fixture::new();
        fixture.save(&run, 50);
        fixture.save(&run, 60);
        let fifty = run.checkpoint(50);
        let step = |source, fixture: &Fixture| match fixture.resume(&run, source).unwrap() {
            Resumption { start: Start::From(checkpoint), warnings, .. } => (checkpoint.state.step, warnings.len()),
            other => panic!("{other:?}"),
        };
        assert_eq!(step(Source::Newest, &fixture), (60, 0));
        assert_eq!(step(Source::Exactly(&fifty), &fixture), (50, 0));
        fixture.threads = 4;
        assert_eq!(step(Source::Newest, &fixture), (60, 1), "other threads are a warning");
        std::fs::remove_file(run.checkpoint(60).join("COMPLETE")).unwrap();
        assert_eq!(step(Source::Newest, &fixture), (50, 2), "falling back is a warning");
        assert!(fixture.resume(&run, Source::Exactly(&run.checkpoint(60))).is_err());
    }

    #[test]
    fn other_data_is_refused_by_name() {
        let (_parent, run, mut fixture) = Fixture::new();
        fixture.save(&run, 50);
        fixture.hashes = hashes("other", &fixture.recipe);
        let error = fixture.resume(&run, Source::Newest).unwrap_err();
        assert!(error.to_string().contains("the data is not what this checkpoint"), "{error}");
        assert!(!error.to_string().contains("base model"), "{error}");
    }

    #[test]
    fn a_run_does_not_shrink() {
        let (_parent, run, mut fixture) = Fixture::new();
        fixture.save(&run, 50);
        fixture.total_steps = 99;
        let error = fixture.resume(&run, Source::Newest).unwrap_err().to_string();
        assert!(error.contains("found 99 steps; expected at least 100"), "{error}");
    }

    #[test]
    fn a_finished_run_has_nothing_to_do_until_it_grows() {
        let (_parent, run, mut fixture) = Fixture::new();
        fixture.save(&run, 100);
        let start = |fixture: &Fixture| fixture.resume(&run, Source::Newest).unwrap().start;
        assert!(matches!(start(&fixture), Start::From(_)), "final/ may not have been written");
        let mut info = run.read_info().unwrap();
        info.status = RunStatus::Finished;
        run.write_info(&info).unwrap();
        assert!(matches!(start(&fixture), Start::Finished { step: 100 }));
        (fixture.recipe, fixture.total_steps) = (recipe("max_steps = 100", "max_steps = 150"), 150);
        assert!(matches!(start(&fixture), Start::From(_)));
    }

    #[test]
    fn the_newest_run_of_a_recipe_is_found() {
        let runs = tempfile::tempdir().unwrap();
        let run = |name: &str, recipe: &str, started: &str| {
            let run = RunDir::create(Some(&runs.path().join(name)), recipe).unwrap();
            let mut info = run.read_info().unwrap();
            info.started = started.into();
            run.write_info(&info).unwrap();
        };
        run("a-10", "tiny/lora", "2026-03-01T10:00:00.5Z");
        run("a-9", "tiny/lora", "2026-03-01T10:00:00Z");
        run("z", "tiny/dora", "2026-04-01T10:00:00Z");
        std::fs::create_dir(runs.path().join("stranger")).unwrap();
        assert_eq!(newest_run(runs.path(), "tiny/lora").unwrap(), runs.path().join("a-10"));
        for (directory, recipe) in [(runs.path(), "tiny/vera"), (&runs.path().join("absent"), "tiny/lora")] {
            let error = newest_run(directory, recipe).unwrap_err();
            assert!(error.to_string().contains(&format!("no run of {recipe} to resume")), "{error}");
        }
    }

    #[test]
    fn a_checkpoint_can_be_named_in_place_of_its_run() {
        let named = Path::new("runs/x/checkpoints/step-000050");
        assert!(matches!(locate(named), (run, Source::Exactly(path)) if run == Path::new("runs/x") && path == named));
        let plain = Path::new("runs/x");
        assert!(matches!(locate(plain), (run, Source::Newest) if run == plain));
        let inside = Path::new("checkpoints/step-000050");
        assert!(matches!(locate(inside), (run, Source::Exactly(_)) if run == Path::new(".")));
    }
}
