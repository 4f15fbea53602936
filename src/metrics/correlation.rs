//! How two lists of numbers go together, by scipy's rules.

use super::{Scores, mean, named, paired};
use crate::Result;

/// Pearson's correlation, from −1 to 1 (`scipy.stats.pearsonr`): with the means x̄ and ȳ,
///
/// ```text
/// r = Σ (xᵢ − x̄)(yᵢ − ȳ) / (‖x − x̄‖ ‖y − ȳ‖)
/// ```
///
/// NaN where it is not defined: if all of `x`, or all of `y`, is equal (one row is, where scipy raises), or a number is not finite.
///
/// # Errors
/// An input error for no rows, or lists of different lengths.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    paired(x.len(), y.len())?;
    if is_constant(x) || is_constant(y) {
        return Ok(f64::NAN);
    }
    let (x, y) = (centred(x), centred(y));
    let r: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    Ok(r.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, from −1 to 1 (`scipy.stats.spearmanr`): Pearson's of the ranks. NaN as there, and for a NaN among
/// the numbers; infinities have a rank.
///
/// # Errors
/// As for [`pearson`].
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    paired(x.len(), y.len())?;
    if x.iter().chain(y).any(|value| value.is_nan()) {
        return Ok(f64::NAN);
    }
    pearson(&ranks(x), &ranks(y))
}

/// `pearson`, `spearman`.
///
/// # Errors
/// As for [`pearson`].
pub fn scores(predicted: &[f64], truth: &[f64]) -> Result<Scores> {
    Ok(named([("pearson", pearson(predicted, truth)?), ("spearman", spearman(predicted, truth)?)]))
}

/// Ranks from 1, smallest first; equal numbers share the mean of their ranks (`scipy.stats.rankdata`).
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&index| ranks[index] = rank);
        before += tied.len();
    }
    ranks
}

/// Asked of the numbers as given: their mean may be off by a rounding, and so all of them from it.
fn is_constant(values: &[f64]) -> bool {
    values.iter().all(|value| *value == values[0])
}

/// Less their mean, of length 1.
fn centred(values: &[f64]) -> Vec<f64> {
    let mean = mean(values.iter().copied());
    let centred: Vec<_> = values.iter().map(|value| value - mean).collect();
    let length = centred.iter().map(|value| value * value).sum::<f64>().sqrt();
    centred.into_iter().map(|value| value / length).collect()
}

#[cfg(test)]
mod tests {
    use super::super::golden::{assert_close, cases, of};
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/metrics/correlation.json");

    #[test]
    fn scores_and_ranks_are_those_of_scipy() {
        for (name, case) in cases(GOLDEN, "cases") {
            let [x, y] = ["x", "y"].map(|key| of::<Vec<f64>>(&case[key]));
            for (metric, value) in scores(&x, &y).unwrap() {
                assert_close(value, &case[&metric], &format!("{name}: {metric}"));
            }
            assert_eq!((ranks(&x), ranks(&y)), (of(&case["ranks_x"]), of(&case["ranks_y"])), "{name}");
        }
    }

    #[test]
    fn what_is_not_defined_is_not_a_number() {
        let both = |x: &[f64], y: &[f64]| [pearson(x, y).unwrap(), spearman(x, y).unwrap()];
        assert!(both(&[1.0], &[2.0]).iter().all(|r| r.is_nan()));
        // The mean of these is not 0.1.
        assert!(both(&[0.1; 3], &[1.0, 2.0, 3.0]).iter().all(|r| r.is_nan()));
        assert!(both(&[1.0, f64::NAN, 2.0], &[1.0, 2.0, 3.0]).iter().all(|r| r.is_nan()));
        let infinite = both(&[1.0, f64::INFINITY, 2.0], &[1.0, 3.0, 2.0]);
        assert!(infinite[0].is_nan() && (infinite[1] - 1.0).abs() < 1e-12, "{infinite:?}");
        assert!(pearson(&[], &[]).is_err() && spearman(&[1.0], &[1.0, 2.0]).is_err());
    }

    #[test]
    fn both_zeros_are_one_number() {
        assert_eq!(ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
    }
}
