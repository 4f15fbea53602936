//! Answers to questions, by the rules of SQuAD's `evaluate-v2.0.py` (Rajpurkar, Jia and Liang 2018, "Know What You Don't Know").
//!
//! Version 1.1 differs where an answer normalises to nothing, as in `the`: there its F1 is 0 even against the same.

use std::collections::HashMap;

use super::{Counts, Scores, mean, named, paired, words};
use crate::Result;

/// Lower case, without ASCII punctuation, without the words `a`, `an` and `the`, and with one space between words.
pub fn normalize(text: &str) -> String {
    let plain: Vec<char> = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut kept = String::with_capacity(text.len());
    // Articles end where letters and digits do, as in `the–end`, not only at white space.
    for run in plain.chunk_by(|a, b| a.is_alphanumeric() == b.is_alphanumeric()) {
        match run {
            ['a'] | ['a', 'n'] | ['t', 'h', 'e'] => kept.push(' '),
            run => kept.extend(run),
        }
    }
    words(&kept).collect::<Vec<_>>().join(" ")
}

/// Whether the prediction is one of the answers, both normalised. A question without answers is one that has none: nothing is the right
/// prediction.
pub fn exact_match<A: AsRef<str>>(prediction: &str, answers: &[A]) -> bool {
    let prediction = normalize(prediction);
    normalized(answers).contains(&prediction)
}

/// F1 of the prediction's words against an answer's, both normalised and repetitions counted, from 0 to 1; the best over the answers.
/// Where either has no words it is 1 if neither has, else 0.
pub fn f1<A: AsRef<str>>(prediction: &str, answers: &[A]) -> f64 {
    let prediction = normalize(prediction);
    normalized(answers).iter().map(|answer| f1_of_words(&prediction, answer)).fold(0.0, f64::max)
}

/// `exact_match` and `f1`, means over the questions, from 0 to 1 (the script has percent).
///
/// # Errors
/// An input error for no questions, or not one prediction for each of them.
pub fn scores<P: AsRef<str>, A: AsRef<str>>(predictions: &[P], answers: &[impl AsRef<[A]>]) -> Result<Scores> {
    paired(predictions.len(), answers.len())?;
    let questions = || predictions.iter().map(AsRef::as_ref).zip(answers.iter().map(AsRef::as_ref));
    let exact = mean(questions().map(|(prediction, answers)| f64::from(u8::from(exact_match(prediction, answers)))));
    let f1 = mean(questions().map(|(prediction, answers)| f1(prediction, answers)));
    Ok(named([("exact_match", exact), ("f1", f1)]))
}

/// Those of the answers of which something is left, else that there is none.
fn normalized<A: AsRef<str>>(answers: &[A]) -> Vec<String> {
    let mut normalized: Vec<_> = answers.iter().map(|answer| normalize(answer.as_ref())).collect();
    normalized.retain(|answer| !answer.is_empty());
    if normalized.is_empty() { vec![String::new()] } else { normalized }
}

fn f1_of_words(prediction: &str, answer: &str) -> f64 {
    if prediction.is_empty() || answer.is_empty() {
        return f64::from(u8::from(prediction == answer));
    }
    let mut left = HashMap::<&str, usize>::new();
    words(answer).for_each(|word| *left.entry(word).or_default() += 1);
    let mut counts = Counts { reference: words(answer).count(), ..Counts::default() };
    for word in words(prediction) {
        counts.predicted += 1;
        if let Some(left) = left.get_mut(word).filter(|left| **left > 0) {
            *left -= 1;
            counts.shared += 1;
        }
    }
    counts.f1()
}

#[cfg(test)]
mod tests {
    use super::super::golden::{assert_close, cases, of};
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/metrics/squad.json");

    #[test]
    fn scores_of_questions_are_by_the_rules_of_version_2() {
        for (name, case) in cases(GOLDEN, "cases") {
            let (prediction, answers): (String, Vec<String>) = (of(&case["prediction"]), of(&case["answers"]));
            assert_eq!(normalize(&prediction), of::<String>(&case["normalized_prediction"]), "{name}");
            let normalized: Vec<_> = answers.iter().map(|answer| normalize(answer)).collect();
            assert_eq!(normalized, of::<Vec<String>>(&case["normalized_answers"]), "{name}");
            let scores = scores(&[&prediction], &[answers]).unwrap();
            assert_close(scores["exact_match"], &case["v2_exact"], &name);
            assert_close(scores["f1"], &case["v2_f1"], &name);
            if !normalize(&prediction).is_empty() {
                assert_close(scores["exact_match"], &case["v1_exact"], &name);
                assert_close(scores["f1"], &case["v1_f1"], &name);
            }
        }
    }

    #[test]
    fn scores_of_a_data_set_are_means_over_its_questions() {
        for (name, set) in cases(GOLDEN, "datasets") {
            // Without a threshold under which the script takes an answer for none.
            if !set["na_probs"].is_null() {
                continue;
            }
            let answered = |id: &str| set["predictions"][id].as_str();
            let is_first = set["version"] == "1.1";
            let expected = if is_first { &set["expected"] } else { &set["expected"]["all"] };
            let (mut predictions, mut answers) = (Vec::new(), Vec::new());
            for question in set["questions"].as_array().unwrap() {
                // Version 1.1 counts a question without a prediction as wrong, version 2 leaves it out.
                let Some(prediction) = answered(question["id"].as_str().unwrap()).or(is_first.then_some("")) else {
                    continue;
                };
                predictions.push(prediction);
                answers.push(of::<Vec<String>>(&question["answers"]));
            }
            assert_eq!(predictions.len(), of::<usize>(&expected["total"]), "{name}");
            let scores = scores(&predictions, &answers).unwrap();
            let exact = if is_first { "exact_match" } else { "exact" };
            assert_close(100.0 * scores["exact_match"], &expected[exact], &name);
            assert_close(100.0 * scores["f1"], &expected["f1"], &name);
        }
    }

    #[test]
    fn nothing_is_the_answer_to_a_question_without_one() {
        assert_eq!((exact_match::<&str>("", &[]), f1::<&str>("", &[])), (true, 1.0));
        assert_eq!((exact_match::<&str>("Paris", &[]), f1::<&str>("Paris", &[])), (false, 0.0));
        assert!(scores::<&str, &str>(&[], &[] as &[[&str; 0]]).is_err());
    }

    #[test]
    fn articles_are_words_of_any_script() {
        assert_eq!(normalize("The–end, an\u{e9}e THE\u{a0}ÀA"), "–end anée àa");
    }
}
