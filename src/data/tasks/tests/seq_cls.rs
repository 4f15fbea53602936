use super::*;

const ROWS: &str = r#"{"text": "Anna sings", "label": "yes"}
{"text": "Kelso", "label": "no"}
"#;

fn trial(rows: &str) -> Trial {
    Trial::new(Task::SeqCls, rows)
}

#[test]
fn a_text_stands_between_the_tokens_of_its_model_and_is_read_where_the_model_does() {
    let train = trial(ROWS).load().unwrap();
    assert_eq!(train.labels, ["no", "yes"]);
    let train = train.train;
    assert_eq!(ids(&train), [vec![2, 4, 5, 3], vec![2, 7, 8, 3]]);
    assert_eq!(answers(&train), [Answer::Class(1), Answer::Class(0)]);
    assert_eq!(train.sequences[0].trained, [true, false, false, false]);
    assert!(train.sequences[0].token_type.is_empty());
    assert_eq!((train.report.used, train.report.tokens, train.report.trained_tokens), (2, 8, 2));
    let mut last = trial(ROWS);
    last.setting.reads = Reads::Last;
    assert_eq!(last.train().sequences[0].trained, [false, false, false, true]);
    last.tokenizer = tokenizer();
    let sequence = &last.train().sequences[1];
    assert_eq!((sequence.ids[0], sequence.trained.iter().rposition(|&t| t)), (1, Some(sequence.ids.len() - 1)));
}

