//! What a model looks like, checked before anything is allocated.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Outline;
use super::families::{Aliases, Architecture, HeadForm, Reads};
use crate::nn::{View, Views};
use crate::recipe::Task;
use crate::{Error, Result};

/// A transformer and what it is for: the keys that all families have, and those of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// A row of [`super::families::MODEL_TYPES`].
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// What the head behind the last block is for.
    pub task: Task,
    /// What the outputs of a classifier stand for, in order; empty where the head is none, or has not been made yet.
    pub labels: Vec<String>,
    #[serde(flatten)]
    pub architecture: Architecture,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// Layers that see the last tokens alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sliding {
    /// How many they see, the token itself included.
    pub window: usize,
    /// Whether each layer is such a one; empty where none is.
    pub layers: Vec<bool>,
}

impl Sliding {
    /// `view` for all `layers`, but with the window for those that have it.
    pub(super) fn views(&self, view: View, layers: usize) -> Views {
        if self.layers.is_empty() {
            return Views::alike(view, layers);
        }
        let window = View { window: Some(self.window), ..view.clone() };
        Views { kinds: vec![view, window], of_layer: self.layers.iter().map(|&slides| slides.into()).collect() }
    }

    /// The keys of a `config.json`.
    pub(super) fn to_json(&self) -> Value {
        if self.layers.is_empty() {
            // The default of some families is a window of 4096.
            return json!({ "sliding_window": null, "use_sliding_window": false });
        }
        let kind = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
        let kinds: Vec<_> = self.layers.iter().map(kind).collect();
        json!({ "sliding_window": self.window, "use_sliding_window": true, "layer_types": kinds })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum RopeScaling {
    Default,
    Linear { factor: f64 },
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position_embeddings: usize },
}

impl ModelConfig {
    /// Refuses dimensions that cannot be, or that no machine could hold, naming the `config.json` key.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let aliases = Architecture::common(&self.model_type).map_or(&[][..], |(aliases, _)| aliases);
        let checks = Checks { path, aliases };
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 18),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 26),
        ];
        sizes.into_iter().try_for_each(|(key, size, limit)| checks.size(key, size, limit))?;
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        checks.divisor("num_key_value_heads", kv_heads, "num_attention_heads", heads)?;
        let ids = [("bos_token_id", self.bos_token_id), ("pad_token_id", self.pad_token_id)];
        let eos = self.eos_token_ids.iter().map(|&id| ("eos_token_id", Some(id)));
        for (key, id) in ids.into_iter().chain(eos) {
            if id.is_some_and(|id| id as usize >= self.vocab_size) {
                let expected = format!("below vocab_size {}", self.vocab_size);
                return checks.fault(key, id.unwrap_or_default(), expected);
            }
        }
        self.architecture.family().check(self, &checks)
    }

    /// How many tokens of one text have a position.
    pub fn positions(&self) -> usize {
        self.architecture.family().positions(self)
    }

    /// Outputs of a classifier.
    pub fn outputs(&self) -> usize {
        self.labels.len().max(1)
    }

    /// What the task reads; nothing where the family cannot do it, which [`super::open_for`] refuses.
    pub fn head(&self) -> HeadForm {
        let none = || HeadForm { root: "", layers: Vec::new(), reads: Reads::Every };
        self.architecture.family().head(self, self.task).unwrap_or_else(none)
    }

    /// Whether tokens are predicted with the embedding table.
    pub fn has_tied_head(&self) -> bool {
        self.tie_word_embeddings && self.task.predicts_tokens()
    }

    /// Name and shape of every tensor the checkpoint must hold, in the order of the layers.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        Outline::of(self).tensors()
    }
}

/// Refusals of values that cannot be.
pub struct Checks<'a> {
    path: &'a Path,
    aliases: Aliases,
}

impl Checks<'_> {
    pub fn fault(&self, key: &str, found: impl ToString, expected: impl ToString) -> Result<()> {
        let key = self.aliases.iter().find(|(usual, own)| *usual == key && !own.is_empty()).map_or(key, |(_, own)| own);
        let error = Error::input("this cannot be").file(self.path).key(key);
        Err(error.found(found.to_string()).expected(expected.to_string()).into())
    }

    /// From 1 to `limit`.
    pub fn size(&self, key: &str, size: usize, limit: usize) -> Result<()> {
        if size == 0 || size > limit { self.fault(key, size, format!("1 to {limit}")) } else { Ok(()) }
    }

    pub fn divisor(&self, key: &str, divisor: usize, whole_key: &str, whole: usize) -> Result<()> {
        if whole.is_multiple_of(divisor) {
            return Ok(());
        }
        self.fault(key, divisor, format!("a divisor of {whole_key} {whole}"))
    }

    /// Halves of it are rotated.
    pub fn even(&self, key: &str, size: usize) -> Result<()> {
        if size.is_multiple_of(2) { Ok(()) } else { self.fault(key, size, "an even number, halves are rotated") }
    }

    /// Such as what keeps a norm from dividing by zero.
    pub fn small(&self, key: &str, value: f64) -> Result<()> {
        if value > 0.0 && value < 1.0 { Ok(()) } else { self.fault(key, value, "between 0 and 1") }
    }

    pub fn positive(&self, key: &str, value: f64) -> Result<()> {
        if value.is_finite() && value > 0.0 { Ok(()) } else { self.fault(key, value, "a positive number") }
    }

    pub fn rope(&self, rope: &Rope) -> Result<()> {
        self.positive("rope_theta", rope.theta)?;
        match rope.scaling {
            RopeScaling::Default => Ok(()),
            RopeScaling::Linear { factor } => self.positive("rope_scaling.factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                self.positive("rope_scaling.factor", factor)?;
                self.positive("rope_scaling.low_freq_factor", low_freq_factor)?;
                let between = high_freq_factor - low_freq_factor;
                self.positive("rope_scaling.high_freq_factor - low_freq_factor", between)?;
                let original = original_max_position_embeddings as f64;
                self.positive("rope_scaling.original_max_position_embeddings", original)
            }
        }
    }
}
