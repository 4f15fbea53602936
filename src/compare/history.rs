//! One run, as its `metrics.jsonl` tells it.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::discover::Source;
use crate::checkpoint::RunStatus;
use crate::events::{self, Event, Memory, Record, RunStarted, Step};
use crate::plot::{Cell, curve::Point};
use crate::{Error, Result};

/// Training losses that the final one is the mean of: one alone is that of a single batch.
const LAST: usize = 10;

#[derive(Clone, Debug, Default)]
pub struct Run {
    pub variant: String,
    pub seed: u64,
    pub dir: PathBuf,
    pub start: Option<Box<RunStarted>>,
    pub train: Vec<Point>,
    pub evals: Vec<Evaluation>,
    pub frames: Vec<Frame>,
    pub samples: Vec<Sample>,
    pub warnings: IndexMap<String, (String, usize)>,
    /// What the last process measured.
    pub memory: Option<Memory>,
    /// Most bytes that were resident in a process of the run.
    pub peak: u64,
    pub state: RunStatus,
    /// Of the run, over all its processes.
    pub seconds: f64,
    step_ms: Vec<f64>,
    tokens: usize,
}

#[derive(Clone, Debug)]
pub struct Evaluation {
    pub at: Point,
    /// `exact_match`, ... as the event names them.
    pub metrics: IndexMap<String, f64>,
}

/// Ranks or update norms of all adapted modules at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub measure: Measure,
    pub step: usize,
    pub cells: Vec<Cell>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Rank,
    UpdateNorm,
}

#[derive(Clone, Debug)]
pub struct Sample {
    pub step: usize,
    pub prompt: String,
    pub text: String,
}

/// The evaluation loss of the run in `dir` after so many steps; none where it did not come to that.
pub fn last_eval_loss(dir: &Path, steps: usize) -> Option<f64> {
    let run = Run::read(&Source { variant: String::new(), seed: None, dir: dir.into() }).ok()?;
    run.evals.last().filter(|eval| eval.at.step == steps).map(|eval| eval.at.loss)
}

impl Run {
    /// Of which nothing is known yet but the variant.
    pub fn of(variant: &str) -> Self {
        Run { variant: variant.into(), ..Run::default() }
    }

    /// Reads the file once, line by line.
    ///
    /// # Errors
    /// An input error with the line that is no record, or where there is no record at all.
    pub fn read(source: &Source) -> Result<Self> {
        let mut run = Run { dir: source.dir.clone(), ..Run::of(&source.variant) };
        let (path, mut records) = (source.metrics(), 0);
        events::for_each(&path, |record| {
            records += 1;
            run.record(record);
        })?;
        if records == 0 {
            return Err(Error::input("no event in it yet").file(path).into());
        }
        run.seed = source.seed.or_else(|| run.planned_seed()).unwrap_or(0);
        Ok(run)
    }

    pub fn planned_seed(&self) -> Option<u64> {
        self.start.as_ref()?.plan.get("seed")?.as_u64()
    }

    pub(crate) fn record(&mut self, Record { t, event, .. }: Record) {
        self.seconds = t;
        match event {
            Event::RunStarted(start) => self.begin(start),
            Event::Step(step) => self.step(&step, t),
            Event::Eval(eval) => {
                let at = Point { step: eval.step, tokens: self.tokens, t, loss: eval.loss };
                self.evals.push(Evaluation { at, metrics: eval.metrics });
            }
            Event::Ranks { step, modules, .. } => {
                let cells = Cell::all(modules.iter().map(|m| (m.name.as_str(), m.active as f64)));
                self.frame(Frame { measure: Measure::Rank, step, cells });
            }
            Event::Norms { step, modules } => {
                let cells = Cell::all(modules.iter().map(|m| (m.name.as_str(), m.update_norm)));
                self.frame(Frame { measure: Measure::UpdateNorm, step, cells });
            }
            Event::Sample { step, prompt, text } => self.samples.push(Sample { step, prompt, text }),
            Event::Warning { code, text, count } => {
                self.warnings.insert(code, (text, count));
            }
            Event::Memory { measured, .. } => {
                self.peak = self.peak.max(measured.peak);
                self.memory = Some(measured);
            }
            Event::RunEnded { status, seconds, .. } => {
                self.state = status.into();
                self.seconds = seconds;
            }
            Event::Pilot(_) | Event::Saved { .. } | Event::Note { .. } => {}
        }
    }

