//! The recipe as data: every key a user may write, with its default.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adapters::AdapterConfig;

/// A resolved recipe: defaults, then the file, then `--set`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Format of this file; always 1.
    #[serde(default = "one")]
    pub version: u32,
    /// Decides initial adapters, data order and dropout.
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub task: Task,
    pub model: Model,
    #[serde(default)]
    pub base: Base,
    pub adapter: AdapterConfig,
    pub data: Data,
    #[serde(default)]
    pub optim: Optim,
    #[serde(default)]
    pub train: Train,
    #[serde(default)]
    pub log: Log,
}

fn one() -> u32 {
    1
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    #[default]
    CausalLm,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// `tiny` (the embedded base), a HF directory, a `.gguf` file, or a hub id (feature `hub`).
    pub path: String,
    /// How the frozen base is stored.
    #[serde(default)]
    pub dtype: BaseDtype,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BaseDtype {
    #[default]
    F32,
    Bf16,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Base {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// `synthetic:NAME`, or a `.jsonl`, `.json`, `.csv`, `.tsv` or `.txt` file.
    pub train: String,
    /// A file like `train`, or `{ fraction = 0.05 }` of the training rows.
    #[serde(default)]
    pub eval: Option<EvalData>,
    #[serde(default)]
    pub format: Format,
    /// `none`, `chatml`, `tokenizer` (its own chat template), or the path of a jinja file.
    #[serde(default = "no_template")]
    pub template: String,
    /// Tokens; longer rows follow `over_length`.
    #[serde(default = "max_len")]
    pub max_len: usize,
    #[serde(default)]
    pub over_length: OverLength,
    /// Put several rows into one sequence; attention stays inside each row.
    #[serde(default)]
    pub pack: bool,
    #[serde(default)]
    pub loss_on: LossOn,
    /// Use only the first this many training rows.
    #[serde(default)]
    pub max_rows: Option<usize>,
}

fn no_template() -> String {
    "none".into()
}
fn max_len() -> usize {
    128
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EvalData {
    Path(String),
    Fraction { fraction: f64 },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    #[default]
    Auto,
    Completion,
    PromptCompletion,
    Alpaca,
    Messages,
    Sharegpt,
    /// `{ columns = { prompt = "mr", completion = "ref" } }`: our names to the file's.
    Columns(IndexMap<String, String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverLength {
    #[default]
    Drop,
    Truncate,
    Error,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    #[default]
    Completion,
    All,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optim {
    pub adamw: AdamW,
    pub schedule: Schedule,
    /// Largest global gradient norm; 0 turns clipping off.
    pub clip: f64,
}

impl Default for Optim {
    fn default() -> Self {
        Self { adamw: AdamW::default(), schedule: Schedule::default(), clip: 1.0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    pub lr: f64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 2e-4, weight_decay: 0.0, beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

/// Learning-rate schedule. `warmup` below 1 is a fraction of all steps, from 1 on a number of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    Constant {
        #[serde(default)]
        warmup: f64,
    },
    Linear {
        #[serde(default)]
        warmup: f64,
    },
    Cosine {
        #[serde(default)]
        warmup: f64,
    },
    Polynomial {
        #[serde(default)]
        warmup: f64,
        #[serde(default = "power")]
        power: f64,
        /// Final rate as a share of the peak rate.
        #[serde(default)]
        end: f64,
    },
    InverseSqrt {
        #[serde(default)]
        warmup: f64,
    },
}

fn power() -> f64 {
    1.0
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Cosine { warmup: 0.03 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Rows (or packed sequences) per forward.
    pub batch: usize,
    /// Forwards per optimizer step.
    pub accumulate: usize,
    pub epochs: usize,
    /// Optimizer steps; ends the run before `epochs` would.
    pub max_steps: Option<usize>,
    /// Steps between evaluations; 0 evaluates only at the start and the end.
    pub eval_every: usize,
    /// Evaluation rows that are also generated greedily and scored by exact match.
    pub eval_generate: usize,
    /// Steps between checkpoints; 0 saves only at the end.
    pub save_every: usize,
    /// Newest checkpoints kept.
    pub keep: usize,
    pub gradient_checkpointing: bool,
    /// Consecutive non-finite steps that are skipped before the run ends with exit code 3.
    pub max_skipped: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            batch: 4,
            accumulate: 1,
            epochs: 1,
            max_steps: None,
            eval_every: 50,
            eval_generate: 0,
            save_every: 50,
            keep: 3,
            gradient_checkpointing: false,
            max_skipped: 5,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Steps between console lines.
    pub every: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { every: 10 }
    }
}
