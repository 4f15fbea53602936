//! The part of a context that answers a question, over all windows of the context.

use crate::Result;
use crate::data::Reference;
use crate::metrics::{Scores, squad};

/// Tokens of the longest answer, as in BERT's own program for SQuAD (Devlin et al. 2019).
const LONGEST: usize = 30;

/// What was found for one passage.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Empty where the context has no answer.
    pub text: String,
    /// Characters of the context before it.
    pub start: usize,
    /// Its two outputs together, over those of there being no answer.
    pub margin: f64,
    best: f32,
    /// The least that any window gave to there being no answer: each says so of what lies outside it.
    none: f32,
}

/// Nothing about any passage yet.
pub(super) fn unread(reference: &Reference) -> Vec<Found> {
    let passages = if let Reference::Windows { passages, .. } = reference { passages.len() } else { 0 };
    let (best, none) = (f32::NEG_INFINITY, f32::INFINITY);
    vec![Found { text: String::new(), start: 0, margin: 0.0, best, none }; passages]
}

/// Takes the best span of a window, if it is the best of its passage so far; `at` gives the two outputs at a position of the row.
pub(super) fn read_window<'a>(found: &mut [Found], reference: &Reference, row: usize, at: impl Fn(usize) -> &'a [f32]) {
    let Reference::Windows { passages, windows } = reference else { return };
    let (window, passage) = (&windows[row], &passages[windows[row].passage]);
    let found = &mut found[window.passage];
    found.none = found.none.min(at(0)[0] + at(0)[1]);
    let inside: Vec<usize> = (0..window.spans.len()).filter(|&position| window.spans[position].is_some()).collect();
    for (i, &first) in inside.iter().enumerate() {
        for &last in inside[i..].iter().take(LONGEST) {
            let score = at(first)[0] + at(last)[1];
            if let Some(text) = (score > found.best).then(|| passage.text(window, first, last)).flatten() {
                let start = window.spans[first].as_ref().map_or(0, |bytes| bytes.start);
                (found.best, found.text, found.start) = (score, text.to_string(), passage.characters_before(start));
            }
        }
    }
    found.margin = f64::from(found.best - found.none);
}

impl Found {
    /// The answer; none where there being none is likelier.
    pub fn answer(&self) -> Option<&str> {
        (self.margin >= 0.0 && !self.text.is_empty()).then_some(self.text.as_str())
    }
}

pub(super) fn scores(found: &[Found], reference: &Reference) -> Result<Scores> {
    let Reference::Windows { passages, .. } = reference else { return Ok(Scores::new()) };
    let answers: Vec<&str> = found.iter().map(|found| found.answer().unwrap_or_default()).collect();
    let references: Vec<&[String]> = passages.iter().map(|passage| passage.references.as_slice()).collect();
    squad::scores(&answers, &references)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Passage, Window};

    fn reference() -> Reference {
        let context = "Kelso is a town in Scotland".to_string();
        let passage = Passage { context, references: vec!["a town".into()], ..Passage::default() };
        let first = vec![None, Some(0..5), Some(6..8), Some(9..10), Some(11..15), None];
        let second = vec![None, Some(11..15), Some(16..18), Some(19..27), None];
        let window = |spans| Window { passage: 0, spans };
        Reference::Windows { passages: vec![passage], windows: vec![window(first), window(second)] }
    }

    /// Start and end of a window of `len` tokens score high at the given positions.
    fn outputs(len: usize, [start, end]: [usize; 2], score: f32) -> Vec<[f32; 2]> {
        (0..len).map(|i| [if i == start { score } else { 0.0 }, if i == end { score } else { 0.0 }]).collect()
    }

    fn read(first: &[[f32; 2]], second: &[[f32; 2]]) -> Found {
        let mut found = unread(&reference());
        read_window(&mut found, &reference(), 0, |position| &first[position]);
        read_window(&mut found, &reference(), 1, |position| &second[position]);
        found.remove(0)
    }

    #[test]
    fn the_best_window_gives_the_text() {
        let found = read(&outputs(6, [3, 4], 5.0), &outputs(5, [3, 3], 3.0));
        assert_eq!((found.answer(), found.start, found.margin), (Some("a town"), 9, 10.0));
        assert_eq!(scores(&[found], &reference()).unwrap()["exact_match"], 1.0);
        let found = read(&outputs(6, [3, 4], 2.0), &outputs(5, [3, 3], 3.0));
        assert_eq!((found.answer(), found.start), (Some("Scotland"), 19));
    }

    #[test]
    fn no_answer_needs_every_window_to_say_so() {
        let none = outputs(6, [0, 0], 9.0);
        assert_eq!(read(&none, &none[..5]).answer(), None);
        assert_eq!(read(&none, &outputs(5, [3, 3], 3.0)).answer(), Some("Scotland"));
    }

    #[test]
    fn an_end_before_its_start_is_no_span() {
        let found = read(&outputs(6, [4, 1], 5.0), &outputs(5, [9, 9], 0.0));
        assert!(found.best < 10.0 && found.answer().is_some());
    }
}
