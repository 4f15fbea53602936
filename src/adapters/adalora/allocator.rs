//! How many triplets may stay at each step, and which. Plain numbers, no tensors.

use std::cmp::Reverse;

/// The cubic budget schedule (section 3.3 of the paper), over steps that count from 0 as in PEFT.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Triplets of all modules together, at the start and in the end.
    pub initial: usize,
    pub target: usize,
    /// The budget shrinks after this step.
    pub warmup: usize,
    /// The budget has become `target` at this step.
    pub end: usize,
    /// Steps between two allocations.
    pub interval: usize,
    /// Steps of the whole run.
    pub total: usize,
}

/// What there is to do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Allocate the budget; what loses its place now may win it back.
    Allocation,
    /// Allocate the budget for good.
    Settlement,
}

impl Schedule {
    /// Triplets that may stay after step `t`.
    pub fn budget(&self, t: usize) -> usize {
        if t <= self.warmup {
            return self.initial;
        }
        if t >= self.end {
            return self.target;
        }
        let left = 1.0 - (t - self.warmup) as f64 / (self.end - self.warmup) as f64;
        // `pow`, as Python has it: a product of three may round to the other side of a whole number.
        ((self.initial - self.target) as f64 * left.powf(3.0) + self.target as f64) as usize
    }

    /// PEFT never settles where `end` lies behind the last step (its default); this does, at the last step.
    pub fn due(&self, t: usize) -> Due {
        if t >= self.end.min(self.total.saturating_sub(1)) {
            Due::Settlement
        } else if t > self.warmup && t.is_multiple_of(self.interval) {
            Due::Allocation
        } else {
            Due::Nothing
        }
    }
}

/// Which triplets of each module stay: the `budget` of highest score over all modules.
///
/// PEFT drops every score that is not above the k-th smallest, so equal scores (all of them zero, say) may take away far more than
/// k. Here exactly k go; among equal ones those that stand last in their module, so that they are spread over the modules.
/// Where scores differ the two rules are one.
pub fn survivors(scores: &[Vec<f32>], budget: usize) -> Vec<Vec<bool>> {
    let triplets = scores.iter().enumerate().flat_map(|(module, scores)| (0..scores.len()).map(move |i| (module, i)));
    let mut triplets: Vec<_> = triplets.collect();
    let score = |(module, i): (usize, usize)| scores[module][i];
    triplets.sort_by(|a, b| score(*a).total_cmp(&score(*b)).then(Reverse((a.1, a.0)).cmp(&Reverse((b.1, b.0)))));
    let mut kept: Vec<Vec<bool>> = scores.iter().map(|scores| vec![true; scores.len()]).collect();
    let dropped = triplets.len().saturating_sub(budget);
    triplets[..dropped].iter().for_each(|&(module, i)| kept[module][i] = false);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule() -> Schedule {
        Schedule { initial: 288, target: 192, warmup: 10, end: 80, interval: 5, total: 100 }
    }

    #[test]
    fn the_budget_follows_the_reference_schedule() {
        let expected = [
            (10, 288, false),
            (11, 283, false),
            (12, 280, false),
            (15, 268, true),
            (20, 252, true),
            (25, 238, true),
            (30, 226, true),
            (40, 209, true),
            (45, 204, true),
            (50, 199, true),
            (60, 194, true),
            (70, 192, true),
            (79, 192, false),
        ];
        for (t, budget, allocates) in expected {
            assert_eq!(schedule().budget(t), budget, "step {t}");
            assert_eq!(schedule().due(t) == Due::Allocation, allocates, "step {t}");
        }
        assert!([80, 81, 99].iter().all(|&t| schedule().budget(t) == 192 && schedule().due(t) == Due::Settlement));
    }

    #[test]
    fn the_budget_never_grows_and_ends_at_its_target() {
        for (warmup, end, interval) in [(0, 1, 1), (0, 100, 1), (10, 80, 5), (98, 99, 7)] {
            let schedule = Schedule { warmup, end, interval, ..schedule() };
            let budgets: Vec<_> = (0..=100).map(|t| schedule.budget(t)).collect();
            assert!(budgets.is_sorted_by(|a, b| a >= b), "{budgets:?}");
            assert_eq!((budgets[0], budgets[100]), (288, 192));
        }
    }

    #[test]
    fn the_last_step_settles_what_nothing_else_does() {
        let schedule = Schedule { end: 100, ..schedule() };
        assert_eq!((schedule.due(98), schedule.due(99)), (Due::Nothing, Due::Settlement));
    }

    #[test]
    fn the_highest_scores_stay() {
        let scores = [vec![0.3, 0.1], vec![0.2, 0.5]];
        assert_eq!(survivors(&scores, 2), [[true, false], [false, true]]);
        assert_eq!(survivors(&scores, 1), [[false, false], [false, true]]);
        assert_eq!(survivors(&scores, 4), [[true, true], [true, true]]);
        assert_eq!(survivors(&scores, 0), [[false, false], [false, false]]);
    }

    #[test]
    fn equal_scores_go_evenly_and_no_more_than_must() {
        let scores = vec![vec![0.0; 4]; 3];
        assert_eq!(survivors(&scores, 12), vec![vec![true; 4]; 3]);
        assert_eq!(survivors(&scores, 6), vec![vec![true, true, false, false]; 3]);
        let kept = survivors(&scores, 5);
        assert_eq!(kept.iter().flatten().filter(|kept| **kept).count(), 5);
        let mixed = [vec![0.0, 0.0, 1.0], vec![2.0, 0.0, 0.0]];
        assert_eq!(survivors(&mixed, 3), [[true, false, true], [true, false, false]]);
    }
}
