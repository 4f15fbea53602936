//! Which of a file's columns a task reads, and the values in them.

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use super::Purpose;
use crate::data::format::{quoted, suggest};
use crate::data::rows::{Row, Table, kind};
use crate::error::InputError;
use crate::recipe::{Format, nearest};
use crate::{Error, Result};

/// Columns that are told together.
#[derive(Clone, Copy)]
pub struct Part {
    /// Our names.
    pub names: &'static [&'static str],
    /// What files call them, in the order in which `auto` tries them; some may leave the last one out.
    pub called: &'static [&'static [&'static str]],
    pub need: Need,
}

/// When a part has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Always,
    /// Where rows are trained or evaluated on.
    Answered,
    Never,
}

impl Part {
    fn is_needed(&self, purpose: Purpose) -> bool {
        self.need == Need::Always || self.need == Need::Answered && purpose != Purpose::Predict
    }

    /// Our names that every way of calling them has.
    fn required(&self) -> &'static [&'static str] {
        let least = self.called.iter().map(|names| names.len()).min().unwrap_or(0);
        &self.names[..least]
    }
}

/// Our name of each column to the table's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    theirs: IndexMap<&'static str, String>,
}

impl Columns {
    /// Finds the columns of every part.
    ///
    /// # Errors
    /// A missing or misspelt column: the columns there are, and the nearest.
    pub fn resolve(format: &Format, table: &Table, parts: &[Part], purpose: Purpose) -> Result<Self> {
        let there = all(table);
        let mut theirs = IndexMap::new();
        if let Format::Columns(map) = format {
            check_mapping(map, table, parts, purpose)?;
        }
        for part in parts {
            let found: Vec<(&'static str, String)> = match format {
                Format::Columns(map) => {
                    part.names.iter().filter_map(|&name| Some((name, map.get(name)?.clone()))).collect()
                }
                _ => {
                    let called = part.called.iter().find(|names| names.iter().all(|name| there.contains(name)));
                    let called = called.copied().unwrap_or_default().iter();
                    part.names.iter().copied().zip(called.map(|&name| name.to_owned())).collect()
                }
            };
            let whole = part.required().iter().all(|name| found.iter().any(|(ours, _)| ours == name));
            if part.is_needed(purpose) && !whole {
                return Err(missing(format, table, part, &there).into());
            }
            theirs.extend(found);
        }
        Ok(Self { theirs })
    }

    pub fn row<'a>(&'a self, table: &'a Table, row: &'a Row) -> Fields<'a> {
        Fields { columns: self, table, row }
    }
}

/// The values of one row, under our names.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    columns: &'a Columns,
    table: &'a Table,
    row: &'a Row,
}

impl<'a> Fields<'a> {
    /// The file's name of a column.
    fn column(&self, name: &'a str) -> &'a str {
        self.columns.theirs.get(name).map_or(name, String::as_str)
    }

    /// A value that is there and not null.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        let column = self.columns.theirs.get(name)?;
        self.row.fields.get(column).filter(|value| !value.is_null())
    }

    /// Whether the file has the column, whatever the row has in it.
    pub fn has(&self, name: &str) -> bool {
        self.columns.theirs.contains_key(name)
    }

    /// The row's number in its file.
    pub fn number_of_row(&self) -> usize {
        self.row.number
    }

    /// An error about the row.
    pub fn error(&self, what: impl Into<String>) -> InputError {
        self.table.error(self.row.number, what)
    }

    /// `column NAME IS WRONG`, with what stands there.
    pub fn wrong(&self, name: &str, what: &str, expected: &str) -> InputError {
        let found = self.value(name).map_or("nothing", kind);
        self.error(format!("column `{}` is not {what}", self.column(name))).found(found).expected(expected)
    }

    pub fn text(&self, name: &str) -> Result<&'a str, InputError> {
        self.value(name).and_then(Value::as_str).ok_or_else(|| self.wrong(name, "text", "a text"))
    }

    /// The text of a column that may be left out or null.
    pub fn optional_text(&self, name: &str) -> Result<Option<&'a str>, InputError> {
        self.value(name).map(|_| self.text(name)).transpose()
    }

    pub fn list(&self, name: &str) -> Result<&'a [Value], InputError> {
        let list = self.value(name).and_then(Value::as_array);
        list.map(Vec::as_slice).ok_or_else(|| self.wrong(name, "a list", "a list"))
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, InputError> {
        let text = |(at, value): (usize, &Value)| match value {
            Value::String(text) => Ok(text.clone()),
            other => {
                let what = format!("entry {} of column `{}` is not text", at + 1, self.column(name));
                Err(self.error(what).found(kind(other)).expected("a list of texts"))
            }
        };
        self.list(name)?.iter().enumerate().map(text).collect()
    }

    /// A number, or a text that is one, as in CSV.
    pub fn number(&self, name: &str) -> Result<f32, InputError> {
        let number = self.value(name).and_then(as_number).map(|number| number as f32);
        number.filter(|number| number.is_finite()).ok_or_else(|| self.wrong(name, "a number", "a number"))
    }
}

/// A number, or a text that is one.
pub fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The columns of any row, in the order in which they come up.
fn all(table: &Table) -> Vec<&str> {
    let names: IndexSet<&str> = table.rows.iter().flat_map(|row| row.fields.keys()).map(String::as_str).collect();
    names.into_iter().collect()
}

/// A file to predict on need not have the columns of the answers.
fn check_mapping(map: &IndexMap<String, String>, table: &Table, parts: &[Part], purpose: Purpose) -> Result<()> {
    let (there, ours): (_, Vec<&str>) = (all(table), parts.iter().flat_map(|part| part.names).copied().collect());
    for (name, column) in map {
        let Some(part) = parts.iter().find(|part| part.names.contains(&name.as_str())) else {
            let error = Error::input("not a column this task knows").key(format!("data.format.columns.{name}"));
            return Err(suggest(error.expected(quoted(&ours)), name, &ours).into());
        };
        let may_lack = purpose == Purpose::Predict && !part.is_needed(purpose);
        if !may_lack && !there.contains(&column.as_str()) {
            let error = Error::input(format!("there is no column `{column}`")).file(&table.path);
            return Err(suggest(error.found(format!("the columns {}", quoted(&there))), column, &there).into());
        }
    }
    Ok(())
}

fn missing(format: &Format, table: &Table, part: &Part, there: &[&str]) -> InputError {
    let names = part.required();
    if let Format::Columns(map) = format {
        let given: Vec<&str> = map.keys().map(String::as_str).collect();
        let error = Error::input("the column mapping is not complete").key("data.format.columns");
        return error.found(quoted(&given)).expected(names.join(" + "));
    }
    let called: Vec<String> = part.called.iter().map(|names| names.join(" + ")).collect();
    let error = Error::input(format!("no column for the {}", names.join(" and the "))).file(&table.path);
    let error = error.found(format!("the columns {}", quoted(there))).expected(called.join(", or "));
    let absent = part.called.iter().flat_map(|names| *names).filter(|name| !there.contains(name));
    let closest = absent.filter_map(|&name| Some((name, nearest(name, there.iter().copied())?))).next();
    match closest {
        Some((name, column)) => error.hint(format!("is `{column}` a misspelt `{name}`?")),
        None => error
            .hint(format!("name them: format = {{ columns = {{ {} = \"...\", ... }} }}", names.join(" = \"...\", "))),
    }
}
