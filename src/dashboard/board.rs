//! What the records so far amount to.

use std::collections::VecDeque;

use crate::events::{Eval, Event, Line, Record, RunStarted, Status, Step};
use crate::plot::Cell;
use crate::plot::curve::{Point, smooth};

/// Speeds kept for the sparkline.
const SPEEDS: usize = 256;
/// Log lines kept.
const LINES: usize = 5000;

/// Everything the panels show, rebuilt from records alone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    pub runs: Vec<Run>,
    pub log: VecDeque<Entry>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub run: usize,
    pub t: f64,
    pub line: Line,
}

#[derive(Clone, Debug, Default)]
pub struct Run {
    pub name: String,
    pub start: Option<Box<RunStarted>>,
    pub train: Vec<Point>,
    pub evals: Vec<Point>,
    pub last: Option<Step>,
    pub eval: Option<Eval>,
    /// Tokens a second, newest last.
    pub speeds: VecDeque<f64>,
    /// Step and clock of the newest save.
    pub saved: Option<(usize, f64)>,
    pub modules: Option<Modules>,
    pub ended: Option<Status>,
    /// What its clock shows.
    pub t: f64,
    tokens: usize,
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
    Rank { budget: usize },
    UpdateNorm,
}

impl Board {
    pub fn record(&mut self, record: &Record) {
        let index = self.index(&record.run);
        if let Event::RunStarted(start) = &record.event {
            self.log.retain(|entry| entry.run != index || entry.line.step.is_some_and(|s| s <= start.resumed_from));
        }
        if let Some(line) = Line::of(&record.event).filter(|_| !matches!(record.event, Event::Step(_))) {
            self.log.push_back(Entry { run: index, t: record.t, line });
            if self.log.len() > LINES {
                self.log.pop_front();
            }
        }
        self.runs[index].record(record);
    }

    fn index(&mut self, name: &str) -> usize {
        self.runs.iter().position(|run| run.name == name).unwrap_or_else(|| {
            self.runs.push(Run { name: name.into(), ..Run::default() });
            self.runs.len() - 1
        })
    }
}

impl Run {
    fn record(&mut self, record: &Record) {
        self.t = record.t;
        match &record.event {
            Event::RunStarted(start) => self.begin(start),
            Event::Step(step) => self.step(step, record.t),
            Event::Eval(eval) => {
                self.evals.push(self.point(eval.step, record.t, eval.loss));
                self.eval = Some(eval.clone());
            }
            Event::Ranks { step, budget, modules } => {
                let cells = modules.iter().map(|m| Cell::new(&m.name, m.active as f64)).collect();
                self.modules = Some(Modules { measure: Measure::Rank { budget: *budget }, step: *step, cells });
            }
            Event::Norms { step, modules } => {
                // Ranks say more, and such a run has both.
                if self.modules.as_ref().is_none_or(|m| m.measure == Measure::UpdateNorm) {
                    let cells = modules.iter().map(|m| Cell::new(&m.name, m.update_norm)).collect();
                    self.modules = Some(Modules { measure: Measure::UpdateNorm, step: *step, cells });
                }
            }
            Event::Saved { step, .. } => self.saved = Some((*step, record.t)),
            Event::RunEnded { status, .. } => self.ended = Some(*status),
            Event::Pilot(_)
            | Event::Sample { .. }
            | Event::Note { .. }
            | Event::Warning { .. }
            | Event::Memory { .. } => {}
        }
    }

    /// A run that goes on from a checkpoint takes back what it did after it; a fresh one takes back everything.
    fn begin(&mut self, start: &RunStarted) {
        let from = start.resumed_from;
        if from == 0 {
            *self = Run { name: std::mem::take(&mut self.name), t: self.t, ..Run::default() };
        }
        self.train.retain(|point| point.step <= from);
        self.evals.retain(|point| point.step <= from);
        self.tokens = self.train.last().map_or(0, |point| point.tokens);
        self.ended = None;
        self.start = Some(Box::new(start.clone()));
    }

    fn step(&mut self, step: &Step, t: f64) {
        self.tokens += step.tokens;
        self.train.push(self.point(step.step, t, step.loss));
        if step.step_ms > 0.0 {
            self.speeds.push_back(step.tokens as f64 / step.step_ms * 1e3);
        }
        if self.speeds.len() > SPEEDS {
            self.speeds.pop_front();
        }
        self.last = Some(step.clone());
    }

    fn point(&self, step: usize, t: f64, loss: f64) -> Point {
        Point { step, tokens: self.tokens, t, loss }
    }

    /// Steps done and to do.
    pub fn progress(&self) -> (usize, usize) {
        let resumed = self.start.as_ref().map_or(0, |start| start.resumed_from);
        let done = self.last.as_ref().map_or(resumed, |step| step.step.max(resumed));
        (done, self.start.as_ref().map_or(0, |start| start.steps).max(done))
    }

    /// Seconds still to go, from the pace of the last steps.
    pub fn eta(&self) -> Option<f64> {
        let (done, all) = self.progress();
        let recent = &self.train[self.train.len().saturating_sub(50)..];
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
        smooth(self.train.iter().map(|point| point.loss), beta)
    }

    /// A setting of the resolved recipe, by JSON pointer.
    pub fn setting(&self, pointer: &str) -> Option<&serde_json::Value> {
        self.start.as_ref()?.plan.pointer(pointer)
    }
}
