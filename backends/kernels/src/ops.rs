//! The trait's operations on typed tensors.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorPrimitive};

use crate::{FrozenWeight, LowRankBackend, Side};

fn wrap<B: Backend, const D: usize>(primitive: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// See [`LowRankBackend::frozen_matmul`].
pub fn frozen_matmul<B: LowRankBackend>(x: Tensor<B, 2>, weight: FrozenWeight<B>, side: Side) -> Tensor<B, 2> {
    wrap(B::frozen_matmul(x.into_primitive().tensor(), weight, side))
}

/// [`frozen_matmul`] in plain tensor operations, in f32: what faster bodies are tested and measured against.
pub fn plain_frozen_matmul<B: Backend>(x: Tensor<B, 2>, weight: FrozenWeight<B>, side: Side) -> Tensor<B, 2> {
    wrap(weight.plain_product(x.into_primitive().tensor(), side))
}

/// See [`LowRankBackend::frozen_rows`].
pub fn frozen_rows<B: LowRankBackend>(weight: FrozenWeight<B>, ids: Tensor<B, 1, Int>) -> Tensor<B, 2> {
    wrap(B::frozen_rows(weight, ids.into_primitive()))
}

/// See [`LowRankBackend::dropout`].
pub fn dropout<B: LowRankBackend, const D: usize>(x: Tensor<B, D>, p: f64, key: u64) -> Tensor<B, D> {
    wrap(B::dropout(x.into_primitive().tensor(), p, key))
}

/// Summed negative log-likelihood `[1]`; see [`LowRankBackend::cross_entropy`].
pub fn cross_entropy<B: LowRankBackend>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    wrap(B::cross_entropy(logits.into_primitive().tensor(), targets.into_primitive()).0)
}
