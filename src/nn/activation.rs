//! What stands between the projections of a feed-forward layer.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRankBackend, swiglu};

/// What a gate goes through before it multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    #[default]
    Silu,
    /// [`gelu`].
    Gelu,
}

impl Gate {
    /// `act(gate) ⊙ up` (Shazeer 2020).
    pub fn open<B: LowRankBackend>(self, gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Gate::Silu => swiglu(gate, up),
            Gate::Gelu => gelu(gate) * up,
        }
    }
}

/// The tanh form of the Gaussian error linear unit, `gelu_new` of transformers (Hendrycks and Gimpel 2016, section 2):
/// `x / 2 · (1 + tanh(sqrt(2 / π) · (x + 0.044715 x³)))`.
pub fn gelu<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let inner = (x.clone() * x.clone()).mul_scalar(0.044715).add_scalar(1.0) * x.clone();
    let inner = inner.mul_scalar((2.0 / std::f64::consts::PI).sqrt());
    x.mul_scalar(0.5) * inner.tanh().add_scalar(1.0)
}
