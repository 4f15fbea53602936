//! A sweep: settings of a variant that a short pilot chooses between.

use indexmap::IndexMap;
use toml::Value;

use super::resolve::Resolved;
use super::tree::{Part, Tree};
use crate::error::InputError;
use crate::{Error, Result};

/// The keys that may be swept, and the values to try of each.
pub type Choices = IndexMap<String, Vec<Value>>;

/// One way to set all swept keys.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// `optim.adamw.lr=0.001`, several with commas.
    pub label: String,
    pub resolved: Resolved,
}

/// Takes `sweep = { "optim.adamw.lr" = [1e-3, 2e-3] }` out of a variant.
pub(super) fn take(tree: &mut Tree, sets: &[String]) -> Result<Choices> {
    let Some(sweep) = tree.take("sweep") else {
        return match tree.table.contains_key("sweep") {
            true => Err(misplaced(tree, "sweep", InputError::new("`sweep` has the wrong type").hint(EXAMPLE))),
            false => Ok(Choices::new()),
        };
    };
    let mut choices = Choices::new();
    for (key, value) in &sweep.table {
        // Written without quotes, a dotted key is a table.
        let Value::Array(values) = value else {
            let error = InputError::new(format!("`sweep.{key}` is no list of values")).hint(EXAMPLE);
            return Err(misplaced(&sweep, key, error));
        };
        let overridden = |set: &&String| set.split('=').next().is_some_and(|given| given.trim() == key);
        let problem = if values.is_empty() {
            Some(InputError::new(format!("nothing to try of `{key}`")).hint(EXAMPLE))
        } else if !["adapter.", "optim."].iter().any(|table| key.starts_with(table)) {
            Some(InputError::new(format!("`{key}` cannot be swept")).expected("a key of adapter or optim"))
        } else {
            let error = |set: &String| {
                InputError::new(format!("`{key}` is swept and set as well"))
                    .found(set)
                    .hint("leave out the one or the other")
            };
            sets.iter().find(overridden).map(error)
        };
        if let Some(problem) = problem {
            return Err(misplaced(&sweep, key, problem));
        }
        choices.insert(key.clone(), values.clone());
    }
    Ok(choices)
}

const EXAMPLE: &str = "sweep = { \"optim.adamw.lr\" = [1e-3, 3e-3] }";

fn misplaced(tree: &Tree, key: &str, error: InputError) -> Error {
    Error::Inputs(vec![tree.locate(&super::tree::child("", key), Part::Key, error)])
}

/// Every way to choose one value of each key, as `--set` arguments; none where nothing is swept.
pub(super) fn combinations(choices: &Choices) -> Vec<Vec<String>> {
    if choices.is_empty() {
        return Vec::new();
    }
    choices.iter().fold(vec![Vec::new()], |ways, (key, values)| {
        let with = |way: &Vec<String>, value: &Value| [way.as_slice(), &[format!("{key}={value}")]].concat();
        ways.iter().flat_map(|way| values.iter().map(move |value| with(way, value))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_one_key_meets_every_value_of_the_other() {
        let choices = Choices::from_iter([
            ("optim.adamw.lr".to_string(), vec![Value::from(0.001), Value::from(0.01)]),
            ("adapter.lora.rank".to_string(), vec![Value::from(4)]),
        ]);
        let ways = combinations(&choices);
        assert_eq!(
            ways,
            [["optim.adamw.lr=0.001", "adapter.lora.rank=4"], ["optim.adamw.lr=0.01", "adapter.lora.rank=4"]]
        );
        assert!(combinations(&Choices::new()).is_empty());
    }
}
