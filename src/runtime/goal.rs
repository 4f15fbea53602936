//! The loss of a batch from its hidden states, for each goal.

use burn::tensor::{Int, Tensor, TensorData};
use lowrank_kernels::{LowRankBackend, cross_entropy};

use crate::data::{Batch, Contrast, Goal, IGNORE};
use crate::models::Model;
use crate::nn::Pass;

/// Summed loss `[1]` from hidden states `[n, hidden]`; none where nothing of the batch is asked about.
pub(super) fn loss<B: LowRankBackend>(
    model: &Model<B>,
    hidden: Tensor<B, 2>,
    batch: &Batch,
    pass: Pass,
) -> Option<Tensor<B, 1>> {
    if batch.terms() == 0 {
        return None;
    }
    let hidden = answering(hidden, batch);
    Some(match &batch.goal {
        Goal::Classes => {
            let (hidden, targets) = asked(hidden, batch);
            model.loss(hidden, targets, pass)
        }
        Goal::Numbers(values) => {
            let outputs = model.head(asked(hidden, batch).0, pass);
            let values = Tensor::from_data(TensorData::from(&values[..]), &outputs.device());
            let error = outputs.reshape([-1]) - values;
            (error.clone() * error).sum()
        }
        Goal::Spans(spans) => spans_loss(model.head(hidden, pass), spans, batch),
        Goal::Alike(contrast) => contrast_loss(model.head(hidden, pass), contrast, batch),
    })
}

/// Hidden states of the tokens that are asked about, of all `[n, hidden]`: those of the decoder, where there is one.
pub(super) fn answering<B: LowRankBackend>(hidden: Tensor<B, 2>, batch: &Batch) -> Tensor<B, 2> {
    match &batch.decoder {
        None => hidden,
        Some(_) => hidden.slice_dim(0, batch.ids.len()..),
    }
}

/// Hidden states and targets of the positions that have one: only they reach the head.
fn asked<B: LowRankBackend>(hidden: Tensor<B, 2>, batch: &Batch) -> (Tensor<B, 2>, Tensor<B, 1, Int>) {
    let trained = || batch.targets.iter().enumerate().filter(|(_, target)| **target != IGNORE);
    let positions: Vec<i32> = trained().map(|(i, _)| i as i32).collect();
    let targets: Vec<i32> = trained().map(|(_, target)| *target).collect();
    let device = hidden.device();
    (hidden.select(0, ints(&positions, &device)), ints(&targets, &device))
}

/// Half of each cross-entropy over the positions of a row, padding among them as in transformers, `outputs [n, 2]`.
fn spans_loss<B: LowRankBackend>(outputs: Tensor<B, 2>, spans: &[[i32; 2]], batch: &Batch) -> Tensor<B, 1> {
    let device = outputs.device();
    let end = |which: usize| {
        let logits = outputs.clone().narrow(1, which, 1).reshape([batch.rows, batch.len]);
        let targets: Vec<i32> = spans.iter().map(|span| span[which]).collect();
        cross_entropy(logits, ints(&targets, &device))
    };
    (end(0) + end(1)).mul_scalar(0.5)
}

/// Cross-entropy of each anchor's own text among all that are not anchors, by cosine over temperature (InfoNCE, van den Oord et al.
/// 2018, equation 4; with a batch's other texts as negatives, Henderson et al. 2017), `states [n, hidden]`.
fn contrast_loss<B: LowRankBackend>(states: Tensor<B, 2>, contrast: &Contrast, batch: &Batch) -> Tensor<B, 1> {
    let device = states.device();
    let weights = TensorData::new(batch.pooling_weights(contrast.pooling), [batch.rows, batch.rows * batch.len]);
    let texts = Tensor::from_data(weights, &device).matmul(states);
    let length = (texts.clone() * texts.clone()).sum_dim(1).add_scalar(1e-24).sqrt();
    let texts = texts / length;
    let anchors = texts.clone().narrow(0, 0, contrast.anchors);
    let others = texts.narrow(0, contrast.anchors, batch.rows - contrast.anchors);
    let likeness = anchors.matmul(others.transpose()).div_scalar(contrast.temperature);
    let own: Vec<i32> = (0..contrast.anchors as i32).collect();
    cross_entropy(likeness, ints(&own, &device))
}

fn ints<B: LowRankBackend>(values: &[i32], device: &B::Device) -> Tensor<B, 1, Int> {
    Tensor::from_data(TensorData::from(values), device)
}
