//! The recipe's TOML before it has a type: values, and where each of them was written.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use toml::de::{DeArray, DeTable, DeValue};
use toml::{Table, Value};

use crate::error::InputError;

/// Keys whose table holds one choice: an override that names another one replaces it.
const CHOICES: [&str; 3] = ["adapter", "optim.schedule", "data.format"];

/// A text that gave values: the recipe file or one `--set` argument.
#[derive(Clone)]
struct Source {
    from: From,
    text: String,
}

#[derive(Clone)]
enum From {
    File(PathBuf),
    Text,
    Override,
}

/// Where a key and its value stand in their source.
#[derive(Clone)]
struct Origin {
    source: usize,
    key: Range<usize>,
    value: Range<usize>,
}

/// Which end of `key = value` an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
}

impl Source {
    fn name(&self, error: InputError) -> InputError {
        match &self.from {
            From::File(file) => error.file(file),
            From::Text => error,
            From::Override => error.place("--set", self.text.clone()),
        }
    }

    fn locate(&self, error: InputError, span: Range<usize>) -> InputError {
        let end = self.text.len();
        let span = span.start.min(end)..span.end.min(end);
        let line = self.text[..span.start].matches('\n').count() + 1;
        self.name(error.line(line)).span(self.text.clone(), span)
    }
}

#[derive(Clone)]
pub(super) struct Tree {
    pub table: Table,
    sources: Vec<Source>,
    /// By dotted path.
    origins: HashMap<String, Origin>,
    /// Dotted paths that an override gave.
    overridden: Vec<String>,
}

impl Tree {
    /// Parses a recipe. Every syntax error is reported.
    pub fn parse(file: Option<PathBuf>, text: &str) -> Result<Self, Vec<InputError>> {
        let source = Source { from: file.map_or(From::Text, From::File), text: text.to_string() };
        let (document, errors) = DeTable::parse_recoverable(text);
        let table =
            if errors.is_empty() { toml::from_str::<Table>(text).map_err(|error| vec![error]) } else { Err(errors) };
        let table = table.map_err(|errors| errors.iter().map(|error| syntax(&source, error)).collect::<Vec<_>>())?;
        let mut origins = HashMap::new();
        record_table(document.get_ref(), "", 0, &mut origins);
        Ok(Self { table, sources: vec![source], origins, overridden: Vec::new() })
    }

    /// Applies one `path.to.key=VALUE`. The value is TOML; what is not TOML is taken as a string.
    pub fn set(&mut self, argument: &str) -> Result<(), Box<InputError>> {
        let source = Source { from: From::Override, text: argument.to_string() };
        let Some((key, raw)) = argument.split_once('=') else {
            let error = InputError::new("an override needs a key and a value").found(format!("`{argument}`"));
            return Err(Box::new(error.expected("path.to.key=VALUE")));
        };
        let Some(segments) = dotted(key) else {
            let error = InputError::new("not a dotted key").found(format!("`{}`", key.trim()));
            return Err(Box::new(error.expected("path.to.key=VALUE")));
        };
        let value_span = key.len() + 1..argument.len();
        let value =
            value(raw).map_err(|message| Box::new(source.locate(InputError::new(message), value_span.clone())))?;
        let path = insert(&mut self.table, "", &segments, value);
        let is_replaced =
            |known: &str| known.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.origins.retain(|known, _| !is_replaced(known));
        let key = 0..key.trim_end().len();
        self.origins.insert(path.clone(), Origin { source: self.sources.len(), key, value: value_span });
        self.sources.push(source);
        self.overridden.push(path);
        Ok(())
    }

    /// Takes the top-level key `name` out, as a tree of its own: what was `name.key` is `key` there. `None` if it is absent or no table.
    pub fn take(&mut self, name: &str) -> Option<Self> {
        let Value::Table(table) = self.table.remove(name)? else { return None };
        Some(self.below(table, &format!("{name}.")))
    }

    /// Takes the list of tables `name` out, each as a tree of its own.
    pub fn take_list(&mut self, name: &str) -> Vec<Self> {
        let Some(Value::Array(items)) = self.table.remove(name) else { return Vec::new() };
        let tables = items.into_iter().enumerate().filter_map(|(i, item)| Some((i, item.try_into().ok()?)));
        tables.map(|(i, table)| self.below(table, &format!("{name}[{i}]."))).collect()
    }

