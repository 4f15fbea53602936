//! Model families, one file each, and what they share.
//!
//! A family is a file and a row of the table in `table.rs`. The file says two things: [`Family`], what follows from its `config.json`
//! before any tensor exists, and [`Decoder`], its forward pass. Fields of its modules carry the checkpoint's names.

mod bloom;
mod gemma3;
mod glm;
mod gpt2;
mod layers;
mod llama;
mod model;
mod moe;
mod part;
mod table;
#[cfg(test)]
mod tests;

pub use bloom::BloomConfig;
pub use gemma3::Gemma3Config;
pub use glm::GlmConfig;
pub use gpt2::Gpt2Config;
pub use llama::LlamaConfig;
pub use model::Decoder;
pub use moe::MoeConfig;
pub use part::Part;
pub(crate) use part::{join, parts};
pub use table::*;

use std::fmt::Debug;

use serde_json::Value;

use super::ModelConfig;
use super::config::Checks;
use super::json::Json;
use crate::Result;
use crate::adapters::Module;
use crate::nn::{AttentionForm, Gate, Views};

/// What a family says of itself before any tensor exists. Methods take the whole configuration, whose
/// [`architecture`](ModelConfig::architecture) the family's own keys are.
pub trait Family: Debug {
    /// What the family calls the keys that all families have, where that is not the usual name; "" for a key that it has not.
    fn aliases() -> Aliases
    where
        Self: Sized,
    {
        &[]
    }

    /// What absent keys stand for.
    fn defaults(model_type: &str) -> Defaults
    where
        Self: Sized;

    /// The family's own keys. Refuses by name what would change the result and is not implemented.
    fn read(json: &Json<'_>, model_type: &str) -> Result<Self>
    where
        Self: Sized;

    /// The family's own keys, for a `config.json`.
    fn write(&self, config: &ModelConfig) -> Value;

    /// Refuses values that cannot be.
    fn check(&self, config: &ModelConfig, checks: &Checks<'_>) -> Result<()>;

    /// Every module in forward order, with the head even where it is the embedding table.
    fn modules(&self, config: &ModelConfig) -> Vec<Module>;

    /// What each layer sees of the tokens before.
    fn views(&self, config: &ModelConfig) -> Views;

    /// The norms of the model.
    fn norms(&self) -> Norms;

    /// In what the attention differs from Llama's.
    fn attention(&self) -> AttentionForm {
        AttentionForm::default()
    }

    /// The activation of gated feed-forward layers.
    fn gate(&self) -> Gate {
        Gate::Silu
    }

    /// In what files differ from the modules.
    fn checkpoint(&self) -> CheckpointForm {
        CheckpointForm::default()
    }

    /// Floats per token that a block needs in memory.
    fn footprint(&self, config: &ModelConfig) -> Footprint;
}

/// Pairs of the usual name of a key and the family's.
pub type Aliases = &'static [(&'static str, &'static str)];

/// Values of keys that a file may leave out.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    pub max_position_embeddings: usize,
    pub tie_word_embeddings: bool,
    /// `hidden_size / num_attention_heads` where there is none.
    pub head_dim: Option<usize>,
}

/// How a checkpoint holds the tensors of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckpointForm {
    /// What files saved from the model without its head leave off all names.
    pub prefix: &'static str,
    /// Ends of the names of tensors that carry nothing.
    pub ignored: &'static [&'static str],
}

/// What the norms of one model have in common.
#[derive(Clone, Copy, Debug)]
pub struct Norms {
    pub epsilon: f64,
    /// What is added to the stored weights of RMS norms.
    pub plus: f64,
}

/// Floats per token of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Kept between forward and backward.
    pub kept: usize,
    /// The largest temporaries beside them.
    pub temporaries: usize,
}
