//! What a run says of itself: plain data, one JSON object a line in `metrics.jsonl`.
//!
//! Everything drawn, tabled or plotted is rebuilt from these. See `docs/architecture.md`, section 4.

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
    Step(Step),
    Eval(Eval),
    Ranks { step: usize, budget: usize, modules: Vec<ModuleRank> },
    Norms { step: usize, modules: Vec<ModuleNorm> },
    Saved { step: usize, path: String },
    Sample { step: usize, prompt: String, text: String },
    Warning { code: String, text: String, count: usize },
    RunEnded { status: Status, seconds: f64, verify: Option<Verify> },
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
    pub optimizer: u64,
    /// Predicted activations at the largest batch.
    pub activations: u64,
    /// Predicted peak of the whole process.
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
    pub lr: IndexMap<String, f64>,
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    pub step: usize,
    #[serde(with = "float")]
    pub loss: f64,
    /// `perplexity`, `exact_match`, ...
    pub metrics: IndexMap<String, f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleRank {
    pub name: String,
    pub active: usize,
    pub total: usize,
    pub importance: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleNorm {
    pub name: String,
    /// Frobenius norm of the weight update s·B·A.
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

/// JSON has no NaN: non-finite numbers are the strings "NaN", "inf" and "-inf".
pub mod float {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.collect_str(value) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Number {
            Finite(f64),
            Named(String),
        }
        match Number::deserialize(deserializer)? {
            Number::Finite(value) => Ok(value),
            Number::Named(name) => name.parse().map_err(D::Error::custom),
        }
    }
}
