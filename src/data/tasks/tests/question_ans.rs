use super::*;
use crate::data::{Passage, Window};

fn trial(rows: &str) -> Trial {
    Trial::new(Task::QuestionAns, rows)
}

/// A row about `Kelso` in `the old town of Kelso is old .`
fn row(answer: &str) -> String {
    format!("{{\"question\": \"who ?\", \"context\": \"The old town of Kelso is old.\", {answer}}}\n")
}

fn windows(dataset: &Dataset) -> (Vec<Passage>, Vec<Window>) {
    let Reference::Windows { passages, windows } = &dataset.reference else { panic!() };
    (passages.clone(), windows.clone())
}

#[test]
fn the_answer_is_a_span_of_tokens() {
    let train = trial(&row(r#""answer": "Kelso", "answer_start": 16"#)).train();
    assert_eq!(ids(&train), [[2, 10, 11, 3, 12, 16, 13, 14, 7, 8, 15, 16, 9, 3]]);
    assert_eq!(train.sequences[0].token_type, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(answers(&train), [Answer::Span([8, 9])]);
    let (passages, windows) = windows(&train);
    assert_eq!((passages[0].row, passages[0].references.as_slice()), (1, ["Kelso".to_owned()].as_slice()));
    assert_eq!(passages[0].text(&windows[0], 8, 9), Some("Kelso"));
    assert_eq!(passages[0].text(&windows[0], 4, 5), Some("The old"));
    assert_eq!(windows[0].spans[3], None);
    assert_eq!(warnings(&train), []);
}

#[test]
fn every_way_of_writing_answers_is_read() {
    for (answer, expected) in [
        (r#""answers": {"text": ["Kelso"], "answer_start": [16]}"#, [8, 9]),
        (r#""answers": [{"text": "old town", "answer_start": 4}, {"text": "Kelso", "answer_start": 16}]"#, [5, 6]),
        (r#""answers": {"text": [], "answer_start": []}"#, [0, 0]),
        (r#""answers": [], "is_impossible": true"#, [0, 0]),
        (r#""answer": "", "answer_start": null"#, [0, 0]),
    ] {
        assert_eq!(answers(&trial(&row(answer)).train()), [Answer::Span(expected)], "{answer}");
    }
    let several = trial(&row(r#""answers": {"text": ["old", "old town", "old"], "answer_start": [4, 4, 25]}"#)).train();
    assert_eq!((answers(&several), windows(&several).0[0].references.len()), (vec![Answer::Span([5, 5])], 2));
    let searched = trial(&row(r#""answer": "old""#)).train();
    assert_eq!(
        (answers(&searched), warnings(&searched)),
        (vec![Answer::Span([5, 5])], vec![("answer_start_missing", 1)])
    );
}

#[test]
fn starts_count_characters_and_not_bytes() {
    let rows = "{\"question\": \"who ?\", \"context\": \"\u{e9}\u{e9} \u{1f642} Kelso\", \"answer\": \"Kelso\", \"answer_start\": 5}\n";
    let train = trial(rows).train();
    let (passages, windows) = windows(&train);
    let [Answer::Span([first, last])] = answers(&train)[..] else { panic!() };
    assert_eq!(passages[0].text(&windows[0], first as usize, last as usize), Some("Kelso"));
    let mut bytes = trial(rows);
    bytes.tokenizer = roberta();
    (bytes.data.max_len, bytes.data.stride) = (64, 2);
    let train = bytes.train();
    let (passages, windows) = self::windows(&train);
    let [Answer::Span([first, last])] = answers(&train)[..] else { panic!() };
    assert_eq!(passages[0].text(&windows[0], first as usize, last as usize), Some("Kelso"));
}

#[test]
fn long_contexts_become_windows_that_overlap() {
    let mut trial = trial(&row(r#""answer": "Kelso", "answer_start": 16"#));
    (trial.data.max_len, trial.data.stride) = (9, 2);
    let train = trial.train();
    // Nine tokens of context, four a window, two of them shared.
    assert_eq!(
        ids(&train),
        [
            vec![2, 10, 11, 3, 12, 16, 13, 14, 3],
            vec![2, 10, 11, 3, 13, 14, 7, 8, 3],
            vec![2, 10, 11, 3, 7, 8, 15, 16, 3],
            vec![2, 10, 11, 3, 15, 16, 9, 3],
        ]
    );
    assert_eq!(answers(&train), [[0, 0], [6, 7], [4, 5], [0, 0]].map(Answer::Span));
    let (passages, windows) = windows(&train);
    assert_eq!((passages.len(), windows.len()), (1, 4));
    assert_eq!(passages[0].text(&windows[2], 4, 5), Some("Kelso"));
    assert_eq!((train.report.rows, train.report.used), (1, 1));
    let batch = collate(&train.sequences.iter().collect::<Vec<_>>(), 0);
    assert_eq!(batch.goal, crate::data::Goal::Spans(vec![[0, 0], [6, 7], [4, 5], [0, 0]]));
    // An answer that no window holds whole.
    (trial.data.max_len, trial.data.stride) = (8, 0);
    let split = trial.file("train.jsonl", &row(r#""answer": "old town of Kelso", "answer_start": 4"#)).train();
    assert!(answers(&split).iter().all(|answer| *answer == Answer::Span([0, 0])));
}

#[test]
fn questions_that_fill_the_window_are_too_long() {
    let mut trial = trial(&format!(
        "{}{}",
        row(r#""answers": []"#),
        row(r#""answers": []"#).replace("who ?", "who who who who who")
    ));
    (trial.data.max_len, trial.data.stride) = (10, 2);
    let report = trial.train().report;
    assert_eq!((report.rows, report.used, report.dropped_long), (2, 1, 1));
    trial.data.over_length = OverLength::Error;
    assert!(
        trial.refusal().contains("line 2: the row is longer than data.max_len; found 11 tokens; expected at most 10")
    );
    let error = trial.predicted().unwrap_err().to_string();
    assert!(error.contains("line 2: the question leaves its context no room beside data.stride"), "{error}");
}

#[test]
fn answers_that_do_not_stand_there_are_refused() {
    let refusal = |answer: &str| trial(&format!("{}{}", row(r#""answers": []"#), row(answer))).refusal();
    let error = refusal(r#""answer": "Kelso", "answer_start": 15"#);
    assert!(error.contains("line 2: at character 15 the context does not have the answer; found ` Kels`"), "{error}");
    assert!(error.contains("expected `Kelso`") && error.contains("it is at character 16"), "{error}");
    let error = refusal(r#""answer": "Kelso", "answer_start": 29"#);
    assert!(error.contains("starts outside the context; found character 29; expected below 29"), "{error}");
    let error = refusal(r#""answer": "York""#);
    assert!(error.contains("line 2: the answer does not occur in the context; found `York`"), "{error}");
    let error = refusal(r#""answer": "Kelso", "answer_start": -1"#);
    assert!(error.contains("`answer_start` counts characters; found -1"), "{error}");
    let error = refusal(r#""answers": {"text": ["Kelso"], "answer_start": []}"#);
    assert!(error.contains("found 1 texts and 0 starts; expected lists"), "{error}");
    assert!(refusal(r#""answers": "Kelso""#).contains("column `answers` is not a set of answers; found a text"));
    assert!(refusal(r#""answers": [{"answer_start": 1}]"#).contains("column `answers` is not a list of answers"));
    assert!(refusal(r#""answers": {"text": [" "], "answer_start": [3]}"#).contains("an answer is empty"));
    assert!(refusal(r#""note": 1"#).contains("line 2: the row says nothing of its answer"));
}

#[test]
fn squad_files_are_flattened() {
    let squad = r#"{"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "the town", "qas": [
        {"id": "1", "question": "who", "answers": [{"text": "town", "answer_start": 4}], "is_impossible": false},
        {"id": "2", "question": "who ?", "answers": [], "is_impossible": true}]}]}]}"#;
    let mut trial = trial("").file("d.json", squad);
    trial.data.train = "d.json".into();
    let train = trial.train();
    assert_eq!(ids(&train), [vec![2, 10, 3, 12, 13, 3], vec![2, 10, 11, 3, 12, 13, 3]]);
    assert_eq!(answers(&train), [Answer::Span([4, 4]), Answer::Span([0, 0])]);
    let broken = trial.file("d.json", &squad.replace("\"answer_start\": 4", "\"answer_start\": 3"));
    assert!(broken.refusal().contains("d.json: question 1: at character 3"), "{}", broken.refusal());
    let broken = broken.file("d.json", &squad.replace("context", "contxt"));
    assert!(broken.refusal().contains("d.json: row 1: not an article of SQuAD; expected a paragraph has `context`"));
}

#[test]
fn prediction_needs_no_answers() {
    let dataset = trial("{\"question\": \"who\", \"context\": \"the town\"}\n").predicted().unwrap();
    assert_eq!(answers(&dataset), [Answer::Unknown]);
    let (passages, windows) = windows(&dataset);
    assert_eq!(passages[0].text(&windows[0], 4, 4), Some("town"));
}
