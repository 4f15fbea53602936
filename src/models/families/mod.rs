//! Model families, one file each, and what they share.
//!
//! A family is a file and a row of the table in `table.rs`. The file says two things: [`Family`], what follows from its `config.json`
//! before any tensor exists, and [`Backbone`], its forward pass below the head. Fields of its modules carry the checkpoint's names.

mod bert;
mod bloom;
mod distilbert;
mod gemma3;
mod glm;
mod gpt2;
mod head;
mod layers;
mod llama;
mod model;
mod moe;
mod part;
mod t5;
mod table;
#[cfg(test)]
mod tests;

pub use bert::BertConfig;
pub use bloom::BloomConfig;
pub use distilbert::DistilBertConfig;
pub use gemma3::Gemma3Config;
pub use glm::GlmConfig;
pub use gpt2::Gpt2Config;
pub use head::{Activation, Head, HeadForm, HeadLayer, Reads};
pub use llama::LlamaConfig;
pub use model::{Backbone, Model, Place};
pub use moe::MoeConfig;
pub use part::Part;
pub(crate) use part::{join, named, parts};
pub use t5::T5Config;
pub use table::*;

use std::fmt::Debug;

use serde_json::Value;

use super::ModelConfig;
use super::config::Checks;
use super::json::Json;
use crate::Result;
use crate::adapters::Module;
use crate::nn::{AttentionForm, Gate, Views};
use crate::recipe::Task;

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

    /// Every module below the head in forward order, from the backbone's root on.
    fn modules(&self, config: &ModelConfig) -> Vec<Module>;

    /// How many tokens of one text have a position.
    fn positions(&self, config: &ModelConfig) -> usize {
        config.max_position_embeddings
    }

    /// What each layer sees of the other tokens.
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

    /// What `task` reads from the last block, and where the backbone is then; none of a task that the family cannot do.
    fn head(&self, config: &ModelConfig, task: Task) -> Option<HeadForm> {
        HeadForm::decoder(config, task, "model")
    }

    /// Whether a file ties the head to the embedding table by having no other, whatever its configuration says.
    fn is_tied_by_weights(&self) -> bool {
        false
    }

    /// The token that a decoder starts a text with; none in models without an encoder beside one.
    fn decoder_start(&self) -> Option<u32> {
        None
    }

    /// Ends of the names of tensors in files that carry nothing.
    fn ignored(&self) -> &'static [&'static str] {
        &[]
    }

    /// Floats per token that a block needs in memory.
    fn footprint(&self, config: &ModelConfig) -> Footprint;

    /// Floats that a block keeps for each pair of tokens of a row where attention is not computed again: `SOFTMAX` for each head.
    fn scores(&self, _: &ModelConfig) -> usize {
        0
    }
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

/// What the norms of one model have in common.
#[derive(Clone, Copy, Debug)]
pub struct Norms {
    pub epsilon: f64,
    /// What is added to the stored weights of RMS norms.
    pub plus: f64,
}

/// Numbers that burn's softmax keeps for one score: less the largest, its exponential, and the share.
const SOFTMAX: usize = 3;

/// Floats per token of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Kept between forward and backward.
    pub kept: usize,
    /// The largest temporaries beside them.
    pub temporaries: usize,
}

impl Footprint {
    /// A block of BERT's kind: what q, k and v come from, themselves, and what attention makes of them; two norms' results and what
    /// they scale; the activation's parts.
    fn encoder(hidden: usize, inner: usize) -> Self {
        Self { kept: 8 * hidden + 4 * inner, temporaries: 4 * inner }
    }
}
