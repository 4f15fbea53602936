//! The layers of a model that can be adapted or trained, by path.

use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::LowRankBackend;

use crate::adapters::Adapter;
use crate::nn::{Embedding, LayerNorm, Linear, RmsNorm};

/// One layer, borrowed for change.
pub enum Site<'a, B: Backend> {
    Linear(&'a mut Linear<B>),
    Embedding(&'a mut Embedding<B>),
    Norm(&'a mut RmsNorm<B>),
    LayerNorm(&'a mut LayerNorm<B>),
}

impl<'a, B: LowRankBackend> Site<'a, B> {
    /// Bytes of the weights as stored.
    pub fn bytes(&self) -> u64 {
        let vector = |values: &Param<Tensor<B, 1>>| 4 * values.dims()[0] as u64;
        match self {
            Site::Linear(linear) => linear.weight.bytes() + linear.bias.as_ref().map_or(0, vector),
            Site::Embedding(embedding) => embedding.weight.bytes(),
            Site::Norm(norm) => vector(&norm.weight),
            Site::LayerNorm(norm) => vector(&norm.weight) + vector(&norm.bias),
        }
    }

    pub fn into_adapter(self) -> Option<&'a mut Adapter<B>> {
        match self {
            Site::Linear(linear) => linear.adapter.as_mut(),
            Site::Embedding(embedding) => embedding.adapter.as_mut(),
            Site::Norm(_) | Site::LayerNorm(_) => None,
        }
    }

    /// Every parameter of the layer trains from now on.
    pub fn make_trainable(self) {
        match self {
            Site::Linear(linear) => {
                linear.weight.make_trainable();
                linear.train_bias();
            }
            Site::Embedding(embedding) => embedding.weight.make_trainable(),
            Site::Norm(norm) => norm.weight = norm.weight.clone().set_require_grad(true),
            Site::LayerNorm(norm) => {
                norm.weight = norm.weight.clone().set_require_grad(true);
                norm.train_bias();
            }
        }
    }

    /// The bias, where there is one, trains from now on.
    pub fn train_bias(self) {
        match self {
            Site::Linear(linear) => linear.train_bias(),
            Site::LayerNorm(norm) => norm.train_bias(),
            Site::Embedding(_) | Site::Norm(_) => {}
        }
    }
}
