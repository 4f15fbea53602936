//! Data that the project generates itself: the pretraining corpus and tokenizer of the embedded base `tiny`, and
//! the fine-tuning sets `synthetic:menu` and `synthetic:kitchen`. Everything is a function of a seed.

use std::collections::BTreeSet;

mod draw;
mod grammar;
mod kitchen;
mod menu;
mod orders;
mod pretrain;
mod registers;
mod tales;
mod tokenizer;
mod world;

pub use pretrain::corpus;
pub use tokenizer::{TinyTokenizer, train_tokenizer};

/// Rows of each fine-tuning set.
const ROWS: usize = 2200;

/// The generated fine-tuning sets.
pub fn names() -> &'static [&'static str] {
    &["menu", "kitchen"]
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
    let mut seen = BTreeSet::new();
    let fresh = (0..).map(row).filter(|(prompt, completion)| {
        // Both checks must run, so that each text is remembered.
        let prompt = seen.insert(prompt.clone());
        seen.insert(completion.clone()) && prompt
    });
    fresh.take(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_set_has_distinct_rows_and_repeats() {
        for name in names() {
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
    fn the_corpus_holds_no_completion_and_no_register_of_the_sets() {
        let corpus: Vec<String> = corpus(0, 5000).collect();
        for foreign in ["Hear ye", "Be it known", "hard by", "purse,", "2x ", "takeaway", " =>", " >>"] {
            assert!(corpus.iter().all(|document| !document.contains(foreign)), "{foreign}");
        }
    }
}
