//! Matrices of several adapters into one, entry by entry, as PEFT's `merge_utils` does it.

use super::method::Pruning;
use super::{Combination, Majority, Rule};
use crate::adapters::random::Stream;

/// One adapter's matrix.
pub(super) struct Task {
    pub values: Vec<f64>,
    pub weight: f64,
    /// Random numbers for this matrix alone.
    pub stream: Stream,
}

/// The matrices of `tasks`, all of one size, pruned and joined.
pub(super) fn join(rule: Rule, mut tasks: Vec<Task>, combination: &Combination) -> Vec<f64> {
    let density = combination.density.unwrap_or(1.0);
    if density < 1.0 {
        tasks.iter_mut().for_each(|task| match rule.pruning() {
            Pruning::Nothing => {}
            Pruning::Smallest => keep_largest(&mut task.values, density),
            Pruning::Random => keep_random(&mut task.values, density, task.stream),
        });
    }
    let entries = 0..tasks.first().map_or(0, |task| task.values.len());
    if rule.elects() {
        let majority = combination.majority.unwrap_or_default();
        return entries.map(|i| agreeing_mean(&tasks, i, majority)).collect();
    }
    entries.map(|i| tasks.iter().map(|task| task.weight * task.values[i]).sum()).collect()
}

/// Zeroes all but the `density` of entries that are largest in magnitude; of equal ones the first stay.
fn keep_largest(values: &mut [f64], density: f64) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()));
    let kept = (density * values.len() as f64) as usize;
    order[kept..].iter().for_each(|&i| values[i] = 0.0);
}

/// Keeps each entry with probability `density`, divided by it, so that the expectation stays.
fn keep_random(values: &mut [f64], density: f64, stream: Stream) {
    for (i, value) in values.iter_mut().enumerate() {
        *value = if stream.unit(i as u64) < density { *value / density } else { 0.0 };
    }
}

/// The weighted mean of the entries `i` whose sign is the majority's. Weights have no say in the election.
fn agreeing_mean(tasks: &[Task], i: usize, majority: Majority) -> f64 {
    let sign = |value: f64| if value == 0.0 { 0.0 } else { value.signum() };
    let votes: f64 = match majority {
        Majority::Total => tasks.iter().map(|task| task.values[i]).sum(),
        Majority::Frequency => tasks.iter().map(|task| sign(task.values[i])).sum(),
    };
    let elected = if votes >= 0.0 { 1.0 } else { -1.0 };
    let agreeing = tasks.iter().filter(|task| sign(task.values[i]) == elected);
    let (sum, count) =
        agreeing.fold((0.0, 0.0), |(sum, count), task| (sum + task.weight * task.values[i], count + 1.0));
    sum / f64::max(count, 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::Method;
    use super::*;

    fn dare(values: &[f64], density: f64, seed: u64) -> Vec<f64> {
        let combination = Combination { density: Some(density), ..Method::Factors(Rule::DareLinear).into() };
        let task = Task { values: values.to_vec(), weight: 1.0, stream: Stream::new(seed, "q_proj") };
        join(Rule::DareLinear, vec![task], &combination)
    }

    #[test]
    fn survivors_of_dare_are_rescaled_and_the_expectation_stays() {
        let values: Vec<f64> = (1..=50).map(f64::from).collect();
        let draws = 2000;
        let mut mean = vec![0.0; values.len()];
        let mut kept = 0;
        for seed in 0..draws {
            for ((mean, found), value) in mean.iter_mut().zip(dare(&values, 0.25, seed)).zip(&values) {
                assert!(found == 0.0 || found == value / 0.25);
                kept += usize::from(found != 0.0);
                *mean += found / draws as f64;
            }
        }
        let share = kept as f64 / (50 * draws) as f64;
        assert!((share - 0.25).abs() < 0.01, "{share}");
        // The deviation of one draw is value · √3, of the mean of 2000 draws 4 % of the value.
        assert!(mean.iter().zip(&values).all(|(mean, value)| (mean - value).abs() < 0.2 * value), "{mean:?}");
    }

    #[test]
    fn dare_depends_on_the_seed_alone() {
        let values = [1.0; 64];
        assert_eq!(dare(&values, 0.5, 3), dare(&values, 0.5, 3));
        assert_ne!(dare(&values, 0.5, 3), dare(&values, 0.5, 4));
    }

    #[test]
    fn the_majority_is_of_the_sum_or_of_the_count() {
        let task = |value: f64, weight: f64| Task { values: vec![value], weight, stream: Stream::new(0, "") };
        let ties = |majority| {
            let combination = Combination { density: Some(1.0), majority, ..Method::Factors(Rule::Ties).into() };
            join(Rule::Ties, vec![task(5.0, 1.0), task(-1.0, 2.0), task(-3.0, 1.0)], &combination)[0]
        };
        assert_eq!(ties(None), 5.0);
        assert_eq!(ties(Some(Majority::Frequency)), -2.5);
    }
}
