//! The files behind what is looked at: which runs lie where, what they are called, and their records in the order of time.

use std::path::{Path, PathBuf};

use super::Scene;
use crate::compare::{Mode, Plan};
use crate::events::{Record, Tail, read};
use crate::{Error, Result};

const FILE: &str = "metrics.jsonl";

/// One run's file.
struct Source {
    path: PathBuf,
    /// None until the file is there.
    tail: Option<Tail>,
    /// Shown instead of the run's own name.
    label: Option<String>,
    /// Runs of a lower turn are before those of a higher one.
    turn: usize,
}

/// Follows the files of all runs.
pub struct Sources(Vec<Source>);

/// What the paths hold: a run is its directory, a directory of such directories, or the file itself.
///
/// # Errors
/// [`Error::Input`] for a path without a run and a plan that makes no sense, [`Error::Io`] for a file that cannot be read.
pub fn open(paths: &[PathBuf]) -> Result<(Scene, Sources)> {
    if let Some(path) = paths.iter().find(|path| !path.exists()) {
        return Err(Error::input("no such run").file(path).into());
    }
    if let [dir] = paths
        && dir.join(crate::compare::PLAN).is_file()
    {
        let plan = Plan::read(dir)?;
        let sources = Sources(planned(&plan, dir));
        return Ok((Scene { plan: Some(plan), dir: dir.clone() }, sources));
    }
    let found: Vec<_> = paths.iter().map(|path| find(path)).collect::<Result<Vec<_>>>()?.concat();
    let labels = labels(&found);
    let source =
        |(path, label): (PathBuf, Option<String>)| Ok(Source { tail: Some(Tail::open(&path)?), path, label, turn: 0 });
    let sources = found.into_iter().zip(labels).map(source).collect::<Result<Vec<_>>>()?;
    let dir = match paths {
        [dir] if dir.is_dir() => dir.clone(),
        _ => PathBuf::new(),
    };
    Ok((Scene { plan: None, dir }, Sources(sources)))
}

/// What runs of a comparison that goes on have written before.
///
/// # Errors
/// Those of [`read`].
pub fn past(scene: &Scene) -> Result<Vec<Record>> {
    let Some(plan) = &scene.plan else { return Ok(Vec::new()) };
    let there = planned(plan, &scene.dir).into_iter().filter(|source| source.path.is_file());
    let records =
        there.map(|source| Ok((source.turn, source.named(read(&source.path)?)))).collect::<Result<Vec<_>>>()?;
    Ok(in_order(records))
}

/// Every run of a comparison, those to come included.
fn planned(plan: &Plan, dir: &Path) -> Vec<Source> {
    let runs = plan.runs(dir).enumerate();
    let source = |(index, (variant, seed, run)): (usize, (&str, u64, PathBuf))| {
        let round = plan.seeds.iter().position(|&s| s == seed).unwrap_or(0);
        // All variants with one seed, and in sequence one after the other.
        let turn = if plan.mode == Mode::Race { round } else { round * plan.variants.len() + index / plan.seeds.len() };
        Source { path: run.join(FILE), tail: None, label: Some(format!("{variant}/seed-{seed}")), turn }
    };
    runs.map(source).collect()
}

impl Sources {
    /// What has been written since the last call.
    ///
    /// # Errors
    /// Those of [`Tail`].
    pub fn poll(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for source in &mut self.0 {
            if source.tail.is_none() && source.path.is_file() {
                source.tail = Some(Tail::open(&source.path)?);
            }
            if let Some(tail) = &mut source.tail {
                let new = tail.poll()?;
                records.push((source.turn, source.named(new)));
            }
        }
        Ok(in_order(records))
    }
}

impl Source {
    fn named(&self, mut records: Vec<Record>) -> Vec<Record> {
        if let Some(label) = &self.label {
            records.iter_mut().for_each(|record| record.run.clone_from(label));
        }
        records
    }
}

