//! Root-mean-square layer norm (Zhang and Sennrich 2019).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRankBackend, rms_norm};

/// `y = x / sqrt(mean(x²) + ε) ⊙ w`
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// `[hidden]`
    pub weight: Param<Tensor<B, 1>>,
    pub eps: f64,
}

impl<B: LowRankBackend> RmsNorm<B> {
    /// `[n, hidden] → [n, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        rms_norm(x, self.weight.val(), self.eps)
    }
}
