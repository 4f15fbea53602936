//! The recipe as data: every key a user may write, with its default.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Base, BaseDtype, Head, Task};
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
    /// What the model learns to do.
    #[serde(default)]
    pub task: Task,
    /// What the task's head gives; of no meaning to tasks that predict tokens.
    #[serde(default)]
    pub head: Head,
    /// The pretrained model to start from.
    pub model: Model,
    /// How the frozen weights are stored.
    #[serde(default)]
    pub base: Base,
    /// What trains.
    pub adapter: AdapterConfig,
    /// What it trains on.
    pub data: Data,
    /// How the weights move.
    #[serde(default)]
    pub optim: Optim,
    /// How long to train, and what to do on the way.
    #[serde(default)]
    pub train: Train,
    /// What to say meanwhile.
    #[serde(default)]
    pub log: Log,
}

fn one() -> u32 {
    1
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// `synthetic:NAME`, or a `.jsonl`, `.json`, `.csv`, `.tsv` or `.txt` file.
    pub train: String,
    /// Rows to evaluate on: a file like `train`, or `{ fraction = 0.05 }` of the training rows.
    #[serde(default)]
    pub eval: Option<EvalData>,
    /// How a row is laid out; `auto` looks at the first rows' keys.
    #[serde(default)]
    pub format: Format,
    /// `none`, `chatml`, `tokenizer` (its own chat template), or the path of a jinja file.
    #[serde(default = "no_template")]
    pub template: String,
    /// Most tokens of a row; longer rows follow `over_length`.
    #[serde(default = "max_len")]
    pub max_len: usize,
    /// What happens to rows longer than `max_len`; always counted.
    #[serde(default)]
    pub over_length: OverLength,
    /// Tokens that two windows over a long context share, in `question_ans`.
    #[serde(default = "stride")]
    pub stride: usize,
    /// Put several rows into one sequence; attention stays inside each row.
    #[serde(default)]
    pub pack: bool,
    /// Which tokens of a row the loss counts.
    #[serde(default)]
    pub loss_on: LossOn,
    /// Use only the first this many training rows.
    #[serde(default)]
    pub max_rows: Option<usize>,
}

impl Data {
    /// `[data]` that says nothing but what to read.
    pub fn of(train: impl Into<String>) -> Self {
        Self {
            train: train.into(),
            eval: None,
            format: Format::default(),
            template: no_template(),
            max_len: max_len(),
            over_length: OverLength::default(),
            stride: stride(),
            pack: false,
            loss_on: LossOn::default(),
            max_rows: None,
        }
    }
}

fn no_template() -> String {
    "none".into()
}
fn max_len() -> usize {
    128
}
fn stride() -> usize {
    32
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EvalData {
    Path(String),
    Fraction {
        /// Share of the training rows that is held out.
        fraction: f64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Decided from the first rows.
    #[default]
    Auto,
    /// `text`: plain text.
    Completion,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `instruction`, `input` and `output`.
    Alpaca,
    /// `messages`: a list of `role` and `content`.
    Messages,
    /// `conversations`: a list of `from` and `value`.
    Sharegpt,
    /// `{ columns = { prompt = "mr", completion = "ref" } }`: our names to the file's.
    Columns(IndexMap<String, String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverLength {
    /// Leave the row out.
    #[default]
    Drop,
    /// Cut the row's end off.
    Truncate,
    /// Refuse the data.
    Error,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// The tokens of the answer.
    #[default]
    Completion,
    /// Every token.
    All,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Optim {
    /// Adam with decoupled weight decay.
    pub adamw: AdamW,
    /// How the learning rate changes over the run.
    pub schedule: Schedule,
    /// Largest global gradient norm; 0 turns clipping off.
    pub clip: f64,
    /// Where the moments of the optimizer lie between steps.
    pub offload: Offload,
    /// LoRA+: B (and vectors) learn this many times faster than A; 1 or more.
    pub lora_plus_ratio: Option<f64>,
}

impl Default for Optim {
    fn default() -> Self {
        Self {
            adamw: AdamW::default(),
            schedule: Schedule::default(),
            clip: 1.0,
            offload: Offload::default(),
            lora_plus_ratio: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// On the device, with the weights.
    #[default]
    Device,
    /// In host memory; each step moves them to the device and back, one parameter at a time.
    Host,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Peak learning rate.
    pub lr: f64,
    /// Share of each weight taken off per step, times the learning rate.
    pub weight_decay: f64,
    /// Decay of the running mean of gradients.
    pub beta1: f64,
    /// Decay of the running mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment; 1e-8 when absent, or what the method's reference uses.
    pub eps: Option<f64>,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { lr: 2e-4, weight_decay: 0.0, beta1: 0.9, beta2: 0.999, eps: None }
    }
}

/// Learning-rate schedule. `warmup` below 1 is a fraction of all steps, from 1 on a number of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The peak rate throughout.
    Constant {
        /// Steps (or share of all steps) over which the rate rises from zero.
        #[serde(default)]
        warmup: f64,
    },
    /// Straight down to zero.
    Linear {
        /// Steps (or share of all steps) over which the rate rises from zero.
        #[serde(default)]
        warmup: f64,
    },
    /// Half a cosine down to zero.
    Cosine {
        /// Steps (or share of all steps) over which the rate rises from zero.
        #[serde(default)]
        warmup: f64,
    },
    /// `(1 - progress)^power` down to `end`.
    Polynomial {
        /// Steps (or share of all steps) over which the rate rises from zero.
        #[serde(default)]
        warmup: f64,
        /// Exponent; 1 is linear.
        #[serde(default = "power")]
        power: f64,
        /// Final rate as a share of the peak rate.
        #[serde(default)]
        end: f64,
    },
    /// `1 / sqrt(step)` after warm-up.
    InverseSqrt {
        /// Steps (or share of all steps) over which the rate rises from zero.
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
    /// Passes over the training rows.
    pub epochs: usize,
    /// Optimizer steps, over as many epochs as they take; overrides `epochs`.
    pub max_steps: Option<usize>,
    /// A run or adapter directory whose values training starts from; it must be of the recipe's method, rank and targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
    /// Steps between evaluations; 0 evaluates only at the start and the end.
    pub eval_every: usize,
    /// Evaluation rows whose answers are also generated greedily and compared with their references.
    pub eval_generate: usize,
    /// Steps between checkpoints; 0 saves only at the end.
    pub save_every: usize,
    /// Newest checkpoints kept.
    pub keep: usize,
    /// Keep only each block's input and compute the block again in the backward pass.
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
            init_from: None,
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
