//! Curves of losses, and what of a long or noisy one can be seen.

/// One loss and where it stands on each of the x axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub step: usize,
    pub tokens: usize,
    /// Seconds of the run.
    pub t: f64,
    pub loss: f64,
}

/// Exponential moving average without its start-up bias (Kingma and Ba 2015, section 3); NaN where the value was not
/// finite.
pub fn smooth(values: impl Iterator<Item = f64>, beta: f64) -> Vec<f64> {
    let (mut mean, mut weight) = (0.0, 0.0);
    let next = |value: f64| {
        if !value.is_finite() {
            return f64::NAN;
        }
        mean = beta * mean + (1.0 - beta) * value;
        weight = beta * weight + (1.0 - beta);
        mean / weight
    };
    values.map(next).collect()
}

/// Lowest and highest point of each of `columns` stretches: all that can be seen of a long curve.
pub fn thin(curve: Vec<(f64, f64)>, columns: usize) -> Vec<(f64, f64)> {
    if curve.len() <= 2 * columns.max(1) {
        return curve;
    }
    let extremes = |part: &[(f64, f64)]| {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let mut pair: Vec<_> =
            [part.iter().min_by(by), part.iter().max_by(by)].into_iter().flatten().copied().collect();
        pair.sort_by(|a, b| a.0.total_cmp(&b.0));
        pair
    };
    curve.chunks(curve.len().div_ceil(columns.max(1))).flat_map(extremes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_starts_at_the_first_value_and_passes_over_what_is_not_finite() {
        let smoothed = smooth([2.0, f64::NAN, 4.0].into_iter(), 0.5);
        assert_eq!(smoothed[0], 2.0);
        assert!(smoothed[1].is_nan());
        assert!((smoothed[2] - (0.5 * 1.0 + 0.5 * 4.0) / 0.75).abs() < 1e-12, "{smoothed:?}");
    }

    #[test]
    fn thinning_keeps_the_extremes() {
        let curve: Vec<_> = (0..1000).map(|i| (i as f64, if i == 617 { 9.0 } else { (i % 7) as f64 })).collect();
        let thinned = thin(curve, 20);
        assert!(thinned.len() <= 40 && thinned.contains(&(617.0, 9.0)));
        assert!(thinned.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }
}
