//! What holds for every task: splits, labels, and keys that a task has no use for.

use super::*;

fn rows(count: usize) -> String {
    (0..count).map(|at| format!("{{\"text\": \"{} {at}\", \"label\": {}}}\n", ["a", "b"][at % 2], at % 2)).collect()
}

#[test]
fn a_fraction_is_held_out_and_max_rows_shortens_training() {
    let mut trial = Trial::new(Task::SeqCls, &rows(20));
    trial.tokenizer = tokenizer();
    trial.data.eval = Some(EvalData::Fraction { fraction: 0.25 });
    trial.data.max_rows = Some(4);
    let splits = trial.load().unwrap();
    let (train, eval) = (splits.train, splits.eval.unwrap());
    assert_eq!((train.report.rows, eval.report.rows, eval.report.duplicates_with_train), (4, 5, 0));
    assert_eq!(splits.labels, ["0", "1"]);
    assert_eq!(trial.load().unwrap().sha256, splits.sha256);
}

#[test]
fn the_recipes_labels_come_before_the_models_and_these_before_the_rows() {
    let mut trial = Trial::new(Task::SeqCls, &rows(2));
    trial.setting.labels = vec!["none".into(), "some".into(), "all".into()];
    assert_eq!(trial.load().unwrap().labels, ["none", "some", "all"]);
    let trial = trial.labels(&["no", "yes"]);
    assert_eq!(trial.load().unwrap().labels, ["no", "yes"]);
    let error = trial.labels(&["one"]).refusal();
    assert!(error.contains("nothing to tell apart; found only the label `one`"), "{error}");
}

#[test]
fn evaluation_rows_that_were_trained_on_are_counted() {
    let mut trial = Trial::new(Task::SeqCls, &rows(4)).file("eval.jsonl", &rows(2));
    trial.data.eval = Some(EvalData::Path("eval.jsonl".into()));
    let report = trial.load().unwrap().eval.unwrap().report;
    // Digits are unknown to the tokenizer, so every second row is the same.
    assert_eq!((report.duplicates_with_train, report.warnings[0].code.as_str()), (2, "eval_rows_in_train"));
}

#[test]
fn keys_of_other_tasks_are_refused() {
    type Change = fn(&mut Data);
    let changes: [(&str, Change); 4] = [
        ("data.pack", |data| data.pack = true),
        ("data.template", |data| data.template = "chatml".into()),
        ("data.loss_on", |data| data.loss_on = LossOn::All),
        ("data.format", |data| data.format = Format::Alpaca),
    ];
    for (key, change) in changes {
        let mut trial = Trial::new(Task::SeqCls, &rows(2));
        change(&mut trial.data);
        let error = trial.refusal();
        assert!(error.starts_with(&format!("key {key}: `{key}` ")) && error.contains("seq_cls"), "{error}");
        assert!(unfit(&trial.data, Task::CausalLm).is_empty());
    }
}

#[test]
fn generated_corpora_load_for_their_tasks() {
    for task in Task::ALL.into_iter().filter(|task| *task != Task::CausalLm) {
        let mut trial = Trial::new(task, "");
        trial.tokenizer = tokenizer();
        (trial.data.max_len, trial.data.stride) = (512, 32);
        trial.data.train = format!("synthetic:{}", synthetic::names(task)[0]);
        trial.data.eval = Some(EvalData::Fraction { fraction: 0.1 });
        let splits = trial.load().unwrap();
        let warned: Vec<_> = splits.train.report.warnings.iter().map(|warning| &warning.code).collect();
        assert!(splits.train.report.dropped_long == 0 && warned.is_empty(), "{task:?}: {warned:?}");
        let held_out = splits.eval.unwrap().report;
        assert!(held_out.used >= 100 && held_out.duplicates_with_train == 0, "{task:?}: {held_out:?}");
        trial.data.train = "synthetic:nothing".into();
        assert!(trial.refusal().contains("`synthetic:nothing`"));
    }
}

#[test]
fn inspection_shows_the_answer_of_every_task() {
    use crate::data::{Style, render};
    let shown = |task, row: &str| {
        let trial = Trial::new(task, row);
        let splits = trial.load().unwrap();
        render(&splits.train, &splits.labels, &trial.tokenizer, 9, Style::Plain)
    };
    let text = shown(Task::SeqCls, "{\"text\": \"a\", \"label\": \"yes\"}\n{\"text\": \"b\", \"label\": \"no\"}\n");
    assert!(
        text.starts_with("sequence 1: 3 tokens, 1 trained\n[[CLS]]") && text.contains("\nlabel     yes\n"),
        "{text}"
    );
    let text = shown(Task::SeqCls, "{\"text\": \"a\", \"label\": 0.5}\n");
    assert!(text.contains("\nnumber    0.5\n"), "{text}");
    let text = shown(Task::TokenCls, "{\"tokens\": [\"Anna\", \"Kelso\"], \"tags\": [\"PER\", \"LOC\"]}\n");
    assert!(text.contains("\ntags      anna/PER kel/LOC\n"), "{text}");
    let text = shown(
        Task::QuestionAns,
        "{\"question\": \"who\", \"context\": \"the town\", \"answer\": \"town\", \"answer_start\": 4}\n",
    );
    assert!(text.contains("\nanswer    town\n"), "{text}");
    let text = shown(Task::QuestionAns, "{\"question\": \"who\", \"context\": \"the town\", \"answers\": []}\n");
    assert!(text.contains("\nanswer    none here\n"), "{text}");
    let text = shown(Task::FeatureExtraction, "{\"text\": \"a\", \"positive\": \"b\", \"negative\": \"c\"}\n");
    assert!(text.contains("\nlike      [[CLS]]") && text.contains("\nunlike    [[CLS]]"), "{text}");
    let mut trial = Trial::new(Task::Seq2seqLm, "{\"source\": \"a\", \"target\": \"b\"}\n");
    trial.tokenizer = t5();
    let text = render(&trial.train(), &[], &trial.tokenizer, 1, Style::Plain);
    assert!(text.contains("\ntarget    <pad>|[b][</s>]\n"), "{text}");
}
