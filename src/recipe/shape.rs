//! Does the TOML have the shape of a recipe? Compared with the schema instead of deserialised, so
//! that every unknown key and wrong type is reported at once and each can be pointed at.

use serde_json::{Value as Json, json};
use toml::{Table, Value};

use super::schema::{alternatives, keys, tag};
use super::suggest::nearest;
use super::tree::{Part, child};
use crate::error::InputError;

/// An error and the key (or value) of the recipe it is about.
#[derive(Debug)]
pub(super) struct Problem {
    pub path: String,
    pub part: Part,
    pub error: InputError,
}

/// Every way in which `table` is not a recipe. What is wrong is removed and short forms are written
/// out, so that the rest can still be checked.
pub(super) fn check(table: &mut Table, schema: &Json) -> Vec<Problem> {
    let mut shape = Shape { schema, problems: Vec::new() };
    shape.fields(table, schema, "");
    shape.problems
}

struct Shape<'a> {
    schema: &'a Json,
    problems: Vec<Problem>,
}

impl<'a> Shape<'a> {
    fn report(&mut self, path: &str, part: Part, error: InputError) {
        self.problems.push(Problem { path: path.to_string(), part, error });
    }

    /// Whether a problem of this key, or of one below it, is known.
    fn has_reported(&self, path: &str) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.problems.iter().any(|problem| problem.path.strip_prefix(path).is_some_and(below))
    }

    /// Whether `value` fits the schema well enough to be kept.
    fn value(&mut self, value: &mut Value, schema: &'a Json, path: &str) -> bool {
        let choices = alternatives(schema, self.schema);
        if let Value::String(word) = value
            && choices.iter().any(|choice| tag(choice).is_some_and(|(name, _)| name == word))
            && !choices.iter().any(|choice| is_free_text(choice))
        {
            *value = Value::Table(Table::from_iter([(word.clone(), Value::Table(Table::new()))]));
        }
        match value {
            Value::Table(table) if choices.iter().any(|choice| is(choice, "object")) => {
                self.table(table, &choices, path)
            }
            Value::Array(items) if let Some(list) = choices.iter().find(|choice| is(choice, "array")) => {
                let before = self.problems.len();
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, &list["items"], &format!("{path}[{index}]"));
                }
                self.problems.len() == before
            }
            scalar if choices.iter().any(|choice| fits(scalar, choice)) => true,
            other => {
                self.mismatch(other, &choices, path);
                false
            }
        }
    }

    fn table(&mut self, table: &mut Table, choices: &[&'a Json], path: &str) -> bool {
        let tagged: Vec<(&str, &'a Json)> = choices.iter().filter_map(|choice| tag(choice)).collect();
        if !tagged.is_empty() {
            return self.choice(table, &tagged, path);
        }
        if let Some(object) = choices.iter().find(|choice| is(choice, "object")) {
            self.fields(table, object, path);
        }
        true
    }

    /// A table of exactly one key, whose name says which alternative it is.
    fn choice(&mut self, table: &mut Table, tagged: &[(&'a str, &'a Json)], path: &str) -> bool {
        let names = || tagged.iter().map(|(name, _)| *name);
        if table.is_empty() {
            let error = InputError::new(format!("[{path}] is empty")).expected(list(names()));
            self.report(path, Part::Key, error);
        }
        let mut chosen = None::<String>;
        table.retain(|name, value| match (tagged.iter().find(|(known, _)| *known == name), &chosen) {
            (None, _) => {
                self.unknown_key(name, names(), path);
                false
            }
            (Some(_), Some(first)) => {
                let error = InputError::new(format!("`{name}` contradicts `{first}`"));
                self.report(&child(path, name), Part::Key, error.expected(format!("exactly one in [{path}]")));
                false
            }
            (Some((_, content)), None) => {
                chosen = Some(name.to_string());
                self.value(value, content, &child(path, name))
            }
        });
        !table.is_empty()
    }

    /// A table with named keys, or a map from any name.
    fn fields(&mut self, table: &mut Table, object: &'a Json, path: &str) {
        let known = object.get("properties").and_then(Json::as_object);
        let any = object.get("additionalProperties").filter(|schema| schema.is_object());
        table.retain(|name, value| match (known.and_then(|known| known.get(name)), any) {
            (Some(schema), _) | (None, Some(schema)) => self.value(value, schema, &child(path, name)),
            (None, None) => {
                self.unknown_key(name, known.into_iter().flat_map(|known| known.keys().map(String::as_str)), path);
                false
            }
        });
        for name in object.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !table.contains_key(name) && !self.has_reported(&child(path, name)) {
                let place = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
                let error = InputError::new(format!("no `{name}`{place}")).hint(example(name));
                self.report(path, Part::Key, error);
            }
        }
    }

    fn unknown_key<'n>(&mut self, name: &str, siblings: impl Iterator<Item = &'n str>, path: &str) {
        let full = child(path, name);
        let place = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
        let siblings: Vec<&str> = siblings.collect();
        let hint = match (nearest(name, siblings.iter().copied()), self.elsewhere(name)) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(home)) => format!("`{name}` belongs in [{home}]"),
            (None, None) if siblings.is_empty() => format!("[{path}] has no keys"),
            (None, None) => format!("it has {}", siblings.join(", ")),
        };
        self.report(&full, Part::Key, InputError::new(format!("unknown key `{name}`{place}")).hint(hint));
    }

    /// The first table of a recipe that has a key of this name.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let suffix = format!(".{name}");
        keys(self.schema).into_iter().find_map(|(path, _)| path.strip_suffix(&suffix).map(str::to_string))
    }

    fn mismatch(&mut self, value: &Value, choices: &[&Json], path: &str) {
        let words: Vec<&str> = choices.iter().flat_map(|choice| words(choice)).collect();
        let error = match value {
            Value::String(word) if !words.is_empty() => {
                let error = InputError::new(format!("unknown value `{word}` of `{path}`"))
                    .expected(list(words.iter().copied()));
                match nearest(word, words) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error,
                }
            }
            _ => InputError::new(format!("`{path}` has the wrong type"))
                .found(brief(value))
                .expected(choices.iter().map(|choice| kind(choice)).collect::<Vec<_>>().join(" or ")),
        };
        self.report(path, Part::Value, error);
    }
}

