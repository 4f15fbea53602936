//! Vectors of texts.

use crate::Result;
use crate::data::{Answer, Batch, Dataset};
use crate::metrics::{Scores, correlation, retrieval};
use crate::recipe::Pooling;

/// One vector of length 1 for each row of a batch, from its tokens' `[rows × len × width]`.
pub(super) fn pooled(batch: &Batch, tokens: &[f32], pooling: Pooling) -> Vec<Vec<f32>> {
    let (n, weights) = (batch.rows * batch.len, batch.pooling_weights(pooling));
    let width = tokens.len() / n.max(1);
    let row = |row: usize| {
        let mut vector = vec![0.0f32; width];
        let own = row * batch.len..(row + 1) * batch.len;
        for token in own {
            let weight = weights[row * n + token];
            let values = &tokens[token * width..(token + 1) * width];
            vector.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        vector
    };
    (0..batch.rows).map(row).collect()
}

/// Among all texts that some row should be like: how near the front the row's own is; and, where rows have scores, how the cosines
/// are ordered as they are.
pub(super) fn scores(texts: &[Vec<f32>], others: &[Vec<f32>], dataset: &Dataset) -> Result<Scores> {
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let given = dataset.sequences.iter().filter_map(|sequence| match sequence.answer {
        Answer::Alike { score, .. } => score.map(f64::from),
        _ => None,
    });
    let given: Vec<f64> = given.collect();
    if !given.is_empty() && given.len() == texts.len() {
        let found: Vec<f64> = texts.iter().zip(others).map(|(a, b)| cosine(a, b)).collect();
        return Ok(Scores::from([("spearman".to_string(), correlation::spearman(&found, &given)?)]));
    }
    let rank = |(row, text): (usize, &Vec<f32>)| {
        let cosines: Vec<f64> = others.iter().map(|other| cosine(text, other)).collect();
        retrieval::rank(&cosines, row)
    };
    retrieval::scores(&texts.iter().enumerate().map(rank).collect::<Result<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sequence;

    fn batch() -> Batch {
        Batch { rows: 2, len: 2, segment: vec![1, 1, 1, 0], ..Batch::default() }
    }

    #[test]
    fn padding_is_not_pooled_and_lengths_are_one() {
        let tokens = [3.0, 0.0, 3.0, 8.0, 0.0, 2.0, 7.0, 7.0];
        let [mean, cls, last] =
            [Pooling::Mean, Pooling::Cls, Pooling::Last].map(|pooling| pooled(&batch(), &tokens, pooling));
        assert_eq!(mean, [[0.6, 0.8], [0.0, 1.0]]);
        assert_eq!(cls, [[1.0, 0.0], [0.0, 1.0]]);
        assert!((last[0][0] - 3.0 / 73f32.sqrt()).abs() < 1e-6 && last[1] == [0.0, 1.0]);
    }

    #[test]
    fn a_rows_own_text_is_ranked_among_all() {
        let row = |score| Sequence { answer: Answer::Alike { others: Vec::new(), score }, ..Sequence::default() };
        let texts = [vec![1.0, 0.0], vec![0.0, 1.0]];
        let (right, swapped) = ([vec![0.8, 0.6], vec![0.6, 0.8]], [vec![0.6, 0.8], vec![0.8, 0.6]]);
        let plain = Dataset { sequences: vec![row(None), row(None)], ..Dataset::default() };
        assert_eq!(scores(&texts, &right, &plain).unwrap()["recall_at_1"], 1.0);
        assert_eq!(scores(&texts, &swapped, &plain).unwrap()["recall_at_1"], 0.0);
        let scored = Dataset { sequences: vec![row(Some(0.9)), row(Some(0.1))], ..Dataset::default() };
        let spearman = scores(&texts, &[vec![0.9, 0.1], vec![0.9, 0.1]], &scored).unwrap()["spearman"];
        assert!((spearman - 1.0).abs() < 1e-12, "{spearman}");
    }
}
