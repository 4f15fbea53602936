//! Round numbers along an axis.

/// Where the marks of an axis from `low` to `high` go: about `count` multiples of 1, 2 or 5 times a power of ten.
pub fn linear(low: f64, high: f64, count: usize) -> Vec<f64> {
    let range = high - low;
    if !range.is_finite() || range <= 0.0 || count == 0 {
        return Vec::new();
    }
    let rough = range / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let miss = |step: f64| (range / step - count as f64).abs();
    let steps = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
    let step = steps.into_iter().min_by(|&a, &b| miss(a).total_cmp(&miss(b))).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last.min(first + 100)).map(|i| i as f64 * step).collect()
}

/// As [`linear`], for an axis that shows logarithms of values from `low` to `high`.
pub fn logarithmic(low: f64, high: f64, count: usize) -> Vec<f64> {
    if !(low > 0.0 && high > low) {
        return Vec::new();
    }
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let marks = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)));
    let marks: Vec<_> = marks.filter(|v| (low..=high).contains(v)).collect();
    if marks.len() < 2 { linear(low, high, count) } else { marks }
}

/// Written with just enough decimals to tell marks a `step` apart.
pub fn label(value: f64, step: f64) -> String {
    let decimals = if step > 0.0 { (-step.log10().floor()).clamp(0.0, 6.0) as usize } else { 2 };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(linear(0.0, 200.0, 4), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(
            linear(1.37, 2.41, 5).iter().map(|&v| label(v, 0.2)).collect::<Vec<_>>().join(" "),
            "1.4 1.6 1.8 2.0 2.2 2.4"
        );
        assert_eq!(linear(1.0, 1.0, 5), [0.0; 0]);
        assert_eq!(linear(f64::NAN, 1.0, 5), [0.0; 0]);
        assert_eq!(logarithmic(0.15, 3.0, 4), [0.2, 0.5, 1.0, 2.0]);
        assert_eq!(label(1.4000000000000001, 0.2), "1.4");
        assert_eq!(label(50.0, 50.0), "50");
    }
}
