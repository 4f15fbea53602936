//! How far a whole comparison is: its runs advance together, or one after the other.

use super::board::Board;
use super::place::Part;
use super::run::Run;
use crate::compare::Mode;

impl Board {
    /// Clocks go on between records.
    pub fn tick(&mut self, seconds: f64) {
        let newest = self.newest.and_then(|index| self.runs.get(index)).map(|run| run.part);
        let race = self.plan.as_ref().is_some_and(|plan| plan.mode == Mode::Race);
        for (index, run) in self.runs.iter_mut().enumerate() {
            let at_it = if race { Some(run.part) == newest } else { Some(index) == self.newest || self.plan.is_none() };
            if at_it && run.ended().is_none() {
                run.t += seconds;
            }
        }
    }

    /// Seconds since the first record, pauses between processes left out.
    pub fn elapsed(&self) -> f64 {
        let longest = |among: &dyn Fn(&Run) -> bool| {
            self.runs.iter().filter(|run| among(run)).map(|run| run.t).fold(0.0, f64::max)
        };
        let Some(plan) = &self.plan else { return longest(&|_| true) };
        // The pilots of one variant go side by side, before everything else.
        let pilots = |variant| longest(&|run| run.part == Part::Pilot && run.variant == variant);
        let pilots: f64 = (0..self.variants.len()).map(pilots).sum();
        let runs: f64 = match plan.mode {
            Mode::Sequence => self.runs.iter().filter(|run| run.part != Part::Pilot).map(|run| run.t).sum(),
            Mode::Race => plan.seeds.iter().map(|&seed| longest(&|run| run.part == Part::Seed(seed))).sum(),
        };
        pilots + runs
    }

    /// The runs that advance at present: of all variants with one seed, or a single one.
    pub fn round(&self) -> impl Iterator<Item = &Run> {
        let newest = self.newest.map(|index| &self.runs[index]);
        let mode = self.plan.as_ref().map(|plan| plan.mode);
        self.runs.iter().filter(move |run| match (newest, mode) {
            (Some(newest), Some(Mode::Race)) if newest.part != Part::Pilot => run.part == newest.part,
            (Some(newest), Some(_)) if newest.part == Part::Pilot => {
                run.part == Part::Pilot && run.variant == newest.variant
            }
            (Some(newest), Some(Mode::Sequence)) => run.name == newest.name,
            _ => run.part != Part::Pilot,
        })
    }

    /// Place of the seed in use among all, counted from one.
    pub fn seed(&self) -> Option<(usize, usize)> {
        let seeds = &self.plan.as_ref()?.seeds;
        let newest = self.runs.get(self.newest?)?;
        let place = seeds.iter().position(|&seed| newest.part == Part::Seed(seed)).unwrap_or(0);
        Some((place + 1, seeds.len()))
    }

    /// Share of all steps of all runs, those to come included.
    pub fn share(&self) -> f64 {
        let known: Vec<_> = self.runs.iter().filter(|run| run.part != Part::Pilot).collect();
        let done: usize = known.iter().map(|run| run.progress().0).sum();
        let longest = known.iter().map(|run| run.progress().1).max().unwrap_or(0);
        let seeds = self.plan.as_ref().map_or(1, |plan| plan.seeds.len());
        let variant = |runs: Vec<usize>| {
            let each = runs.iter().copied().max().unwrap_or(longest);
            runs.iter().sum::<usize>() + each * seeds.saturating_sub(runs.len())
        };
        let all = self.variants.iter().map(|v| variant(self.of(v).map(|run| run.progress().1).collect()));
        done as f64 / all.sum::<usize>().max(1) as f64
    }

    /// Whether every run that is to come has come to its end.
    pub fn is_over(&self) -> bool {
        let seeds = self.plan.as_ref().map_or(1, |plan| plan.seeds.len());
        let ended = |variant| self.of(variant).filter(|run| run.ended().is_some()).count();
        let over = |variant| ended(variant) >= seeds.max(self.of(variant).count());
        !self.variants.is_empty() && self.variants.iter().all(over)
    }

    /// Seconds still to go, if the rounds to come take as long as this one.
    pub fn eta(&self) -> Option<f64> {
        let left = self.round().filter(|run| run.ended().is_none()).filter_map(Run::eta).reduce(f64::max)?;
        let Some(plan) = self.plan.as_ref().filter(|_| !self.is_piloting()) else { return Some(left) };
        let round = self.round().map(|run| run.t).fold(0.0, f64::max) + left;
        let to_come = match plan.mode {
            Mode::Race => self.seed().map_or(0, |(place, seeds)| seeds - place),
            Mode::Sequence => {
                let begun = self.runs.iter().filter(|run| run.part != Part::Pilot).count();
                (plan.seeds.len() * self.variants.len()).saturating_sub(begun)
            }
        };
        Some(left + round * to_come as f64)
    }
}
