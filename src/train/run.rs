//! The training loop. It knows plain data and [`Learner`], never a tensor.

use std::time::{Duration, Instant};

use super::cursor::Cursor;
use super::evaluate::{Evaluation, evaluate};
use super::optimize::{Place, optimize};
use super::{Job, peak_bytes, resident_bytes};
use crate::checkpoint::{Best, RunDir, RunInfo, TrainState};
use crate::data::{Batch, Dataset, collate};
use crate::events::{Bus, Control, Event, Memory, Status, Step, StopKind, Verify};
use crate::runtime::{Base, Learner};
use crate::tensors::HostTensors;
use crate::{Error, Result};

/// A run that is ready to train, fresh or resumed.
pub struct Run<'a> {
    /// Changes once, where a pilot decides what its recipe leaves open.
    pub job: &'a mut Job,
    pub dir: RunDir,
    pub(super) info: RunInfo,
    pub(super) base: Box<dyn Base>,
    pub(super) learner: Box<dyn Learner>,
    pub(super) state: TrainState,
    /// Step this process started from.
    pub(super) resumed_from: usize,
    /// Active rank of each module, of a method that changes them, as last reported.
    pub(super) ranks: Vec<usize>,
    /// Resident bytes once base and adapter were loaded.
    pub(super) resting: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub status: Status,
    pub step: usize,
    pub seconds: f64,
    /// First and last evaluation, when there were any.
    pub first_eval: Option<crate::events::Eval>,
    pub last_eval: Option<crate::events::Eval>,
    pub verify: Option<Verify>,
    /// Signal that interrupted it.
    pub signal: Option<i32>,
}

/// Why the loop left.
pub(super) enum Left {
    Done,
    Stopped(StopKind),
}

struct Evals {
    first: Option<crate::events::Eval>,
    last: Option<crate::events::Eval>,
}

