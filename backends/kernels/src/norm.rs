//! Root-mean-square norm (Zhang and Sennrich 2019, equation 4), from which only its input is kept:
//!
//! ```text
//!     y = w ⊙ x̂        x̂ = ρ x        ρ = 1 / sqrt(mean(x²) + ε)
//!     dx = ρ (w ⊙ g − x̂ · mean(w ⊙ g ⊙ x̂))        dw = Σ g ⊙ x̂
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

/// `x [n, hidden]` and `weight [hidden]` to `[n, hidden]`; see [`LowRankBackend::rms_norm`].
pub fn rms_norm<B: LowRankBackend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    wrap(B::rms_norm(x.into_primitive().tensor(), weight.into_primitive().tensor(), eps))
}

/// ρ `[n, 1]`.
fn scale<B: Backend>(x: &Tensor<B, 2>, eps: f64) -> Tensor<B, 2> {
    (x.clone() * x.clone()).mean_dim(1).add_scalar(eps).sqrt().recip()
}

pub(crate) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let x: Tensor<B, 2> = wrap(x);
    let scale = scale(&x, eps);
    (x * scale * wrap::<B, 1>(weight).unsqueeze()).into_primitive().tensor()
}

pub(crate) fn input_gradient<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let x: Tensor<B, 2> = wrap(x);
    let scale = scale(&x, eps);
    let normed = x * scale.clone();
    let weighted = wrap::<B, 2>(grad) * wrap::<B, 1>(weight).unsqueeze();
    let along = (weighted.clone() * normed.clone()).mean_dim(1);
    ((weighted - normed * along) * scale).into_primitive().tensor()
}

pub(crate) fn weight_gradient<B: Backend>(x: FloatTensor<B>, grad: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let x: Tensor<B, 2> = wrap(x);
    let scale = scale(&x, eps);
    let sum: Tensor<B, 1> = (wrap::<B, 2>(grad) * x * scale).sum_dim(0).reshape([-1]);
    sum.into_primitive().tensor()
}

/// The norm as autodiff sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RmsNorm {
    pub eps: f64,
}

impl<B: LowRankBackend> Backward<B, 2> for RmsNorm {
    /// x and w.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let ([x, weight], [px, pweight]) = (ops.state, ops.parents);
        if let Some(parent) = pweight {
            grads.register::<B>(parent.id, B::rms_norm_weight_gradient(x.clone(), grad.clone(), self.eps));
        }
        if let Some(parent) = px {
            grads.register::<B>(parent.id, B::rms_norm_input_gradient(x, weight, grad, self.eps));
        }
    }
}

impl<B: LowRankBackend> Repeatable<B, 2> for RmsNorm {
    fn run(self, [x, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        B::rms_norm(x, weight, self.eps)
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

    const EPS: f64 = 1e-5;

    on_cpu_backends!(values_and_gradients_are_those_of_plain_operations, what_does_not_train_has_no_gradient);

    /// The same in plain operations, which burn differentiates.
    fn plain<A: TrainBackend>(x: &Tensor<A, 2>, weight: &Tensor<A, 1>) -> Tensor<A, 2> {
        let [x, weight] = [x.clone().into_primitive().tensor(), weight.clone().into_primitive().tensor()];
        wrap(forward::<A>(x, weight, EPS))
    }

    fn values_and_gradients_are_those_of_plain_operations<A: TrainBackend>() {
        // Rows of one column, of less than the kernel's lanes, of more; more rows than one of its blocks.
        for (n, hidden) in [(1, 1), (3, 7), (5, 33), (130, 96)] {
            let x = values::<A, 2>([n, hidden], 0.1).require_grad();
            let weight = values::<A, 1>([hidden], 0.6).require_grad();
            let (ours, theirs) = (rms_norm(x.clone(), weight.clone(), EPS), plain(&x, &weight));
            assert_close(ours.clone().inner(), theirs.clone().inner());
            let grad = crate::testing::weights(&theirs).inner();
            let (ours, theirs) = (gradient(ours), gradient(theirs));
            let (dx, dw) = (x.grad(&theirs).unwrap(), weight.grad(&theirs).unwrap());
            assert_close(x.grad(&ours).unwrap(), dx.clone());
            assert_close(weight.grad(&ours).unwrap(), dw.clone());
            let [x, grad] = [x.inner(), grad].map(|x| x.into_primitive().tensor());
            let weight = weight.inner().into_primitive().tensor();
            assert_close(wrap(weight_gradient::<A::InnerBackend>(x.clone(), grad.clone(), EPS)), dw);
            assert_close(wrap(input_gradient::<A::InnerBackend>(x, weight, grad, EPS)), dx);
        }
    }

    fn what_does_not_train_has_no_gradient<A: TrainBackend>() {
        let (x, weight) = (values::<A, 2>([3, 7], 0.1), values::<A, 1>([7], 0.6));
        let trained = weight.clone().require_grad();
        let [ours, theirs] = [rms_norm(x.clone(), trained.clone(), EPS), plain(&x, &trained)].map(gradient);
        assert!(x.grad(&ours).is_none());
        assert_close(trained.grad(&ours).unwrap(), trained.grad(&theirs).unwrap());
        let x = x.require_grad();
        let grads = gradient(rms_norm(x.clone(), weight.clone(), EPS));
        assert!(x.grad(&grads).is_some() && weight.grad(&grads).is_none());
    }
}
