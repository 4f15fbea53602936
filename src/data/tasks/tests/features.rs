use super::*;
use crate::data::{Contrast, Goal, Sequence};

fn trial(rows: &str) -> Trial {
    Trial::new(Task::FeatureExtraction, rows)
}

fn others(sequence: &Sequence) -> (Vec<Vec<u32>>, Option<f32>) {
    let Answer::Alike { others, score } = &sequence.answer else { panic!() };
    (others.iter().map(|other| other.ids.clone()).collect(), *score)
}

#[test]
fn positives_come_first_and_negatives_may_be_missing() {
    let train = trial(concat!(
        "{\"query\": \"a\", \"positive\": \"b\", \"negative\": null}\n",
        "{\"query\": \"a\", \"positive\": \"b\", \"negative\": \"c\"}\n",
        "{\"query\": \"a\", \"positive\": \"b\", \"negative\": [\"c\", \"b c\"]}\n",
    ))
    .train();
    let of = |row: usize| others(&train.sequences[row]);
    assert_eq!(ids(&train), [[2, 20, 3]; 3]);
    assert_eq!(of(0), (vec![vec![2, 21, 3]], None));
    assert_eq!(of(1).0, [vec![2, 21, 3], vec![2, 22, 3]]);
    assert_eq!(of(2).0, [vec![2, 21, 3], vec![2, 22, 3], vec![2, 21, 22, 3]]);
    assert_eq!(train.sequences[0].trained, [true; 3]);
    let batch = collate(&train.sequences.iter().collect::<Vec<_>>(), 0);
    assert_eq!((batch.rows, batch.len, batch.goal.clone()), (9, 4, Goal::Alike(Contrast::of(3))));
    assert_eq!(batch.ids[..16], [2, 20, 3, 0, 2, 20, 3, 0, 2, 20, 3, 0, 2, 21, 3, 0]);
}

#[test]
fn scores_are_for_evaluation() {
    let scored = "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 2.5}\n";
    let error = trial(scored).refusal();
    assert!(error.contains("train.jsonl: line 1: a pair with a score is for evaluation"), "{error}");
    let mut pairs = trial("{\"text1\": \"a\", \"text2\": \"b\"}\n").file("eval.jsonl", scored);
    pairs.data.eval = Some(EvalData::Path("eval.jsonl".into()));
    let splits = pairs.load().unwrap();
    assert_eq!(others(&splits.eval.unwrap().sequences[0]), (vec![vec![2, 21, 3]], Some(2.5)));
    let broken = pairs.file("eval.jsonl", &scored.replace("2.5", "\"high\""));
    assert!(broken.refusal().contains("eval.jsonl: line 1: column `score` is not a number; found a text"));
}

#[test]
fn bad_rows_are_named() {
    let error = trial("{\"text\": \"a\"}\n").refusal();
    assert!(error.contains("no column for the text and the positive; found the columns `text`"), "{error}");
    let error = trial("{\"text\": \"a\", \"positive\": \"b\"}\n{\"text\": \"a\"}\n").refusal();
    assert!(error.contains("line 2: column `positive` is not text; found nothing"), "{error}");
    let error = trial("{\"text\": \"a\", \"positive\": \"b\", \"negative\": 3}\n").refusal();
    assert!(
        error.contains("line 1: column `negative` is not text; found a number; expected a text, or a list"),
        "{error}"
    );
}

#[test]
fn any_text_of_a_row_may_be_too_long() {
    let mut trial = trial("{\"text\": \"a\", \"positive\": \"a b c\"}\n{\"text\": \"a\", \"positive\": \"b\"}\n");
    trial.data.max_len = 4;
    assert_eq!(trial.train().report.dropped_long, 1);
    trial.data.over_length = OverLength::Truncate;
    let train = trial.train();
    assert_eq!((others(&train.sequences[0]).0, train.report.truncated), (vec![vec![2, 20, 21, 3]], 1));
}

#[test]
fn prediction_takes_single_texts() {
    let dataset = trial("{\"text\": \"a\"}\n{\"text\": \"b\"}\n").predicted().unwrap();
    assert_eq!((ids(&dataset), answers(&dataset)), (vec![vec![2, 20, 3], vec![2, 21, 3]], vec![Answer::Unknown; 2]));
    assert_eq!(dataset.sequences[0].trained, [true; 3]);
}
