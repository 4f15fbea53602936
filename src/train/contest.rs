//! A comparison as it runs: every variant once with each seed, in `DIR/VARIANT/seed-N`.

use std::path::{Path, PathBuf};

use super::bases::Bases;
use super::past::Past;
use super::race::{Racer, race};
use super::run::Outcome;
use super::{Job, Options, Target};
use crate::adapters::Progress;
use crate::checkpoint::{Lock, new_directory, write_file};
use crate::compare::{self, Mode, Plan};
use crate::events::{Banner, Bus, Control, Event};
use crate::recipe::{CompareRecipe, Resolved};
use crate::{Error, Result};

/// Name of the file that holds the comparison's own recipe, every default written out.
pub const RECIPE: &str = "recipe.resolved.toml";

/// A comparison whose recipes have been found to make sense.
pub struct Contest {
    pub comparison: CompareRecipe,
    target: Target,
    /// Hears of the layers that are quantised around a start with LoftQ.
    pub progress: Progress,
}

/// What became of one run of a comparison.
pub struct Entry {
    pub variant: String,
    pub seed: u64,
    /// None where it had finished before and nothing was run.
    pub came: Option<Result<Outcome>>,
}

/// Where a comparison is written, and the right to write there.
pub struct Place {
    dir: PathBuf,
    /// Whether runs may lie there already.
    again: bool,
    _lock: Lock,
}

