//! The order of rows, from a seed and an epoch alone: any step of a run can be found again without
//! replaying the ones before it.

use lowrank_kernels::splitmix::{GAMMA, finalise as mix};

/// A permutation of `0..len`.
pub fn permutation(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let key = mix(mix(seed.wrapping_add(GAMMA)) ^ epoch.wrapping_mul(GAMMA));
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        let random = mix(key.wrapping_add((last as u64).wrapping_mul(GAMMA)));
        // The high half of the product is a number below last + 1.
        let other = ((u128::from(random) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, other);
    }
    order
}

/// Indices of the rows of every batch of an epoch. The last batch may be smaller; no row is left out.
pub fn batches(len: usize, batch: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    permutation(len, seed, epoch).chunks(batch.max(1)).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_and_seed_has_its_own_permutation() {
        let mut seen = std::collections::HashSet::new();
        for (seed, epoch) in [(0, 0), (0, 1), (1, 0), (1, 1), (u64::MAX, 7)] {
            let order = permutation(101, seed, epoch);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..101).collect::<Vec<_>>());
            assert!(seen.insert(order.clone()), "seed {seed} epoch {epoch} repeats an order");
            assert_eq!(order, permutation(101, seed, epoch));
        }
    }

    #[test]
    fn the_order_never_changes_between_versions() {
        assert_eq!(permutation(8, 0, 0), [5, 4, 7, 1, 2, 6, 3, 0]);
    }

    #[test]
    fn every_place_is_equally_likely() {
        let mut counts = [[0_u32; 5]; 5];
        for epoch in 0..5000 {
            for (place, row) in permutation(5, 3, epoch).into_iter().enumerate() {
                counts[place][row] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn batches_keep_every_row() {
        let batches = batches(10, 4, 1, 2);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(batches.concat(), permutation(10, 1, 2));
        assert!(super::batches(0, 4, 0, 0).is_empty());
    }
}
