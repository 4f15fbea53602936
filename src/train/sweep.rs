//! Sweeps: before a variant runs, a short pilot of each of its settings; the one with the lowest evaluation loss is taken.

use std::path::Path;

use super::contest::Contest;
use super::heat::{Entrant, Entry, Track};
use crate::compare::{Plan, Sweep, Tried, last_eval_loss};
use crate::recipe::{Candidate, Resolved};
use crate::{Error, Result};

impl Contest {
    /// Settles every variant that sweeps and writes into `plan` what was tried. One of which no setting comes to its end
    /// drops out, and is an entry.
    pub(super) fn sweep(&mut self, plan: &mut Plan, dir: &Path, track: &Track<'_>) -> Result<Vec<Entry>> {
        let mut dropped = Vec::new();
        for index in 0..self.comparison.variants.len() {
            let variant = &self.comparison.variants[index];
            if variant.candidates.is_empty() {
                continue;
            }
            let tried = self.try_out(&variant.name, &variant.candidates, dir, track)?;
            if track.control.stop().is_some() {
                return Ok(dropped);
            }
            let best = (0..tried.len()).filter(|&i| tried[i].eval_loss.is_finite());
            let best = best.min_by(|&a, &b| tried[a].eval_loss.total_cmp(&tried[b].eval_loss));
            let (name, seed) = (variant.name.clone(), variant.resolved.recipe.seed);
            plan.sweeps.retain(|sweep| sweep.variant != name);
            plan.sweeps.push(Sweep { variant: name.clone(), chosen: best, tried });
            match best {
                Some(best) => {
                    let chosen = self.comparison.variants[index].candidates[best].resolved.clone();
                    self.comparison.variants[index].resolved = chosen;
                }
                None => {
                    let what = "no setting of its sweep came to its end with a finite evaluation loss".into();
                    dropped.push(Entry { variant: name, seed, came: Some(Err(Error::Failed(what))) });
                }
            }
        }
        self.comparison.variants.retain(|variant| !dropped.iter().any(|entry| entry.variant == variant.name));
        Ok(dropped)
    }

    /// All candidates side by side, for a part of the steps.
    fn try_out(&self, variant: &str, candidates: &[Candidate], dir: &Path, track: &Track<'_>) -> Result<Vec<Tried>> {
        let mut entrants: Vec<Entrant> = Vec::new();
        for Candidate { label, resolved } in candidates {
            let job = self.job(&self.short(resolved)?)?;
            let name = format!("{variant}/sweep/{label}");
            entrants.push(Entrant { job, dir: dir.join(&name), name });
        }
        track.heat(&mut entrants)?;
        let tried = entrants.iter().zip(candidates).map(|(entrant, candidate)| Tried {
            settings: candidate.label.clone(),
            steps: entrant.job.steps,
            eval_loss: last_eval_loss(&entrant.dir, entrant.job.steps).unwrap_or(f64::NAN),
        });
        Ok(tried.collect())
    }

    /// The recipe of a pilot: fewer steps, evaluated at the end alone.
    fn short(&self, resolved: &Resolved) -> Result<Resolved> {
        let steps = match self.comparison.compare.sweep_steps {
            Some(steps) => steps,
            None => self.job(resolved)?.steps.div_ceil(4),
        };
        let mut short = resolved.clone();
        let train = &mut short.recipe.train;
        (train.max_steps, train.eval_every, train.eval_generate, train.save_every) = (Some(steps), 0, 0, 0);
        Ok(short)
    }
}
