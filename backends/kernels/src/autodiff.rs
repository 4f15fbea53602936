//! Backward passes by hand: gradients to activations only, nothing dense kept for frozen weights.

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::{Device, FloatTensor, IntTensor};
use burn::tensor::{Shape, Tensor, TensorPrimitive};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

use crate::{FrozenWeight, LowRankBackend, Side};

#[derive(Debug)]
struct FrozenMatmul;

impl<B: LowRankBackend> Backward<B, 1> for FrozenMatmul {
    type State = (FrozenWeight<B>, Side);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (weight, side) = ops.state;
        if let [Some(x)] = ops.parents {
            grads.register::<B>(x.id, B::frozen_matmul(grad, weight, side.flipped()));
        }
    }
}

#[derive(Debug)]
struct CrossEntropy;

impl<B: LowRankBackend> Backward<B, 1> for CrossEntropy {
    /// Gradient of the loss to the logits.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let scale = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(grads.consume::<B>(&ops.node)));
        let grad = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(ops.state));
        if let [Some(logits)] = ops.parents {
            grads.register::<B>(logits.id, (grad * scale.unsqueeze()).into_primitive().tensor());
        }
    }
}

fn inner<B: LowRankBackend, C: CheckpointStrategy>(weight: FrozenWeight<Autodiff<B, C>>) -> FrozenWeight<B> {
    match weight {
        FrozenWeight::Dense(weight) => FrozenWeight::Dense(weight.primitive),
        FrozenWeight::Bf16 { codes, table, rows, cols } => {
            FrozenWeight::Bf16 { codes, table: table.primitive, rows, cols }
        }
    }
}

impl<B: LowRankBackend, C: CheckpointStrategy> LowRankBackend for Autodiff<B, C> {
    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        let weight = inner(weight);
        let y = B::frozen_matmul(x.primitive, weight.clone(), side);
        match FrozenMatmul.prepare::<C>([x.node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((weight, side), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn frozen_rows(weight: FrozenWeight<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::frozen_rows(inner(weight), ids))
    }

    fn dropout_mask(shape: Shape, p: f64, key: u64, device: &Device<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::dropout_mask(shape, p, key, device))
    }

    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (loss, grad) = B::cross_entropy(logits.primitive, targets);
        let loss = match CrossEntropy.prepare::<C>([logits.node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(grad.clone(), loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        };
        (loss, Self::from_inner(grad))
    }
}
