use super::*;
use crate::data::Words;

const ROWS: &str = r#"{"tokens": ["Anna", "sings", "in", "Kelso", "."], "tags": ["B-PER", "O", "O", "B-LOC", "O"]}
"#;

fn trial(rows: &str) -> Trial {
    Trial::new(Task::TokenCls, rows)
}

fn positions(dataset: &Dataset) -> Vec<Vec<Option<usize>>> {
    let Reference::Words(words) = &dataset.reference else { panic!() };
    words.iter().map(|Words { position }| position.clone()).collect()
}

#[test]
fn the_first_piece_of_a_word_has_its_tag() {
    let splits = trial(ROWS).load().unwrap();
    assert_eq!(splits.labels, ["B-LOC", "B-PER", "O"]);
    let train = splits.train;
    assert_eq!(ids(&train), [[2, 4, 5, 6, 7, 8, 9, 3]]);
    assert_eq!(answers(&train), [Answer::Tags(vec![IGNORE, 1, 2, 2, 0, IGNORE, 2, IGNORE])]);
    assert_eq!(positions(&train), [[Some(1), Some(2), Some(3), Some(4), Some(6)]]);
    assert_eq!(train.sequences[0].trained, [false, true, true, true, true, false, true, false]);
    assert_eq!(train.report.trained_tokens, 5);
}

#[test]
fn words_of_byte_level_tokenizers_have_a_space_before_them() {
    let mut trial = trial("{\"tokens\": [\"the\", \"xyz\"], \"tags\": [\"A\", \"B\"]}\n");
    trial.tokenizer = roberta();
    let whole = trial.tokenizer.encode(" the xyz", crate::data::Special::AsText).unwrap();
    let train = trial.train();
    assert_eq!(ids(&train), [[&[1], whole.as_slice(), &[2]].concat()]);
    let second = positions(&train)[0][1].unwrap();
    assert!(trial.tokenizer.pieces(&train.sequences[0].ids)[second].starts_with(' '));
    let Answer::Tags(tags) = &answers(&train)[0] else { panic!() };
    assert_eq!((tags[1], tags[second], tags.iter().filter(|&&tag| tag != IGNORE).count()), (0, 1, 2));
}

#[test]
fn numbers_are_tags_where_the_head_names_them() {
    let rows = "{\"words\": [\"a\", \"b\"], \"ner_tags\": [0, 2]}\n";
    let named = trial(rows).labels(&["O", "B-PER", "I-PER"]);
    assert_eq!(answers(&named.train()), [Answer::Tags(vec![IGNORE, 0, 2, IGNORE])]);
    let error = trial(rows).refusal();
    assert!(error.contains("the tags are numbers") && error.contains("head.labels = [\"O\""), "{error}");
    let error = trial(rows).labels(&["O", "X"]).refusal();
    assert!(
        error.contains("train.jsonl: line 1: word 2: a label is out of range; found 2; expected 0 to 1"),
        "{error}"
    );
}

#[test]
fn bad_rows_are_named() {
    let error = trial(&format!("{ROWS}{{\"tokens\": [\"a\", \"b\"], \"tags\": [\"O\"]}}")).refusal();
    assert!(
        error.contains("line 2: the row has not one tag for each word; found 1 tags; expected 2, the number of words"),
        "{error}"
    );
    let error = trial("{\"tokens\": [\"a\", 1], \"tags\": [\"O\", \"X\"]}").refusal();
    assert!(error.contains("line 1: entry 2 of column `tokens` is not text; found a number"), "{error}");
    let error = trial("{\"tokens\": \"a b\", \"tags\": [\"O\", \"X\"]}").refusal();
    assert!(error.contains("line 1: column `tokens` is not a list; found a text"), "{error}");
    let error = trial(&format!("{ROWS}{{\"tokens\": [\"a\"]}}")).refusal();
    assert!(error.contains("line 2: column `tags` is not a list; found nothing"), "{error}");
    let error = trial("{\"text\": \"a\", \"tags\": [\"O\"]}").refusal();
    assert!(error.contains("no column for the tokens; found the columns `text`, `tags`"), "{error}");
}

#[test]
fn conll_files_name_the_line() {
    let text = "-DOCSTART- O\n\nAnna B-PER\nsings O\n\nKelso B-LCO\n";
    let mut trial = trial("").file("d.conll", text).labels(&["O", "B-PER", "B-LOC"]);
    trial.data.train = "d.conll".into();
    let error = trial.refusal();
    assert!(error.contains("d.conll: line 6: word 1: a label is not one of the head's; found `B-LCO`"), "{error}");
    assert!(error.contains("did you mean `B-LOC`?"), "{error}");
    let fixed = trial.file("d.conll", &text.replace("LCO", "LOC"));
    assert_eq!(ids(&fixed.train()), [vec![2, 4, 5, 3], vec![2, 7, 8, 3]]);
}

#[test]
fn words_that_are_cut_off_or_give_nothing_have_no_position() {
    let mut trial =
        trial("{\"tokens\": [\"\\u200b\", \"a\", \"kelso\", \"b\"], \"tags\": [\"X\", \"O\", \"X\", \"O\"]}\n");
    let train = trial.train();
    assert_eq!(positions(&train), [[None, Some(1), Some(2), Some(4)]]);
    assert_eq!(warnings(&train), [("words_without_token", 1)]);
    (trial.data.max_len, trial.data.over_length) = (5, OverLength::Truncate);
    let train = trial.train();
    assert_eq!((positions(&train), train.report.truncated), (vec![vec![None, Some(1), Some(2), None]], 1));
    assert_eq!(warnings(&train), [("words_without_token", 1)]);
}

#[test]
fn names_of_special_tokens_stay_text_in_words_too() {
    let train = trial("{\"tokens\": [\"[SEP]\", \"a\"], \"tags\": [\"X\", \"O\"]}\n").train();
    assert_eq!(ids(&train), [[2, 17, 18, 19, 20, 3]]);
    assert_eq!(positions(&train), [[Some(1), Some(4)]]);
}

#[test]
fn prediction_takes_words_or_a_text() {
    for row in ["{\"tokens\": [\"Anna\", \"Kelso\"]}", "{\"text\": \"Anna  Kelso\"}"] {
        let dataset = trial(row).predicted().unwrap();
        assert_eq!((ids(&dataset), positions(&dataset)), (vec![vec![2, 4, 7, 8, 3]], vec![vec![Some(1), Some(2)]]));
        let batch = collate(&[&dataset.sequences[0]], 0);
        assert_eq!(batch.targets, [IGNORE, 0, 0, IGNORE, IGNORE]);
    }
}
