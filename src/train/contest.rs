//! A comparison as it runs: every variant once with each seed, in `DIR/VARIANT/seed-N`.

use std::path::{Path, PathBuf};

use super::bases::Bases;
use super::race::{Racer, race};
use super::run::Outcome;
use super::{Job, Options, Target};
use crate::compare::{Mode, Plan};
use crate::events::{Bus, Control};
use crate::recipe::{Comparison, Resolved};
use crate::{Error, Result};

/// A comparison whose recipes have been found to make sense.
pub struct Contest {
    comparison: Comparison,
    target: Target,
    dir: PathBuf,
}

/// What became of one run of a comparison.
pub struct Entry {
    pub variant: String,
    pub seed: u64,
    /// `None` if it had finished before.
    pub outcome: Option<Result<Outcome>>,
}

impl Contest {
    /// Checks every variant against model and data. Writes nothing.
    pub fn prepare(comparison: Comparison, target: Target, dir: PathBuf) -> Result<Self> {
        let contest = Self { comparison, target, dir };
        contest.jobs(0)?;
        Ok(contest)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs of all variants with all seeds.
    pub fn runs(&self) -> usize {
        self.comparison.variants.len() * self.comparison.compare.seeds
    }

    /// Runs what has not finished yet. `listen` gives each run's bus those who look on.
    ///
    /// # Errors
    /// What keeps a run from beginning. A run that fails later is an [`Entry`].
    pub fn run(&self, listen: &dyn Fn(Bus) -> Bus, control: &Control) -> Result<Vec<Entry>> {
        std::fs::create_dir_all(&self.dir).map_err(Error::io(&self.dir))?;
        self.plan().write(&self.dir)?;
        let bases = Bases::default();
        let mut entries = Vec::new();
        for round in 0..self.comparison.compare.seeds {
            let mut jobs = self.jobs(round)?;
            match self.comparison.compare.mode {
                Mode::Race => entries.extend(self.round(&mut jobs, &bases, listen, control)?),
                Mode::Sequence => {
                    for job in &mut jobs {
                        entries.extend(self.round(std::slice::from_mut(job), &bases, listen, control)?);
                    }
                }
            }
            if control.stop().is_some() {
                break;
            }
        }
        Ok(entries)
    }

    fn plan(&self) -> Plan {
        let Comparison { name, compare, variants } = &self.comparison;
        Plan {
            name: name.clone(),
            reference: self.comparison.reference().to_string(),
            mode: compare.mode,
            seeds: (0..compare.seeds).map(|round| seed(&variants[0].resolved, round)).collect(),
            variants: variants.iter().map(|variant| variant.name.clone()).collect(),
        }
    }

    /// Every variant with its seed of this round; model and data are opened once.
    fn jobs(&self, round: usize) -> Result<Vec<Job>> {
        let mut jobs: Vec<Job> = Vec::new();
        for variant in &self.comparison.variants {
            let mut resolved = variant.resolved.clone();
            resolved.recipe.seed = seed(&variant.resolved, round);
            jobs.push(Job::prepare_beside(&resolved, &self.target, jobs.first())?);
        }
        Ok(jobs)
    }

    /// These jobs side by side.
    fn round(
        &self,
        jobs: &mut [Job],
        bases: &Bases,
        listen: &dyn Fn(Bus) -> Bus,
        control: &Control,
    ) -> Result<Vec<Entry>> {
        let (mut entries, mut racers, mut running) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            let (variant, seed) = (job.name.clone(), job.recipe.seed);
            let dir = self.dir.join(&variant).join(format!("seed-{seed}"));
            let options = match dir.exists() {
                true => Options { resume: Some(Some(dir)), out: None },
                false => Options { resume: None, out: Some(dir) },
            };
            let name = if self.comparison.compare.seeds > 1 { format!("{variant}/{seed}") } else { variant.clone() };
            match job.begin_among(&options, bases)?.run {
                None => entries.push(Entry { variant, seed, outcome: None }),
                Some(run) => {
                    let bus = listen(run.bus_of(&name)?);
                    racers.push(Racer { run, bus });
                    running.push((variant, seed));
                }
            }
        }
        let outcomes = running.into_iter().zip(race(racers, control));
        entries.extend(outcomes.map(|((variant, seed), outcome)| Entry { variant, seed, outcome: Some(outcome) }));
        Ok(entries)
    }
}

fn seed(resolved: &Resolved, round: usize) -> u64 {
    resolved.recipe.seed + round as u64
}
