//! A class of, or a number about, each row.

use crate::Result;
use crate::data::{Answer, Dataset};
use crate::metrics::classification::Confusion;
use crate::metrics::{Scores, correlation};

/// The likeliest class of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    pub class: usize,
    /// From 0 to 1, by softmax over the classes.
    pub probability: f64,
}

impl Chosen {
    /// From one output for each class; the first of those that are equal.
    pub(super) fn of(logits: &[f32]) -> Self {
        let class = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        let shares = logits.iter().map(|logit| f64::from(logit - logits[class]).exp());
        Self { class, probability: 1.0 / shares.sum::<f64>() }
    }
}

pub(super) fn scores(found: &[Chosen], dataset: &Dataset, classes: usize) -> Result<Scores> {
    let truth = dataset.sequences.iter().filter_map(|sequence| match sequence.answer {
        Answer::Class(class) => Some(class as usize),
        _ => None,
    });
    let found: Vec<usize> = found.iter().map(|chosen| chosen.class).collect();
    Ok(Confusion::of(&found, &truth.collect::<Vec<_>>(), classes)?.scores())
}

pub(super) fn number_scores(found: &[f64], dataset: &Dataset) -> Result<Scores> {
    let truth = dataset.sequences.iter().filter_map(|sequence| match sequence.answer {
        Answer::Number(number) => Some(f64::from(number)),
        _ => None,
    });
    correlation::scores(found, &truth.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sequence;

    #[test]
    fn the_likeliest_class_has_its_probability() {
        let chosen = Chosen::of(&[0.0, 3f32.ln(), f32::NEG_INFINITY]);
        assert_eq!(chosen.class, 1);
        assert!((chosen.probability - 0.75).abs() < 1e-7);
        assert_eq!(Chosen::of(&[2.0, 2.0]), Chosen { class: 0, probability: 0.5 });
    }

    #[test]
    fn rows_are_scored_against_their_answers() {
        let row = |answer| Sequence { answer, ..Sequence::default() };
        let sequences = [Answer::Class(0), Answer::Class(2), Answer::Class(2), Answer::Class(1)].map(row).to_vec();
        let dataset = Dataset { sequences, ..Dataset::default() };
        let found = [0, 2, 1, 1].map(|class| Chosen { class, probability: 1.0 });
        assert_eq!(scores(&found, &dataset, 3).unwrap()["accuracy"], 0.75);
        let sequences = [1.0, 2.0, 4.0].map(|number| row(Answer::Number(number))).to_vec();
        let dataset = Dataset { sequences, ..Dataset::default() };
        let spearman = number_scores(&[10.0, 20.0, 30.0], &dataset).unwrap()["spearman"];
        assert!((spearman - 1.0).abs() < 1e-12, "{spearman}");
    }
}
