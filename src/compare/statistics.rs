//! What can be said of a few numbers, one for each seed. Never of steps: those of one run are not independent.

use lowrank_kernels::splitmix;
use serde::Serialize;

use crate::events::float;

/// Samples that a bootstrap draws.
pub const RESAMPLES: usize = 10_000;
/// Probability that an interval is made for.
pub const LEVEL: f64 = 0.95;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    #[serde(with = "float")]
    pub mean: f64,
    #[serde(with = "float")]
    pub low: f64,
    #[serde(with = "float")]
    pub high: f64,
}

impl Interval {
    /// Whether zero lies outside of it.
    pub fn is_clear(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Of the population that the values were drawn from, with n − 1 below the sum; none for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let (mean, n) = (mean(values)?, values.len() as f64);
    // Equal values have a mean that is rounded, and still no spread.
    if values.len() > 1 && values.iter().all(|value| *value == values[0]) {
        return Some(0.0);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| quantile(&sorted, 0.5))
}

/// The percentile interval of the mean (Efron 1979, "Bootstrap methods: another look at the jackknife"), the same on
/// every machine; none for fewer than two values and where one is not finite.
pub fn bootstrap(values: &[f64]) -> Option<Interval> {
    let mean = mean(values).filter(|_| values.len() > 1 && values.iter().all(|value| value.is_finite()))?;
    let mut state = 0u64;
    let mut draw = || {
        state = state.wrapping_add(splitmix::GAMMA);
        let index = (u128::from(splitmix::finalise(state)) * values.len() as u128) >> 64;
        values[index as usize]
    };
    let mut resampled = || (0..values.len()).map(|_| draw()).sum::<f64>() / values.len() as f64;
    let mut means: Vec<_> = (0..RESAMPLES).map(|_| resampled()).collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - LEVEL) / 2.0;
    Some(Interval { mean, low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) })
}

/// Between the two nearest of the sorted values, in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Probability that all of `n` differences have the same sign when they are as likely to have one as the other.
pub fn chance_of_one_sign(n: usize) -> f64 {
    0.5f64.powi(n as i32 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_computed_by_hand() {
        // (2 + 4 + 4 + 6) / 4 = 4; squares 4 + 0 + 0 + 4, over 3.
        let values = [2.0, 4.0, 4.0, 6.0];
        assert_eq!(mean(&values), Some(4.0));
        assert_eq!(standard_deviation(&values), Some((8.0f64 / 3.0).sqrt()));
        assert_eq!((mean(&[]), standard_deviation(&[1.0])), (None, None));
        assert_eq!(median(&[5.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[5.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn few_values_give_the_interval_of_their_extremes() {
        // Of 27 equally likely samples of three one is three times the smallest: 3.7 %, more than 2.5 %.
        let interval = bootstrap(&[0.1, 0.4, 0.2]).unwrap();
        assert!((interval.low - 0.1).abs() < 1e-12 && (interval.high - 0.4).abs() < 1e-12, "{interval:?}");
        assert!(interval.is_clear());
        assert!(!bootstrap(&[-0.1, 0.4]).unwrap().is_clear());
        assert_eq!(bootstrap(&[0.3]), None);
        assert_eq!(bootstrap(&[0.3, f64::NAN]), None);
    }

    #[test]
    fn many_values_give_the_interval_of_the_normal_distribution() {
        // 0 to 99: mean 49.5, variance of the sample (100² − 1) / 12 = 833.25, so 1.96 · sqrt(8.3325) = 5.66.
        let values: Vec<_> = (0..100).map(f64::from).collect();
        let interval = bootstrap(&values).unwrap();
        assert!((interval.low - (49.5 - 5.66)).abs() < 0.3, "{interval:?}");
        assert!((interval.high - (49.5 + 5.66)).abs() < 0.3, "{interval:?}");
        assert_eq!(bootstrap(&values), Some(interval));
    }

    #[test]
    fn three_equal_signs_are_one_chance_in_four() {
        assert_eq!([1, 2, 3, 6].map(chance_of_one_sign), [1.0, 0.5, 0.25, 0.03125]);
    }
}
