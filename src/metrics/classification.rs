//! One class for each row: accuracy, F1 and Matthews' correlation, by scikit-learn's rules.

use super::{Counts, Scores, named, paired};
use crate::{Error, Result};

/// Predictions counted against the truth, class by class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// `[classes]`
    by_class: Vec<Counts>,
}

impl Confusion {
    /// Class ids of each row, below `classes`.
    ///
    /// # Errors
    /// An input error for no rows, not one prediction for each of them, and an id that is no class.
    pub fn of(predicted: &[usize], truth: &[usize], classes: usize) -> Result<Self> {
        paired(predicted.len(), truth.len())?;
        let mut by_class = vec![Counts::default(); classes];
        for (row, (&predicted, &truth)) in predicted.iter().zip(truth).enumerate() {
            let highest = predicted.max(truth);
            if highest >= classes {
                let error = Error::input("no such class").row(row).found(highest);
                return Err(error.expected(format!("an id below {classes}")).into());
            }
            by_class[predicted].predicted += 1;
            by_class[truth].reference += 1;
            by_class[truth].shared += usize::from(predicted == truth);
        }
        Ok(Self { by_class })
    }

    /// Precision, recall and F1 of each class against the rest: `[classes]`.
    pub fn by_class(&self) -> &[Counts] {
        &self.by_class
    }

    /// Share of rows whose class was predicted, from 0 to 1 (`accuracy_score`).
    pub fn accuracy(&self) -> f64 {
        self.all().recall()
    }

    /// Mean of the classes' F1, from 0 to 1, over the classes that occur in the truth or among the predictions
    /// (`f1_score(average="macro", zero_division=0)`).
    pub fn macro_f1(&self) -> f64 {
        let occurs = |counts: &&Counts| counts.predicted + counts.reference > 0;
        let occurring: Vec<_> = self.by_class.iter().filter(occurs).collect();
        super::mean(occurring.iter().map(|counts| counts.f1()))
    }

    /// F1 of all classes counted together, from 0 to 1 (`f1_score(average="micro")`); with one class a row it equals the accuracy.
    pub fn micro_f1(&self) -> f64 {
        self.all().f1()
    }

    /// Matthews' correlation of predictions and truth, from −1 to 1, for any number of classes: R_K of Gorodkin 2004, "Comparing two
    /// K-category assignments by a K-category correlation coefficient", equation 8 (`matthews_corrcoef`). With s rows, c of them right, and
    /// pₖ predictions and tₖ truths of class k,
    ///
    /// ```text
    /// R_K = (c s − Σ pₖ tₖ) / √((s² − Σ pₖ²) (s² − Σ tₖ²))
    /// ```
    ///
    /// 0 if all predictions, or all truths, are of one class.
    pub fn matthews(&self) -> f64 {
        let Counts { shared, predicted: rows, .. } = self.all();
        let sum = |of: fn(&Counts) -> usize| self.by_class.iter().map(of).sum::<usize>();
        // In integers, so that differences are exact.
        let covariance = (shared * rows) as f64 - sum(|c| c.predicted * c.reference) as f64;
        let of_predictions = (rows * rows - sum(|c| c.predicted * c.predicted)) as f64;
        let of_truths = (rows * rows - sum(|c| c.reference * c.reference)) as f64;
        let norm = (of_predictions * of_truths).sqrt();
        if norm == 0.0 { 0.0 } else { covariance / norm }
    }

    /// `accuracy`, `macro_f1`, `micro_f1`, `matthews`.
    pub fn scores(&self) -> Scores {
        named([
            ("accuracy", self.accuracy()),
            ("macro_f1", self.macro_f1()),
            ("micro_f1", self.micro_f1()),
            ("matthews", self.matthews()),
        ])
    }

    fn all(&self) -> Counts {
        self.by_class.iter().copied().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{assert_close, cases, of};
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/metrics/classification.json");

    #[test]
    fn scores_are_those_of_scikit_learn() {
        for (name, case) in cases(GOLDEN, "cases") {
            // More classes than occur, as in a task whose held-out rows lack some.
            let confusion = Confusion::of(&of::<Vec<_>>(&case["y_pred"]), &of::<Vec<_>>(&case["y_true"]), 9).unwrap();
            for (metric, value) in confusion.scores() {
                assert_close(value, &case[&metric], &format!("{name}: {metric}"));
            }
            for class in case["per_class"].as_array().unwrap() {
                let counts = confusion.by_class()[of::<usize>(&class["label"])];
                assert_close(counts.precision(), &class["precision"], &name);
                assert_close(counts.recall(), &class["recall"], &name);
                assert_close(counts.f1(), &class["f1"], &name);
                assert_eq!(counts.reference, of::<usize>(&class["support"]), "{name}");
            }
        }
    }

    #[test]
    fn rows_that_cannot_be_counted_are_refused() {
        let told = |predicted: &[usize], truth: &[usize]| Confusion::of(predicted, truth, 2).unwrap_err().to_string();
        assert_eq!(told(&[], &[]), "there is nothing to score");
        assert_eq!(told(&[0, 2], &[0, 1]), "row 1: no such class; found 2; expected an id below 2");
    }

    #[test]
    fn three_wrong_of_three_computed_by_hand() {
        let confusion = Confusion::of(&[1, 2, 0], &[0, 1, 2], 3).unwrap();
        // (0 · 3 − 3) / √((9 − 3) (9 − 3)).
        assert_eq!(confusion.scores().into_values().collect::<Vec<_>>(), [0.0, 0.0, 0.0, -0.5]);
    }
}
