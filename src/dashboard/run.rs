//! What the records of one run amount to.

use std::collections::VecDeque;

use super::place::Part;
use crate::checkpoint::RunStatus;
use crate::compare::Run as History;
use crate::events::{Event, Record, Step};
use crate::plot::Cell;
use crate::plot::curve::smooth;

/// Speeds kept for the sparkline.
const SPEEDS: usize = 256;

/// One run: its history, as the report has it, and what only a look at it now needs.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    /// Its place among the variants.
    pub variant: usize,
    pub part: Part,
    pub history: History,
    pub last: Option<Step>,
    /// Tokens a second, newest last.
    pub speeds: VecDeque<f64>,
    /// Step and clock of the newest save.
    pub saved: Option<(usize, f64)>,
    pub ranks: Option<Modules>,
    pub norms: Option<Modules>,
    /// Steps done and to do of the short training before the run proper.
    pub pilot: Option<(usize, usize)>,
    /// What its clock shows.
    pub t: f64,
}

/// The newest ranks or update norms of all adapted modules.
#[derive(Clone, Debug, PartialEq)]
pub struct Modules {
    pub measure: Measure,
    pub step: usize,
    pub cells: Vec<Cell>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// Ranks that may be active, and those that there are.
    Rank {
        budget: usize,
        total: usize,
    },
    UpdateNorm,
}

impl Run {
    pub fn new(name: &str, variant: usize, part: Part) -> Self {
        let history = History::of(name);
        Self {
            name: name.into(),
            variant,
            part,
            history,
            last: None,
            speeds: VecDeque::new(),
            saved: None,
            ranks: None,
            norms: None,
            pilot: None,
            t: 0.0,
        }
    }

    pub fn record(&mut self, record: &Record) {
        self.t = record.t;
        match &record.event {
            Event::RunStarted(start) if start.resumed_from == 0 => {
                *self = Run { t: self.t, ..Run::new(&self.name, self.variant, self.part) };
            }
            Event::Step(step) => self.step(step),
            Event::Ranks { step, budget, modules } => {
                let total = modules.iter().map(|m| m.total).sum();
                let cells = Cell::all(modules.iter().map(|m| (m.name.as_str(), m.active as f64)));
                self.ranks = Some(Modules { measure: Measure::Rank { budget: *budget, total }, step: *step, cells });
            }
            Event::Norms { step, modules } => {
                let cells = Cell::all(modules.iter().map(|m| (m.name.as_str(), m.update_norm)));
                self.norms = Some(Modules { measure: Measure::UpdateNorm, step: *step, cells });
            }
            Event::Saved { step, .. } => self.saved = Some((*step, record.t)),
            Event::Pilot(pilot) => self.pilot = Some((pilot.step, pilot.steps)),
            _ => {}
        }
        self.history.record(record.clone());
        self.history.seed = match self.part {
            Part::Seed(seed) => seed,
            Part::Whole | Part::Pilot => self.history.planned_seed().unwrap_or(0),
        };
    }

    fn step(&mut self, step: &Step) {
        if step.step_ms > 0.0 {
            self.speeds.push_back(step.tokens as f64 / step.step_ms * 1e3);
        }
        if self.speeds.len() > SPEEDS {
            self.speeds.pop_front();
        }
        self.pilot = None;
        self.last = Some(step.clone());
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<RunStatus> {
        Some(self.history.state).filter(|&state| state != RunStatus::Running)
    }

    /// Whether it ended as no run should.
    pub fn is_lost(&self) -> bool {
        matches!(self.history.state, RunStatus::Diverged | RunStatus::Failed)
    }

    /// Steps done and to do.
    pub fn progress(&self) -> (usize, usize) {
        let (done, all) = self.history.progress();
        let resumed = self.history.start.as_ref().map_or(0, |start| start.resumed_from);
        (done.max(resumed), all.max(resumed))
    }

    /// Seconds still to go, from the pace of the last steps.
    pub fn eta(&self) -> Option<f64> {
        let (done, all) = self.progress();
        let train = &self.history.train;
        let recent = &train[train.len().saturating_sub(50)..];
        let (first, last) = (recent.first()?, recent.last()?);
        let steps = last.step.checked_sub(first.step).filter(|&steps| steps > 0)?;
        Some((last.t - first.t) / steps as f64 * (all - done) as f64)
    }

    /// Mean tokens a second over the last steps.
    pub fn speed(&self) -> Option<f64> {
        let recent: Vec<_> = self.speeds.iter().rev().take(20).copied().collect();
        (!recent.is_empty()).then(|| recent.iter().sum::<f64>() / recent.len() as f64)
    }

    /// Exponential moving average of the training loss, without its start-up bias; NaN where the loss was not finite.
    pub fn smoothed(&self, beta: f64) -> Vec<f64> {
        smooth(self.history.train.iter().map(|point| point.loss), beta)
    }

    /// A setting of the resolved recipe, by JSON pointer.
    pub fn setting(&self, pointer: &str) -> Option<&serde_json::Value> {
        self.history.start.as_ref()?.plan.pointer(pointer)
    }

    /// A number of the newest evaluation.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.history.evals.last()?.metrics.get(name).copied()
    }
}