impl Place {
    /// A new directory, or that of an earlier comparison to go on with, as `options` say.
    ///
    /// # Errors
    /// An input error when there is no such comparison, when the directory holds something else, and when it is in use.
    pub fn take(options: &Options, name: &str) -> Result<Self> {
        let (dir, again) = match &options.resume {
            None => (new_directory(options.out.as_deref(), name)?, false),
            Some(resume) => {
                let dir = match resume.as_ref().or(options.out.as_ref()) {
                    Some(dir) => dir.clone(),
                    None => compare::newest(Path::new("runs"), name)?,
                };
                Plan::read(&dir)?;
                (dir, true)
            }
        };
        Ok(Self { _lock: Lock::acquire(&dir)?, dir, again })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Contest {
    /// Checks every variant against model and data. Writes nothing.
    pub fn prepare(comparison: CompareRecipe, target: Target) -> Result<Self> {
        let contest = Self { comparison, target, progress: |_, _| {} };
        contest.jobs(0)?;
        Ok(contest)
    }

    /// What runs, in the order in which it does.
    pub fn plan(&self) -> Plan {
        let CompareRecipe { name, compare, variants } = &self.comparison;
        Plan {
            name: name.clone(),
            reference: self.comparison.reference().to_string(),
            mode: compare.mode,
            seeds: (0..compare.seeds).map(|round| seed(&variants[0].resolved, round)).collect(),
            variants: variants.iter().map(|variant| variant.name.clone()).collect(),
        }
    }

    /// Every variant with its seed of this round; model and data are opened once.
    pub fn jobs(&self, round: usize) -> Result<Vec<Job>> {
        let mut jobs: Vec<Job> = Vec::new();
        for variant in &self.comparison.variants {
            let mut resolved = variant.resolved.clone();
            resolved.recipe.seed = seed(&variant.resolved, round);
            let mut job = Job::prepare_beside(&resolved, &self.target, jobs.first())?;
            job.progress = self.progress;
            jobs.push(job);
        }
        Ok(jobs)
    }

    /// Lines about what is shared, and one for each variant.
    pub fn banner(&self) -> Result<Banner> {
        let CompareRecipe { name, compare, variants } = &self.comparison;
        let jobs = self.jobs(0)?;
        let how = match compare.mode {
            Mode::Race => "race: step by step together, over one copy of each base",
            Mode::Sequence => "sequence: one after the other",
        };
        let seeds = if compare.seeds == 1 { "1 seed".into() } else { format!("{} seeds", compare.seeds) };
        let banner = Banner::new().line("compare", format!("{name} · {} variants · {seeds} · {how}", variants.len()));
        let shared = jobs[0].banner();
        let shared = shared.lines().filter(|(label, _)| ["data", "device"].contains(label));
        let banner = shared.fold(banner, |banner, (label, text)| banner.line(label, text));
        Ok(jobs.iter().fold(banner, |banner, job| banner.line(&job.name, job.variant_line())))
    }

    /// Runs what has not finished yet. `listen` gives each run's bus those who look on.
    ///
    /// # Errors
    /// What keeps a run from beginning. A run that fails later is an [`Entry`].
    pub fn run(&self, place: &Place, listen: &dyn Fn(Bus) -> Bus, control: &Control) -> Result<Vec<Entry>> {
        self.write_plan(place)?;
        let bases = Bases::default();
        let mut entries = Vec::new();
        for round in 0..self.comparison.compare.seeds {
            let mut jobs = self.jobs(round)?;
            let side_by_side = match self.comparison.compare.mode {
                Mode::Race => jobs.len(),
                Mode::Sequence => 1,
            };
            for jobs in jobs.chunks_mut(side_by_side) {
                if control.stop().is_none() {
                    entries.extend(self.heat(jobs, place, &bases, listen, control)?);
                }
            }
        }
        Ok(entries)
    }

    /// What is written already stays part of the comparison.
    fn write_plan(&self, place: &Place) -> Result<()> {
        let mut plan = self.plan();
        if place.again {
            plan = plan.after(Plan::read(&place.dir)?);
        }
        plan.write(&place.dir)?;
        let path = place.dir.join(RECIPE);
        write_file(&crate::checkpoint::Disk, &path, self.comparison.to_toml()?.as_bytes())
    }

    /// These jobs side by side.
    fn heat(
        &self,
        jobs: &mut [Job],
        place: &Place,
        bases: &Bases,
        listen: &dyn Fn(Bus) -> Bus,
        control: &Control,
    ) -> Result<Vec<Entry>> {
        let (mut entries, mut racers, mut running) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            let (variant, seed) = (job.name.clone(), job.recipe.seed);
            let dir = place.dir.join(&variant).join(format!("seed-{seed}"));
            let (options, aside) = match job.past(&dir)? {
                Past::Done => {
                    entries.push(Entry { variant, seed, came: None });
                    continue;
                }
                Past::Unfinished => (Options { resume: Some(Some(dir)), out: None }, None),
                Past::Nothing => (Options { resume: None, out: Some(dir) }, None),
                Past::Other => (Options { resume: None, out: Some(dir.clone()) }, Some(set_aside(&dir)?)),
            };
            let begun = job.begin_among(&options, bases)?;
            let Some(run) = begun.run else {
                entries.push(Entry { variant, seed, came: None });
                continue;
            };
            let name =
                if self.comparison.compare.seeds > 1 { format!("{variant}/seed-{seed}") } else { variant.clone() };
            let bus = listen(run.bus_of(&name)?);
            begun.notes.into_iter().chain(aside).for_each(|text| bus.emit(Event::Note { text }));
            for text in begun.warnings {
                bus.emit(Event::Warning { code: "resume".into(), text, count: 1 });
            }
            racers.push(Racer { run, bus });
            running.push((variant, seed));
        }
        let outcomes = running.into_iter().zip(race(racers, control));
        entries.extend(outcomes.map(|((variant, seed), outcome)| Entry { variant, seed, came: Some(outcome) }));
        Ok(entries)
    }
}

fn seed(resolved: &Resolved, round: usize) -> u64 {
    resolved.recipe.seed + round as u64
}

/// Makes room for a run whose recipe, data, base or version is not that of the run that lies there; nothing is deleted.
fn set_aside(dir: &Path) -> Result<String> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let free = (1..).map(|n| dir.with_file_name(format!("{name}.aside-{n}"))).find(|path| !path.exists());
    let free = free.unwrap_or_default();
    std::fs::rename(dir, &free).map_err(Error::io(dir))?;
    Ok(format!("recipe, data, base or version have changed: the earlier run is set aside in {}", free.display()))
}
