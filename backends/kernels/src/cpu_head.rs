//! Loss of a frozen output head on the CPU: some words of the vocabulary at a time, as attention goes over its keys, so that
//! each weight is read once in each direction and logits never exist for the whole vocabulary (Milakov and Gimelshein 2018).

use rayon::prelude::*;

use crate::Side;
use crate::cpu::{Weight, linear};
use crate::cpu_cross_entropy::exp_below;

/// Tokens at a time: enough that weights are decoded for many.
const TOKENS: usize = 512;

/// Words at a time: with [`TOKENS`] of them, 12 MiB of logits.
const WORDS: usize = 6144;

/// Summed negative log-likelihood of `targets [n]` under the logits `hidden [n, width] · Wᵀ`.
pub(crate) fn loss(hidden: &[f32], weight: &Weight<'_>, targets: &[i32]) -> f32 {
    let width = weight.shape[1];
    let parts = hidden.chunks(TOKENS * width).zip(targets.chunks(TOKENS));
    parts.map(|(hidden, targets)| of_tokens(hidden, weight, targets, None)).sum::<f64>() as f32
}

/// The same and its gradient to `hidden`.
pub(crate) fn loss_and_gradient(hidden: &[f32], weight: &Weight<'_>, targets: &[i32]) -> (f32, Vec<f32>) {
    let (part, mut grad) = (TOKENS * weight.shape[1], vec![0.0; hidden.len()]);
    let parts = hidden.chunks(part).zip(targets.chunks(TOKENS)).zip(grad.chunks_mut(part));
    let loss: f64 = parts.map(|((hidden, targets), grad)| of_tokens(hidden, weight, targets, Some(grad))).sum();
    (loss as f32, grad)
}

/// What is known of a token's logits after some words.
#[derive(Clone)]
struct Row {
    highest: f32,
    /// Of the exponentials of what is below the highest.
    sum: f64,
    /// Logit of the target.
    wanted: f32,
    /// What the sums before the last words are worth after them.
    fade: f32,
}

fn of_tokens(hidden: &[f32], weight: &Weight<'_>, targets: &[i32], mut grad: Option<&mut [f32]>) -> f64 {
    let ([vocab, width], n) = (weight.shape, targets.len());
    let mut rows = vec![Row { highest: f32::NEG_INFINITY, sum: 0.0, wanted: f32::NAN, fade: 0.0 }; n];
    for start in (0..vocab).step_by(WORDS) {
        let words = start..vocab.min(start + WORDS);
        let some = weight.some_rows(words.clone());
        let mut logits = linear(hidden, n, &some, Side::Forward, None);
        let targets = targets.par_iter().map(|target| (*target as usize).checked_sub(start));
        let lines = logits.par_chunks_exact_mut(words.len());
        lines.zip(&mut rows).zip(targets).for_each(|((logits, row), target)| row.add(logits, target));
        if let Some(grad) = &mut grad {
            let more = linear(&logits, n, &some, Side::Backward, None);
            let lines = grad.par_chunks_exact_mut(width).zip(more.par_chunks_exact(width));
            lines.zip(&rows).for_each(|((grad, more), row)| {
                grad.iter_mut().zip(more).for_each(|(grad, more)| *grad = *grad * row.fade + more);
            });
        }
    }
    if let Some(grad) = grad {
        let lines = grad.par_chunks_exact_mut(width).zip(&rows).zip(targets);
        lines.for_each(|((grad, row), target)| {
            let (norm, wanted) = ((1.0 / row.sum) as f32, weight.row(*target as usize));
            grad.iter_mut().zip(wanted).for_each(|(grad, wanted)| *grad = *grad * norm - wanted);
        });
    }
    rows.iter().map(|row| row.sum.ln() + f64::from(row.highest - row.wanted)).sum()
}

impl Row {
    /// Leaves in the place of `logits` their exponentials below the highest yet; `target` is the target's place among them.
    fn add(&mut self, logits: &mut [f32], target: Option<usize>) {
        if let Some(wanted) = target.and_then(|target| logits.get(target)) {
            self.wanted = *wanted;
        }
        let highest = logits.iter().copied().fold(self.highest, f32::max);
        self.fade = (self.highest - highest).exp();
        self.sum = self.sum * f64::from(self.fade) + exp_below(logits, highest);
        self.highest = highest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compute;
    use crate::cpu::Stored;

    fn example(n: usize, vocab: usize, width: usize) -> (Vec<f32>, Vec<f32>, Vec<i32>) {
        let wave = |len, step: f32, size: f32| (0..len).map(|i| (i as f32 * step).sin() * size).collect();
        let targets = (0..n).map(|i| (i * 7919 % vocab) as i32).collect();
        (wave(n * width, 0.7, 2.0), wave(vocab * width, 0.37, 3.0), targets)
    }

    #[test]
    fn equals_the_formula_over_more_words_and_tokens_than_one_time() {
        let (n, vocab, width) = (TOKENS + 3, 2 * WORDS + 5, 3);
        let (hidden, values, targets) = example(n, vocab, width);
        let weight = Weight::new(Stored::Dense(&values), Compute::F32, [vocab, width]);
        let (found, grad) = loss_and_gradient(&hidden, &weight, &targets);
        assert_eq!(found, loss(&hidden, &weight, &targets));
        let mut expected = 0.0;
        for ((hidden, target), grad) in hidden.chunks(width).zip(&targets).zip(grad.chunks(width)) {
            let target = *target as usize;
            let word = |i: usize| values[i * width..][..width].iter().map(|w| f64::from(*w));
            let logit = |i| word(i).zip(hidden).map(|(w, h)| w * f64::from(*h)).sum::<f64>();
            let logits: Vec<f64> = (0..vocab).map(logit).collect();
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            expected += sum.ln() - logits[target];
            for (j, found) in grad.iter().enumerate() {
                let at = |i: usize| f64::from(values[i * width + j]);
                let mean: f64 = logits.iter().enumerate().map(|(i, logit)| logit.exp() / sum * at(i)).sum();
                assert!((f64::from(*found) - (mean - at(target))).abs() < 1e-4, "{found} {}", mean - at(target));
            }
        }
        assert!((f64::from(found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut hidden, values, targets) = example(2, 5, 3);
            hidden[1] = bad;
            let weight = Weight::new(Stored::Dense(&values), Compute::F32, [5, 3]);
            let (loss, grad) = loss_and_gradient(&hidden, &weight, &targets);
            assert!(!loss.is_finite() && grad[..3].iter().all(|g| !g.is_finite()), "{loss} {grad:?}");
            assert!(grad[3..].iter().all(|g| g.is_finite()));
        }
    }
}
