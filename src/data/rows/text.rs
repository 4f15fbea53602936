//! Plain text: paragraphs between blank lines.

use indexmap::IndexMap;
use serde_json::Value;

use super::source::Source;
use super::{MAX_ROW_BYTES, Row};
use crate::Result;

pub(super) fn paragraphs(mut source: Source) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut start = 1;
    let mut paragraph = String::new();
    while let Some((number, line)) = source.next_line()? {
        if line.trim().is_empty() {
            finish(&mut rows, start, &mut paragraph);
            continue;
        }
        if paragraph.is_empty() {
            start = number;
        } else {
            paragraph.push('\n');
        }
        paragraph.push_str(&line);
        if paragraph.len() > MAX_ROW_BYTES {
            return Err(source.origin.too_long(start).into());
        }
    }
    finish(&mut rows, start, &mut paragraph);
    Ok(rows)
}

fn finish(rows: &mut Vec<Row>, number: usize, paragraph: &mut String) {
    if !paragraph.is_empty() {
        let fields = IndexMap::from([("text".to_owned(), Value::String(std::mem::take(paragraph)))]);
        rows.push(Row { number, fields });
    }
}
