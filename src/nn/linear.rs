//! A linear layer with a frozen weight and room for an adapter.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRank, LowRankBackend};

use super::{Pass, Weight};
use crate::adapters::Adapter;

/// `y = x · Wᵀ + b`, plus what the adapter adds.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[out, in]`
    pub weight: Weight<B>,
    /// `[out]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    pub adapter: Option<Adapter<B>>,
}

impl<B: LowRankBackend> Linear<B> {
    pub fn new(weight: Weight<B>, bias: Option<Param<Tensor<B, 1>>>) -> Self {
        Self { weight, bias, adapter: None }
    }

    /// The bias, where there is one, trains from now on.
    pub fn train_bias(&mut self) {
        self.bias = self.bias.take().map(|bias| bias.set_require_grad(true));
    }

    /// `[n, in] → [n, out]`.
    pub fn forward(&self, x: Tensor<B, 2>, pass: Pass) -> Tensor<B, 2> {
        match &self.adapter {
            Some(adapter) => adapter.forward(x, self, pass),
            None => self.base(x),
        }
    }

    /// The frozen layer alone.
    pub fn base(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.biased(self.weight.matmul(x))
    }

    /// The frozen layer and a low-rank term of the same x.
    pub fn base_with(&self, x: Tensor<B, 2>, term: LowRank<B>, pass: Pass) -> Tensor<B, 2> {
        self.biased(match pass.unread {
            true => self.weight.unread_with(x, term),
            false => self.weight.matmul_with(x, term),
        })
    }

    /// `y + b`.
    pub fn biased(&self, y: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}
