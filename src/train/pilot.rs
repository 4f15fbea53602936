//! The pilot: a short training on a sample of the rows, which decides what the recipe leaves open.
//!
//! It trains the learner that the open recipe describes, with the recipe's optimizer and its schedule laid over the pilot's
//! steps, measures it on the same rows, and puts a fresh learner in its place. Nothing of it is saved but the decision, in
//! `recipe.resolved.toml`: a run that stops before that starts over.

use std::time::Duration;

use indexmap::IndexMap;

use super::cursor::Cursor;
use super::optimize::{Place, optimize};
use super::run::{Left, Run};
use crate::adapters::{AdapterConfig, Decision};
use crate::checkpoint::fingerprint;
use crate::data::{Batch, stratified};
use crate::events::{Bus, Control, Event, PilotStep, StopKind};
use crate::{Error, Result};

impl Run<'_> {
    /// Leaves nothing open, or says that `control` asked for a stop before that; then there is nothing to save.
    pub(super) fn pilot(&mut self, bus: &Bus, control: &Control) -> Result<Left> {
        let Some((steps, share)) = self.job.pilot().map(|pilot| (pilot.steps(), pilot.sample())) else {
            return Ok(Left::Done);
        };
        let lengths: Vec<usize> = self.job.splits.train.sequences.iter().map(|sequence| sequence.ids.len()).collect();
        let rows = stratified(&lengths, share, self.job.recipe.seed);
        self.pilot_steps(&rows, steps, bus, control)?;
        let Some(energy) = self.energy(&rows, control)? else { return Ok(Left::Stopped(StopKind::Now)) };
        let Some(pilot) = self.job.pilot() else { return Ok(Left::Done) };
        let Decision { adapter, modules } = pilot.decide(&energy, &self.job.selected)?;
        self.settle(adapter)?;
        bus.emit(self.started_event());
        let budget = modules.iter().map(|module| module.active).sum();
        bus.emit(Event::Ranks { step: 0, budget, modules });
        Ok(Left::Done)
    }

    /// Trains on `rows`, for fewer steps if `control` asks for a stop.
    fn pilot_steps(&mut self, rows: &[usize], steps: usize, bus: &Bus, control: &Control) -> Result<()> {
        let train = &self.job.recipe.train;
        let (accumulate, max_skipped) = (train.accumulate, train.max_skipped);
        let mut cursor = Cursor::new(rows.len(), train.batch, self.job.recipe.seed, 0, 0);
        let mut skipped = 0;
        for step in 0..steps {
            while control.paused() {
                std::thread::sleep(Duration::from_millis(50));
            }
            if control.stop().is_some() {
                break;
            }
            let batches: Vec<Batch> = cursor.take(accumulate).iter().map(|batch| self.sampled(rows, batch)).collect();
            let place = Place { step, total: steps };
            let taken = optimize(self.learner.as_mut(), &self.job.recipe, &batches, place)?;
            bus.emit(Event::Pilot(PilotStep { step: step + 1, steps, loss: taken.loss }));
            skipped = if taken.is_finite() { 0 } else { skipped + 1 };
            if skipped > 0 {
                bus.emit(taken.warning(skipped));
            }
            if skipped > max_skipped {
                let what = format!("loss or gradient of the pilot was not finite {skipped} steps in a row");
                return Err(Error::Diverged { step: 0, what });
            }
        }
        Ok(())
    }

    /// What each module adds over all of `rows`; none if `control` asked for a stop meanwhile.
    fn energy(&self, rows: &[usize], control: &Control) -> Result<Option<IndexMap<String, f64>>> {
        let mut sum: IndexMap<String, f64> = IndexMap::new();
        for rows in rows.chunks(self.job.recipe.train.batch) {
            if control.stop().is_some() {
                return Ok(None);
            }
            for (path, energy) in self.learner.update_energy(&self.batch(rows))? {
                *sum.entry(path).or_default() += energy;
            }
        }
        Ok(Some(sum))
    }

    fn sampled(&self, rows: &[usize], batch: &[usize]) -> Batch {
        self.batch(&batch.iter().map(|&i| rows[i]).collect::<Vec<_>>())
    }

    /// The run goes on under `adapter`, from fresh values.
    fn settle(&mut self, adapter: AdapterConfig) -> Result<()> {
        self.job.settle(adapter);
        self.learner = self.base.attach(&self.job.adapter_spec())?;
        let recipe = fingerprint(&self.job.recipe)?;
        self.state.hashes.recipe.clone_from(&recipe);
        self.info.hashes.recipe = recipe;
        self.dir.write_recipe(&self.job.recipe.to_toml()?)?;
        self.dir.write_info(&self.info)
    }
}
