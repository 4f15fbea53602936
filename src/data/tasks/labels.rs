//! Names of classes, and what stands for them in the data.

use std::collections::BTreeSet;

use serde_json::Value;

use super::columns::as_number;
use crate::data::format::quoted;
use crate::data::rows::kind;
use crate::error::InputError;
use crate::recipe::nearest;
use crate::{Error, Result};

/// The classes of a head, in the order of its outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    source: Source,
}

/// Where the names come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// `head.labels`, or the model's own head.
    Given,
    /// The training rows.
    Rows,
}

impl Labels {
    /// Names that were given: whole numbers in the data count them from 0.
    ///
    /// # Errors
    /// Fewer than two, or a name twice.
    pub fn given(names: &[String]) -> Result<Self> {
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            let error = Error::input("two labels have the same name").key("head.labels");
            return Err(error.found(format!("`{twice}` twice")).into());
        }
        Self::enough(names.to_vec(), Source::Given)
    }

    /// The distinct values of the training rows: whole numbers by their size, other names by the alphabet.
    ///
    /// # Errors
    /// A value that names no class, or fewer than two classes.
    pub fn of<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Self> {
        let names: BTreeSet<String> = values.filter_map(name).collect();
        let mut names: Vec<String> = names.into_iter().collect();
        let numbers: Option<Vec<i64>> = names.iter().map(|name| name.parse().ok()).collect();
        if numbers.is_some() {
            names.sort_by_key(|name| name.parse::<i64>().unwrap_or(0));
        }
        Self::enough(names, Source::Rows)
    }

    fn enough(names: Vec<String>, source: Source) -> Result<Self> {
        if names.len() >= 2 {
            return Ok(Self { names, source });
        }
        let found = names.first().map_or("no label".to_owned(), |name| format!("only the label `{name}`"));
        Err(Error::input("there is nothing to tell apart").found(found).expected("two labels or more").into())
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class that a value stands for.
    ///
    /// # Errors
    /// A name that is not known, with the nearest that is; a number out of range.
    pub fn class(&self, value: &Value) -> Result<u32, InputError> {
        let Some(name) = name(value) else {
            let error = Error::input("a label names no class").found(shown(value));
            return Err(error.expected("a text, a whole number or a boolean"));
        };
        if let Some(class) = self.names.iter().position(|known| *known == name) {
            return Ok(class as u32);
        }
        let index = match value {
            Value::Bool(yes) => Some(i64::from(*yes)),
            _ => name.parse::<i64>().ok(),
        };
        match index.filter(|_| self.source == Source::Given) {
            Some(index) if (0..self.names.len() as i64).contains(&index) => Ok(index as u32),
            Some(index) => Err(Error::input("a label is out of range").found(index).expected(format!(
                "0 to {}, or one of {}",
                self.names.len() - 1,
                self.few()
            ))),
            None => Err(self.unknown(&name)),
        }
    }

    fn unknown(&self, name: &str) -> InputError {
        let what = match self.source {
            Source::Given => "a label is not one of the head's",
            Source::Rows => "a label is not among those of the training rows",
        };
        let error = Error::input(what).found(format!("`{name}`")).expected(self.few());
        match nearest(name, self.names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("head.labels names the classes there are"),
        }
    }

    /// The first names, which are enough to see their kind.
    fn few(&self) -> String {
        const SHOWN: usize = 12;
        let first: Vec<&str> = self.names.iter().take(SHOWN).map(String::as_str).collect();
        match self.names.len() - first.len() {
            0 => quoted(&first),
            more => format!("{} and {more} more", quoted(&first)),
        }
    }
}

/// Whether the values are numbers about a row and not classes: every one is a number, and some have a fraction.
pub fn are_numbers<'a>(values: impl Iterator<Item = &'a Value>) -> bool {
    let mut fraction = false;
    for value in values {
        match as_number(value) {
            Some(number) => fraction |= number.fract() != 0.0,
            None => return false,
        }
    }
    fraction
}

/// What a value is called as a class.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => whole(number.as_f64()?).map(|number| number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

/// The number, if it has no fraction.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(_) => "an empty text".to_owned(),
        other => kind(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(values: &[Value]) -> Labels {
        Labels::of(values.iter()).unwrap()
    }

    #[test]
    fn rows_give_numbers_by_size_and_names_by_the_alphabet() {
        assert_eq!(of(&[json!(10), json!(9), json!(-1), json!(9)]).names(), ["-1", "9", "10"]);
        assert_eq!(of(&[json!("10"), json!("9")]).names(), ["9", "10"]);
        assert_eq!(of(&[json!(1.0), json!(0)]).names(), ["0", "1"]);
        assert_eq!(of(&[json!("no"), json!("10"), json!("9")]).names(), ["10", "9", "no"]);
        assert_eq!(of(&[json!(true), json!(false)]).names(), ["false", "true"]);
        let labels = of(&[json!(1), json!(5)]);
        assert_eq!((labels.class(&json!(5)).unwrap(), labels.class(&json!("1")).unwrap()), (1, 0));
    }

    #[test]
    fn given_names_are_also_counted_from_zero() {
        let names = ["O", "B-PER", "I-PER"].map(str::to_owned);
        let labels = Labels::given(&names).unwrap();
        assert_eq!((labels.class(&json!("B-PER")).unwrap(), labels.class(&json!(2)).unwrap()), (1, 2));
        assert_eq!((labels.class(&json!("0")).unwrap(), labels.class(&json!(true)).unwrap()), (0, 1));
        let error = labels.class(&json!(3)).unwrap_err().to_string();
        assert!(error.contains("a label is out of range; found 3; expected 0 to 2, or one of `O`"), "{error}");
        assert!(labels.class(&json!(-1)).unwrap_err().to_string().contains("found -1"));
        let error = labels.class(&json!("B-PERS")).unwrap_err().to_string();
        assert!(error.contains("not one of the head's; found `B-PERS`") && error.contains("did you mean `B-PER`?"));
        assert!(labels.class(&json!("")).unwrap_err().to_string().contains("names no class; found an empty text"));
        assert!(labels.class(&json!(0.5)).unwrap_err().to_string().contains("names no class; found 0.5"));
    }

    #[test]
    fn a_label_of_no_training_row_is_refused() {
        let labels = of(&[json!("yes"), json!("no")]);
        let error = labels.class(&json!("maybe")).unwrap_err().to_string();
        assert!(error.contains("not among those of the training rows; found `maybe`; expected `no`, `yes`"), "{error}");
        assert!(error.contains("head.labels"), "{error}");
    }

    #[test]
    fn one_class_and_double_names_are_refused() {
        let error = Labels::of([json!("a"), json!("a")].iter()).unwrap_err().to_string();
        assert!(error.contains("nothing to tell apart; found only the label `a`"), "{error}");
        assert!(Labels::of([].iter()).unwrap_err().to_string().contains("found no label"));
        let error = Labels::given(&["a", "b", "a"].map(str::to_owned)).unwrap_err().to_string();
        assert!(error.contains("key head.labels: two labels have the same name; found `a` twice"), "{error}");
    }

    #[test]
    fn numbers_are_told_from_classes_by_a_fraction() {
        assert!(are_numbers([json!(1), json!(2.5)].iter()));
        assert!(are_numbers([json!("1"), json!("2.5")].iter()));
        assert!(!are_numbers([json!(1), json!(2)].iter()));
        assert!(!are_numbers([json!(1.5), json!("a")].iter()));
    }
}
