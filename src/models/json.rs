//! Typed look-ups in the object of a `config.json`, and refusals that name its keys.

use std::path::Path;

use serde_json::{Map, Value};

use super::families::Aliases;
use crate::{Error, Result};

/// Typed look-ups in a JSON object; `null` counts as absent.
pub struct Json<'a> {
    pub map: &'a Map<String, Value>,
    pub path: &'a Path,
    /// What goes before a key in messages.
    pub prefix: &'static str,
    /// Keys that are looked up under another name first.
    pub aliases: Aliases,
}

impl<'a> Json<'a> {
    pub fn new(map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, path, prefix: "", aliases: &[] }
    }

    /// The value, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        let own = renamed(self.aliases, key);
        let value = self.map.get(own).or_else(|| self.map.get(key).filter(|_| !own.is_empty()));
        value.filter(|value| !value.is_null())
    }

    pub fn refusal(&self, key: &str, what: &str, expected: &str) -> Error {
        let own = renamed(self.aliases, key);
        let key = if self.map.contains_key(key) && !self.map.contains_key(own) { key } else { own };
        let error = Error::input(what).file(self.path).key(format!("{}{key}", self.prefix)).expected(expected);
        let found = self.map.get(key).map_or("nothing".into(), Value::to_string);
        error.found(found.chars().take(80).collect::<String>()).into()
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let read = |value| read(value).ok_or_else(|| self.refusal(key, "wrong type of value", expected));
        self.get(key).map(read).transpose()
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn needed(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.refusal(key, "missing", "a number"))
    }

    pub fn table(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.typed(key, "an object", Value::as_object)
    }

    pub fn size_if_any(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| value.as_u64().and_then(|size| usize::try_from(size).ok()))
    }

    pub fn size(&self, key: &str) -> Result<usize> {
        self.size_if_any(key)?.ok_or_else(|| self.refusal(key, "missing", "a whole number"))
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.size_if_any(key)?.unwrap_or(default))
    }

    /// Refuses a text other than `known`; an absent one stands for the first.
    pub fn only(&self, key: &str, known: &[&str]) -> Result<()> {
        if self.text(key)?.is_none_or(|found| known.contains(&found)) {
            return Ok(());
        }
        Err(self.refusal(key, "unsupported", &known.join(" or ")))
    }

    /// What a text stands for; an absent one stands for the first.
    pub fn one_of<T: Copy>(&self, key: &str, known: &[(&str, T)]) -> Result<T> {
        let found = match self.text(key)? {
            Some(text) => known.iter().find(|(name, _)| *name == text),
            None => known.first(),
        };
        let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" or ");
        found.map(|(_, of)| *of).ok_or_else(|| self.refusal(key, "unsupported", &names()))
    }

    /// Refuses a flag other than `known`, which an absent one stands for.
    pub fn only_flag(&self, key: &str, known: bool) -> Result<()> {
        if self.flag(key, known)? == known { Ok(()) } else { Err(self.refusal(key, "unsupported", &known.to_string())) }
    }

    /// Refuses a number other than `known`, which an absent one stands for.
    pub fn only_number(&self, key: &str, known: f64) -> Result<()> {
        if self.number(key)?.is_none_or(|found| found == known) {
            return Ok(());
        }
        Err(self.refusal(key, "unsupported", &known.to_string()))
    }

    /// A list of whole numbers; empty where there is none.
    pub fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        let sizes = self.typed(key, "a list of whole numbers", |value| value.as_array()?.iter().map(size).collect())?;
        Ok(sizes.unwrap_or_default())
    }

    /// Refuses any value.
    pub fn absent(&self, key: &str) -> Result<()> {
        if self.get(key).is_none() { Ok(()) } else { Err(self.refusal(key, "unsupported", "none")) }
    }

    /// A token id or a list of them; -1, which old files write for "none", counts as absent.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let ids = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(token_id).collect(),
            one if one.as_i64() == Some(-1) => Some(Vec::new()),
            one => token_id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

/// The family's name of a key.
pub(super) fn renamed(aliases: Aliases, key: &str) -> &str {
    aliases.iter().find(|(usual, _)| *usual == key).map_or(key, |(_, own)| own)
}

fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
