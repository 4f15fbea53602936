//! Layers: a frozen base with room for an adapter in each.

mod attention;
mod embedding;
mod linear;
mod norm;
pub mod params;
mod rope;
mod weight;

pub use attention::{Attention, LayerCache, NewTokens, positions};
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::RmsNorm;
pub use rope::rotary_tables;
pub use weight::{PackedBf16, Storage, Weight};

use lowrank_kernels::DropoutKey;

/// What one forward pass needs besides its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    /// Present while training with dropout; absent in evaluation.
    pub dropout: Option<DropoutKey>,
}

impl Pass {
    pub const EVAL: Pass = Pass { dropout: None };
}
