//! A comparison as it runs: sweeps first, then every variant once with each seed, in `DIR/VARIANT/seed-N`.

use std::path::{Path, PathBuf};

use super::bases::Bases;
use super::budget;
use super::heat::{Entrant, Entry, Track};
use super::{Job, Options, Target};
use crate::adapters::Progress;
use crate::checkpoint::{Disk, Lock, new_directory, write_file};
use crate::compare::{self, Mode, Plan};
use crate::events::{Banner, Bus, Control};
use crate::recipe::{CompareRecipe, Resolved, Variant};
use crate::{Error, Result};

/// Name of the file that holds the comparison's own recipe, every default written out.
pub const RECIPE: &str = "recipe.resolved.toml";

/// A comparison whose recipes have been found to make sense.
pub struct Contest {
    pub comparison: CompareRecipe,
    target: Target,
    /// The first variant's; all others share the model and the data that it has opened.
    first: Option<Job>,
    /// Hears of the layers that are quantised around a start with LoftQ.
    pub progress: Progress,
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
    /// Checks every variant against model and data, and chooses ranks where variants are to cost about the same. Writes nothing.
    pub fn prepare(comparison: CompareRecipe, target: Target) -> Result<Self> {
        let mut contest = Self { comparison, target, first: None, progress: |_, _| {} };
        contest.first = Some(contest.job(&contest.comparison.variants[0].resolved)?);
        contest.fit()?;
        contest.jobs(0)?;
        Ok(contest)
    }

    /// Gives every variant the rank at which it costs what the reference does, where the recipe wants that.
    fn fit(&mut self) -> Result<()> {
        let Some(budget) = self.comparison.compare.budget else { return Ok(()) };
        let reference = self.comparison.reference().to_string();
        let variants = &self.comparison.variants;
        let Some(place) = variants.iter().position(|variant| variant.name == reference) else { return Ok(()) };
        let reference = self.job(&variants[place].resolved)?;
        if reference.recipe.adapter.spec().is_none() {
            let error = Error::input("the reference has no adapter for others to match").key("compare.match");
            return Err(error.found(&variants[place].name).hint("name another one: compare.reference").into());
        }
        for variant in
            self.comparison.variants.iter_mut().enumerate().filter(|(i, _)| *i != place).map(|(_, variant)| variant)
        {
            variant.resolved = budget::fitted(&variant.resolved, &reference, budget, &self.target)?;
            for candidate in &mut variant.candidates {
                candidate.resolved = budget::fitted(&candidate.resolved, &reference, budget, &self.target)?;
            }
        }
        Ok(())
    }

    /// What runs, before any sweep.
    pub fn plan(&self) -> Plan {
        let CompareRecipe { name, compare, variants } = &self.comparison;
        Plan {
            name: name.clone(),
            reference: self.comparison.reference().to_string(),
            mode: compare.mode,
            metric: compare.metric.clone(),
            seeds: (0..compare.seeds).map(|round| seed(&variants[0].resolved, round)).collect(),
            variants: variants.iter().map(|variant| variant.name.clone()).collect(),
            sweeps: Vec::new(),
        }
    }

    /// Every variant with its seed of this round.
    pub(super) fn jobs(&self, round: usize) -> Result<Vec<Job>> {
        let job = |variant: &Variant| {
            let mut resolved = variant.resolved.clone();
            resolved.recipe.seed = seed(&variant.resolved, round);
            self.job(&resolved)
        };
        self.comparison.variants.iter().map(job).collect()
    }

    pub(super) fn job(&self, resolved: &Resolved) -> Result<Job> {
        let mut job = Job::prepare_beside(resolved, &self.target, self.first.as_ref())?;
        job.progress = self.progress;
        Ok(job)
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
        Ok(jobs.iter().zip(variants).fold(banner, |banner, (job, variant)| {
            let sweep = match variant.candidates.len() {
                0 => String::new(),
                n => format!(" · a sweep chooses from {n} settings of {} first", joined(variant.choices.keys())),
            };
            banner.line(&job.name, job.variant_line() + &sweep)
        }))
    }

    /// Runs what has not finished yet. `listen` gives each run's bus those who look on.
    ///
    /// # Errors
    /// What keeps a run from beginning. A run that fails later is an [`Entry`].
    pub fn run(&mut self, place: &Place, listen: &dyn Fn(Bus) -> Bus, control: &Control) -> Result<Vec<Entry>> {
        let mut plan = self.plan();
        if place.again {
            plan = plan.after(Plan::read(&place.dir)?);
        }
        plan.write(&place.dir)?;
        // A part of an earlier comparison is not all that is to be resumed.
        if plan.variants.len() == self.comparison.variants.len() {
            write_file(&Disk, &place.dir.join(RECIPE), self.comparison.to_toml()?.as_bytes())?;
        }
        let bases = Bases::default();
        let track = Track { bases: &bases, listen, control };
        let mut entries = self.sweep(&mut plan, &place.dir, &track)?;
        plan.write(&place.dir)?;
        for round in 0..self.comparison.compare.seeds {
            let mut entrants = self.entrants(round, &place.dir)?;
            let side_by_side = match self.comparison.compare.mode {
                Mode::Race => entrants.len(),
                Mode::Sequence => 1,
            };
            for entrants in entrants.chunks_mut(side_by_side.max(1)) {
                if control.stop().is_none() {
                    entries.extend(track.heat(entrants)?);
                }
            }
        }
        Ok(entries)
    }

    /// Every variant in one round.
    fn entrants(&self, round: usize, dir: &Path) -> Result<Vec<Entrant>> {
        let entrant = |job: Job| {
            let seeded = format!("{}/seed-{}", job.name, job.recipe.seed);
            let dir = dir.join(&seeded);
            let name = if self.comparison.compare.seeds > 1 { seeded } else { job.name.clone() };
            Entrant { job, dir, name }
        };
        Ok(self.jobs(round)?.into_iter().map(entrant).collect())
    }
}

fn seed(resolved: &Resolved, round: usize) -> u64 {
    resolved.recipe.seed + round as u64
}

fn joined<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    keys.map(String::as_str).collect::<Vec<_>>().join(" and ")
}
