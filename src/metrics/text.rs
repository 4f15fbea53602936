//! Generated text against one reference each.

use super::{Counts, Scores, bleu, mean, named, paired};
use crate::Result;

/// Whether the text is the reference, white space around both left off: case and punctuation count.
pub fn exact_match(text: &str, reference: &str) -> bool {
    text.trim() == reference.trim()
}

/// ROUGE-L of a whole text (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3) by the rules of Google's
/// `rouge_score` without its stemmer: `shared` is the length of the longest common subsequence of words, and [`Counts::f1`] the score, from
/// 0 to 1. Words are runs of a–z and 0–9 in lower case; every other character, an accented letter too, is a gap between words.
pub fn rouge_l(text: &str, reference: &str) -> Counts {
    let [text, reference] = [text, reference].map(str::to_lowercase);
    let (text, reference) = (alphanumeric(&text), alphanumeric(&reference));
    let shared = longest_common_subsequence(&text, &reference);
    Counts { shared, predicted: text.len(), reference: reference.len() }
}

/// `exact_match` (share of texts), `bleu` (of the corpus, from 0 to 100, see [`bleu::corpus`]) and `rouge_l` (mean F1).
///
/// # Errors
/// An input error for no texts, or not one for each reference.
pub fn scores<T: AsRef<str>, R: AsRef<str>>(texts: &[T], references: &[R]) -> Result<Scores> {
    paired(texts.len(), references.len())?;
    let pairs = || texts.iter().map(AsRef::as_ref).zip(references.iter().map(AsRef::as_ref));
    let single: Vec<_> = references.iter().map(|reference| [reference.as_ref()]).collect();
    Ok(named([
        ("exact_match", mean(pairs().map(|(text, reference)| f64::from(u8::from(exact_match(text, reference)))))),
        ("bleu", bleu::corpus(texts, &single)?.score()),
        ("rouge_l", mean(pairs().map(|(text, reference)| rouge_l(text, reference).f1()))),
    ]))
}

fn alphanumeric(lower: &str) -> Vec<&str> {
    let gap = |c: char| !matches!(c, 'a'..='z' | '0'..='9');
    lower.split(gap).filter(|word| !word.is_empty()).collect()
}

/// In `a.len() · b.len()` time, keeping one row of the table.
fn longest_common_subsequence(a: &[&str], b: &[&str]) -> usize {
    // lengths[j]: of the words of `a` so far and the first j of `b`.
    let mut lengths = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = lengths[j + 1];
            lengths[j + 1] = if word == other { diagonal + 1 } else { above.max(lengths[j]) };
            diagonal = above;
        }
    }
    lengths[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::golden::{assert_close, cases, of};
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/metrics/rouge.json");

    #[test]
    fn rouge_l_is_that_of_rouge_score() {
        for (name, case) in cases(GOLDEN, "cases") {
            let [text, reference] = ["prediction", "reference"].map(|key| of::<String>(&case[key]));
            let (found, expected) = (rouge_l(&text, &reference), &case["plain"]["rougeL"]);
            assert_close(found.precision(), &expected["precision"], &name);
            assert_close(found.recall(), &expected["recall"], &name);
            assert_close(found.f1(), &expected["f1"], &name);
        }
    }

    #[test]
    fn exact_match_forgives_white_space_around_and_nothing_else() {
        assert!(exact_match(" naïve\n", "naïve"));
        assert!(!exact_match("naive", "naïve") && !exact_match("a  b", "a b") && !exact_match("A", "a"));
    }

    #[test]
    fn scores_of_several_texts_computed_by_hand() {
        let scores = scores(&["the cat sat on the mat", "no"], &[" the cat sat on the mat ", "yes it is"]).unwrap();
        assert_eq!((scores["exact_match"], scores["rouge_l"]), (0.5, 0.5));
        // Precisions 6/7, 1, 1, 1; seven words against nine.
        let expected = 100.0 * (6.0f64 / 7.0).powf(0.25) * (1.0 - 9.0 / 7.0f64).exp();
        assert!((scores["bleu"] - expected).abs() < 1e-9, "{scores:?}");
        assert!(super::scores::<&str, &str>(&[], &[]).is_err());
    }

    #[test]
    fn nothing_generated_scores_nothing() {
        assert_eq!(scores(&[""], &["yes"]).unwrap().into_values().collect::<Vec<_>>(), [0.0; 3]);
    }
}