    /// A run that goes on from a checkpoint takes back what it did after it; a fresh one takes back everything.
    fn begin(&mut self, start: Box<RunStarted>) {
        let from = start.resumed_from;
        if from == 0 {
            *self = Run { dir: std::mem::take(&mut self.dir), ..Run::of(&self.variant) };
        }
        let kept = self.train.partition_point(|point| point.step <= from);
        self.train.truncate(kept);
        self.step_ms.truncate(kept);
        self.evals.retain(|eval| eval.at.step <= from);
        self.frames.retain(|frame| frame.step <= from);
        self.samples.retain(|sample| sample.step <= from);
        self.tokens = self.train.last().map_or(0, |point| point.tokens);
        self.state = RunStatus::Running;
        self.start = Some(start);
    }

    fn step(&mut self, step: &Step, t: f64) {
        self.tokens += step.tokens;
        self.train.push(Point { step: step.step, tokens: self.tokens, t, loss: step.loss });
        self.step_ms.push(step.step_ms);
        self.peak = self.peak.max(step.peak_mem_bytes);
    }

    /// Ranks say more than norms, and a run that has ranks has both.
    fn frame(&mut self, frame: Frame) {
        match self.frames.last() {
            Some(last) if last.measure == Measure::Rank && frame.measure == Measure::UpdateNorm => return,
            Some(last) if last.measure == Measure::UpdateNorm && frame.measure == Measure::Rank => self.frames.clear(),
            Some(last) if last.step == frame.step => _ = self.frames.pop(),
            _ => {}
        }
        self.frames.push(frame);
    }

    /// Steps done and to do.
    pub fn progress(&self) -> (usize, usize) {
        let done = self.train.last().map_or(0, |point| point.step);
        (done, self.start.as_ref().map_or(0, |start| start.steps).max(done))
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The first step of those at the end whose loss was not finite, or the last step, of a run that diverged.
    pub fn diverged_at(&self) -> Option<usize> {
        let lost = self.train.iter().rev().take_while(|point| !point.loss.is_finite()).last();
        (self.state == RunStatus::Diverged).then(|| lost.or(self.train.last()).map_or(0, |point| point.step))
    }

    /// `finished`, `diverged at step 12`, `interrupted at step 7 of 40`.
    pub fn standing(&self) -> String {
        let (done, all) = self.progress();
        match (self.state, self.diverged_at()) {
            (RunStatus::Finished, _) => self.state.word().into(),
            (_, Some(step)) => format!("{} at step {step}", self.state.word()),
            _ => format!("{} at step {done} of {all}", self.state.word()),
        }
    }

    /// Milliseconds; the first step warms caches up and does not count where there are others.
    pub fn median_step_ms(&self) -> Option<f64> {
        let skipped = usize::from(self.step_ms.len() > 1);
        super::statistics::median(&self.step_ms[skipped..])
    }

    /// Every final number of the run by its name.
    pub fn metrics(&self) -> IndexMap<String, f64> {
        let mut metrics = IndexMap::new();
        let last: Vec<_> = self.train.iter().rev().take(LAST).map(|point| point.loss).collect();
        if let Some(loss) = super::statistics::mean(&last) {
            metrics.insert("train_loss".to_string(), loss);
        }
        if let Some(eval) = self.evals.last() {
            metrics.insert("eval_loss".to_string(), eval.at.loss);
            metrics.extend(self.best_eval().map(|best| ("best_eval_loss".to_string(), best.loss)));
            metrics.extend(eval.metrics.clone());
        }
        metrics
    }

    pub fn best_eval(&self) -> Option<Point> {
        let evals = self.evals.iter().map(|eval| eval.at).filter(|at| !at.loss.is_nan());
        evals.min_by(|a, b| a.loss.total_cmp(&b.loss))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use serde_json::json;

    use super::*;
    use crate::compare::testing::{Scripted, started};
    use crate::events::{ModuleNorm, ModuleRank, Status};

    fn golden() -> PathBuf {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/events/metrics.jsonl").into()
    }

    fn told(events: Vec<Event>) -> Run {
        let mut run = Run::default();
        events.into_iter().for_each(|event| run.record(Record { run: String::new(), t: 1.0, event }));
        run
    }

    fn step(step: usize, loss: f64) -> Event {
        Event::Step(Step { step, loss, tokens: 10, step_ms: step as f64, ..Step::default() })
    }

    fn read(dir: &std::path::Path) -> Result<Run> {
        Run::read(&Source { variant: "x".into(), seed: None, dir: dir.into() })
    }

    #[test]
    fn a_recording_is_read_whole_and_a_torn_end_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::copy(golden(), &path).unwrap();
        let whole = read(dir.path()).unwrap();
        assert_eq!((whole.progress(), whole.state, whole.evals.len()), ((200, 200), RunStatus::Finished, 5));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"run\":\"x\"").unwrap();
        assert_eq!(read(dir.path()).unwrap().metrics(), whole.metrics());
    }