    fn below(&self, table: Table, prefix: &str) -> Self {
        let own =
            self.origins.iter().filter_map(|(path, origin)| Some((path.strip_prefix(prefix)?.into(), origin.clone())));
        Self { table, sources: self.sources.clone(), origins: own.collect(), overridden: Vec::new() }
    }

    /// Lays `over` on top: tables are merged, everything else is replaced, and so is a table that holds another choice.
    pub fn overlay(&mut self, over: Self) {
        let shift = self.sources.len();
        self.sources.extend(over.sources);
        merge(&mut self.table, over.table, "");
        let moved = |(path, origin): (String, Origin)| (path, Origin { source: origin.source + shift, ..origin });
        self.origins.extend(over.origins.into_iter().map(moved));
    }

    pub fn overridden(&self) -> &[String] {
        &self.overridden
    }

    /// Adds file, line and span to an error about `path`, or about the nearest table around it
    /// when the value comes from a default.
    pub fn locate(&self, path: &str, part: Part, error: InputError) -> InputError {
        let mut around = path;
        loop {
            if let Some(origin) = self.origins.get(around) {
                let exact = around == path;
                let span = if exact && part == Part::Value { &origin.value } else { &origin.key };
                return self.sources[origin.source].locate(error, span.clone());
            }
            match parent(around) {
                Some(outer) => around = outer,
                None => return self.sources[0].name(error),
            }
        }
    }
}

fn merge(table: &mut Table, over: Table, path: &str) {
    for (name, value) in over {
        let path = child(path, &name);
        match (table.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(over)) => {
                if CHOICES.contains(&path.as_str()) {
                    below.retain(|choice, _| over.contains_key(choice));
                }
                merge(below, over, &path);
            }
            (_, value) => drop(table.insert(name, value)),
        }
    }
}

/// Puts `value` at `segments` below `path`, making tables on the way; returns its dotted path.
fn insert(table: &mut Table, path: &str, segments: &[String], value: Value) -> String {
    let Some((name, rest)) = segments.split_first() else { return path.to_string() };
    let path = child(path, name);
    if rest.is_empty() {
        table.insert(name.clone(), value);
        return path;
    }
    let inner = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
    match inner {
        Value::Table(inner) => {
            if CHOICES.contains(&path.as_str()) {
                inner.retain(|choice, _| *choice == rest[0]);
            }
            insert(inner, &path, rest, value)
        }
        scalar => {
            let mut made = Table::new();
            let path = insert(&mut made, &path, rest, value);
            *scalar = Value::Table(made);
            path
        }
    }
}

