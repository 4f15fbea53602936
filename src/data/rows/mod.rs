//! Rows of named values from `.jsonl`, `.json`, `.csv`, `.tsv`, `.txt` and CoNLL (`.conll`, `.iob`, `.bio`) files.
//!
//! A `.txt` file holds one completion per paragraph: blank lines separate them, and each becomes a row
//! with the single column `text`. Files are UTF-8, with or without a byte order mark. No row may be
//! longer than [`MAX_ROW_BYTES`], so that a file without line breaks cannot fill the memory.

mod conll;
mod csv;
mod json;
mod source;
mod text;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde_json::Value;
use sha2::Sha256;

use crate::error::InputError;
use crate::{Error, Result};
use source::Source;

/// The longest row that is read.
pub const MAX_ROW_BYTES: usize = 16 << 20;

/// The file extensions of data.
pub const EXTENSIONS: [&str; 8] = ["jsonl", "json", "csv", "tsv", "txt", "conll", "iob", "bio"];

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// From 1: the line the row starts at, or its index where rows are not lines.
    pub number: usize,
    pub fields: IndexMap<String, Value>,
}

/// The rows of one file.
#[derive(Clone, Debug)]
pub struct Table {
    pub path: PathBuf,
    /// What `Row::number` counts: `line` or `row`.
    pub place: &'static str,
    pub rows: Vec<Row>,
}

impl Table {
    /// One row of texts that is in no file; `origin` says where it is from in messages.
    pub fn single(origin: &str, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|&(name, text)| (name.to_owned(), Value::from(text))).collect();
        Self { path: PathBuf::from(origin), place: "row", rows: vec![Row { number: 1, fields }] }
    }

    /// The columns of the first row.
    pub fn columns(&self) -> Vec<&str> {
        self.rows.first().map_or(Vec::new(), |row| row.fields.keys().map(String::as_str).collect())
    }

    /// An error about one row.
    pub fn error(&self, row: usize, what: impl Into<String>) -> InputError {
        Error::input(what).file(&self.path).place(self.place, row.to_string())
    }
}

/// Reads a file by its extension and feeds its bytes to `hash`. `rows.json#name` is the array under the key `name`.
///
/// # Errors
/// Anything that is not a readable, non-empty, well-formed file of rows: an input error with file and line.
pub fn read(path: &Path, hash: &mut Sha256) -> Result<Table> {
    let (path, fragment) = split_fragment(path);
    let path = path.as_path();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
    if !EXTENSIONS.contains(&extension.as_str()) {
        let known = EXTENSIONS.map(|extension| format!(".{extension}")).join(", ");
        return Err(Error::input("not a data file by its name").file(path).expected(format!("one of {known}")).into());
    }
    let source = Source::open(path, hash)?;
    let (place, rows) = match extension.as_str() {
        "jsonl" => ("line", json::lines(source)?),
        "json" => ("row", json::array(source, fragment.as_deref())?),
        "csv" => ("line", csv::records(source, b',')?),
        "tsv" => ("line", csv::records(source, b'\t')?),
        "conll" | "iob" | "bio" => ("line", conll::sentences(source)?),
        _ => ("line", text::paragraphs(source)?),
    };
    if rows.is_empty() {
        return Err(Error::input("there are no rows in the file").file(path).into());
    }
    Ok(Table { path: path.to_path_buf(), place, rows })
}

/// The file's own path, and the name of an array in it: `rows.json#name`.
pub fn split_fragment(path: &Path) -> (PathBuf, Option<String>) {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('#'));
    match name {
        Some((file, array)) if file.to_ascii_lowercase().ends_with(".json") => {
            (path.with_file_name(file), Some(array.to_owned()))
        }
        _ => (path.to_path_buf(), None),
    }
}

/// What a JSON value is, in words.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
