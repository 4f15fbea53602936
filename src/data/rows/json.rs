//! JSON: one object a line, or one array of objects or of arrays.

use serde_json::Value;

use super::source::Source;
use super::{Row, kind};
use crate::error::InputError;
use crate::{Error, Result};

const ARRAY_HINT: &str = "one array of rows belongs in a .json file";
const LINES_HINT: &str = "one JSON object a line belongs in a .jsonl file";

pub(super) fn lines(mut source: Source) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    while let Some((number, line)) = source.next_line()? {
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&line)
            .map_err(|error| hinted(malformed(&source, number, &error), &line, '[', ARRAY_HINT))?;
        let fields = match value {
            Value::Object(fields) => fields.into_iter().collect(),
            other => {
                let error = source.origin.error(number, "every line holds one JSON object").found(kind(&other));
                return Err(hinted(error, &line, '[', ARRAY_HINT).into());
            }
        };
        rows.push(Row { number, fields });
    }
    Ok(rows)
}

/// The rows of the array `name`, or of the only one. A row that is an array has the columns `0`, `1`, ...
pub(super) fn array(mut source: Source, name: Option<&str>) -> Result<Vec<Row>> {
    let text = source.read_all()?;
    let whole: Value = serde_json::from_str(&text)
        .map_err(|error| hinted(malformed(&source, error.line(), &error), &text, '{', LINES_HINT))?;
    let rows = match name {
        Some(name) => named(whole, name),
        None => the_array(whole),
    };
    let rows = rows.map_err(|error| error.file(&source.origin.path))?;
    let row = |(index, value)| match value {
        Value::Object(fields) => Ok(Row { number: index + 1, fields: fields.into_iter().collect() }),
        Value::Array(values) => {
            let fields = values.into_iter().enumerate().map(|(column, value)| (column.to_string(), value));
            Ok(Row { number: index + 1, fields: fields.collect() })
        }
        other => Err(Error::input("every row is a JSON object or a list")
            .file(&source.origin.path)
            .row(index + 1)
            .found(kind(&other))
            .into()),
    };
    rows.into_iter().enumerate().map(row).collect()
}

/// The array itself, or the only one in an object.
fn the_array(whole: Value) -> Result<Vec<Value>, InputError> {
    const WANTED: &str = "an array of objects, or an object that holds one array";
    let unclear = |found: String| Error::input("the rows cannot be told").found(found).expected(WANTED);
    match whole {
        Value::Array(rows) => Ok(rows),
        Value::Object(fields) => {
            let names = fields.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let mut arrays = fields.into_iter().filter_map(|(_, value)| match value {
                Value::Array(rows) => Some(rows),
                _ => None,
            });
            match (arrays.next(), arrays.next()) {
                (Some(rows), None) => Ok(rows),
                (Some(_), _) => Err(unclear(format!("several arrays among the keys {names}"))
                    .hint("name one of them after the file: \"rows.json#key\"")),
                (None, _) => Err(unclear(format!("no array among the keys {names}")).hint(LINES_HINT)),
            }
        }
        other => Err(Error::input("there are no rows").found(kind(&other)).expected(WANTED)),
    }
}

/// The array under a key.
fn named(whole: Value, name: &str) -> Result<Vec<Value>, InputError> {
    let error = |what: String| Error::input(what).place("key", name);
    let Value::Object(mut fields) = whole else {
        return Err(error("only an object has named arrays".to_owned()).found(kind(&whole)));
    };
    match fields.remove(name) {
        Some(Value::Array(rows)) => Ok(rows),
        Some(other) => Err(error("not an array of rows".to_owned()).found(kind(&other))),
        None => {
            let keys = fields.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            Err(error("there is no such key in the file".to_owned()).found(format!("the keys {keys}")))
        }
    }
}

fn malformed(source: &Source, line: usize, error: &serde_json::Error) -> InputError {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    let place = format!("{line}, column {}", error.column());
    Error::input(format!("not valid JSON: {what}")).file(&source.origin.path).place("line", place)
}

/// A file whose text opens with the wrong bracket is most likely of the other kind.
fn hinted(error: InputError, text: &str, bracket: char, hint: &str) -> InputError {
    if text.trim_start().starts_with(bracket) { error.hint(hint) } else { error }
}
