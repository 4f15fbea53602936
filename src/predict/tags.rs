//! A class of each word, read at the word's first token.

use super::Chosen;
use crate::Result;
use crate::data::{Answer, Dataset, Reference};
use crate::metrics::Scores;
use crate::metrics::entities::Entities;

/// The classes of one row's words; `at` gives the outputs at a position of the row.
pub(super) fn of_row<'a>(reference: &Reference, row: usize, at: impl Fn(usize) -> &'a [f32]) -> Vec<Option<usize>> {
    let Reference::Words(words) = reference else { return Vec::new() };
    words[row].position.iter().map(|position| position.map(|position| Chosen::of(at(position)).class)).collect()
}

/// Words that were cut off are in neither list.
pub(super) fn scores(found: &[Vec<Option<usize>>], dataset: &Dataset, labels: &[String]) -> Result<Scores> {
    let name = |class: usize| labels.get(class).map_or("", String::as_str);
    let (mut predicted, mut truth) = (Vec::new(), Vec::new());
    for (row, found) in found.iter().enumerate() {
        let (Reference::Words(words), Answer::Tags(tags)) = (&dataset.reference, &dataset.sequences[row].answer) else {
            continue;
        };
        let there =
            words[row].position.iter().zip(found).filter_map(|(position, class)| Some(((*position)?, (*class)?)));
        let (of_row, own): (Vec<_>, Vec<_>) =
            there.map(|(position, class)| (name(class), name(tags[position] as usize))).unzip();
        predicted.push(of_row);
        truth.push(own);
    }
    Ok(Entities::of(&predicted, &truth)?.scores())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{IGNORE, Sequence, Words};

    #[test]
    fn words_are_read_at_their_first_token_and_scored_as_entities() {
        let labels = ["O", "B-PER", "I-PER"].map(String::from);
        let answer = Answer::Tags(vec![IGNORE, 1, IGNORE, 2, 0, IGNORE]);
        let dataset = Dataset {
            sequences: vec![Sequence { answer, ..Sequence::default() }],
            reference: Reference::Words(vec![Words { position: vec![Some(1), Some(3), Some(4), None] }]),
            ..Dataset::default()
        };
        let outputs: Vec<[f32; 3]> =
            [0, 1, 2, 2, 0, 1].map(|class| std::array::from_fn(|i| f32::from(i == class))).to_vec();
        let found = of_row(&dataset.reference, 0, |position| &outputs[position]);
        assert_eq!(found, [Some(1), Some(2), Some(0), None]);
        let score = |found: Vec<Option<usize>>| scores(&[found], &dataset, &labels).unwrap()["f1"];
        assert_eq!(score(found), 1.0);
        assert_eq!(score(vec![Some(1), Some(0), Some(0), None]), 0.0);
    }
}