#[test]
fn pairs_are_joined_as_each_model_does() {
    let mut pairs =
        trial("{\"premise\": \"a\", \"hypothesis\": \"b\", \"label\": 0}\n{\"premise\": \"b\", \"label\": 1}\n");
    let train = pairs.train();
    assert_eq!(ids(&train), [vec![2, 20, 3, 21, 3], vec![2, 21, 3]]);
    assert_eq!(train.sequences[0].token_type, [0, 0, 0, 1, 1]);
    let batch = collate(&train.sequences.iter().collect::<Vec<_>>(), 0);
    assert_eq!(batch.targets, [0, IGNORE, IGNORE, IGNORE, IGNORE, 1, IGNORE, IGNORE, IGNORE, IGNORE]);
    assert_eq!(batch.token_type, [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
    pairs.tokenizer = roberta();
    let one = |text: &str| pairs.tokenizer.encode(text, crate::data::Special::AsText).unwrap();
    let (a, b) = (one("a"), one("b"));
    assert_eq!(ids(&pairs.train())[0], [&[1], a.as_slice(), &[2, 2], &b, &[2]].concat());
    assert!(pairs.train().sequences[0].token_type.is_empty());
    pairs.tokenizer = t5();
    assert_eq!(ids(&pairs.train())[0], [a.as_slice(), &[2], &b, &[2]].concat());
    pairs.tokenizer = tokenizer();
    assert_eq!(ids(&pairs.train())[0], [&[1], a.as_slice(), &[2], &b].concat());
}

#[test]
fn names_of_special_tokens_stay_text() {
    let train = trial("{\"text\": \"a [SEP] b\", \"label\": 1}\n{\"text\": \"a\", \"label\": 0}\n").train();
    assert_eq!(ids(&train)[0], [2, 20, 17, 18, 19, 21, 3]);
    assert_eq!(warnings(&train), [("literal_special_tokens", 1)]);
}

#[test]
fn columns_are_found_by_their_usual_names_or_mapped() {
    for (rows, expected) in [
        (r#"{"sentence": "a", "label": 0}"#, vec![2, 20, 3]),
        (r#"{"sentence1": "a", "sentence2": "b", "label": 0}"#, vec![2, 20, 3, 21, 3]),
        (r#"{"question1": "a", "question2": "b", "class": 0}"#, vec![2, 20, 3, 21, 3]),
        (r#"{"utterance": "a", "intent": 0}"#, vec![2, 20, 3]),
        (r#"{"text": "a", "text_pair": null, "labels": false}"#, vec![2, 20, 3]),
    ] {
        assert_eq!(ids(&trial(rows).labels(&["x", "y"]).train()), [expected], "{rows}");
    }
    let mapped = trial(r#"{"utt": "a", "q": "b", "text": "c", "kind": "x"}"#).labels(&["x", "y"]);
    let mapped = mapped.columns(&[("text", "utt"), ("text_pair", "q"), ("label", "kind")]);
    assert_eq!(ids(&mapped.train()), [[2, 20, 3, 21, 3]]);
    let error = mapped.columns(&[("text", "utt"), ("label", "kin")]).refusal();
    assert!(error.contains("there is no column `kin`") && error.contains("did you mean `kind`?"), "{error}");
    let error = trial(ROWS).columns(&[("txt", "text"), ("label", "label")]).refusal();
    assert!(error.contains("key data.format.columns.txt: not a column this task knows"), "{error}");
    let error = trial(ROWS).columns(&[("text", "text")]).refusal();
    assert!(error.contains("the column mapping is not complete; found `text`; expected label"), "{error}");
    let error = trial(r#"{"text": "a", "lable": 1}"#).refusal();
    assert!(error.contains("train.jsonl: no column for the label; found the columns `text`, `lable`"), "{error}");
    assert!(error.contains("is `lable` a misspelt `label`?"), "{error}");
}

#[test]
fn numbers_with_a_fraction_and_number_heads_are_not_classes() {
    let train = trial("{\"text\": \"a\", \"label\": 2}\n{\"text\": \"b\", \"label\": 0.5}\n").load().unwrap();
    assert_eq!(answers(&train.train), [Answer::Number(2.0), Answer::Number(0.5)]);
    assert!(train.labels.is_empty());
    let mut whole = trial("{\"text\": \"a\", \"label\": 2}\n{\"text\": \"b\", \"label\": \"0\"}\n");
    assert_eq!(answers(&whole.train()), [Answer::Class(1), Answer::Class(0)]);
    whole.setting.head.kind = crate::recipe::HeadKind::Number;
    assert_eq!(answers(&whole.train()), [Answer::Number(2.0), Answer::Number(0.0)]);
    whole = whole.file("train.jsonl", "{\"text\": \"a\", \"label\": \"many\"}\n");
    let error = whole.refusal();
    assert!(error.contains("train.jsonl: line 1: column `label` is not a number; found a text"), "{error}");
}

#[test]
fn bad_rows_are_named() {
    let after = |row: &str| trial(&format!("{ROWS}\n{row}\n")).refusal();
    let error = after(r#"{"text": 7, "label": "no"}"#);
    assert!(
        error.contains("train.jsonl: line 4: column `text` is not text; found a number; expected a text"),
        "{error}"
    );
    let error = after(r#"{"text": "a"}"#);
    assert!(error.contains("line 4: column `label` is not a label; found nothing"), "{error}");
    let error = after(r#"{"text": "a", "label": ["no"]}"#);
    assert!(error.contains("line 4: column `label` is not a label; found a list"), "{error}");
    let error = trial(ROWS).labels(&["yes", "nope"]).refusal();
    assert!(error.contains("line 2: a label is not one of the head's; found `no`"), "{error}");
}

#[test]
fn long_rows_are_dropped_refused_or_cut_at_the_longer_text() {
    let mut long =
        trial("{\"text\": \"a b\", \"text_pair\": \"c c c c\", \"label\": 0}\n{\"text\": \"a\", \"label\": 1}\n");
    long.data.max_len = 7;
    let report = long.train().report;
    assert_eq!((report.rows, report.used, report.dropped_long), (2, 1, 1));
    long.data.over_length = OverLength::Error;
    assert!(long.refusal().contains("line 1: the row is longer than data.max_len; found 9 tokens; expected at most 7"));
    long.data.over_length = OverLength::Truncate;
    let train = long.train();
    assert_eq!(ids(&train)[0], [2, 20, 21, 3, 22, 22, 3]);
    assert_eq!(train.report.truncated, 1);
    long.data.max_len = 6;
    assert_eq!(ids(&long.train())[0], [2, 20, 3, 22, 22, 3]);
    long.data.max_len = 3;
    assert!(long.refusal().contains("key data.max_len: no row is shorter than what the tokenizer puts around it"));
}

#[test]
fn rows_without_a_token_are_left_out_and_counted() {
    let train = trial(&format!("{ROWS}{{\"text\": \" \", \"label\": \"no\"}}\n")).train();
    assert_eq!((train.report.rows, train.report.used, train.report.untrained), (3, 2, 1));
}

#[test]
fn prediction_keeps_every_row_and_needs_no_label() {
    let mut inputs =
        trial("{\"text\": \"a\"}\n{\"text\": \"a b c a b c\"}\n").columns(&[("text", "text"), ("label", "gone")]);
    inputs.data.max_len = 5;
    let dataset = inputs.predicted().unwrap();
    assert_eq!(ids(&dataset), [vec![2, 20, 3], vec![2, 20, 21, 22, 3]]);
    assert_eq!(answers(&dataset), [Answer::Unknown, Answer::Unknown]);
    assert_eq!(collate(&[&dataset.sequences[0]], 0).targets, [0, IGNORE, IGNORE]);
    let table = Table::single("the command line", &[("text", "a"), ("text_pair", "b")]);
    let inputs = trial("");
    let one = encode_inputs(&table, &inputs.data, &inputs.setting, &inputs.tokenizer).unwrap();
    assert_eq!(ids(&one), [[2, 20, 3, 21, 3]]);
    let empty = trial("{\"text\": \"\"}\n").predicted().unwrap_err().to_string();
    assert!(empty.contains("line 1: the row gives no token"), "{empty}");
}

#[test]
fn lists_of_lists_are_read_by_a_fragment_and_numbers_of_columns() {
    let rows = r#"{"train": [["a", "x"], ["b", "y"]], "val": [["c", "x"]], "oos": [["a", "z"]]}"#;
    let mut trial = trial("").file("d.json", rows).columns(&[("text", "0"), ("label", "1")]);
    trial.data.train = "d.json#train".into();
    trial.data.eval = Some(EvalData::Path("d.json#val".into()));
    let splits = trial.load().unwrap();
    assert_eq!(
        (ids(&splits.train), ids(&splits.eval.unwrap())),
        (vec![vec![2, 20, 3], vec![2, 21, 3]], vec![vec![2, 22, 3]])
    );
    trial.data.eval = Some(EvalData::Path("d.json#oos".into()));
    assert!(trial.refusal().contains("d.json: row 1: a label is not among those of the training rows; found `z`"));
}
