//! CoNLL: one word a line, its tag in the last column, blank lines between sentences.

use indexmap::IndexMap;
use serde_json::Value;

use super::Row;
use super::source::Source;
use crate::Result;

#[derive(Default)]
struct Sentence {
    start: usize,
    tokens: Vec<Value>,
    tags: Vec<Value>,
}

/// Sentences with the columns `tokens` and `tags`, numbered by the line they start at. Lines of `-DOCSTART-` are none.
pub(super) fn sentences(mut source: Source) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut sentence = Sentence::default();
    while let Some((number, line)) = source.next_line()? {
        let mut columns = line.split_whitespace();
        match (columns.next(), columns.next_back()) {
            (None | Some("-DOCSTART-"), _) => finish(&mut rows, &mut sentence),
            (Some(token), Some(tag)) => {
                if sentence.tokens.is_empty() {
                    sentence.start = number;
                }
                sentence.tokens.push(token.into());
                sentence.tags.push(tag.into());
            }
            (Some(token), None) => {
                let error = source.origin.error(number, "the line has one column").found(format!("`{token}`"));
                return Err(error.expected("a word first and its tag last, with white space between").into());
            }
        }
    }
    finish(&mut rows, &mut sentence);
    Ok(rows)
}

fn finish(rows: &mut Vec<Row>, sentence: &mut Sentence) {
    let Sentence { start, tokens, tags } = std::mem::take(sentence);
    if !tokens.is_empty() {
        let fields = [("tokens".to_owned(), Value::Array(tokens)), ("tags".to_owned(), Value::Array(tags))];
        rows.push(Row { number: start, fields: IndexMap::from(fields) });
    }
}
