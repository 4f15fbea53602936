//! The gated unit of the MLP (Shazeer 2020, SwiGLU without its products), from which only its operands are kept:
//!
//! ```text
//!     y = a ⊙ u        a = g σ(g)        du = dy ⊙ a        dg = dy ⊙ u ⊙ (σ(g) + a (1 − σ(g)))
//! ```

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, activation};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::LowRankBackend;
use crate::recompute::Repeatable;
use crate::term::wrap;

/// `silu(gate) ⊙ up`, all `[n, inner]`; see [`LowRankBackend::swiglu`].
pub fn swiglu<B: LowRankBackend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    wrap(B::swiglu(gate.into_primitive().tensor(), up.into_primitive().tensor()))
}

pub(crate) fn forward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    (activation::silu(wrap::<B, 2>(gate)) * wrap(up)).into_primitive().tensor()
}

pub(crate) fn gradients<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    let [gate, up, grad] = [gate, up, grad].map(wrap::<B, 2>);
    let sigmoid = activation::sigmoid(gate.clone());
    let silu = gate * sigmoid.clone();
    let slope = sigmoid.clone() + silu.clone() * (sigmoid.neg() + 1.0);
    [grad.clone() * up * slope, grad * silu].map(|part| part.into_primitive().tensor())
}

/// The unit as autodiff sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SwiGlu;

impl<B: LowRankBackend> Backward<B, 2> for SwiGlu {
    /// gate and up.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [gate, up] = ops.state;
        let parts = B::swiglu_gradients(gate, up, grad);
        for (parent, part) in ops.parents.into_iter().zip(parts) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, part);
            }
        }
    }
}

impl<B: LowRankBackend> Repeatable<B, 2> for SwiGlu {
    fn run(self, [gate, up]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::swiglu(gate, up)
    }

    fn state(self, operands: &[FloatTensor<B>; 2]) -> Self::State {
        operands.clone()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::TrainBackend;
    use crate::testing::{assert_close, gradient, on_cpu_backends, values, weights};

    on_cpu_backends!(values_and_gradients_are_those_of_plain_operations, far_from_zero_it_is_the_identity_or_nothing);

    fn values_and_gradients_are_those_of_plain_operations<A: TrainBackend>() {
        // Up to more elements than one of the kernel's pieces.
        for (n, inner) in [(1, 1), (3, 7), (5, 1025)] {
            let gate = values::<A, 2>([n, inner], 0.1).mul_scalar(9.0).require_grad();
            let up = values::<A, 2>([n, inner], 0.6).require_grad();
            let ours = swiglu(gate.clone(), up.clone());
            let theirs = activation::silu(gate.clone()) * up.clone();
            assert_close(ours.clone().inner(), theirs.clone().inner());
            let grad = weights(&theirs).inner();
            let [ours, theirs] = [ours, theirs].map(gradient);
            let [dgate, dup] = [&gate, &up].map(|x| x.grad(&theirs).unwrap());
            assert_close(gate.grad(&ours).unwrap(), dgate.clone());
            assert_close(up.grad(&ours).unwrap(), dup.clone());
            let [gate, up, grad] = [gate.inner(), up.inner(), grad].map(|x| x.into_primitive().tensor());
            let [found_gate, found_up] = gradients::<A::InnerBackend>(gate, up, grad);
            assert_close(wrap(found_gate), dgate);
            assert_close(wrap(found_up), dup);
        }
    }

    fn far_from_zero_it_is_the_identity_or_nothing<A: TrainBackend>() {
        let of = |values: [f32; 4]| Tensor::<A, 2>::from_data([values], &Default::default()).require_grad();
        let (gate, up) = (of([-1e30, -200.0, 200.0, 1e30]), of([1.0; 4]));
        let y = swiglu(gate.clone(), up);
        let host = |tensor: Tensor<_, 2>| tensor.into_data().to_vec::<f32>().unwrap();
        let found = host(y.clone().inner());
        assert!(found[..2].iter().all(|y| y.abs() < 1e-6) && found[2..] == [200.0, 1e30], "{found:?}");
        let slopes = host(gate.grad(&(y.sum().backward())).unwrap());
        assert!(slopes.iter().zip([0.0, 0.0, 1.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{slopes:?}");
    }
}
