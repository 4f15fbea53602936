//! One optimizer step: of the run proper, or of a pilot before it.

use std::time::Instant;

use super::run::ms;
use crate::Result;
use crate::data::Batch;
use crate::events::Event;
use crate::optim::schedule;
use crate::recipe::Recipe;
use crate::runtime::{DropoutKey, Learner, Micro, MicroResult};

/// Which step of how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// From 0.
    pub step: usize,
    pub total: usize,
}

/// What a step did.
pub(super) struct Taken {
    /// Mean over all its trained tokens, in nats.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    pub lr: f64,
    pub forward_ms: f64,
    pub backward_ms: f64,
    pub optimizer_ms: f64,
}

impl Taken {
    /// Whether the optimizer moved; a step whose loss or gradient is not finite is skipped.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }

    /// Says of a skipped step, the `count`th, why it was skipped.
    pub fn warning(&self, count: usize) -> Event {
        let text = format!("step skipped: loss {}, gradient norm {}", self.loss, self.grad_norm);
        Event::Warning { code: "non_finite".into(), text, count }
    }
}

/// Gathers the gradients of `batches` and steps with them.
pub(super) fn optimize(learner: &mut dyn Learner, recipe: &Recipe, batches: &[Batch], place: Place) -> Result<Taken> {
    let MicroResult { loss, forward_ms, backward_ms } = forward_backward(learner, recipe, batches, place.step)?;
    let start = Instant::now();
    let optim = &recipe.optim;
    let lr = optim.adamw.lr * schedule::multiplier(&optim.schedule, place.step, place.total);
    let grad_norm = learner.grad_norm();
    let mut taken = Taken { loss, grad_norm, lr, forward_ms, backward_ms, optimizer_ms: 0.0 };
    if taken.is_finite() {
        learner.step(lr, if optim.clip > 0.0 { (optim.clip / (grad_norm + 1e-6)).min(1.0) } else { 1.0 });
    } else {
        learner.discard();
    }
    taken.optimizer_ms = ms(start);
    Ok(taken)
}

/// The loss is the mean over all trained tokens of the step, however they are dealt to batches.
fn forward_backward(learner: &mut dyn Learner, recipe: &Recipe, batches: &[Batch], step: usize) -> Result<MicroResult> {
    let trained: usize = batches.iter().map(Batch::terms).sum();
    let dropout = recipe.adapter.shared().is_some_and(|shared| shared.dropout > 0.0);
    let mut sum = MicroResult::default();
    for (micro, batch) in batches.iter().enumerate().filter(|(_, batch)| batch.terms() > 0) {
        let key = DropoutKey { seed: recipe.seed, step: step as u64, micro: micro as u64 };
        let result = learner.accumulate(
            batch,
            &Micro {
                weight: 1.0 / trained as f64,
                dropout: dropout.then_some(key),
                gradient_checkpointing: recipe.train.gradient_checkpointing,
            },
        )?;
        sum.loss += result.loss / trained as f64;
        sum.forward_ms += result.forward_ms;
        sum.backward_ms += result.backward_ms;
    }
    Ok(sum)
}
