//! Runs made up of a few records.

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::group::Group;
use super::history::Run;
use super::metric;
use super::summary::{Setting, Summary};
use crate::events::{Eval, Event, Record, Status, Step};

/// A run of four steps.
pub struct Scripted {
    variant: &'static str,
    seed: u64,
    eval: Option<f64>,
    metrics: IndexMap<String, f64>,
    status: Option<Status>,
    trainable: usize,
}

impl Scripted {
    pub fn new(variant: &'static str, seed: u64) -> Self {
        let (metrics, status) = (IndexMap::new(), Some(Status::Finished));
        Self { variant, seed, eval: None, metrics, status, trainable: 100 }
    }

    /// Evaluation loss at the last step.
    pub fn eval(self, loss: f64) -> Self {
        Self { eval: Some(loss), ..self }
    }

    pub fn metric(mut self, name: &str, value: f64) -> Self {
        self.metrics.insert(name.into(), value);
        self
    }

    pub fn status(self, status: Option<Status>) -> Self {
        Self { status, ..self }
    }

    pub fn trainable(self, trainable: usize) -> Self {
        Self { trainable, ..self }
    }

    pub fn run(&self) -> Run {
        let mut run = Run::of(self.variant);
        let mut tell = |t: f64, event| run.record(Record { run: self.variant.into(), t, event });
        tell(0.0, started(json!({"seed": self.seed}), self.trainable));
        for step in 1..=4 {
            let loss = 4.0 / step as f64;
            let step_ms = if step == 1 { 90.0 } else { 10.0 * step as f64 };
            tell(
                step as f64,
                Event::Step(Step { step, loss, tokens: 10, step_ms, peak_mem_bytes: 1 << 20, ..Step::default() }),
            );
        }
        if let Some(loss) = self.eval {
            tell(4.0, Event::Eval(Eval { step: 4, loss, metrics: self.metrics.clone() }));
        }
        if let Some(status) = self.status {
            tell(5.0, Event::RunEnded { status, seconds: 5.0, verify: None });
        }
        run.seed = self.seed;
        run
    }
}

pub fn started(plan: Value, trainable: usize) -> Event {
    let memory = json!({"base": 1, "adapter": 1, "optimizer": 1, "activations": 1, "peak": 3 << 20});
    serde_json::from_value(json!({
        "event": "run_started", "plan": plan, "command": ["lowrank"], "versions": {}, "hashes": {},
        "params_trainable": trainable, "params_total": 1000, "device": "flex", "memory": memory, "steps": 4,
        "resumed_from": 0,
    }))
    .unwrap()
}

/// A variant of one run with this recipe.
pub fn group(name: &str, plan: Value) -> Group {
    let mut run = Run::of(name);
    run.record(Record { run: name.into(), t: 0.0, event: started(plan, 100) });
    Group { name: name.into(), runs: vec![run] }
}

pub fn groups(runs: &[Scripted]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for run in runs.iter().map(Scripted::run) {
        match groups.iter_mut().find(|group| group.name == run.variant) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { name: run.variant.clone(), runs: vec![run] }),
        }
    }
    groups
}

/// With the first variant as the reference.
pub fn summary(runs: &[Scripted]) -> Summary {
    let groups = groups(runs);
    let metric = metric::primary(&groups);
    let (notes, sweeps) = Default::default();
    Summary::of(&groups, Setting { name: "test", mode: None, metric, reference: 0, notes, sweeps })
}
