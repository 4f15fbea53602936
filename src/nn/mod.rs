//! Layers: a frozen base with room for an adapter in each.

mod activation;
mod attention;
mod embedding;
mod experts;
mod four_bit;
mod layer_norm;
mod layout;
mod linear;
mod meter;
mod mlp;
mod norm;
pub mod params;
mod rope;
mod stack;
mod weight;

pub use activation::{Gate, Unit, gelu};
pub use attention::{Attention, AttentionForm, Pairs};
pub use embedding::Embedding;
pub use experts::Routing;
pub use four_bit::{PackedFourBit, PackedNested, PackedScales};
pub use layer_norm::LayerNorm;
pub use layout::{At, Direction, LayerCache, Layout, NewTokens, View, Views};
pub use linear::Linear;
pub use meter::Meter;
pub use mlp::{FusedMlp, Mlp};
pub use norm::RmsNorm;
pub use rope::rotary_tables;
pub use stack::{AtStack, Buckets, Stack};
pub use weight::{PackedBf16, Storage, Weight};

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::DropoutKey;

/// What one forward pass needs besides its input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass<'a> {
    /// Present while training with dropout; absent in evaluation.
    pub dropout: Option<DropoutKey>,
    /// Present while corrections are measured; absent otherwise.
    pub meter: Option<&'a Meter>,
    /// Whose tokens a layer's input holds.
    pub over: Stack,
    /// Layers run for their gradients alone: what they return is not read and need not be computed.
    pub unread: bool,
}

impl Pass<'_> {
    pub const EVAL: Pass<'static> = Pass { dropout: None, meter: None, over: Stack::Encoder, unread: false };

    /// The same where the input holds the tokens of `stack`.
    pub fn over(self, stack: Stack) -> Self {
        Self { over: stack, ..self }
    }

    /// The same where the result is read.
    pub fn read(self) -> Self {
        Self { unread: false, ..self }
    }

    /// A method reports what it adds to the layer of this name's hash, `[n, out]`.
    pub fn measure<B: Backend>(&self, layer: u64, correction: &Tensor<B, 2>) {
        if let Some(meter) = self.meter {
            meter.add(layer, self.over, correction);
        }
    }
}
