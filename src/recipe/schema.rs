//! The JSON Schema of a recipe, for editors, for `lowrank schema` and for our own shape check.

use serde_json::{Map, Value, json};

use super::Recipe;
use super::compare::Keys;
use super::suggest::nearest;
use crate::{Error, Result};

/// JSON Schema (2020-12) of the recipe; every key carries its description and default.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Recipe).to_value();
    let whole = schema.clone();
    if let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        for definition in definitions.values_mut() {
            describe_choices(definition);
            add_short_form(definition, &whole);
        }
    }
    schema
}

/// JSON Schema of a recipe file, which may have variants as well and then leave out what it extends.
pub fn file_schema() -> Value {
    let (mut whole, mut variants) = (schema(), schemars::schema_for!(Keys).to_value());
    for part in ["properties", "$defs"] {
        let (Some(Value::Object(own)), Some(Value::Object(more))) = (whole.get_mut(part), variants.get_mut(part))
        else {
            continue;
        };
        own.append(more);
    }
    if let Value::Object(whole) = &mut whole {
        whole.remove("required");
    }
    whole
}

/// The words about a choice describe its key as well, for whoever looks up the key alone.
fn describe_choices(definition: &mut Value) {
    for choice in definition.get_mut("oneOf").and_then(Value::as_array_mut).into_iter().flatten() {
        let words = choice.get("description").cloned();
        let keys = choice.get_mut("properties").and_then(Value::as_object_mut);
        for content in keys.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
            if let Some(words) = &words {
                content.entry("description").or_insert_with(|| words.clone());
            }
        }
    }
}

/// `schedule = "cosine"` is short for `schedule = { cosine = {} }`: wherever the content of a
/// choice may be empty, its bare name is allowed too.
fn add_short_form(definition: &mut Value, whole: &Value) {
    let Some(choices) = definition.get_mut("oneOf").and_then(Value::as_array_mut) else { return };
    let names: Vec<&str> = choices
        .iter()
        .filter_map(tag)
        .filter(|(_, content)| {
            let content = follow(content, whole);
            content.get("required").is_none() && content.get("additionalProperties") == Some(&json!(false))
        })
        .map(|(name, _)| name)
        .collect();
    if !names.is_empty() {
        let short = json!({ "description": "Short for the table of that name.", "type": "string", "enum": names });
        choices.push(short);
    }
}

/// Schema of one key, given by its dotted path. An unknown path is an input error with a suggestion.
pub fn schema_of(field: &str) -> Result<Value> {
    let whole = file_schema();
    let mut here = &whole;
    let mut walked = String::new();
    for name in field.split('.') {
        let known = properties(here, &whole);
        here = known.iter().find(|(key, _)| *key == name).map(|(_, schema)| *schema).ok_or_else(|| {
            let place = if walked.is_empty() { "a recipe".into() } else { format!("[{walked}]") };
            let mut error = Error::input(format!("no key `{name}` in {place}"));
            let names = known.iter().map(|(key, _)| *key);
            error.hint = match nearest(name, names.clone()) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None => Some(format!("it has {}", names.collect::<Vec<_>>().join(", "))),
            };
            Error::from(error)
        })?;
        walked = if walked.is_empty() { name.into() } else { format!("{walked}.{name}") };
    }
    Ok(inline(here, &whole))
}

/// Dotted path and schema of every key of the recipe, tables before what is in them.
pub fn keys(whole: &Value) -> Vec<(String, &Value)> {
    fn collect<'a>(schema: &'a Value, path: &str, whole: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        for (name, inner) in properties(schema, whole) {
            let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            out.push((path.clone(), inner));
            collect(inner, &path, whole, out);
        }
    }
    let mut out = Vec::new();
    collect(whole, "", whole, &mut out);
    out
}

/// The alternatives of a schema: itself, or what its `oneOf`/`anyOf` lists, references followed.
/// `null` is left out: TOML has no such value, a key is simply absent.
pub(super) fn alternatives<'a>(schema: &'a Value, whole: &'a Value) -> Vec<&'a Value> {
    let schema = follow(schema, whole);
    match schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array) {
        Some(list) => list.iter().flat_map(|inner| alternatives(inner, whole)).collect(),
        None if schema.get("type") == Some(&json!("null")) => Vec::new(),
        None => vec![schema],
    }
}

/// Name and content of an alternative that is a table of exactly one key: `{ cosine = ... }`.
pub(super) fn tag(alternative: &Value) -> Option<(&str, &Value)> {
    let properties = alternative.get("properties")?.as_object()?;
    let (name, content) = properties.iter().next()?;
    (properties.len() == 1 && alternative.get("required") == Some(&json!([name]))).then_some((name.as_str(), content))
}

fn properties<'a>(schema: &'a Value, whole: &'a Value) -> Vec<(&'a str, &'a Value)> {
    alternatives(schema, whole)
        .into_iter()
        .filter_map(|inner| inner.get("properties").and_then(Value::as_object))
        .flat_map(|properties| properties.iter().map(|(name, schema)| (name.as_str(), schema)))
        .collect()
}

fn follow<'a>(schema: &'a Value, whole: &'a Value) -> &'a Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|reference| whole.pointer(&reference[1..]));
    target.unwrap_or(schema)
}

/// The schema with every reference replaced by what it names; its own description wins.
fn inline(schema: &Value, whole: &Value) -> Value {
    match schema {
        Value::Object(own) => {
            let mut merged = Map::new();
            if own.contains_key("$ref")
                && let Value::Object(named) = inline(follow(schema, whole), whole)
            {
                merged = named;
            }
            let own = own.iter().filter(|(key, _)| *key != "$ref");
            merged.extend(own.map(|(key, value)| (key.clone(), inline(value, whole))));
            Value::Object(merged)
        }
        Value::Array(list) => list.iter().map(|value| inline(value, whole)).collect(),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described() {
        let whole = schema();
        let undescribed: Vec<String> = keys(&whole)
            .into_iter()
            .filter(|(_, schema)| inline(schema, &whole).get("description").is_none())
            .map(|(path, _)| path)
            .collect();
        assert_eq!(undescribed, Vec::<String>::new());
    }

    #[test]
    fn lists_the_keys_of_every_choice() {
        let whole = schema();
        let paths: Vec<String> = keys(&whole).into_iter().map(|(path, _)| path).collect();
        for path in ["seed", "adapter.lora.rank", "adapter.full", "optim.schedule.cosine.warmup", "data.eval.fraction"]
        {
            assert!(paths.iter().any(|known| known == path), "{path} is missing from {paths:?}");
        }
    }

    #[test]
    fn a_field_is_self_contained_and_a_typo_is_answered() {
        assert_eq!(schema_of("compare.seeds").unwrap()["default"], 1);
        assert!(schema_of("variant").is_ok() && schema_of("extends").is_ok());
        let field = schema_of("adapter.lora.init").unwrap();
        assert!(!field.to_string().contains("$ref"), "{field}");
        assert!(field.to_string().contains("gaussian"), "{field}");
        let error = schema_of("adapter.lora.rnak").unwrap_err().to_string();
        assert!(error.contains("[adapter.lora]") && error.contains("did you mean `rank`"), "{error}");
    }
}
