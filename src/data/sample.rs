//! A share of the rows that has the lengths of all of them.

use super::permutation;

/// Indices of `share` of the rows, at least one. There are no classes to stratify by, and length is what tells rows apart before
/// training: ordered by length they are cut into as many strata as rows are drawn, and each stratum gives one.
pub fn stratified(lengths: &[usize], share: f64, seed: u64) -> Vec<usize> {
    let rows = lengths.len();
    let drawn = ((share * rows as f64).round() as usize).max(1).min(rows);
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by_key(|&row| lengths[row]);
    let stratum = |k: usize| k * rows / drawn..(k + 1) * rows / drawn;
    let one_of = |k: usize| order[stratum(k)][permutation(stratum(k).len(), seed, k as u64)[0]];
    (0..drawn).map(one_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths() -> Vec<usize> {
        (0..400).map(|row| 10 + (row * 37) % 200).collect()
    }

    #[test]
    fn every_stratum_gives_one_row() {
        let lengths = lengths();
        let sample = stratified(&lengths, 0.1, 7);
        let mut sorted = lengths.clone();
        sorted.sort_unstable();
        assert_eq!(sample.len(), 40);
        for (k, &row) in sample.iter().enumerate() {
            assert!((sorted[10 * k]..=sorted[10 * k + 9]).contains(&lengths[row]), "stratum {k}: {}", lengths[row]);
        }
    }

    #[test]
    fn the_seed_decides() {
        let lengths = lengths();
        assert_eq!(stratified(&lengths, 0.1, 7), stratified(&lengths, 0.1, 7));
        assert_ne!(stratified(&lengths, 0.1, 7), stratified(&lengths, 0.1, 8));
    }

    #[test]
    fn a_share_of_one_is_every_row_and_a_tiny_one_is_not_nothing() {
        let mut all = stratified(&lengths(), 1.0, 3);
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
        assert_eq!(stratified(&[5, 5, 5], 1e-9, 0).len(), 1);
        assert!(stratified(&[], 0.5, 0).is_empty());
    }
}
