//! Layer norm (Ba et al. 2016).

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `y = (x − mean(x)) / sqrt(var(x) + ε) ⊙ w + b`
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// `[hidden]`
    pub weight: Param<Tensor<B, 1>>,
    /// `[hidden]`
    pub bias: Param<Tensor<B, 1>>,
    pub eps: f64,
}

impl<B: Backend> LayerNorm<B> {
    /// The bias trains from now on.
    pub fn train_bias(&mut self) {
        self.bias = self.bias.clone().set_require_grad(true);
    }

    /// `[n, hidden] → [n, hidden]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let centred = x.clone() - x.mean_dim(1);
        let deviation = (centred.clone() * centred.clone()).mean_dim(1).add_scalar(self.eps).sqrt();
        centred / deviation * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}
