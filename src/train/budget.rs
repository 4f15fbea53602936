//! Ranks at which variants cost about the same.

use super::{Job, Target};
use crate::Result;
use crate::recipe::{Budget, Resolved};

/// No rank beyond it is looked for.
const LARGEST: usize = 1024;

/// The recipe with the rank at which `budget` comes nearest to what the `reference` takes of it; methods without a rank stay.
///
/// # Errors
/// As [`Job::prepare`] at rank 1.
pub(super) fn fitted(resolved: &Resolved, reference: &Job, budget: Budget, target: &Target) -> Result<Resolved> {
    if resolved.recipe.adapter.spec().is_none() {
        return Ok(resolved.clone());
    }
    let with = |rank: usize| -> Result<(Resolved, u64)> {
        let mut changed = resolved.clone();
        changed.recipe.adapter = resolved.recipe.adapter.with_rank(rank)?;
        let cost = cost(&Job::prepare_beside(&changed, target, Some(reference))?, budget);
        Ok((changed, cost))
    };
    let wanted = cost(reference, budget);
    let (mut low, mut high) = (1_usize, None);
    let mut nearest = with(1)?;
    // Doubling, then halving. Where a method refuses a rank, all above it are too large.
    while high.is_none_or(|high| high - low > 1) {
        let rank = high.map_or(2 * low, |high| low.midpoint(high));
        match with(rank) {
            Ok(found) if rank <= LARGEST => {
                if found.1 <= wanted {
                    low = rank
                } else {
                    high = Some(rank)
                }
                if found.1.abs_diff(wanted) < nearest.1.abs_diff(wanted) {
                    nearest = found;
                }
            }
            _ => high = Some(rank),
        }
    }
    Ok(nearest.0)
}

fn cost(job: &Job, budget: Budget) -> u64 {
    match budget {
        Budget::Params => job.trainable as u64,
        Budget::Memory => job.memory.peak,
    }
}
