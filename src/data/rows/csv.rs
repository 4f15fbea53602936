//! Comma- or tab-separated values with a header line. All values are text.

use std::collections::HashSet;

use csv::{ReaderBuilder, StringRecord};
use indexmap::IndexMap;
use serde_json::Value;

use super::source::{Origin, Source};
use super::{MAX_ROW_BYTES, Row};
use crate::Result;

pub(super) fn records(mut source: Source, delimiter: u8) -> Result<Vec<Row>> {
    let text = source.read_all()?;
    let origin = &source.origin;
    let mut lines = Lines { text: &text, at: 0, line: 1 };
    let mut builder = ReaderBuilder::new();
    let mut reader = builder.delimiter(delimiter).flexible(true).has_headers(false).from_reader(text.as_bytes());
    let mut header: Option<StringRecord> = None;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| origin.error(lines.line, format!("not readable as a table: {error}")))?;
        let line = lines.of(&record);
        if record.as_slice().len() > MAX_ROW_BYTES {
            return Err(origin.too_long(line).into());
        }
        match &header {
            Some(header) => rows.push(row(origin, header, &record, line)?),
            None => header = Some(check_header(origin, record)?),
        }
    }
    Ok(rows)
}

/// Finds line numbers of records, which come in order. The reader's own count is late where lines end in
/// a carriage return or are blank.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, record: &StringRecord) -> usize {
        let bytes = self.text.as_bytes();
        let mut start = record.position().map_or(0, |position| position.byte() as usize).clamp(self.at, bytes.len());
        start += bytes[start..].iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        self.line += bytes[self.at..start].iter().filter(|&&byte| byte == b'\n').count();
        self.at = start;
        self.line
    }
}

fn row(origin: &Origin, header: &StringRecord, record: &StringRecord, line: usize) -> Result<Row> {
    if record.len() != header.len() {
        return Err(origin
            .error(line, "the row has another number of values than the header")
            .found(format!("{} values", record.len()))
            .expected(format!("{} ({})", header.len(), header.iter().collect::<Vec<_>>().join(", ")))
            .hint("a value that contains the separator or a line break needs double quotes")
            .into());
    }
    let values = record.iter().map(|value| Value::String(value.to_owned()));
    let fields: IndexMap<_, _> = header.iter().map(str::to_owned).zip(values).collect();
    Ok(Row { number: line, fields })
}

fn check_header(origin: &Origin, header: StringRecord) -> Result<StringRecord> {
    let mut seen = HashSet::new();
    match header.iter().find(|name| !seen.insert(*name)) {
        None => Ok(header.clone()),
        Some(twice) => {
            Err(origin.error(1, "two columns of the header have the same name").found(format!("`{twice}`")).into())
        }
    }
}
