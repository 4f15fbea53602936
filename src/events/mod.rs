//! What a run says of itself: plain data, one JSON object a line in `metrics.jsonl`.
//!
//! Everything drawn, tabled or plotted is rebuilt from these. See `docs/files.md`.

mod banner;
mod bus;
mod console;
mod control;
pub mod float;
mod jsonl;
mod line;
pub mod units;

pub use banner::Banner;
pub use bus::{Bus, Sink};
#[cfg(feature = "tui")]
pub(crate) use console::no_color;
pub use console::{Color, Console, Format};
pub use control::{Control, Request, StopKind};
pub use jsonl::{Jsonl, Tail, for_each, read, truncate_after};
pub(crate) use line::printable;
pub use line::{Kind, Line};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the run (the variant's, in a race).
    pub run: String,
    /// Seconds since the run started.
    pub t: f64,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    RunStarted(Box<RunStarted>),
    /// A step of the short training that decides something before the run proper.
    Pilot(PilotStep),
    Step(Step),
    Eval(Eval),
    Ranks {
        step: usize,
        budget: usize,
        modules: Vec<ModuleRank>,
    },
    Norms {
        step: usize,
        modules: Vec<ModuleNorm>,
    },
    Saved {
        step: usize,
        path: String,
    },
    Sample {
        step: usize,
        prompt: String,
        text: String,
    },
    /// Something worth knowing that is nothing to mend.
    Note {
        text: String,
    },
    Warning {
        code: String,
        text: String,
        count: usize,
    },
    /// Bytes as they were foretold and as they turned out, before the run ends.
    Memory {
        predicted: Memory,
        measured: Memory,
    },
    RunEnded {
        status: Status,
        seconds: f64,
        verify: Option<Verify>,
    },
}

impl Event {
    /// The optimizer step it speaks of, if it speaks of one.
    pub fn step(&self) -> Option<usize> {
        match self {
            Event::Step(step) => Some(step.step),
            Event::Eval(eval) => Some(eval.step),
            Event::Ranks { step, .. }
            | Event::Norms { step, .. }
            | Event::Saved { step, .. }
            | Event::Sample { step, .. } => Some(*step),
            Event::RunStarted(_)
            | Event::Pilot(_)
            | Event::Note { .. }
            | Event::Warning { .. }
            | Event::Memory { .. }
            | Event::RunEnded { .. } => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The resolved recipe.
    pub plan: serde_json::Value,
    pub command: Vec<String>,
    pub versions: IndexMap<String, String>,
    /// `base`, `data`, `tokenizer`: sha256 hex.
    pub hashes: IndexMap<String, String>,
    pub params_trainable: usize,
    pub params_total: usize,
    pub device: String,
    pub memory: Memory,
    /// Optimizer steps the run will take.
    pub steps: usize,
    /// Step this process resumed from; 0 for a fresh run.
    pub resumed_from: usize,
}

/// Bytes, by what holds them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub base: u64,
    pub adapter: u64,
    /// Wherever its moments lie between steps.
    pub optimizer: u64,
    /// The part of `optimizer` that lies in host memory; each step moves it to the device and back.
    #[serde(default)]
    pub optimizer_host: u64,
    /// Activations at the largest batch; measured, whatever the peak has above what stays resident between steps.
    pub activations: u64,
    /// Peak of the whole process.
    pub peak: u64,
    #[serde(default)]
    pub retained_by_layer: IndexMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub step: usize,
    #[serde(with = "float")]
    pub loss: f64,
    /// Learning rate of each parameter group.
    #[serde(with = "float::map")]
    pub lr: IndexMap<String, f64>,
    /// Before clipping.
    #[serde(with = "float")]
    pub grad_norm: f64,
    /// Tokens that went through the model in this step (padding excluded).
    pub tokens: usize,
    pub step_ms: f64,
    pub forward_ms: f64,
    pub backward_ms: f64,
    pub optimizer_ms: f64,
    /// Steps skipped so far because loss or gradient was not finite.
    pub skipped: usize,
    /// Resident bytes now, and the highest so far.
    pub mem_bytes: u64,
    pub peak_mem_bytes: u64,
}

/// Counted by itself: the run proper starts at step 0 after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PilotStep {
    pub step: usize,
    /// Of the whole pilot.
    pub steps: usize,
    #[serde(with = "float")]
    pub loss: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    pub step: usize,
    #[serde(with = "float")]
    pub loss: f64,
    /// The task's metrics, see [`crate::metrics`].
    #[serde(with = "float::map")]
    pub metrics: IndexMap<String, f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleRank {
    pub name: String,
    pub active: usize,
    pub total: usize,
    #[serde(with = "float")]
    pub importance: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleNorm {
    pub name: String,
    /// Frobenius norm of the weight update s·B·A.
    #[serde(with = "float")]
    pub update_norm: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Finished,
    Interrupted,
    Diverged,
    Failed,
}

/// How far the saved adapter, read back, is from the trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    #[serde(with = "float")]
    pub max_abs_logit_diff: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(event: Event) -> (String, Record) {
        let line = serde_json::to_string(&Record { run: "r".into(), t: 1.5, event }).unwrap();
        let record = serde_json::from_str(&line).unwrap();
        (line, record)
    }

    #[test]
    fn a_record_is_one_flat_object() {
        let (line, record) = round_trip(Event::Saved { step: 50, path: "a/b".into() });
        assert_eq!(line, r#"{"run":"r","t":1.5,"event":"saved","step":50,"path":"a/b"}"#);
        assert_eq!(record.event.step(), Some(50));
    }

    #[test]
    fn non_finite_numbers_survive_as_strings() {
        let metrics = IndexMap::from([("perplexity".to_string(), f64::INFINITY)]);
        let (line, record) = round_trip(Event::Eval(Eval { step: 1, loss: f64::NAN, metrics }));
        assert!(line.contains(r#""loss":"NaN","metrics":{"perplexity":"inf"}"#), "{line}");
        let Event::Eval(eval) = record.event else { panic!("{record:?}") };
        assert!(eval.loss.is_nan());
        assert_eq!(eval.metrics["perplexity"], f64::INFINITY);

        let step = Step { grad_norm: f64::NEG_INFINITY, ..Step::default() };
        let (line, record) = round_trip(Event::Step(step.clone()));
        assert!(line.contains(r#""grad_norm":"-inf""#), "{line}");
        assert_eq!(record.event, Event::Step(step));
    }
}