impl Run<'_> {
    /// Trains to the end, or until `control` asks for a stop or the loss diverges; whatever happens, the run
    /// directory says how it ended.
    pub fn train(mut self, bus: &Bus, control: &Control) -> Result<Outcome> {
        let mut evals = Evals { first: None, last: None };
        bus.emit(self.started_event());
        let left = match self.pilot(bus, control) {
            Ok(Left::Done) => {
                // The records of a resumed run hold them already.
                if self.resumed_from == 0 {
                    self.job.warnings().into_iter().for_each(|warning| bus.emit(warning));
                }
                self.steps(bus, control, &mut evals)
            }
            left => left,
        };
        let (status, verify, result) = match left {
            Ok(Left::Done) => match self.finish(bus) {
                Ok(verify) => (Status::Finished, verify, Ok(())),
                Err(error @ Error::Diverged { .. }) => (Status::Diverged, None, Err(error)),
                Err(error) => (Status::Failed, None, Err(error)),
            },
            Ok(Left::Stopped(kind)) => {
                let saved = if kind == StopKind::Save && self.job.steps > 0 { self.save(bus) } else { Ok(()) };
                (Status::Interrupted, None, saved)
            }
            Err(error @ Error::Diverged { .. }) => (Status::Diverged, None, Err(error)),
            Err(error) => (Status::Failed, None, Err(error)),
        };
        self.state.elapsed_seconds = bus.seconds();
        let measured = self.measured();
        bus.emit(Event::Memory { predicted: self.job.memory.clone(), measured: measured.clone() });
        self.info.memory = Some(measured);
        bus.emit(Event::RunEnded { status, seconds: bus.seconds(), verify: verify.clone() });
        self.write_info(status)?;
        result?;
        Ok(Outcome {
            status,
            step: self.state.step,
            seconds: bus.seconds(),
            first_eval: evals.first,
            last_eval: evals.last,
            verify,
            signal: control.signal(),
        })
    }

    /// What the memory of this process went to.
    fn measured(&self) -> Memory {
        let bytes = |tensors: HostTensors| tensors.values().map(|tensor| 4 * tensor.values.len() as u64).sum();
        let peak = peak_bytes();
        Memory {
            base: self.base.bytes(),
            adapter: bytes(self.learner.export()),
            optimizer: bytes(self.learner.state()),
            activations: peak.saturating_sub(self.resting),
            peak,
            ..Memory::default()
        }
    }

    fn steps(&mut self, bus: &Bus, control: &Control, evals: &mut Evals) -> Result<Left> {
        let mut cursor = self.cursor();
        let mut saved = self.resumed_from;
        loop {
            if self.evaluation_is_due() || control.take_evaluate() {
                self.evaluate(bus, control, evals)?;
                if let (true, Some(kind)) = (self.evaluation_is_due(), control.stop()) {
                    return Ok(Left::Stopped(kind));
                }
            }
            let step = self.state.step;
            if control.take_save() || (self.is_due(self.job.recipe.train.save_every) && step != saved) {
                self.save(bus)?;
                saved = step;
            }
            if step >= self.job.steps {
                return Ok(Left::Done);
            }
            if control.paused() {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            if let Some(kind) = control.stop() {
                return Ok(Left::Stopped(kind));
            }
            self.one_step(&mut cursor, bus)?;
        }
    }

    /// Whether `every` steps have passed, before the end.
    fn is_due(&self, every: usize) -> bool {
        let step = self.state.step;
        every > 0 && step > 0 && step < self.job.steps && step.is_multiple_of(every)
    }

    fn evaluation_is_due(&self) -> bool {
        let step = self.state.step;
        let due = step == 0 || step == self.job.steps || self.is_due(self.job.recipe.train.eval_every);
        due && self.job.splits.eval.is_some() && self.state.evaluated != Some(step)
    }

    fn one_step(&mut self, cursor: &mut Cursor, bus: &Bus) -> Result<()> {
        let start = Instant::now();
        let batches: Vec<Batch> = cursor.take(self.job.recipe.train.accumulate).iter().map(|b| self.batch(b)).collect();
        let tokens: usize = batches.iter().map(Batch::tokens).sum();
        let place = Place { step: self.state.step, total: self.job.steps };
        let taken = optimize(self.learner.as_mut(), &self.job.recipe, &batches, place)?;
        if taken.is_finite() {
            self.state.skipped_in_a_row = 0;
        } else {
            self.state.skipped_total += 1;
            self.state.skipped_in_a_row += 1;
            bus.emit(taken.warning(self.state.skipped_total));
        }
        self.state.step += 1;
        (self.state.epoch, self.state.cursor) = (cursor.epoch, cursor.next);
        self.state.tokens_seen += tokens as u64;
        bus.emit(Event::Step(Step {
            step: self.state.step,
            loss: taken.loss,
            lr: self.learner.rates(taken.lr),
            grad_norm: taken.grad_norm,
            tokens,
            step_ms: ms(start),
            forward_ms: taken.forward_ms,
            backward_ms: taken.backward_ms,
            optimizer_ms: taken.optimizer_ms,
            skipped: self.state.skipped_total,
            mem_bytes: resident_bytes(),
            peak_mem_bytes: peak_bytes(),
        }));
        self.report_changed_ranks(bus);
        if self.state.skipped_in_a_row > self.job.recipe.train.max_skipped {
            let what = format!("loss or gradient was not finite {} steps in a row", self.state.skipped_in_a_row);
            return Err(Error::Diverged { step: self.state.step, what });
        }
        Ok(())
    }

    /// Tells of the ranks if an allocation has changed any.
    pub(super) fn report_changed_ranks(&mut self, bus: &Bus) {
        if active_ranks(self.learner.as_ref()) != self.ranks {
            self.report_ranks(bus);
        }
    }

    fn report_ranks(&mut self, bus: &Bus) {
        // The learner counts the steps it took, the run also those that were skipped.
        if let Some(Event::Ranks { budget, modules, .. }) = self.learner.ranks() {
            self.ranks = modules.iter().map(|module| module.active).collect();
            bus.emit(Event::Ranks { step: self.state.step, budget, modules });
        }
    }

    fn evaluate(&mut self, bus: &Bus, control: &Control, evals: &mut Evals) -> Result<()> {
        let Some(dataset) = &self.job.splits.eval else { return Ok(()) };
        let evaluation = self.job.evaluation(dataset);
        let Some((eval, samples)) = evaluate(self.learner.as_ref(), &evaluation, self.state.step, control)? else {
            return Ok(());
        };
        bus.emit(Event::Eval(eval.clone()));
        samples.into_iter().for_each(|sample| bus.emit(sample));
        self.state.evaluated = Some(self.state.step);
        self.report_ranks(bus);
        if self.state.step > 0 && !self.learner.adapted().is_empty() {
            bus.emit(self.norms()?);
        }
        let better = eval.loss.is_finite() && self.state.best.as_ref().is_none_or(|best| eval.loss < best.loss);
        if better && self.state.step > 0 {
            let files = self.files()?;
            self.state.best = Some(Best::new(eval.loss, self.state.step, &files));
            self.dir.save_best(&files)?;
        }
        evals.first.get_or_insert_with(|| eval.clone());
        evals.last = Some(eval);
        Ok(())
    }

    fn cursor(&self) -> Cursor {
        let (rows, batch) = (self.job.splits.train.sequences.len(), self.job.recipe.train.batch);
        Cursor::new(rows, batch, self.job.recipe.seed, self.state.epoch, self.state.cursor)
    }

    pub(super) fn batch(&self, rows: &[usize]) -> Batch {
        let sequences: Vec<_> = rows.iter().map(|&row| &self.job.splits.train.sequences[row]).collect();
        collate(&sequences, self.job.opened.tokenizer.pad().unwrap_or(0))
    }
}

impl Job {
    /// What an evaluation of this job looks at.
    pub fn evaluation<'a>(&'a self, dataset: &'a Dataset) -> Evaluation<'a> {
        Evaluation {
            dataset,
            tokenizer: &self.opened.tokenizer,
            batch: self.recipe.train.batch,
            generate: self.recipe.train.eval_generate,
            stop: &self.splits.stop,
        }
    }
}

/// Active rank of each module; none where the method does not change ranks.
pub(super) fn active_ranks(learner: &dyn Learner) -> Vec<usize> {
    match learner.ranks() {
        Some(Event::Ranks { modules, .. }) => modules.iter().map(|module| module.active).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
