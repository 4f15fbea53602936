//! Checkpoints, the final adapter and its verification.

use super::artifact::{files, read_back};
use super::{Run, peak_bytes};
use crate::adapters::{Module, Origin, Update};
use crate::checkpoint::{Checkpoint, rotate};
use crate::data::{Sequence, collate};
use crate::events::{Bus, Event, ModuleNorm, Status, Verify};
use crate::linalg::{self, Side};
use crate::tensors::{HostTensors, check_finite};
use crate::{Error, Result};

/// Ends the names of parameter values in a checkpoint's state.
const VALUE: &str = ".value";

/// Values and the rest of a checkpoint's state.
pub(super) fn split(state: HostTensors) -> (HostTensors, HostTensors) {
    let (values, rest): (HostTensors, HostTensors) = state.into_iter().partition(|(name, _)| name.ends_with(VALUE));
    (values.into_iter().map(|(name, host)| (name.trim_end_matches(VALUE).to_string(), host)).collect(), rest)
}

impl Run<'_> {
    /// Commits a checkpoint of the current step and removes those that are too many.
    pub(super) fn save(&mut self, bus: &Bus) -> Result<()> {
        self.state.elapsed_seconds = bus.seconds();
        let (state, adapter_files) = (self.state.clone(), self.files()?);
        let mut moments = self.learner.state();
        // PEFT's form is not always enough to go on from. A fully trained model's files are.
        if self.job.recipe.adapter.spec().is_some() {
            moments.extend(self.learner.export().into_iter().map(|(path, host)| (path + VALUE, host)));
        }
        let checkpoint = Checkpoint { state, moments, adapter_files };
        let path = checkpoint.save(&self.dir)?;
        for text in rotate(&self.dir.checkpoints(), self.job.recipe.train.keep, None)? {
            bus.emit(Event::Warning { code: "rotation".into(), text, count: 1 });
        }
        bus.emit(Event::Saved { step: self.state.step, path: path.display().to_string() });
        Ok(())
    }

    /// The adapter as it is now, as the files of `final/`.
    pub(super) fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        files(self.job, self.learner.export())
    }

    /// Writes the last checkpoint and `final/`, reads that back and compares its logits with the trained model's.
    pub(super) fn finish(&mut self, bus: &Bus) -> Result<Option<Verify>> {
        self.learner.finish();
        self.report_changed_ranks(bus);
        let files = self.files()?;
        if files.is_empty() {
            return Ok(None);
        }
        let values = self.learner.export();
        if let Err(error) = check_finite(&values) {
            return Err(Error::Diverged { step: self.state.step, what: error.to_string() });
        }
        // The last step's checkpoint is what tells a finished run from one to go on with, and lets it be extended.
        self.save(bus)?;
        self.dir.save_final(&files)?;
        let path = self.dir.final_dir();
        bus.emit(Event::Saved { step: self.state.step, path: path.display().to_string() });
        let again = read_back(self.job, self.base.as_ref(), &path)?;
        let sequences = &self.job.splits.eval.as_ref().unwrap_or(&self.job.splits.train).sequences;
        let starts: Vec<_> = sequences.iter().take(2).map(start).collect();
        let batch = collate(&starts.iter().collect::<Vec<_>>(), self.job.opened.tokenizer.pad().unwrap_or(0));
        let (trained, saved) = (self.learner.logits(&batch)?, again.logits(&batch)?);
        let differences = trained.iter().zip(&saved).map(|(a, b)| f64::from((a - b).abs()));
        let largest = |max: f64, d: f64| if d.is_nan() || max.is_nan() { f64::NAN } else { max.max(d) };
        Ok(Some(Verify { max_abs_logit_diff: differences.fold(0.0, largest) }))
    }

    /// Size of each module's low-rank update.
    pub(super) fn norms(&self) -> Result<Event> {
        let mut norms = Vec::new();
        if let Some(spec) = self.job.recipe.adapter.spec() {
            let (saved_as, mut values) = spec.export(self.learner.export(), &self.job.selected)?;
            let sites = saved_as.select(&Module::list(&self.job.opened.config), Origin::AdapterFile)?;
            let spec = saved_as.spec().unwrap_or(spec);
            values.extend(spec.derived(&sites));
            for site in sites.iter().filter(|site| site.rank > 0) {
                let update_norm = update_norm(&spec.update(site, &values)?);
                norms.push(ModuleNorm { name: site.path.clone(), update_norm });
            }
        }
        Ok(Event::Norms { step: self.state.step, modules: norms })
    }

    pub(super) fn write_info(&mut self, status: Status) -> Result<()> {
        self.info.status = status.into();
        self.info.steps = self.state.step;
        self.info.wall_seconds = self.state.elapsed_seconds;
        self.info.peak_mem_bytes = peak_bytes();
        self.dir.write_info(&self.info)
    }
}

/// The first tokens of a row: logits of every position are compared, and a large vocabulary makes them large.
fn start(sequence: &Sequence) -> Sequence {
    let len = sequence.ids.len().min(64);
    Sequence {
        ids: sequence.ids[..len].to_vec(),
        trained: sequence.trained[..len].to_vec(),
        document: sequence.document[..len].to_vec(),
        ..Sequence::default()
    }
}

/// Frobenius norm of `scaling · left · right` from the two r × r Gram matrices: ‖BA‖² = Σ (AAᵀ ⊙ BᵀB).
fn update_norm(update: &Update) -> f64 {
    let (r, cols) = (update.rank, update.cols);
    let right = linalg::gram(&linalg::wide(&update.right), [r, cols], Side::Rows);
    let left = linalg::gram(&linalg::wide(&update.left), [update.left.len() / r, r], Side::Columns);
    let square: f64 = left.iter().zip(&right).map(|(left, right)| left * right).sum();
    square.max(0.0).sqrt() * f64::from(update.scaling.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_norm_is_the_norm_of_the_product() {
        let left = vec![2.0, 1.0, 0.0, -1.0];
        let right = vec![1.0, 2.0, 0.0, -1.0, 0.5, 3.0];
        let update = Update { left, right, rank: 2, cols: 3, scaling: -2.0, magnitude: None };
        // left · right = [[1, 4.5, 3], [1, -0.5, -3]]
        let expected = 2.0 * (1.0f64 + 20.25 + 9.0 + 1.0 + 0.25 + 9.0).sqrt();
        assert!((update_norm(&update) - expected).abs() < 1e-9);
    }
}
