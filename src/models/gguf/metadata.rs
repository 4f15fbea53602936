//! Typed look-ups in the metadata of a GGUF file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::header::Value;
use crate::error::InputError;
use crate::{Error, Result};

pub(super) struct Metadata {
    values: HashMap<String, Value>,
    path: PathBuf,
}

impl Metadata {
    pub(super) fn new(values: HashMap<String, Value>, path: &Path) -> Self {
        Self { values, path: path.to_path_buf() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn error(&self, key: &str, what: &str) -> InputError {
        Error::input(what).file(&self.path).key(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    fn typed<'a, T>(&'a self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let read = |value| read(value).ok_or_else(|| self.error(key, "wrong type of value").expected(expected).into());
        self.values.get(key).map(read).transpose()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "a list of strings", |value| match value {
            Value::Texts(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub(super) fn ints(&self, key: &str) -> Result<Option<&[i128]>> {
        self.typed(key, "a list of whole numbers", |value| match value {
            Value::Ints(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub(super) fn floats(&self, key: &str) -> Result<Option<&[f64]>> {
        self.typed(key, "a list of numbers", |value| match value {
            Value::Floats(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| match value {
            Value::Float(number) => Some(*number),
            Value::Int(number) => Some(*number as f64),
            _ => None,
        })
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "one whole number (a list would mean sizes that differ by layer)", |value| match value {
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        })
    }

    pub(super) fn needed_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.error(key, "missing from the metadata").into())
    }

    pub(super) fn token_id(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a token id", |value| match value {
            Value::Int(number) => u32::try_from(*number).ok(),
            _ => None,
        })
    }
}
