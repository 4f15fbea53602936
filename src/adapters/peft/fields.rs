//! Typed reading of a JSON object whose author we do not trust.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::adapters::Targets;
use crate::error::InputError;

type Field<T> = Result<T, InputError>;

/// The keys of an object, each taken once; what is left at the end was not understood.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub fn parse(text: &str) -> Field<Self> {
        // serde_json stops at 128 levels of nesting, so a hostile file cannot exhaust the stack.
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(other) => Err(InputError::new("not a JSON object").found(kind(&other)).expected("an object")),
            Err(error) => Err(InputError::new(format!("not valid JSON ({error})")).line(error.line())),
        }
    }

    /// The value, unless it is absent or null.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.take_raw(key).filter(|value| !value.is_null())
    }

    /// The value even if it is null, where null is not the same as absent.
    pub fn take_raw(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key)
    }

    pub fn put(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_string(), value);
    }

    pub fn rest(self) -> Map<String, Value> {
        self.0
    }

    pub fn boolean(&mut self, key: &str) -> Field<bool> {
        self.take(key).map_or(Ok(false), |value| boolean(key, value))
    }

    pub fn string(&mut self, key: &str) -> Field<Option<String>> {
        self.take(key).map(|value| string(key, value)).transpose()
    }

    pub fn number(&mut self, key: &str, default: f64) -> Field<f64> {
        self.take(key).map_or(Ok(default), |value| number(key, value))
    }

    /// A list of strings; a bare string is a list of one.
    pub fn names(&mut self, key: &str) -> Field<Vec<String>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.into_iter().map(|item| string(key, item)).collect(),
            Some(value) => Ok(vec![string(key, value)?]),
        }
    }

    /// A list of strings, or one regular expression.
    pub fn modules(&mut self, key: &str) -> Field<Option<Targets>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(pattern)) => Ok(Some(Targets::Pattern(pattern))),
            Some(Value::Array(items)) => {
                Ok(Some(Targets::Names(items.into_iter().map(|item| string(key, item)).collect::<Field<_>>()?)))
            }
            Some(value) => Err(unexpected(key, &value, "a list of module names or a regular expression")),
        }
    }

    /// A list of indices; a bare number is a list of one.
    pub fn indices(&mut self, key: &str) -> Field<Vec<usize>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.into_iter().map(|item| index(key, item)).collect(),
            Some(value) => Ok(vec![index(key, value)?]),
        }
    }

    /// An object whose values `read` understands.
    pub fn table<T>(&mut self, key: &str, read: fn(&str, Value) -> Field<T>) -> Field<IndexMap<String, T>> {
        match self.take(key) {
            None => Ok(Default::default()),
            Some(Value::Object(map)) => map.into_iter().map(|(name, value)| Ok((name, read(key, value)?))).collect(),
            Some(value) => Err(unexpected(key, &value, "an object")),
        }
    }
}

pub(super) fn boolean(key: &str, value: Value) -> Field<bool> {
    value.as_bool().ok_or_else(|| unexpected(key, &value, "true or false"))
}

pub(super) fn string(key: &str, value: Value) -> Field<String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(unexpected(key, &other, "a string")),
    }
}

pub(super) fn number(key: &str, value: Value) -> Field<f64> {
    value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| unexpected(key, &value, "a number"))
}

pub(super) fn index(key: &str, value: Value) -> Field<usize> {
    let whole = value.as_u64().and_then(|number| usize::try_from(number).ok());
    whole.ok_or_else(|| unexpected(key, &value, "a whole number, 0 or larger"))
}

/// Whether a value turns something on: not null, false, empty or `"none"`.
pub(super) fn is_active(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::String(text) => !text.is_empty() && !text.eq_ignore_ascii_case("none"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(_) => true,
    }
}

pub(super) fn unexpected(key: &str, value: &Value, expected: &str) -> InputError {
    InputError::new("wrong kind of value").key(key).found(brief(value)).expected(expected)
}

/// A value in an error message: short and without control characters.
pub(super) fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).into(),
        other => printable(&other.to_string(), 80),
    }
}

/// The first `limit` characters of `text` that cannot steer a terminal.
pub(super) fn printable(text: &str, limit: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(limit).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