    #[test]
    fn a_spoiled_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(golden()).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines[6] = "{\"run\":1}";
        fs::write(dir.path().join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("line 7: not a record of a run"), "{error}");
        fs::write(dir.path().join("metrics.jsonl"), "").unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("no event in it yet"));
    }

    #[test]
    fn final_numbers_are_those_computed_by_hand() {
        let run = Scripted::new("a", 3).eval(0.5).metric("exact_match", 0.25).run();
        // 4, 2, 4/3 and 1; step times 90, 20, 30 and 40, of which the first does not count.
        let train = (4.0 + 2.0 + 4.0 / 3.0 + 1.0) / 4.0;
        assert!((run.metrics()["train_loss"] - train).abs() < 1e-12);
        assert_eq!(run.metrics()["exact_match"], 0.25);
        assert_eq!((run.median_step_ms(), run.tokens(), run.planned_seed()), (Some(30.0), 40, Some(3)));
    }

    #[test]
    fn a_resumed_run_takes_back_what_it_did_after_its_checkpoint() {
        let mut resumed = started(json!({}), 1);
        if let Event::RunStarted(start) = &mut resumed {
            start.resumed_from = 1;
        }
        let run = told(vec![started(json!({}), 1), step(1, 3.0), step(2, 9.0), resumed, step(2, 2.0)]);
        let losses: Vec<_> = run.train.iter().map(|point| (point.loss, point.tokens)).collect();
        assert_eq!(losses, [(3.0, 10), (2.0, 20)]);
        let again = told(vec![started(json!({}), 1), step(1, 3.0), started(json!({}), 1), step(1, 1.0)]);
        assert_eq!((again.train.len(), again.tokens()), (1, 10));
    }

    #[test]
    fn divergence_is_where_the_losses_at_the_end_stop_being_finite() {
        let ended = Event::RunEnded { status: Status::Diverged, seconds: 2.0, verify: None };
        let run =
            told(vec![step(1, 3.0), step(2, f64::NAN), step(3, 2.0), step(4, f64::NAN), step(5, f64::INFINITY), ended]);
        assert_eq!(run.standing(), "diverged at step 4");
        assert_eq!(told(vec![step(1, f64::NAN)]).diverged_at(), None);
    }

    #[test]
    fn ranks_take_the_place_of_norms_and_a_step_has_one_frame() {
        let module = |active| ModuleRank { name: "m.layers.2.q_proj".into(), active, total: 8, importance: 0.0 };
        let ranks = |step, active| Event::Ranks { step, budget: active, modules: vec![module(active)] };
        let norms = |step| Event::Norms { step, modules: vec![ModuleNorm { name: "a".into(), update_norm: 1.0 }] };
        let run = told(vec![norms(0), ranks(0, 8), norms(1), ranks(1, 7), ranks(1, 6)]);
        let frames: Vec<_> = run.frames.iter().map(|frame| (frame.step, frame.measure, frame.cells[0].value)).collect();
        assert_eq!(frames, [(0, Measure::Rank, 8.0), (1, Measure::Rank, 6.0)]);
        assert_eq!(run.frames[0].cells[0], Cell { kind: "q_proj".into(), layer: 2, value: 8.0 });
    }
}
