//! Data that the project generates itself: the pretraining corpus and tokenizer of the embedded base `tiny`, and
//! the fine-tuning sets `synthetic:NAME` of every task. Everything is a function of a seed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::rows::{Row, Table};
use crate::recipe::Task;
use crate::{Error, Result};

mod draw;
mod encyclopedia;
mod grammar;
mod kitchen;
mod menu;
mod orders;
mod pretrain;
mod registers;
mod reports;
mod requests;
mod tales;
mod tokenizer;
mod world;

pub use pretrain::corpus;
pub use tokenizer::{TinyTokenizer, train_tokenizer};

/// Rows of each fine-tuning set.
const ROWS: usize = 2200;

/// The generated fine-tuning sets of a task.
pub fn names(task: Task) -> &'static [&'static str] {
    match task {
        Task::CausalLm => &["menu", "kitchen"],
        Task::SeqCls => &["intents"],
        Task::TokenCls => &["ner"],
        Task::QuestionAns => &["qa"],
        Task::Seq2seqLm => &["rewrite", "menu", "kitchen"],
        Task::FeatureExtraction => &["similar", "similar_scored"],
    }
}

/// The rows of a fine-tuning set as a file would have them, fed to `hash` too.
///
/// # Errors
/// A set that the task does not have.
pub fn table(name: &str, task: Task, hash: &mut Sha256) -> Result<Table> {
    let known = names(task);
    let rows = match (name, rows(name)) {
        (name, Some(rows)) if known.contains(&name) => rows,
        _ => {
            let what = format!("no generated corpus of {}", task.name());
            let error = Error::input(what).key("data").found(format!("`synthetic:{name}`"));
            let known: Vec<String> = known.iter().map(|name| format!("`synthetic:{name}`")).collect();
            return Err(error.expected(known.join(", ")).into());
        }
    };
    let row = |(index, fields): (usize, Value)| {
        hash.update(format!("{fields}\n"));
        let fields = fields.as_object().cloned().unwrap_or_default().into_iter().collect::<IndexMap<_, _>>();
        Row { number: index + 1, fields }
    };
    let rows = rows.into_iter().enumerate().map(row).collect();
    Ok(Table { path: PathBuf::from(format!("synthetic:{name}")), place: "row", rows })
}

fn rows(name: &str) -> Option<Vec<Value>> {
    Some(match name {
        "intents" => distinct_rows(1600, requests::intents),
        "rewrite" => distinct_rows(ROWS, requests::rewrite),
        // Two rows with one text in common would be told apart by chance, and one of them may be held out.
        "similar" => fresh(1600, requests::similar, |row| ["text", "positive"].map(|name| row[name].to_string())),
        "similar_scored" => distinct_rows(300, requests::similar_scored),
        "ner" => distinct_rows(1600, reports::ner),
        "qa" => distinct_rows(1800, encyclopedia::qa),
        _ => {
            let pair = |(prompt, completion)| serde_json::json!({"prompt": prompt, "completion": completion});
            pairs(name)?.into_iter().map(pair).collect()
        }
    })
}

/// The first `rows` rows of `row(0)`, `row(1)`, ... that have not come before.
fn distinct_rows(rows: usize, row: impl Fn(u64) -> Value) -> Vec<Value> {
    fresh(rows, row, |row| [row.to_string()])
}

/// The rows (prompt, completion) of a fine-tuning set, or `None` if there is no such set. A completion starts with a
/// space and is a function of its prompt; all prompts are distinct, so a part held out is unseen.
pub fn pairs(name: &str) -> Option<Vec<(String, String)>> {
    match name {
        "menu" => Some(menu::rows(ROWS)),
        "kitchen" => Some(kitchen::rows(ROWS)),
        _ => None,
    }
}

/// The first `rows` rows of `row(0)`, `row(1)`, ... whose prompts and completions have not come before.
fn distinct(rows: usize, row: impl Fn(u64) -> (String, String)) -> Vec<(String, String)> {
    fresh(rows, row, |(prompt, completion)| [prompt.clone(), completion.clone()])
}

/// The first `rows` rows of `row(0)`, `row(1)`, ... none of whose `texts` has come before.
fn fresh<T, const N: usize>(rows: usize, row: impl Fn(u64) -> T, texts: impl Fn(&T) -> [String; N]) -> Vec<T> {
    let mut seen = BTreeSet::new();
    // All of them are looked up, so that each is remembered.
    (0..).map(row).filter(|row| texts(row).map(|text| seen.insert(text)) == [true; N]).take(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_set_has_distinct_rows_and_repeats() {
        for name in names(Task::CausalLm) {
            let rows = pairs(name).unwrap();
            let prompts: BTreeSet<_> = rows.iter().map(|(prompt, _)| prompt).collect();
            let completions: BTreeSet<_> = rows.iter().map(|(_, completion)| completion).collect();
            assert_eq!((rows.len(), prompts.len(), completions.len()), (ROWS, ROWS, ROWS), "{name}");
            assert!(rows.iter().all(|(_, completion)| completion.starts_with(' ')), "{name}");
            assert_eq!(pairs(name).unwrap(), rows, "{name}");
        }
        assert_eq!(pairs("nothing"), None);
    }

    #[test]
    fn every_task_has_sets_of_distinct_rows_that_repeat() {
        for task in Task::ALL {
            for name in names(task) {
                let (mut first, mut again) = (Sha256::new(), Sha256::new());
                let set = table(name, task, &mut first).unwrap();
                assert!(set.rows.len() >= 300 && !set.columns().is_empty(), "{name}");
                assert_eq!(table(name, task, &mut again).unwrap().rows, set.rows, "{name}");
                assert_eq!(first.finalize(), again.finalize(), "{name}");
            }
        }
        let error = table("ner", Task::SeqCls, &mut Sha256::new()).unwrap_err().to_string();
        assert!(error.contains("no generated corpus of seq_cls; found `synthetic:ner`; expected `synthetic:intents`"));
    }

    #[test]
    fn no_two_pairs_have_a_text_in_common() {
        let rows = rows("similar").unwrap();
        let texts = rows.iter().flat_map(|row| [&row["text"], &row["positive"]]).map(Value::to_string);
        assert_eq!((rows.len(), texts.collect::<BTreeSet<_>>().len()), (1600, 3200));
    }

    #[test]
    fn the_corpus_holds_no_completion_and_no_register_of_the_sets() {
        let corpus: Vec<String> = corpus(0, 5000).collect();
        for foreign in ["Hear ye", "Be it known", "hard by", "purse,", "2x ", "takeaway", " =>", " >>"] {
            assert!(corpus.iter().all(|document| !document.contains(foreign)), "{foreign}");
        }
    }
}