/// `path.name`, with the name quoted if TOML would want it so.
pub(super) fn child(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let name = if bare { name.to_string() } else { Value::String(name.to_string()).to_string() };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// The path without its last segment; a dot inside quotes or an index is not looked for, because a
/// path that is too short only widens the place an error points at.
fn parent(path: &str) -> Option<&str> {
    path.rfind(['.', '[']).map(|end| &path[..end])
}

/// The segments of a dotted key.
fn dotted(key: &str) -> Option<Vec<String>> {
    let mut table = toml::from_str::<Table>(&format!("{key}=0")).ok().filter(|_| !key.contains('\n'))?;
    let mut segments = Vec::new();
    loop {
        let (name, value) = table.into_iter().next()?;
        segments.push(name);
        match value {
            Value::Table(inner) => table = inner,
            _ => return Some(segments),
        }
    }
}

/// What the text after `=` says, or why it is malformed TOML.
fn value(raw: &str) -> Result<Value, String> {
    match toml::from_str::<Table>(&format!("value ={raw}")) {
        Ok(mut table) if table.len() == 1 => Ok(table.remove("value").unwrap_or_else(|| raw.into())),
        Err(error) if raw.trim_start().starts_with(['[', '{', '"', '\'']) => Err(error.message().to_string()),
        _ => Ok(Value::String(raw.trim().to_string())),
    }
}

fn record_table(table: &DeTable<'_>, path: &str, source: usize, origins: &mut HashMap<String, Origin>) {
    for (name, value) in table {
        let path = child(path, name.get_ref());
        record_value(value.get_ref(), &path, source, origins);
        origins.insert(path, Origin { source, key: name.span(), value: value.span() });
    }
}

fn record_value(value: &DeValue<'_>, path: &str, source: usize, origins: &mut HashMap<String, Origin>) {
    match value {
        DeValue::Table(table) => record_table(table, path, source, origins),
        DeValue::Array(array) => record_array(array, path, source, origins),
        _ => {}
    }
}

fn record_array(array: &DeArray<'_>, path: &str, source: usize, origins: &mut HashMap<String, Origin>) {
    for (index, value) in array.iter().enumerate() {
        let path = format!("{path}[{index}]");
        record_value(value.get_ref(), &path, source, origins);
        origins.insert(path, Origin { source, key: value.span(), value: value.span() });
    }
}

fn syntax(source: &Source, error: &toml::de::Error) -> InputError {
    let located = InputError::new(error.message());
    match error.span() {
        Some(span) => source.locate(located, span),
        None => source.name(located),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        Tree::parse(Some("my.toml".into()), text).unwrap()
    }

    fn pointed_at(error: &InputError) -> &str {
        &error.text.as_ref().unwrap()[error.span.clone().unwrap()]
    }

    #[test]
    fn overrides_are_toml_values_and_bare_words_are_strings() {
        let mut tree = tree("seed = 1");
        for argument in [
            "seed=7",
            "a.b.c = 2.5",
            "a.b.d=[1, 2]",
            "a.t={ x = true }",
            "a.word=all-linear",
            "a.quoted=\"x y\"",
            "a.path=models/x#1.gguf",
            "a.empty=",
            "m.\"layers.0\"=4",
        ] {
            tree.set(argument).unwrap();
        }
        let expected = r#"
            seed = 7
            a = { b = { c = 2.5, d = [1, 2] }, t = { x = true }, word = "all-linear", quoted = "x y", path = "models/x#1.gguf", empty = "" }
            m = { "layers.0" = 4 }
        "#;
        assert_eq!(tree.table, toml::from_str::<Table>(expected).unwrap());
    }

    #[test]
    fn malformed_overrides_are_refused() {
        let mut tree = tree("");
        for argument in ["seed", "=3", "a..b=1", "a b=1", "[a]\nb=1", "a=[1,", "a=\"x"] {
            tree.set(argument).unwrap_err();
        }
    }

    #[test]
    fn another_choice_replaces_the_first() {
        let mut tree = tree("[adapter.lora]\nrank = 4\n[optim]\nschedule = \"linear\"");
        tree.set("adapter.lora.alpha=2").unwrap();
        assert_eq!(tree.table["adapter"]["lora"]["rank"].as_integer(), Some(4));
        tree.set("adapter.full={}").unwrap();
        tree.set("optim.schedule.cosine.warmup=3").unwrap();
        assert_eq!(tree.table["adapter"].as_table().unwrap().keys().collect::<Vec<_>>(), ["full"]);
        assert_eq!(tree.table["optim"]["schedule"]["cosine"]["warmup"].as_integer(), Some(3));
    }

    #[test]
    fn errors_point_at_the_key_the_value_or_the_table_around() {
        let mut tree = tree("[adapter.lora]\nalhpa = 16\ntargets = [\"a\", \"b\"]\n");
        let error = |tree: &Tree, path, part| tree.locate(path, part, InputError::new("x"));
        let typo = error(&tree, "adapter.lora.alhpa", Part::Key);
        assert_eq!((pointed_at(&typo), typo.place.clone()), ("alhpa", Some(("line", "2".into()))));
        assert_eq!(pointed_at(&error(&tree, "adapter.lora.alhpa", Part::Value)), "16");
        assert_eq!(pointed_at(&error(&tree, "adapter.lora.targets[1]", Part::Value)), "\"b\"");
        assert_eq!(pointed_at(&error(&tree, "adapter.lora.rank", Part::Value)), "lora");
        assert_eq!(error(&tree, "data", Part::Key).span, None);
        tree.set("adapter.lora.alhpa = 3").unwrap();
        let given = error(&tree, "adapter.lora.alhpa", Part::Key);
        assert_eq!((pointed_at(&given), &given.file), ("adapter.lora.alhpa", &None));
        tree.set("adapter.lora.targets=[1]").unwrap();
        assert_eq!(pointed_at(&error(&tree, "adapter.lora.targets[0]", Part::Value)), "adapter.lora.targets");
    }

    #[test]
    fn every_syntax_error_is_reported_with_its_line() {
        let errors = Tree::parse(None, "seed = \n[model\npath = \"x\"\n\nseed == 3\n").err().unwrap();
        assert!(errors.len() >= 2, "{errors:?}");
        assert!(errors.iter().all(|error| error.span.is_some()), "{errors:?}");
        let twice = Tree::parse(None, "seed = 1\nseed = 2\n").err().unwrap();
        assert!(twice[0].to_string().contains("line 2"), "{twice:?}");
    }
}
