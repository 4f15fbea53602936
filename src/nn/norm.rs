//! Root-mean-square layer norm (Zhang and Sennrich 2019).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRankBackend, rms_norm};

/// `y = x / sqrt(mean(x²) + ε) ⊙ (w + plus)`
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// `[hidden]`
    pub weight: Param<Tensor<B, 1>>,
    pub eps: f64,
    /// 1 where weights are stored as what they differ from one, else 0.
    pub plus: f64,
}

impl<B: LowRankBackend> RmsNorm<B> {
    /// `[n, hidden] → [n, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.weight.val();
        rms_norm(x, if self.plus == 0.0 { weight } else { weight.add_scalar(self.plus) }, self.eps)
    }

    /// The same for each head of `x [n, heads × width]` alone.
    pub fn per_head(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let ([n, all], width) = (x.dims(), self.weight.dims()[0]);
        self.forward(x.reshape([n * all / width, width])).reshape([n, all])
    }
}
