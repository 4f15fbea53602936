//! How good a model is at its task: plain functions over ids, numbers and text, with no tensors and no files.
//!
//! | module | scores | rules of |
//! |---|---|---|
//! | [`classification`] | `accuracy`, `macro_f1`, `micro_f1`, `matthews` | scikit-learn |
//! | [`correlation`] | `pearson`, `spearman` | scipy |
//! | [`entities`] | `precision`, `recall`, `f1` | seqeval, default mode |
//! | [`squad`] | `exact_match`, `f1` | `evaluate-v2.0.py` |
//! | [`text`] | `exact_match`, `bleu`, `rouge_l` | sacrebleu ([`bleu`]), rouge_score |
//! | [`retrieval`] | `recall_at_1`, `recall_at_5`, `recall_at_10` | the definition |
//!
//! Each module's `scores` has what a task reports, under these names. Shares are from 0 to 1 and BLEU, like sacrebleu's, from 0 to 100.
//! Which way is better, what a name reads like and how its number is written: [`better`], [`label`], [`written`].
//!
//! Nothing to score is an error everywhere, as are lists of different lengths; a share of nothing, such as the precision of a class that is
//! never predicted, is 0.

pub mod bleu;
pub mod classification;
pub mod correlation;
mod counts;
pub mod entities;
#[cfg(test)]
mod golden;
pub mod retrieval;
pub mod squad;
pub mod text;

use indexmap::IndexMap;

pub use crate::compare::metric::{Better, better, label, written};
pub use counts::Counts;

use crate::{Error, Result};

/// What a task reports, in the order in which it is shown: the `metrics` of [`Eval`](crate::events::Eval).
pub type Scores = IndexMap<String, f64>;

fn named<const N: usize>(scores: [(&str, f64); N]) -> Scores {
    scores.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// # Errors
/// An input error if there is nothing to score, or not one prediction for each reference.
fn paired(predictions: usize, references: usize) -> Result<()> {
    if references == 0 {
        return Err(Error::input("there is nothing to score").into());
    }
    if predictions != references {
        let error = Error::input("there must be one prediction for each reference").found(predictions);
        return Err(error.expected(references).into());
    }
    Ok(())
}

/// Of at least one value.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// White space as the reference programs' language, Python, has it: also the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_without_a_partner_are_refused() {
        assert!(paired(2, 2).is_ok());
        let told = |predictions, references| paired(predictions, references).unwrap_err().to_string();
        assert_eq!(told(0, 0), "there is nothing to score");
        assert_eq!(told(1, 2), "there must be one prediction for each reference; found 1; expected 2");
    }

    #[test]
    fn words_are_those_of_python() {
        assert_eq!(words(" a\u{a0}b\x1fc\u{3000}\n d\u{200b}e ").collect::<Vec<_>>(), ["a", "b", "c", "d\u{200b}e"]);
    }

    #[test]
    fn every_name_of_a_task_has_its_row_in_the_table_of_metrics() {
        let class = classification::Confusion::of(&[0], &[0], 1).unwrap().scores();
        let tags = [vec!["B-A"]];
        let reported = [
            class,
            correlation::scores(&[1.0, 2.0], &[1.0, 2.0]).unwrap(),
            entities::Entities::of(&tags, &tags).unwrap().scores(),
            squad::scores(&["a"], &[["a"]]).unwrap(),
            text::scores(&["a"], &["a"]).unwrap(),
            retrieval::scores(&[1]).unwrap(),
        ];
        for name in reported.iter().flat_map(IndexMap::keys) {
            assert!(crate::compare::metric::Metric::named(name).is_some(), "{name}");
        }
    }
}
