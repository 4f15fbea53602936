//! A factor for each column, from which only its operands are kept:
//!
//! ```text
//!     y = x ⊙ c        dx = dy ⊙ c        dc = Σ dy ⊙ x          over the rows of x [n, cols]; c [cols]
//! ```

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use crate::LowRankBackend;
use crate::recompute::Repeatable;
use crate::term::wrap;

/// `x [n, cols]` with its columns multiplied by `c [cols]`; see [`LowRankBackend::scale_columns`].
pub fn scale_columns<B: LowRankBackend>(x: Tensor<B, 2>, c: Tensor<B, 1>) -> Tensor<B, 2> {
    wrap(B::scale_columns(x.into_primitive().tensor(), c.into_primitive().tensor()))
}

pub(crate) fn forward<B: Backend>(x: FloatTensor<B>, c: FloatTensor<B>) -> FloatTensor<B> {
    (wrap::<B, 2>(x) * wrap::<B, 1>(c).unsqueeze()).into_primitive().tensor()
}

pub(crate) fn gradients<B: Backend>(x: FloatTensor<B>, c: FloatTensor<B>, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let sum: Tensor<B, 1> = (wrap::<B, 2>(grad.clone()) * wrap(x)).sum_dim(0).reshape([-1]);
    [forward::<B>(grad, c), sum.into_primitive().tensor()]
}

/// The product as autodiff sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScaleColumns;

impl<B: LowRankBackend> Backward<B, 2> for ScaleColumns {
    /// x and c.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [x, c] = ops.state;
        for (parent, part) in ops.parents.into_iter().zip(B::scale_columns_gradients(x, c, grad)) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, part);
            }
        }
    }
}

impl<B: LowRankBackend> Repeatable<B, 2> for ScaleColumns {
    fn run(self, [x, c]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::scale_columns(x, c)
    }

    fn state(self, operands: &[FloatTensor<B>; 2]) -> Self::State {
        operands.clone()
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::TrainBackend;
    use crate::testing::{assert_close, gradient, on_cpu_backends, values};

    on_cpu_backends!(values_and_gradients_are_those_of_plain_operations, what_does_not_train_has_no_gradient);

    fn values_and_gradients_are_those_of_plain_operations<A: TrainBackend>() {
        // More rows than one of the kernel's blocks.
        for (n, cols) in [(1, 1), (3, 7), (70, 33)] {
            let (x, c) = (values::<A, 2>([n, cols], 0.1).require_grad(), values::<A, 1>([cols], 0.6).require_grad());
            let (ours, theirs) = (scale_columns(x.clone(), c.clone()), x.clone() * c.clone().unsqueeze());
            assert_close(ours.clone().inner(), theirs.clone().inner());
            let [ours, theirs] = [ours, theirs].map(gradient);
            assert_close(x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
            assert_close(c.grad(&ours).unwrap(), c.grad(&theirs).unwrap());
        }
    }

    fn what_does_not_train_has_no_gradient<A: TrainBackend>() {
        let (x, c) = (values::<A, 2>([3, 7], 0.1).require_grad(), values::<A, 1>([7], 0.6));
        let grads = gradient(scale_columns(x.clone(), c.clone()));
        assert!(x.grad(&grads).is_some() && c.grad(&grads).is_none());
    }
}
