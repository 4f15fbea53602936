//! `lowrank schema`: the recipe format, for editors and for people.

use lowrank::Result;
use lowrank::events::Format;
use lowrank::recipe;
use lowrank_cli::stdout;
use serde_json::Value;

use crate::args::Output;

/// Examples: `lowrank schema > recipe.schema.json`, `lowrank schema --field optim.schedule`
#[derive(Debug, clap::Args)]
pub struct Schema {
    /// Explain one key instead, given by its dotted path
    #[arg(long, value_name = "PATH")]
    field: Option<String>,
}

impl Schema {
    pub fn run(&self, output: &Output) -> Result<()> {
        match &self.field {
            None => stdout::print_json(&recipe::file_schema()),
            Some(path) if output.format == Format::Json => stdout::print_json(&recipe::schema_of(path)?),
            Some(path) => stdout::print(&explain(path, &recipe::schema_of(path)?, 0)),
        }
    }
}

/// Name, form, default and meaning of a key, then the same of each key in it.
pub(super) fn explain(name: &str, schema: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut text = format!("{indent}{name}");
    if let Some(form) = form(schema) {
        text += &format!("  {form}");
    }
    if let Some(default) = schema.get("default").filter(|default| !default.is_object() && !default.is_null()) {
        text += &format!("  (default {default})");
    }
    text.push('\n');
    for line in schema.get("description").and_then(Value::as_str).into_iter().flat_map(str::lines) {
        text += &format!("{indent}    {line}\n");
    }
    text + &inside(schema, depth + 1)
}

fn inside(schema: &Value, depth: usize) -> String {
    let branches = ["oneOf", "anyOf"].into_iter().filter_map(|key| schema.get(key).and_then(Value::as_array)).flatten();
    let mut text: String = branches.map(|branch| alternative(branch, depth)).collect();
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        text += &explain(name, inner, depth);
    }
    text
}

fn alternative(branch: &Value, depth: usize) -> String {
    // A pattern is shown by an example.
    match (branch.get("const").or(branch.pointer("/examples/0")), branch.get("enum").and_then(Value::as_array)) {
        (Some(word), _) => explain(&word.to_string(), &without_form(branch), depth),
        (None, Some(words)) => words.iter().map(|word| format!("{}{word}\n", "  ".repeat(depth))).collect(),
        (None, None) => inside(branch, depth),
    }
}

fn without_form(branch: &Value) -> Value {
    serde_json::json!({ "description": branch.get("description") })
}

fn form(schema: &Value) -> Option<String> {
    let kind = match schema.get("type")? {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null")?.as_str()?,
        kind => kind.as_str()?,
    };
    Some(match kind {
        "object" => "table".into(),
        "integer" => "whole number".into(),
        "array" => format!("list of {}s", schema.get("items").and_then(form).unwrap_or_else(|| "value".into())),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_explained_with_its_default_and_its_choices() {
        let shown = |path: &str| explain(path, &recipe::schema_of(path).unwrap(), 0);
        assert!(
            shown("train.batch").starts_with("train.batch  whole number  (default 4)\n    Rows"),
            "{}",
            shown("train.batch")
        );
        let schedule = shown("optim.schedule");
        for part in ["cosine", "polynomial", "warmup", "power"] {
            assert!(schedule.contains(part), "{part}:\n{schedule}");
        }
        assert!(shown("adapter.lora.init").contains("\"gaussian\""), "{}", shown("adapter.lora.init"));
    }
}
