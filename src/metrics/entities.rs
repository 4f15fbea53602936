//! Named entities in tagged sentences, by seqeval's rules in its default mode, which are those of `conlleval`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Counts, Scores, named, paired};
use crate::{Error, Result};

/// A type and the words it spans.
pub type Entity<'a> = (&'a str, Range<usize>);

/// Entities found, counted against those there. One counts as found if its type and both its ends are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entities {
    by_type: BTreeMap<String, Counts>,
}

impl Entities {
    /// IOB2 tags (`O`, `B-TYPE`, `I-TYPE`) of the words of each sentence.
    ///
    /// # Errors
    /// An input error for no sentences, not one prediction for each of them or for each of their words, and a tag that is not IOB2's.
    pub fn of<P: AsRef<str>, T: AsRef<str>>(predicted: &[Vec<P>], truth: &[Vec<T>]) -> Result<Self> {
        paired(predicted.len(), truth.len())?;
        let mut by_type = BTreeMap::<String, Counts>::new();
        for (row, (predicted, truth)) in predicted.iter().zip(truth).enumerate() {
            if predicted.len() != truth.len() {
                let error = Error::input("there must be one predicted tag for each word").row(row);
                return Err(error.found(predicted.len()).expected(truth.len()).into());
            }
            let (predicted, truth) = (entities(predicted)?, entities(truth)?);
            for (kind, span) in &predicted {
                let counts = by_type.entry((*kind).to_string()).or_default();
                counts.predicted += 1;
                // Both lists are in the order of their ends.
                let same = truth.binary_search_by_key(&span.end, |(_, span)| span.end);
                counts.shared += usize::from(same.is_ok_and(|at| truth[at] == (*kind, span.clone())));
            }
            for (kind, _) in &truth {
                by_type.entry((*kind).to_string()).or_default().reference += 1;
            }
        }
        Ok(Self { by_type })
    }

    /// Precision, recall and F1 of each type that occurs in the truth or among the predictions, in alphabetical order.
    pub fn by_type(&self) -> &BTreeMap<String, Counts> {
        &self.by_type
    }

    /// All types counted together: seqeval's `micro avg`, the `overall_*` of Hugging Face's `evaluate`.
    pub fn micro(&self) -> Counts {
        self.by_type.values().copied().sum()
    }

    /// `f1`, `precision`, `recall` of [`micro`](Self::micro), what runs are compared by first, from 0 to 1; 0 where no entity was predicted, or none is there.
    pub fn scores(&self) -> Scores {
        let micro = self.micro();
        named([("f1", micro.f1()), ("precision", micro.precision()), ("recall", micro.recall())])
    }
}

/// The entities of a sentence in their order. An `I-` that does not go on with an entity of its type begins one. A tag without a type (`B`)
/// has the type `_`.
///
/// # Errors
/// An input error for a tag that is not IOB2's.
pub fn entities<T: AsRef<str>>(tags: &[T]) -> Result<Vec<Entity<'_>>> {
    let mut entities: Vec<Entity<'_>> = Vec::new();
    for (word, tag) in tags.iter().enumerate() {
        let Some((begins, kind)) = parse(tag.as_ref())? else { continue };
        match entities.last_mut() {
            Some((last, span)) if !begins && *last == kind && span.end == word => span.end += 1,
            _ => entities.push((kind, word..word + 1)),
        }
    }
    Ok(entities)
}

/// Whether a tag begins an entity in any case, and the type; none for `O`.
fn parse(tag: &str) -> Result<Option<(bool, &str)>> {
    let (position, kind) = tag.split_once('-').unwrap_or((tag, "_"));
    let kind = if kind.is_empty() { "_" } else { kind };
    match (position, tag) {
        (_, "O") => Ok(None),
        ("B", _) => Ok(Some((true, kind))),
        ("I", _) => Ok(Some((false, kind))),
        _ => Err(Error::input("not a tag of IOB2").found(tag).expected("O | B-TYPE | I-TYPE").into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::golden::{assert_close, cases, of};
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/metrics/seqeval.json");

    fn assert_entities(tags: &[Vec<String>], expected: &Value, name: &str) {
        for (tags, expected) in tags.iter().zip(of::<Vec<Vec<(String, usize, usize)>>>(expected)) {
            let found = entities(tags).unwrap();
            let found: Vec<_> =
                found.into_iter().map(|(kind, span)| (kind.to_string(), span.start, span.end)).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn entities_and_scores_are_those_of_seqeval() {
        for (name, case) in cases(GOLDEN, "cases") {
            let [truth, predicted] = ["y_true", "y_pred"].map(|key| of::<Vec<Vec<String>>>(&case[key]));
            assert_entities(&truth, &case["entities_true"], &name);
            assert_entities(&predicted, &case["entities_pred"], &name);
            let entities = Entities::of(&predicted, &truth).unwrap();
            for (metric, value) in entities.scores() {
                assert_close(value, &case["default"]["micro"][&metric], &format!("{name}: {metric}"));
            }
            let by_type = case["default"]["by_type"].as_object().unwrap();
            assert!(entities.by_type().keys().eq(by_type.keys()), "{name}");
            for (counts, expected) in entities.by_type().values().zip(by_type.values()) {
                assert_close(counts.precision(), &expected["precision"], &name);
                assert_close(counts.recall(), &expected["recall"], &name);
                assert_close(counts.f1(), &expected["f1-score"], &name);
                assert_eq!(counts.reference, of::<usize>(&expected["support"]), "{name}");
            }
        }
    }

    #[test]
    fn an_entity_with_one_end_right_is_not_found() {
        let entities = Entities::of(&[vec!["O", "B-A", "I-A"]], &[vec!["B-A", "I-A", "I-A"]]).unwrap();
        assert_eq!(entities.micro(), Counts { shared: 0, predicted: 1, reference: 1 });
    }

    #[test]
    fn types_may_be_missing_or_of_any_script() {
        let tags = ["B", "I-", "B-人名", "I-人名", "I"];
        assert_eq!(entities(&tags).unwrap(), [("_", 0..2), ("人名", 2..4), ("_", 4..5)]);
    }

    #[test]
    fn what_is_not_tagged_word_by_word_is_refused() {
        let told =
            |predicted: &[Vec<&str>], truth: &[Vec<&str>]| Entities::of(predicted, truth).unwrap_err().to_string();
        assert_eq!(told(&[], &[]), "there is nothing to score");
        let short = told(&[vec!["O"]], &[vec!["O", "O"]]);
        assert_eq!(short, "row 0: there must be one predicted tag for each word; found 1; expected 2");
        for tag in ["E-PER", "PER", "O-PER", "", "b-PER"] {
            assert!(told(&[vec![tag]], &[vec!["O"]]).starts_with("not a tag of IOB2"), "{tag}");
        }
    }
}
