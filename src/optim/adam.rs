//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) in the two arithmetics that reference implementations use.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::recipe;

/// Which arithmetic; a method says which one its reference was trained with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// torch's: weights decay before the update, and eps is added to the root of the bias-corrected second moment.
    #[default]
    Torch,
    /// That of transformers before it took torch's: the bias corrections are part of the step size, eps is added to the
    /// root of the second moment as it is, and weights decay after the update.
    HuggingFace,
}

impl Form {
    /// eps where the recipe gives none.
    pub fn default_eps(self) -> f64 {
        match self {
            Form::Torch => 1e-8,
            Form::HuggingFace => 1e-6,
        }
    }

    pub(super) fn build(self, adamw: &recipe::AdamW, weight_decay: f64) -> Adam {
        let recipe::AdamW { beta1, beta2, .. } = *adamw;
        let eps = adamw.eps.unwrap_or(self.default_eps());
        match self {
            Form::Torch => Adam::Torch(
                AdamWConfig::new()
                    .with_beta_1(beta1 as f32)
                    .with_beta_2(beta2 as f32)
                    .with_epsilon(eps as f32)
                    .with_weight_decay(weight_decay as f32)
                    .build(),
            ),
            Form::HuggingFace => Adam::HuggingFace(HfAdamW { beta1, beta2, eps, weight_decay }),
        }
    }
}

/// One group's optimizer. Both arithmetics keep the same state.
pub(super) enum Adam {
    Torch(AdamW),
    HuggingFace(HfAdamW),
}

impl Adam {
    /// New value and state; all tensors flat.
    pub fn step<B: Backend>(
        &self,
        lr: f64,
        value: Tensor<B, 1>,
        grad: Tensor<B, 1>,
        state: Option<AdamWState<B, 1>>,
    ) -> (Tensor<B, 1>, Option<AdamWState<B, 1>>) {
        match self {
            Adam::Torch(adamw) => adamw.step(lr, value, grad, state),
            Adam::HuggingFace(adamw) => {
                let state = adamw.moments(grad, state);
                (adamw.update(lr, value, &state), Some(AdamWState::new(state)))
            }
        }
    }
}

pub(super) struct HfAdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
}

impl HfAdamW {
    fn moments<B: Backend>(&self, grad: Tensor<B, 1>, state: Option<AdamWState<B, 1>>) -> AdaptiveMomentumState<B, 1> {
        let (time, first, second) = match state {
            Some(AdamWState { momentum }) => (momentum.time, momentum.moment_1, momentum.moment_2),
            None => (0, grad.zeros_like(), grad.zeros_like()),
        };
        let first = first.mul_scalar(self.beta1) + grad.clone().mul_scalar(1.0 - self.beta1);
        let second = second.mul_scalar(self.beta2) + grad.square().mul_scalar(1.0 - self.beta2);
        AdaptiveMomentumState::new(time + 1, first, second)
    }

    fn update<B: Backend>(&self, lr: f64, value: Tensor<B, 1>, state: &AdaptiveMomentumState<B, 1>) -> Tensor<B, 1> {
        let steps = state.time as f64;
        let size = lr * (1.0 - self.beta2.powf(steps)).sqrt() / (1.0 - self.beta1.powf(steps));
        let direction = state.moment_1.clone() / state.moment_2.clone().sqrt().add_scalar(self.eps);
        let value = value - direction.mul_scalar(size);
        if self.weight_decay > 0.0 { value.mul_scalar(1.0 - lr * self.weight_decay) } else { value }
    }
}
