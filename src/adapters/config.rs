//! What a recipe says of an adapter.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AdapterConfig;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// The correction is scaled by alpha / rank.
    pub alpha: f64,
    /// Probability that an input of the adapter branch is dropped while training.
    pub dropout: f64,
    /// Scale by alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023).
    pub rslora: bool,
    /// How A and B start.
    pub init: LoraInit,
    /// Which linear layers (or embeddings) get a correction.
    pub targets: Targets,
    /// Modules that `targets` names and that stay as they are: suffixes or one regular expression.
    pub exclude: Targets,
    /// Only these layer indices (PEFT's `layers_to_transform`).
    pub layers: Vec<usize>,
    /// Names of the list the layer number follows, if it is not the first number of the path.
    pub layers_pattern: Vec<String>,
    /// Module name pattern to rank; the first match wins.
    pub rank_pattern: IndexMap<String, usize>,
    /// Module name pattern to alpha; the first match wins.
    pub alpha_pattern: IndexMap<String, f64>,
    /// Which bias vectors of the base train too.
    pub bias: BiasMode,
    /// Modules that train whole and are saved beside the adapter.
    pub modules_to_save: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            rslora: false,
            init: LoraInit::Default,
            targets: Targets::default(),
            exclude: Targets::Names(Vec::new()),
            layers: Vec::new(),
            layers_pattern: Vec::new(),
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            bias: BiasMode::None,
            modules_to_save: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// A uniform in ±1/sqrt(in), B zero (PEFT's `true`).
    #[default]
    Default,
    /// A normal with deviation 1/rank, B zero.
    Gaussian,
    /// A and B from the halves of one orthogonal matrix (even ranks only).
    Orthogonal,
}

/// A list of name suffixes, `"all-linear"`, or one regular expression over the whole module path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    Names(Vec<String>),
    /// `all-linear` or a regular expression.
    Pattern(String),
}

impl Default for Targets {
    fn default() -> Self {
        Targets::Pattern("all-linear".into())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BiasMode {
    /// No bias.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The bias of each adapted layer.
    LoraOnly,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FullConfig {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NoneConfig {}

impl AdapterConfig {
    /// The keys that all adapter methods share; none for `full` and `none`.
    pub fn lora(&self) -> Option<&LoraConfig> {
        match self {
            AdapterConfig::Lora(lora) => Some(lora),
            AdapterConfig::Full(_) | AdapterConfig::None(_) => None,
        }
    }
}