fn is(schema: &Json, kind: &str) -> bool {
    match &schema["type"] {
        Json::String(own) => own == kind,
        Json::Array(several) => several.iter().any(|own| own == kind),
        _ => false,
    }
}

fn is_free_text(schema: &Json) -> bool {
    is(schema, "string") && words(schema).is_empty()
}

/// The words a string schema allows (of a pattern, its examples); none if it allows any.
fn words(schema: &Json) -> Vec<&str> {
    let listed = ["enum", "examples"].into_iter().filter_map(|key| schema[key].as_array()).flatten();
    listed.chain(schema.get("const")).filter_map(Json::as_str).collect()
}

fn fits(value: &Value, schema: &Json) -> bool {
    match value {
        Value::String(word) => {
            let pattern = schema["pattern"].as_str().and_then(|pattern| regex::Regex::new(pattern).ok());
            is_free_text(schema)
                || words(schema).contains(&word.as_str())
                || pattern.is_some_and(|pattern| pattern.is_match(word))
        }
        Value::Integer(number) => {
            is(schema, "number")
                || is(schema, "integer") && schema["minimum"].as_i64().is_none_or(|least| *number >= least)
        }
        Value::Float(_) => is(schema, "number"),
        Value::Boolean(_) => is(schema, "boolean"),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => false,
    }
}

fn kind(schema: &Json) -> String {
    let named = |kind| is(schema, kind);
    match () {
        () if named("integer") && schema["minimum"] == json!(0) => "a whole number, 0 or more".into(),
        () if named("integer") => "a whole number".into(),
        () if named("number") => "a number".into(),
        () if named("boolean") => "true or false".into(),
        () if named("array") => format!("a list of {}", kind(&schema["items"]).replacen("a ", "", 1)),
        () if let Some((name, _)) = tag(schema) => format!("{{ {name} = ... }}"),
        () if named("object") => "a table".into(),
        () if words(schema).is_empty() => "a string".into(),
        () => list(words(schema).into_iter()),
    }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(" | ")
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// What to write for a key that must be there.
fn example(name: &str) -> String {
    match name {
        "model" => "[model]\n      path = \"tiny\"".into(),
        "adapter" => "[adapter.lora] trains a low-rank adapter, [adapter.none] only evaluates".into(),
        "data" => "[data]\n      train = \"synthetic:menu\"".into(),
        "path" => "path = \"tiny\" is the embedded base; a directory or a .gguf file works too".into(),
        "train" => "train = \"synthetic:menu\" is generated; a .jsonl, .json, .csv, .tsv or .txt file works too".into(),
        _ => format!("add `{name}`"),
    }
}
