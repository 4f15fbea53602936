//! Loss of a frozen output head: its logits exist for some tokens at a time, and of the gradient only what goes to the hidden
//! states is kept, computed in the forward pass.

use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor};
use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

use crate::term::wrap;
use crate::{FrozenWeight, LowRankBackend, Side};

/// Tokens whose logits exist at a time: enough for the products to run at full speed.
pub const HEAD_TOKENS: usize = 128;

/// Summed negative log-likelihood `[1]` of `targets [n]` where the logits are `hidden [n, hidden] · Wᵀ` for a frozen
/// `W [vocab, hidden]`; see [`LowRankBackend::head_loss`].
pub fn head_loss<B: LowRankBackend>(
    hidden: Tensor<B, 2>,
    weight: FrozenWeight<B>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    wrap(B::head_loss(hidden.into_primitive().tensor(), weight, targets.into_primitive()))
}

/// Hidden states and targets of [`HEAD_TOKENS`] tokens at a time.
fn chunks<B: LowRankBackend>(
    hidden: FloatTensor<B>,
    targets: IntTensor<B>,
) -> impl Iterator<Item = (FloatTensor<B>, IntTensor<B>)> {
    let (hidden, targets) = (wrap::<B, 2>(hidden), Tensor::<B, 1, Int>::from_primitive(targets));
    let n = targets.dims()[0];
    (0..n).step_by(HEAD_TOKENS).map(move |start| {
        let tokens = start..n.min(start + HEAD_TOKENS);
        let hidden = hidden.clone().slice([tokens.clone()]);
        (hidden.into_primitive().tensor(), targets.clone().slice([tokens]).into_primitive())
    })
}

pub(crate) fn loss<B: LowRankBackend>(
    hidden: FloatTensor<B>,
    weight: FrozenWeight<B>,
    targets: IntTensor<B>,
) -> FloatTensor<B> {
    let loss = |(hidden, targets)| {
        let logits = B::frozen_matmul(hidden, weight.clone(), Side::Forward);
        B::cross_entropy(logits, targets).0
    };
    let device = B::float_device(&hidden);
    let sum = chunks::<B>(hidden, targets).map(loss).reduce(B::float_add);
    sum.unwrap_or_else(|| Tensor::<B, 1>::zeros([1], &device).into_primitive().tensor())
}

pub(crate) fn loss_and_gradient<B: LowRankBackend>(
    hidden: FloatTensor<B>,
    weight: FrozenWeight<B>,
    targets: IntTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let part = |(hidden, targets)| {
        let logits = B::frozen_matmul(hidden, weight.clone(), Side::Forward);
        let (loss, grad) = B::cross_entropy(logits, targets);
        (loss, B::frozen_matmul(grad, weight.clone(), Side::Backward))
    };
    let (losses, grads): (Vec<_>, Vec<_>) = chunks::<B>(hidden.clone(), targets).map(part).unzip();
    match losses.into_iter().reduce(B::float_add) {
        Some(loss) => (loss, B::float_cat(grads, 0)),
        None => (Tensor::<B, 1>::zeros([1], &B::float_device(&hidden)).into_primitive().tensor(), hidden),
    }
}

#[derive(Debug)]
struct HeadLoss;

impl<B: LowRankBackend> Backward<B, 1> for HeadLoss {
    /// Gradient of the loss to the hidden states.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let scale = wrap::<B, 1>(grads.consume::<B>(&ops.node));
        if let [Some(hidden)] = ops.parents {
            let grad = wrap::<B, 2>(ops.state) * scale.unsqueeze();
            grads.register::<B>(hidden.id, grad.into_primitive().tensor());
        }
    }
}

/// The loss as autodiff sees it; without anything to differentiate, without the gradient.
pub(crate) fn differentiable<B: LowRankBackend, C: CheckpointStrategy>(
    hidden: FloatTensor<Autodiff<B, C>>,
    weight: FrozenWeight<B>,
    targets: IntTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match HeadLoss.prepare::<C>([hidden.node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (loss, grad) = B::head_loss_and_gradient(hidden.primitive, weight, targets);
            prep.finish(grad, loss)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::head_loss(hidden.primitive, weight, targets)),
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::testing::{assert_close, on_cpu_backends, values};
    use crate::{TrainBackend, cross_entropy, frozen_matmul};

    const VOCAB: usize = 11;

    on_cpu_backends!(
        values_and_gradients_are_those_of_all_logits_at_once,
        without_a_gradient_the_loss_is_the_same,
        nothing_to_predict_costs_nothing
    );

    fn example<A: TrainBackend>(n: usize) -> (Tensor<A, 2>, FrozenWeight<A>, Tensor<A, 1, Int>) {
        let weight = values::<A, 2>([VOCAB, 5], 0.3).mul_scalar(2.0);
        let targets: Vec<i32> = (0..n).map(|i| (i * 7 % VOCAB) as i32).collect();
        let targets = Tensor::from_data(burn::tensor::TensorData::from(&targets[..]), &Default::default());
        (values([n, 5], 0.8), FrozenWeight::Dense(weight.into_primitive().tensor()), targets)
    }

    fn values_and_gradients_are_those_of_all_logits_at_once<A: TrainBackend>() {
        for n in [1, HEAD_TOKENS - 1, HEAD_TOKENS, 2 * HEAD_TOKENS + 3] {
            let (hidden, weight, targets) = example::<A>(n);
            let hidden = hidden.require_grad();
            let logits = frozen_matmul(hidden.clone(), weight.clone(), Side::Forward);
            let theirs = cross_entropy(logits, targets.clone());
            let ours = head_loss(hidden.clone(), weight, targets);
            assert_close(ours.clone().inner() / n as f64, theirs.clone().inner() / n as f64);
            let [ours, theirs] = [ours, theirs].map(|loss| hidden.grad(&loss.mul_scalar(0.7).backward()).unwrap());
            assert_close(ours, theirs);
        }
    }

    fn without_a_gradient_the_loss_is_the_same<A: TrainBackend>() {
        let (hidden, weight, targets) = example::<A>(HEAD_TOKENS + 1);
        let plain = head_loss(hidden.clone(), weight.clone(), targets.clone());
        let tracked = head_loss(hidden.require_grad(), weight, targets);
        assert_eq!(plain.into_data(), tracked.into_data());
    }

    fn nothing_to_predict_costs_nothing<A: TrainBackend>() {
        let hidden = Tensor::<A, 2>::zeros([0, 5], &Default::default());
        let (_, weight, _) = example::<A>(1);
        let targets = Tensor::<A, 1, Int>::zeros([0], &Default::default());
        assert_eq!(head_loss(hidden, weight, targets).into_data().to_vec::<f32>().unwrap(), [0.0]);
    }
}