/// Of several runs, by turn and then by their clocks; those of one run stay in their order. First records come first, so that runs
/// are met in the order in which they are named.
fn in_order(runs: Vec<(usize, Vec<Record>)>) -> Vec<Record> {
    let mut all = Vec::new();
    for (turn, records) in runs {
        let mut latest = 0.0f64;
        for (index, record) in records.into_iter().enumerate() {
            if index > 0 {
                latest = latest.max(record.t);
            }
            all.push((turn, latest, record));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    all.into_iter().map(|(_, _, record)| record).collect()
}

/// Several runs go by their directories, as far as those differ: two of them may well have the same name.
fn labels(files: &[PathBuf]) -> Vec<Option<String>> {
    let whole = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    let parts: Vec<Vec<String>> = files
        .iter()
        .map(|file| whole(file).parent().into_iter().flat_map(Path::iter).map(|p| p.to_string_lossy().into()).collect())
        .collect();
    let (Some(first), true) = (parts.first(), files.len() > 1) else { return vec![None; files.len()] };
    let common = |parts: &Vec<String>| parts.iter().zip(first).take_while(|(a, b)| a == b).count();
    let common = parts.iter().map(common).min().unwrap_or(0);
    // One of them may lie above the others; a directory `seed-0` alone says too little.
    let shortest = parts.iter().map(Vec::len).min().unwrap_or(0);
    let seeds = parts.iter().any(|parts| parts.get(common).is_some_and(|part| part.starts_with("seed-")));
    let from = common.min(shortest.saturating_sub(1)).saturating_sub(usize::from(seeds && common > 0));
    parts.iter().map(|parts| Some(parts[from..].join("/"))).collect()
}

fn find(path: &Path) -> Result<Vec<PathBuf>> {
    let files = if path.is_file() { vec![path.to_path_buf()] } else { search(path, 2) };
    if files.is_empty() {
        let error = Error::input("no run here").file(path).expected(format!("a directory with a {FILE}"));
        return Err(error.hint("training writes one below runs/").into());
    }
    Ok(files)
}

/// The runs in a directory, sorted; those of a comparison are up to two levels down.
fn search(directory: &Path, depth: usize) -> Vec<PathBuf> {
    let file = directory.join(FILE);
    if file.is_file() {
        return vec![file];
    }
    let Some(entries) = std::fs::read_dir(directory).ok().filter(|_| depth > 0) else { return Vec::new() };
    let mut below: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    below.sort();
    below.iter().flat_map(|directory| search(directory, depth - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, run: &str, times: &[f64]) {
        std::fs::create_dir_all(root.join(run)).unwrap();
        let line = |t: &f64| format!(r#"{{"run":"x","t":{t},"event":"saved","step":1,"path":"p"}}"#) + "\n";
        std::fs::write(root.join(run).join(FILE), times.iter().map(line).collect::<String>()).unwrap();
    }

    fn heard(sources: &mut Sources) -> Vec<(String, f64)> {
        sources.poll().unwrap().into_iter().map(|record| (record.run, record.t)).collect()
    }

    #[test]
    fn runs_are_found_in_and_below_a_directory_and_told_apart_by_what_differs() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(open(&[root.path().into()]).map(|_| ()).unwrap_err().exit_code(), 2);
        assert_eq!(open(&[root.path().join("none")]).map(|_| ()).unwrap_err().exit_code(), 2);
        put(root.path(), "a/seed-0", &[1.0, 3.0]);
        put(root.path(), "b/seed-0", &[2.0]);
        let (scene, mut sources) = open(&[root.path().into()]).unwrap();
        assert_eq!(scene, Scene { plan: None, dir: root.path().into() });
        let named = |list: &[(&str, f64)]| list.iter().map(|(run, t)| (run.to_string(), *t)).collect::<Vec<_>>();
        assert_eq!(heard(&mut sources), named(&[("a/seed-0", 1.0), ("b/seed-0", 2.0), ("a/seed-0", 3.0)]));
        let (_, mut sources) = open(&[root.path().join("b"), root.path().join("a")]).unwrap();
        assert_eq!(heard(&mut sources), named(&[("b/seed-0", 2.0), ("a/seed-0", 1.0), ("a/seed-0", 3.0)]));
        let (_, mut sources) = open(&[root.path().join("a").join("seed-0").join(FILE)]).unwrap();
        assert_eq!(heard(&mut sources), named(&[("x", 1.0), ("x", 3.0)]));
        put(root.path(), "a/seed-1", &[1.0]);
        let (_, mut sources) = open(&[root.path().join("a")]).unwrap();
        assert_eq!(heard(&mut sources)[0].0, "a/seed-0");
    }

    #[test]
    fn a_comparison_is_read_seed_by_seed_and_runs_that_begin_later_are_found() {
        let root = tempfile::tempdir().unwrap();
        let variants = vec!["a".into(), "b".into()];
        let plan = Plan {
            name: "n".into(),
            reference: "a".into(),
            mode: Mode::Race,
            metric: None,
            seeds: vec![0, 1],
            variants,
            sweeps: Vec::new(),
        };
        plan.write(root.path()).unwrap();
        put(root.path(), "a/seed-0", &[5.0]);
        put(root.path(), "a/seed-1", &[1.0]);
        let (scene, mut sources) = open(&[root.path().into()]).unwrap();
        assert_eq!(
            heard(&mut sources).iter().map(|(run, _)| run.as_str()).collect::<Vec<_>>(),
            ["a/seed-0", "a/seed-1"]
        );
        put(root.path(), "b/seed-1", &[2.0]);
        assert_eq!(heard(&mut sources), [("b/seed-1".to_string(), 2.0)]);
        assert_eq!(past(&scene).unwrap().len(), 3);
    }
}
