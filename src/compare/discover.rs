//! Which runs the given directories hold, and what they are called.

use std::path::{Path, PathBuf};

use super::plan::{self, Plan};
use crate::{Error, Result};

/// A run to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Of the variant it is a run of.
    pub variant: String,
    /// Where the directory says it; else the run itself may.
    pub seed: Option<u64>,
    pub dir: PathBuf,
}

impl Source {
    pub fn metrics(&self) -> PathBuf {
        self.dir.join("metrics.jsonl")
    }

    /// `lora/seed-1` is a run of `lora`, and so is `lora`.
    fn of_run(dir: &Path) -> Self {
        // `.` and `..` have no name of their own.
        let full = dir.canonicalize().unwrap_or_else(|_| dir.into());
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let own = name(&full).unwrap_or_else(|| "run".into());
        let seed = own.strip_prefix("seed-").and_then(|number| number.parse().ok());
        let parent = seed.and_then(|_| full.parent().and_then(name));
        Self { variant: parent.unwrap_or(own), seed, dir: dir.into() }
    }
}

/// What lies in the directories.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub plans: Vec<Plan>,
    pub sources: Vec<Source>,
    /// Runs that a plan names and that are not there.
    pub missing: Vec<String>,
}

/// Looks into comparisons and run directories; a run directory needs nothing but its `metrics.jsonl`.
///
/// # Errors
/// An input error for a directory that is neither, and where there is no run at all.
pub fn discover(dirs: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    for dir in dirs {
        if dir.join(plan::FILE).is_file() {
            let plan = Plan::read(dir)?;
            planned(dir, &plan, &mut found);
            found.plans.push(plan);
        } else if dir.join("metrics.jsonl").is_file() {
            found.sources.push(Source::of_run(dir));
        } else {
            let what = if dir.exists() { "neither a run nor a comparison" } else { "no such directory" };
            let expected = format!("metrics.jsonl or {} in it", plan::FILE);
            return Err(Error::input(what).file(dir).expected(expected).into());
        }
    }
    match (found.sources.is_empty(), dirs.first()) {
        (true, Some(dir)) => Err(Error::input("no run has started yet").file(dir).into()),
        _ => Ok(found),
    }
}

fn planned(dir: &Path, plan: &Plan, found: &mut Found) {
    for (variant, seed, dir) in plan.runs(dir) {
        let source = Source { variant: variant.into(), seed: Some(seed), dir };
        if source.metrics().is_file() {
            found.sources.push(source);
        } else {
            found.missing.push(format!("{variant}, seed {seed}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::Mode;

    fn touch(root: &Path, run: &str) {
        std::fs::create_dir_all(root.join(run)).unwrap();
        std::fs::write(root.join(run).join("metrics.jsonl"), "").unwrap();
    }

    #[test]
    fn a_comparison_names_its_runs_and_those_that_are_missing() {
        let root = tempfile::tempdir().unwrap();
        ["b/seed-0", "a/seed-0", "b/seed-1", "stray/seed-0"].iter().for_each(|run| touch(root.path(), run));
        let variants = vec!["b".into(), "a".into()];
        let plan = Plan { seeds: vec![0, 1], variants, ..Plan::new("n", "b", Mode::Race) };
        plan.write(root.path()).unwrap();
        let found = discover(&[root.path().into()]).unwrap();
        let runs: Vec<_> = found.sources.iter().map(|s| (s.variant.as_str(), s.seed)).collect();
        assert_eq!(runs, [("b", Some(0)), ("b", Some(1)), ("a", Some(0))]);
        assert_eq!(found.missing, ["a, seed 1"]);
    }

    #[test]
    fn plain_runs_are_called_like_their_directory() {
        let root = tempfile::tempdir().unwrap();
        ["x/peft", "x/lora/seed-3", "x/seed-y"].iter().for_each(|run| touch(root.path(), run));
        let name = |run: &str| {
            let found = discover(&[root.path().join(run)]).unwrap();
            (found.sources[0].variant.clone(), found.sources[0].seed)
        };
        assert_eq!(name("x/peft"), ("peft".into(), None));
        assert_eq!(name("x/lora/seed-3"), ("lora".into(), Some(3)));
        assert_eq!(name("x/seed-y"), ("seed-y".into(), None));
        assert!(discover(&[root.path().join("x")]).unwrap_err().to_string().contains("neither a run nor"));
        assert!(discover(&[root.path().join("y")]).unwrap_err().to_string().contains("no such directory"));
    }
}
