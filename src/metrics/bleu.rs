//! BLEU of a corpus (Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation"), by sacrebleu's rules:
//! `case:mixed|eff:no|tok:13a|smooth:exp` (Post 2018, "A Call for Clarity in Reporting BLEU Scores").

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use super::{is_space, paired, words};
use crate::{Error, Result};

/// n-grams of one to four words.
const ORDERS: usize = 4;

/// What BLEU is made of, summed over a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bleu {
    /// n-grams of each order that a reference has too, each at most as often as the reference that has it most often.
    pub matches: [usize; ORDERS],
    /// n-grams of each order in the hypotheses.
    pub totals: [usize; ORDERS],
    /// Words of the hypotheses.
    pub hypothesis_len: usize,
    /// Words of the references: for each hypothesis the one nearest in length, the shorter of two that are as near.
    pub reference_len: usize,
}

/// Hypotheses against one or more references each.
///
/// # Errors
/// An input error for no hypotheses, not one list of references for each of them, and an empty list.
pub fn corpus<H: AsRef<str>, R: AsRef<str>>(hypotheses: &[H], references: &[impl AsRef<[R]>]) -> Result<Bleu> {
    paired(hypotheses.len(), references.len())?;
    let mut bleu = Bleu::default();
    for (row, (hypothesis, references)) in hypotheses.iter().zip(references).enumerate() {
        if references.as_ref().is_empty() {
            return Err(Error::input("there is no reference").row(row).into());
        }
        let references: Vec<_> = references.as_ref().iter().map(|reference| tokenize(reference.as_ref())).collect();
        bleu.add(&tokenize(hypothesis.as_ref()), &references);
    }
    Ok(bleu)
}

impl Bleu {
    /// The geometric mean of the [`precisions`](Self::precisions), times the [`brevity_penalty`](Self::brevity_penalty): from 0 to 100.
    pub fn score(&self) -> f64 {
        let logs = self.precisions().map(f64::ln);
        self.brevity_penalty() * (logs.iter().sum::<f64>() / ORDERS as f64).exp()
    }

    /// Of each order in percent. The i-th of them without a match counts as 1 / 2ⁱ of a match (Chen and Cherry 2014, smoothing 3), unless
    /// nothing matches at all; an order of which the hypotheses have no n-gram is 0, and with it the score.
    pub fn precisions(&self) -> [f64; ORDERS] {
        let mut precisions = [0.0; ORDERS];
        if self.matches == [0; ORDERS] {
            return precisions;
        }
        let mut smoothed = 1.0;
        for (order, precision) in precisions.iter_mut().enumerate().filter(|(order, _)| self.totals[*order] > 0) {
            let matches = match self.matches[order] {
                0 => {
                    smoothed /= 2.0;
                    smoothed
                }
                matches => matches as f64,
            };
            *precision = 100.0 * matches / self.totals[order] as f64;
        }
        precisions
    }

    /// exp(1 − references / hypotheses), by their words, where the hypotheses have fewer; else 1.
    pub fn brevity_penalty(&self) -> f64 {
        match (self.hypothesis_len, self.reference_len) {
            (hypotheses, references) if hypotheses >= references => 1.0,
            (hypotheses, references) => (1.0 - references as f64 / hypotheses as f64).exp(),
        }
    }

    fn add(&mut self, hypothesis: &str, references: &[String]) {
        let hypothesis: Vec<_> = words(hypothesis).collect();
        let references: Vec<Vec<_>> = references.iter().map(|reference| words(reference).collect()).collect();
        let length = hypothesis.len();
        let nearest = references.iter().map(Vec::len).min_by_key(|&other| (other.abs_diff(length), other));
        self.hypothesis_len += length;
        self.reference_len += nearest.unwrap_or(0);
        for order in 0..ORDERS {
            let references: Vec<_> = references.iter().map(|reference| ngrams(reference, order + 1)).collect();
            for (ngram, count) in ngrams(&hypothesis, order + 1) {
                let most = references.iter().filter_map(|reference| reference.get(ngram)).max();
                self.matches[order] += count.min(most.copied().unwrap_or(0));
                self.totals[order] += count;
            }
        }
    }
}

fn ngrams<'a, 'b>(words: &'a [&'b str], n: usize) -> HashMap<&'a [&'b str], usize> {
    let mut counts = HashMap::new();
    words.windows(n).for_each(|ngram| *counts.entry(ngram).or_default() += 1);
    counts
}

/// mteval-v13a as sacrebleu has it: one space between tokens.
fn tokenize(text: &str) -> String {
    /// Punctuation stands alone, full stop and comma only where no digit is on their other side, a dash only after a digit.
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            (r"([\{-~\[-` -\&\(-\+:-@/])", " ${1} "),
            (r"([^0-9])([\.,])", "${1} ${2} "),
            (r"([\.,])([^0-9])", " ${1} ${2}"),
            (r"([0-9])(-)", "${1} ${2} "),
        ]
        .map(|(pattern, with)| (Regex::new(pattern).expect("a pattern of this file"), with))
    });
    let text = text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let text = RULES.iter().fold(format!(" {text} "), |text, (rule, with)| rule.replace_all(&text, *with).into_owned());
    words(&text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::golden::{assert_close, cases, of};
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/metrics/bleu.json");

    #[test]
    fn scores_and_what_they_are_made_of_are_those_of_sacrebleu() {
        for (name, case) in cases(GOLDEN, "cases") {
            let hypotheses: Vec<String> = of(&case["hypotheses"]);
            let sets: Vec<Vec<String>> = of(&case["references"]);
            let of_row = |row: usize| sets.iter().map(|set| set[row].clone()).collect::<Vec<_>>();
            let references: Vec<_> = (0..hypotheses.len()).map(of_row).collect();
            let tokens: Vec<_> = hypotheses.iter().map(|text| tokenize(text)).collect();
            assert_eq!(tokens, of::<Vec<String>>(&case["tokenized_13a"]), "{name}");
            let bleu = corpus(&hypotheses, &references).unwrap();
            assert_eq!((bleu.matches, bleu.totals), (of(&case["counts"]), of(&case["totals"])), "{name}");
            let lengths = (bleu.hypothesis_len, bleu.reference_len);
            assert_eq!(lengths, (of(&case["sys_len"]), of(&case["ref_len"])), "{name}");
            assert_close(bleu.brevity_penalty(), &case["bp"], &name);
            for (found, expected) in bleu.precisions().into_iter().zip(case["precisions"].as_array().unwrap()) {
                assert_close(found, expected, &name);
            }
            assert_close(bleu.score(), &case["bleu"], &name);
        }
    }

    #[test]
    fn nothing_scores_nothing() {
        let score = |hypothesis: &str, reference: &str| corpus(&[hypothesis], &[[reference]]).unwrap().score();
        assert_eq!([score("", "the cat"), score("", ""), score("the cat", "")], [0.0; 3]);
    }

    #[test]
    fn a_hypothesis_without_references_is_refused() {
        assert!(corpus::<&str, &str>(&[], &[] as &[[&str; 1]]).is_err());
        let told = corpus(&["a", "b"], &[vec!["a"], vec![]]).unwrap_err().to_string();
        assert_eq!(told, "row 1: there is no reference");
    }

    #[test]
    fn lines_are_joined_where_a_dash_ends_them() {
        assert_eq!(
            tokenize("inter-\nesting\nnews 1-2 a-b 3.14, <skipped>x.\n"),
            "interesting news 1 - 2 a-b 3.14 , x ."
        );
    }
}
