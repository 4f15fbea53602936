//! Cross-entropy on the CPU, rows in parallel, the gradient in the place of the logits.

use rayon::prelude::*;

use crate::exp::exp;

/// Summed negative log-likelihood of `targets` under `logits [n, vocab]`, which become `softmax - onehot`.
pub(crate) fn in_place(logits: &mut [f32], targets: &[i32]) -> f32 {
    let vocab = logits.len() / targets.len().max(1);
    if vocab == 0 {
        return 0.0;
    }
    // In the order of the rows, whatever the threads do.
    let losses: Vec<f64> =
        logits.par_chunks_exact_mut(vocab).zip(targets).map(|(row, &target)| of_row(row, target as usize)).collect();
    losses.iter().sum::<f64>() as f32
}

fn of_row(row: &mut [f32], target: usize) -> f64 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let wanted = f64::from(row[target] - highest);
    let sum = exp_below(row, highest);
    let norm = (1.0 / sum) as f32;
    row.iter_mut().for_each(|weight| *weight *= norm);
    row[target] -= 1.0;
    sum.ln() - wanted
}

/// Leaves in the place of `logits` their exponentials below the highest, and adds them up.
pub(crate) fn exp_below(logits: &mut [f32], highest: f32) -> f64 {
    /// Few enough for an f32 sum.
    const PART: usize = 256;
    logits.iter_mut().for_each(|logit| *logit -= highest);
    exp(logits);
    logits.chunks(PART).map(|part| f64::from(part.iter().sum::<f32>())).sum()
}

#[cfg(test)]
mod tests {
    use super::in_place;

    #[test]
    fn equals_the_formula() {
        let (n, vocab) = (5, 301);
        let logits: Vec<f32> = (0..n * vocab).map(|i| (i as f32 * 0.7).sin() * 20.0).collect();
        let targets: Vec<i32> = (0..n as i32).map(|row| row * 61 % vocab as i32).collect();
        let mut found = logits.clone();
        let loss = in_place(&mut found, &targets);
        let mut expected = 0.0;
        for (row, target) in targets.iter().enumerate() {
            let row = row * vocab..(row + 1) * vocab;
            let sum: f64 = logits[row.clone()].iter().map(|logit| f64::from(*logit).exp()).sum();
            expected += sum.ln() - f64::from(logits[row.start + *target as usize]);
            for (i, (logit, found)) in logits[row.clone()].iter().zip(&found[row]).enumerate() {
                let gradient = f64::from(*logit).exp() / sum - f64::from(i == *target as usize);
                assert!((f64::from(*found) - gradient).abs() < 1e-6, "{found} {gradient}");
            }
        }
        assert!((f64::from(loss) / expected - 1.0).abs() < 1e-6, "{loss} {expected}");
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut logits = [1.0, bad, 0.5, 0.0];
            assert!(!in_place(&mut logits, &[0]).is_finite());
        }
        assert_eq!(in_place(&mut [], &[]), 0.0);
    }
}
