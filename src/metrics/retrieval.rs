//! Vectors that should lie near each other, and lists that should have the right things first.

use super::correlation::spearman;
use super::{Scores, mean, named, paired};
use crate::{Error, Result};

/// `a · b / (‖a‖ ‖b‖)`, from −1 to 1, summed in f64; 0 if a vector is zero.
///
/// # Errors
/// An input error for vectors of different lengths.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> Result<f64> {
    if a.len() != b.len() {
        let error = Error::input("vectors must be of one length");
        return Err(error.found(format!("{} and {}", a.len(), b.len())).into());
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norm = dot(a, a).sqrt() * dot(b, b).sqrt();
    Ok(if norm == 0.0 { 0.0 } else { (dot(a, b) / norm).clamp(-1.0, 1.0) })
}

/// Spearman's correlation of the cosine similarities of pairs of vectors with how alike the pairs are, from −1 to 1: what
/// semantic textual similarity is scored by (Reimers and Gurevych 2019, "Sentence-BERT", section 4).
///
/// # Errors
/// As for [`cosine_similarity`] and [`spearman`].
pub fn spearman_cosine(pairs: &[[Vec<f32>; 2]], truth: &[f64]) -> Result<f64> {
    let similarities = pairs.iter().map(|[a, b]| cosine_similarity(a, b)).collect::<Result<Vec<_>>>()?;
    spearman(&similarities, truth)
}

/// Share of the `relevant` that are among the first `k` of a ranking, from 0 to 1; none if nothing is relevant.
pub fn recall_at<T: PartialEq>(ranking: &[T], relevant: &[T], k: usize) -> Option<f64> {
    let first = &ranking[..k.min(ranking.len())];
    let found = relevant.iter().filter(|id| first.contains(id)).count();
    (!relevant.is_empty()).then(|| found as f64 / relevant.len() as f64)
}

/// Rank of the candidate `gold` from 1, highest score first. Equal scores keep the order of the candidates, and NaN comes last.
///
/// # Errors
/// An input error if there is no such candidate.
pub fn rank(scores: &[f64], gold: usize) -> Result<usize> {
    let Some(&own) = scores.get(gold) else {
        let error = Error::input("no such candidate").found(gold);
        return Err(error.expected(format!("an index below {}", scores.len())).into());
    };
    let is_above = |score: f64| score > own || (own.is_nan() && !score.is_nan());
    let is_equal = |score: f64| score == own || (own.is_nan() && score.is_nan());
    let above = scores.iter().filter(|&&score| is_above(score)).count();
    let equal = scores[..gold].iter().filter(|&&score| is_equal(score)).count();
    Ok(1 + above + equal)
}

/// `recall_at_1`, `recall_at_5`, `recall_at_10` of queries with one right candidate each: the share whose [`rank`] is at most that.
///
/// # Errors
/// An input error for no queries.
pub fn scores(ranks: &[usize]) -> Result<Scores> {
    paired(ranks.len(), ranks.len())?;
    let within = |k: usize| mean(ranks.iter().map(|rank| f64::from(u8::from(*rank <= k))));
    Ok(named([("recall_at_1", within(1)), ("recall_at_5", within(5)), ("recall_at_10", within(10))]))
}

#[cfg(test)]
mod tests {
    use super::super::golden::{assert_close, cases, of};
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/metrics/retrieval.json");

    #[test]
    fn recall_of_rankings_is_by_its_definition() {
        let file: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        for k in [1, 2, 3, 5, 10] {
            let key = format!("recall@{k}");
            let mut known = Vec::new();
            for (name, case) in cases(GOLDEN, "cases") {
                let [ranking, relevant] = ["ranking", "relevant"].map(|key| of::<Vec<String>>(&case[key]));
                let found = recall_at(&ranking, &relevant, k);
                assert_close(found.unwrap_or(f64::NAN), &case["expected"][&key], &format!("{name}: {key}"));
                known.extend(found);
            }
            assert_close(mean(known.into_iter()), &file["mean_over_queries"][&key], &key);
        }
    }

    #[test]
    fn ranks_in_a_matrix_of_scores_are_by_their_definition() {
        for (name, case) in cases(GOLDEN, "score_matrices") {
            let (rows, gold): (Vec<Vec<f64>>, Vec<usize>) = (of(&case["scores"]), of(&case["gold"]));
            let ranks: Vec<_> = rows.iter().zip(gold).map(|(scores, gold)| rank(scores, gold).unwrap()).collect();
            assert_eq!(ranks, of::<Vec<usize>>(&case["ranks"]), "{name}");
            let scores = scores(&ranks).unwrap();
            assert_close(scores["recall_at_1"], &case["recall@1"], &name);
            assert_close(scores["recall_at_5"], &case["recall@5"], &name);
        }
    }

    #[test]
    fn a_score_that_is_not_a_number_is_never_first() {
        let scores = [f64::NAN, -1.0, f64::NAN];
        assert_eq!([0, 1, 2].map(|gold| rank(&scores, gold).unwrap()), [2, 1, 3]);
        assert!(rank(&scores, 3).unwrap_err().to_string().contains("expected an index below 3"));
        assert!(super::scores(&[]).is_err());
    }

    #[test]
    fn similarities_are_those_computed_by_hand() {
        let similar = |a: &[f32], b: &[f32]| cosine_similarity(a, b).unwrap();
        assert!((similar(&[1.0, 2.0], &[2.0, 1.0]) - 0.8).abs() < 1e-12);
        assert_eq!((similar(&[3.0, 4.0], &[-6.0, -8.0]), similar(&[0.0, 0.0], &[1.0, 0.0])), (-1.0, 0.0));
        assert!(cosine_similarity(&[1.0], &[1.0, 2.0]).unwrap_err().to_string().contains("found 1 and 2"));
        // Similarities 0, 1, √½: in the order of 1, 5, 2.
        let pairs = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]].map(|vector: [f32; 2]| [vec![0.0, 2.0], vector.to_vec()]);
        assert!((spearman_cosine(&pairs, &[1.0, 5.0, 2.0]).unwrap() - 1.0).abs() < 1e-12);
    }
}
