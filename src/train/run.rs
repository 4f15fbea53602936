//! The training loop. It knows plain data and [`Learner`], never a tensor.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::cursor::Cursor;
use super::evaluate::{Evaluation, evaluate};
use super::optimize::{Place, optimize};
use super::{Job, peak_bytes, resident_bytes};
use crate::checkpoint::{Best, RunDir, RunInfo, TrainState};
use crate::data::{Batch, Dataset, collate};
use crate::events::{Bus, Control, Eval, Event, Memory, Status, Step, StopKind, Verify};
use crate::recipe::Offload;
use crate::runtime::{Base, Learner};
use crate::tensors::HostTensors;
use crate::{Error, Result};

/// A run that is ready to train, fresh or resumed.
pub struct Run<'a> {
    /// Changes once, where a pilot decides what its recipe leaves open.
    pub job: &'a mut Job,
    pub dir: RunDir,
    pub(super) info: RunInfo,
    pub(super) base: Rc<dyn Base>,
    pub(super) learner: Box<dyn Learner>,
    pub(super) state: TrainState,
    /// Step this process started from.
    pub(super) resumed_from: usize,
    /// Active rank of each module, of a method that changes them, as last reported.
    pub(super) ranks: Vec<usize>,
    /// Resident bytes once base and adapter were loaded.
    pub(super) resting: u64,
    pub(super) cursor: Cursor,
    /// Step of the newest checkpoint.
    pub(super) saved: usize,
    pub(super) evals: Evals,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub status: Status,
    pub step: usize,
    pub seconds: f64,
    /// First and last evaluation, when there were any.
    pub first_eval: Option<Eval>,
    pub last_eval: Option<Eval>,
    pub verify: Option<Verify>,
    /// Signal that interrupted it.
    pub signal: Option<i32>,
}

/// Why the loop left.
pub(super) enum Left {
    Done,
    Stopped(StopKind),
}

/// First and last evaluation of this process.
#[derive(Default)]
pub(super) struct Evals {
    first: Option<Eval>,
    last: Option<Eval>,
}

/// What someone asked for since the last turn.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked {
    pub save: bool,
    pub evaluate: bool,
}

impl Asked {
    pub fn add(&mut self, other: Self) {
        self.save |= other.save;
        self.evaluate |= other.evaluate;
    }

    pub fn take(control: &Control) -> Self {
        Self { save: control.take_save(), evaluate: control.take_evaluate() }
    }
}

impl Run<'_> {
    /// Trains to the end, or until `control` asks for a stop or the loss diverges; whatever happens, the run
    /// directory says how it ended.
    pub fn train(mut self, bus: &Bus, control: &Control) -> Result<Outcome> {
        let mut left = self.start(bus, control).transpose();
        while left.is_none() {
            left = self.turn(bus, control, Asked::take(control)).transpose();
        }
        self.end(bus, control, left.unwrap_or(Ok(Left::Done)))
    }

    /// Says that it starts and lets a pilot decide what the recipe leaves open; `Some` where `control` asks for a stop before that.
    pub(super) fn start(&mut self, bus: &Bus, control: &Control) -> Result<Option<Left>> {
        bus.emit(self.started_event());
        self.job.notes().into_iter().for_each(|note| bus.emit(note));
        if let stopped @ Left::Stopped(_) = self.pilot(bus, control)? {
            return Ok(Some(stopped));
        }
        // The records of a resumed run hold them already.
        if self.resumed_from == 0 {
            self.job.warnings().into_iter().for_each(|warning| bus.emit(warning));
        }
        Ok(None)
    }

    /// Evaluates and saves if it is time, and takes one step; `Some` where none is left to take.
    pub(super) fn turn(&mut self, bus: &Bus, control: &Control, asked: Asked) -> Result<Option<Left>> {
        if self.evaluation_is_due() || asked.evaluate {
            self.evaluate(bus, control)?;
            if let (true, Some(kind)) = (self.evaluation_is_due(), control.stop()) {
                return Ok(Some(Left::Stopped(kind)));
            }
        }
        let step = self.state.step;
        if asked.save || (self.is_due(self.job.recipe.train.save_every) && step != self.saved) {
            self.save(bus)?;
            self.saved = step;
        }
        if step >= self.job.steps {
            return Ok(Some(Left::Done));
        }
        if control.paused() {
            std::thread::sleep(Duration::from_millis(50));
            return Ok(None);
        }
        if let Some(kind) = control.stop() {
            return Ok(Some(Left::Stopped(kind)));
        }
        self.one_step(bus)?;
        Ok(None)
    }

    /// Saves what is to be saved, and says how it ended.
    pub(super) fn end(mut self, bus: &Bus, control: &Control, left: Result<Left>) -> Result<Outcome> {
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
            first_eval: self.evals.first,
            last_eval: self.evals.last,
            verify,
            signal: control.signal(),
        })
    }

    /// Optimizer steps taken.
    pub(super) fn step(&self) -> usize {
        self.state.step
    }

    /// What the memory of this process went to.
    fn measured(&self) -> Memory {
        let bytes = |tensors: &HostTensors, counts: fn(&str) -> bool| {
            let counted = tensors.iter().filter(|(name, _)| counts(name));
            counted.map(|(_, tensor)| 4 * tensor.values.len() as u64).sum::<u64>()
        };
        let is_moment = |name: &str| name.ends_with(".exp_avg") || name.ends_with(".exp_avg_sq");
        let hosted = self.job.recipe.optim.offload == Offload::Host;
        let (state, peak) = (self.learner.state(), peak_bytes());
        Memory {
            base: self.base.bytes(),
            adapter: bytes(&self.learner.export(), |_| true),
            optimizer: bytes(&state, |_| true),
            optimizer_host: if hosted { bytes(&state, is_moment) } else { 0 },
            activations: peak.saturating_sub(self.resting),
            peak,
            ..Memory::default()
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

    fn one_step(&mut self, bus: &Bus) -> Result<()> {
        let start = Instant::now();
        let rows = self.cursor.take(self.job.recipe.train.accumulate);
        let batches: Vec<Batch> = rows.iter().map(|rows| self.batch(rows)).collect();
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
        (self.state.epoch, self.state.cursor) = (self.cursor.epoch, self.cursor.next);
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

    fn evaluate(&mut self, bus: &Bus, control: &Control) -> Result<()> {
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
        self.evals.first.get_or_insert_with(|| eval.clone());
        self.evals.last = Some(eval);
        Ok(())
    }

    pub(super) fn cursor_at(&self) -> Cursor {
        let (rows, batch) = (self.job.splits.train.sequences.len(), self.job.recipe.train.batch);
        Cursor::new(rows, batch, self.job.recipe.seed, self.state.epoch, self.state.cursor)
    }

    pub(super) fn batch(&self, rows: &[usize]) -> Batch {
        let sequences: Vec<_> = rows.iter().map(|&row| &self.job.splits.train.sequences[row]).collect();
        collate(&sequences, self.job.opened.tokenizer.pad().unwrap_or(0)).under(&self.job.recipe.head)
    }
}

impl Job {
    /// What an evaluation of this job looks at.
    pub fn evaluation<'a>(&'a self, dataset: &'a Dataset) -> Evaluation<'a> {
        Evaluation {
            dataset,
            tokenizer: &self.opened.tokenizer,
            task: self.recipe.task,
            head: &self.recipe.head,
            labels: &self.splits.labels,
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
