use super::*;
use crate::data::{Prompt, Special};

fn trial(rows: &str) -> Trial {
    Trial { tokenizer: t5(), ..Trial::new(Task::Seq2seqLm, rows) }
}

#[test]
fn source_and_target_end_in_eos_and_the_decoder_starts_with_its_token() {
    let trial = trial("{\"source\": \"ab\", \"target\": \"ba a\"}\n{\"source\": \"b\", \"target\": \"a\"}\n");
    let ids_of = |text: &str| trial.tokenizer.encode(text, Special::AsText).unwrap();
    let train = trial.train();
    assert_eq!(ids(&train)[0], [ids_of("ab").as_slice(), &[2]].concat());
    assert_eq!(answers(&train)[0], Answer::Text([&[0], ids_of("ba a").as_slice(), &[2]].concat()));
    let prompt = Prompt { prompt_ids: ids(&train)[0].clone(), prompt: "ab".into(), reference: "ba a".into() };
    assert_eq!(train.prompts[0], prompt);
    assert_eq!(train.report.trained_tokens, ids_of("ba a").len() + 1 + 2);
    let batch = collate(&train.sequences.iter().collect::<Vec<_>>(), 0);
    let decoder = batch.decoder.as_ref().unwrap();
    assert_eq!((batch.rows * decoder.len, batch.terms()), (batch.targets.len(), train.report.trained_tokens));
    assert_eq!((decoder.ids[0], decoder.ids[decoder.len], batch.targets[decoder.len + 1]), (0, 0, 2));
}

#[test]
fn a_tokenizer_that_ends_no_text_gets_an_eos_and_the_start_is_the_settings() {
    let mut trial = trial("{\"document\": \"a\", \"summary\": \"b\"}\n");
    trial.tokenizer = tokenizer();
    trial.setting.decoder_start = 7;
    let Answer::Text(text) = answers(&trial.train()).remove(0) else { panic!() };
    assert_eq!((text[..2].to_vec(), text.last()), (vec![7, 1], Some(&2)));
}

#[test]
fn long_targets_are_cut_before_their_eos_and_empty_ones_train_nothing() {
    let mut trial = trial(
        "{\"input\": \"a\", \"output\": \"b\"}\n{\"input\": \"a\", \"output\": \"xyxyxyxyxy\"}\n{\"input\": \"a\", \"output\": \" \"}\n",
    );
    trial.data.max_len = 4;
    let report = trial.train().report;
    assert_eq!((report.used, report.dropped_long, report.untrained), (1, 1, 1));
    trial.data.over_length = OverLength::Truncate;
    let train = trial.train();
    let Answer::Text(text) = answers(&train).remove(1) else { panic!() };
    assert_eq!((text.len(), text[0], text[4], train.report.truncated), (5, 0, 2, 1));
    trial.data.over_length = OverLength::Error;
    assert!(trial.refusal().contains("line 2: the row is longer than data.max_len; found "));
}

#[test]
fn bad_rows_are_named_and_prediction_needs_no_target() {
    let error = trial("{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": 1}\n").refusal();
    assert!(error.contains("line 2: column `completion` is not text; found a number"), "{error}");
    let error = trial("{\"source\": \"a\"}\n").refusal();
    assert!(error.contains("no column for the source and the target; found the columns `source`"), "{error}");
    let dataset = trial("{\"source\": \"a\"}\n").predicted().unwrap();
    assert_eq!(
        (answers(&dataset), dataset.prompts[0].prompt_ids.clone()),
        (vec![Answer::Unknown], ids(&dataset)[0].clone())
    );
}
