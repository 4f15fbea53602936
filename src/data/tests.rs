//! From files on disk to splits.

use std::fs;

use tempfile::TempDir;

use super::testing::tokenizer;
use super::*;
use crate::recipe::{LossOn, OverLength};

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
    dir
}

fn data(train: &str) -> Data {
    Data {
        train: train.into(),
        eval: None,
        format: Format::Auto,
        template: "none".into(),
        max_len: 64,
        over_length: OverLength::Drop,
        pack: false,
        loss_on: LossOn::Completion,
        max_rows: None,
        stride: 32,
    }
}

/// For the task of predicting tokens.
fn load(data: &Data, tokenizer: &Tokenizer, root: &Path) -> Result<Splits> {
    super::load(data, &Setting::default(), tokenizer, root)
}

fn fraction(fraction: f64) -> Option<EvalData> {
    Some(EvalData::Fraction { fraction })
}

/// Rows `p0: c0`, `p1: c1`, ...
fn csv(rows: usize) -> String {
    let row = |index| format!("p{index}:, c{index}\n");
    format!("prompt,completion\n{}", (0..rows).map(row).collect::<String>())
}

fn refusal(data: &Data, dir: &TempDir) -> String {
    let error = load(data, &tokenizer(), dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn the_split_leaves_no_row_out_and_shares_none() {
    let dir = directory(&[("d.csv", &csv(40))]);
    for (share, held) in [(0.25, 10), (0.0001, 1), (0.9999, 39)] {
        let splits = load(&Data { eval: fraction(share), ..data("d.csv") }, &tokenizer(), dir.path()).unwrap();
        let eval = splits.eval.unwrap();
        assert_eq!(eval.prompts.len(), held);
        assert_eq!(eval.report.duplicates_with_train, 0);
        let mut all: Vec<_> = eval.prompts.iter().chain(&splits.train.prompts).map(|p| p.prompt.clone()).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 40);
    }
}

#[test]
fn max_rows_shortens_training_and_not_evaluation() {
    let dir = directory(&[("d.csv", &csv(40))]);
    let whole = load(&Data { eval: fraction(0.25), ..data("d.csv") }, &tokenizer(), dir.path()).unwrap();
    let short =
        load(&Data { eval: fraction(0.25), max_rows: Some(3), ..data("d.csv") }, &tokenizer(), dir.path()).unwrap();
    assert_eq!(short.eval, whole.eval);
    assert_eq!(short.train.prompts, whole.train.prompts[..3]);
}

#[test]
fn packing_keeps_the_tokens_of_training_and_leaves_evaluation_alone() {
    let dir = directory(&[("d.csv", &csv(40))]);
    let plain = Data { eval: fraction(0.25), ..data("d.csv") };
    let rows = load(&plain, &tokenizer(), dir.path()).unwrap();
    let packed = load(&Data { pack: true, ..plain }, &tokenizer(), dir.path()).unwrap();
    assert!(packed.train.sequences.len() < 10);
    assert_eq!(packed.train.report, rows.train.report);
    assert_eq!(packed.train.prompts, rows.train.prompts);
    assert_eq!(packed.eval, rows.eval);
    let batch = |splits: &Splits| collate(&splits.train.sequences.iter().collect::<Vec<_>>(), 0);
    let (rows, packed) = (batch(&rows), batch(&packed));
    assert_eq!((rows.tokens(), rows.terms()), (packed.tokens(), packed.terms()));
    let targets = |batch: &Batch| {
        let mut targets: Vec<_> = batch.targets.iter().copied().filter(|&target| target != IGNORE).collect();
        targets.sort_unstable();
        targets
    };
    assert_eq!(targets(&rows), targets(&packed));
}

#[test]
fn long_rows_are_dropped_cut_or_refused_and_counted() {
    let long = "x".repeat(30);
    let text = format!("prompt,completion\na:, b\n\"{long}:\", c\na:, {long}\na:,\n");
    let dir = directory(&[("d.csv", &text)]);
    let with = |over_length| Data { over_length, max_len: 12, ..data("d.csv") };
    let report = |over_length| load(&with(over_length), &tokenizer(), dir.path()).unwrap().train.report;
    let dropped = report(OverLength::Drop);
    assert_eq!(
        (dropped.rows, dropped.used, dropped.dropped_long, dropped.truncated, dropped.untrained),
        (4, 1, 2, 0, 1)
    );
    let cut = report(OverLength::Truncate);
    assert_eq!((cut.rows, cut.used, cut.dropped_long, cut.truncated, cut.untrained), (4, 2, 0, 2, 2));
    assert_eq!((cut.longest, cut.shortest), (12, dropped.longest));
    let error = refusal(&with(OverLength::Error), &dir);
    assert!(error.contains("d.csv: line 3: the row is longer than data.max_len; found 3"), "{error}");
    let error = refusal(&Data { max_len: 3, ..data("d.csv") }, &dir);
    assert!(error.contains("0 usable rows: 4 dropped because they are longer than max_len = 3"), "{error}");
}

#[test]
fn rows_of_evaluation_that_were_trained_on_are_counted() {
    let dir = directory(&[("a.csv", &csv(5)), ("b.csv", &csv(8))]);
    let data = Data { eval: Some(EvalData::Path("b.csv".into())), pack: true, ..data("a.csv") };
    let report = load(&data, &tokenizer(), dir.path()).unwrap().eval.unwrap().report;
    assert_eq!((report.used, report.duplicates_with_train), (8, 5));
    assert_eq!(report.warnings, [Warning::new("eval_rows_in_train", report.warnings[0].text.clone(), 5)]);
}

#[test]
fn the_hash_follows_the_bytes_and_nothing_else() {
    let dir = directory(&[("a.csv", &csv(5)), ("b.csv", &csv(5)), ("c.csv", &csv(6))]);
    let hash = |data: Data| load(&data, &tokenizer(), dir.path()).unwrap().sha256;
    assert_eq!(hash(data("a.csv")), hex(&Sha256::digest(csv(5))));
    assert_eq!(hash(data("a.csv")), hash(Data { max_len: 50, ..data("b.csv") }));
    assert_ne!(hash(data("a.csv")), hash(data("c.csv")));
    assert_ne!(hash(data("a.csv")), hash(Data { template: "chatml".into(), ..data("a.csv") }));
}

#[test]
fn refusals_name_the_row_or_the_key() {
    let conversation = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let files = [
        ("d.csv", csv(2)),
        ("one.csv", csv(1)),
        ("chat.jsonl", format!("{conversation}\n{conversation}\n")),
        ("never.jinja", "{{ raise_exception('never') }}".into()),
    ];
    let dir = directory(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
    assert!(refusal(&data("chat.jsonl"), &dir).contains("key data.template: conversations need a chat template"));
    let error = refusal(&Data { template: "never.jinja".into(), ..data("chat.jsonl") }, &dir);
    assert!(error.contains("chat.jsonl: line 1: the chat template refuses the conversation: never"), "{error}");
    assert!(refusal(&Data { eval: fraction(1.0), ..data("d.csv") }, &dir).contains("data.eval.fraction"));
    assert!(refusal(&Data { eval: fraction(f64::NAN), ..data("d.csv") }, &dir).contains("data.eval.fraction"));
    assert!(refusal(&Data { eval: fraction(0.5), ..data("one.csv") }, &dir).contains("cannot be split"));
    assert!(refusal(&data("synthetic:nothing"), &dir).contains("`synthetic:nothing`"));
    assert!(refusal(&data("none.csv"), &dir).contains("none.csv: no such file"));
}

#[test]
fn generated_corpora_load_by_name() {
    let dir = directory(&[]);
    let menu = Data { eval: fraction(0.05), max_len: 512, ..data("synthetic:menu") };
    let splits = load(&menu, &tokenizer(), dir.path()).unwrap();
    let eval = splits.eval.as_ref().unwrap();
    assert_eq!(splits.train.report.used + eval.report.used, synthetic::pairs("menu").unwrap().len());
    assert_eq!(eval.report.duplicates_with_train, 0);
    assert_eq!(splits.train.report.warnings, []);
    assert_eq!(load(&menu, &tokenizer(), dir.path()).unwrap(), splits);
    let error = refusal(&Data { format: Format::Alpaca, ..menu }, &dir);
    assert!(error.contains("key data.format: a generated corpus has its own format"), "{error}");
}

#[test]
fn inspection_shows_the_mask_the_counts_and_the_lengths() {
    let dir = directory(&[(
        "d.jsonl",
        "{\"prompt\": \"a:\\n\", \"completion\": \"b\\u001b[2J\"}\n{\"prompt\": \"c:\", \"completion\": \" d\"}\n",
    )]);
    let tokenizer = tokenizer();
    let train = load(&data("d.jsonl"), &tokenizer, dir.path()).unwrap().train;
    let plain = render(&train, &[], &tokenizer, 1, Style::Plain);
    assert!(plain.starts_with("sequence 1: "), "{plain}");
    assert!(plain.contains("<s>|a|:|⏎|\n[b][\\u{1b}]"), "{plain}");
    assert!(plain.contains("[</s>]") && !plain.contains("sequence 2") && !plain.contains('\x1b'), "{plain}");
    assert!(plain.contains("rows      2 read, 2 used in 2 sequences"), "{plain}");
    assert_eq!(plain.matches('#').count(), 2 * 40, "{plain}");
    let colour = render(&train, &[], &tokenizer, 1, Style::Colour);
    assert!(colour.contains("\x1b[30;42m") || colour.contains("\x1b[30;102m"), "{colour}");
    let packed = load(&Data { pack: true, ..data("d.jsonl") }, &tokenizer, dir.path()).unwrap().train;
    assert!(render(&packed, &[], &tokenizer, 1, Style::Plain).contains("-- document 2 --\n<s>|"));
}
